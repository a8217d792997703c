"""A model that is shared by several processes of one machine, seen as one by the actor that leads.

The actor is rank 0; the others follow it: each gets every batch, computes its columns and meets
the others in the collectives of the forward pass. A rank that is lost would leave the rest waiting,
so the actor then ends at once, and its shard goes to another one.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import threading
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

from ulcmod_dist.errors import UlcmodError

Own = TypeVar("Own")


class RankGroup(Generic[Own]):
    """What all ranks hold, an engine each.

    Attributes:
        own: What this process holds.
    """

    def __init__(self, load: Callable[[int], Own], ranks: int) -> None:
        """Start the other ranks and load the own one.

        Args:
            load: Loads what a rank holds, in the process that is it; must survive pickling.
            ranks: Number of processes, this one included.
        """
        self._followers: list[Connection] = []
        if ranks > 1:
            port = _free_port()
            self._start(load, ranks, port)
            _join(0, ranks, port)
        self.own = load(0)

    def _start(self, load: Callable[[int], Own], ranks: int, port: int) -> None:
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
        threading.Thread(target=_end_with, args=(sentinels,), daemon=True).start()

    def call(self, method: str, *given: Any) -> Any:
        """Call a method of what each rank holds, all at once; the answer is the own one's."""
        for follower in self._followers:
            follower.send((method, given))
        return getattr(self.own, method)(*given)


def _follow(
    load: Callable[[int], Any], rank: int, ranks: int, port: int, leader: Connection
) -> None:
    """Run what the leader runs until it is gone."""
    _join(rank, ranks, port)
    own = load(rank)
    while True:
        try:
            method, given = leader.recv()
        except EOFError:
            return
        try:
            getattr(own, method)(*given)
        except UlcmodError:
            # Every rank sees the same rows, so the leader has said so; the next batch may be sound.
            continue


def _join(rank: int, ranks: int, port: int) -> None:
    """Say to torch.distributed who this process is."""
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(ranks),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )


def _end_with(sentinels: Sequence[int]) -> None:
    """End this process when another rank has ended."""
    wait(sentinels)
    os._exit(1)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
