"""Tensor parallelism: several processes of one machine share a model and act as one.

The caller is rank 0. The other ranks are child processes that get every batch, compute their
columns and meet rank 0 in the collectives of the forward pass. Where a rank is lost, the others
would wait in a collective until its timeout, so the caller's process exits at once, and with it
the Ray actor; its shard goes to another one.
"""

import multiprocessing
import os
import socket
import threading
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

from ulcmod_dist.errors import UlcmodError

Member = TypeVar("Member")
Result = TypeVar("Result")


class RankGroup(Generic[Member]):
    """An object on every rank, an engine each, with which functions are called at once."""

    def __init__(self, load: Callable[[], Member], ranks: int) -> None:
        """Start the other ranks and load each rank's object in its process by a picklable function.

        ``local`` is the object of this process, which is one of the ``ranks``.
        """
        self._followers: list[Connection] = []
        if ranks > 1:
            port = _find_free_port()
            self._start_followers(load, ranks, port)
            _set_distributed_env(0, ranks, port)
        self.local = load()

    def _start_followers(self, load: Callable[[], Member], ranks: int, port: int) -> None:
        # CUDA cannot be used in a forked child of a process that has initialised it.
        context = multiprocessing.get_context("spawn")
        sentinels = []
        for rank in range(1, ranks):
            ours, theirs = context.Pipe()
            process = context.Process(
                target=_follow, args=(load, rank, ranks, port, theirs), daemon=True
            )
            process.start()
            theirs.close()
            sentinels.append(process.sentinel)
            self._followers.append(ours)
        threading.Thread(target=_exit_when_any_ends, args=(sentinels,), daemon=True).start()

    def call(self, function: Callable[..., Result], *args: Any) -> Result:
        """Call a picklable function with every rank's object; returns the result of this one."""
        for follower in self._followers:
            follower.send((function, args))
        return function(self.local, *args)


def _follow(load: Callable[[], Any], rank: int, ranks: int, port: int, leader: Connection) -> None:
    """Run the calls of rank 0 until it closes the connection."""
    _set_distributed_env(rank, ranks, port)
    member = load()
    while True:
        try:
            function, args = leader.recv()
        except EOFError:
            return
        try:
            function(member, *args)
        except UlcmodError:
            # All ranks see the same activations, so rank 0 raises the same error and reports it;
            # the next batch may be sound.
            continue


def _set_distributed_env(rank: int, ranks: int, port: int) -> None:
    """Set the variables from which ``torch.distributed`` initialises itself."""
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(ranks),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )


def _exit_when_any_ends(sentinels: Sequence[int]) -> None:
    """End this process once another rank has ended."""
    wait(sentinels)
    # Not sys.exit: the main thread may be blocked in a collective and would never see it.
    os._exit(1)


def _find_free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
