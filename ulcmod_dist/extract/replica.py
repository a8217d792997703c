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
from typing import Any

from ulcmod_dist.errors import UlcmodError
from ulcmod_dist.forward.values import Encoded, Rows

LoadRank = Callable[[int], Any]
"""Loads the engine of a rank in the process that calls it; must survive pickling."""


class SharedEngine:
    """The engines of all ranks.

    Attributes:
        units: What the columns of a row are, in order.
    """

    def __init__(self, load: LoadRank, ranks: int) -> None:
        """Start the other ranks and load the own one.

        Args:
            load: Loads the engine of a rank.
            ranks: Number of processes, this one included.
        """
        port = _free_port()
        context = multiprocessing.get_context("spawn")
        self._followers: list[Connection] = []
        processes = []
        for rank in range(1, ranks):
            ours, theirs = context.Pipe()
            process = context.Process(
                target=_follow, args=(load, rank, ranks, port, theirs), daemon=True
            )
            process.start()
            theirs.close()
            processes.append(process)
            self._followers.append(ours)
        sentinels = [process.sentinel for process in processes]
        threading.Thread(target=_end_with, args=(sentinels,), daemon=True).start()
        _join(0, ranks, port)
        self._engine = load(0)
        self.units = self._engine.units

    def rows_within_memory(self, encoded: Sequence[Encoded]) -> tuple[Rows, tuple[int, ...]]:
        """Run one batch on all ranks, as the engine of one would."""
        for follower in self._followers:
            follower.send(encoded)
        answer: tuple[Rows, tuple[int, ...]] = self._engine.rows_within_memory(encoded)
        return answer


def _follow(load: LoadRank, rank: int, ranks: int, port: int, leader: Connection) -> None:
    """Run what the leader runs until it is gone."""
    _join(rank, ranks, port)
    engine = load(rank)
    while True:
        try:
            encoded = leader.recv()
        except EOFError:
            return
        try:
            engine.rows_within_memory(encoded)
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
