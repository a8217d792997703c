"""Two processes that act as the ranks of one model, as the followers of an actor do."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import torch
from torch.multiprocessing.spawn import spawn

RANKS = 2


def run_on_ranks(work: Callable[[int, Path], None], folder: Path) -> None:
    """Call a function with rank and folder in a new process for each rank, and await them.

    One pair of processes serves many models: importing transformers costs more than a tiny model.
    """
    spawn(_run_rank, (work, folder, _find_free_port()), nprocs=RANKS)  # type: ignore[no-untyped-call]


def _run_rank(rank: int, work: Callable[[int, Path], None], folder: Path, port: int) -> None:
    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(RANKS),
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port),
    )  # fmt: skip
    work(rank, folder)
    torch.distributed.destroy_process_group()


def _find_free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
