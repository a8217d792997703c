"""A search that ends its own process at a chosen place: run by the tests of interruptions."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from tests.iterd.problem import planted
from ulcmod_dist.iterd import search
from ulcmod_dist.iterd.driver import discover
from ulcmod_dist.iterd.modules import Modules
from ulcmod_dist.iterd.search import Checkpoint
from ulcmod_dist.passes import kernels


def run(folder: Path, mode: Any, *, after_writing: Callable[[], None] = lambda: None) -> Modules:
    """Search from the folder's checkpoint, if it has one, and keep one there."""
    path = folder / "checkpoint.npz"
    resume = None
    if path.exists():
        with np.load(path) as arrays:
            resume = Checkpoint.from_arrays(arrays)

    def save(checkpoint: Checkpoint) -> None:
        partial = folder / "partial.npz"
        arrays: dict[str, Any] = dict(checkpoint.to_arrays())
        np.savez(partial, **arrays)
        after_writing()
        partial.replace(path)

    problem = planted(noise=3.0).standardised()
    settings: dict[str, Any] = {"mode": mode, "block_units": 64, "restarts": 2}
    return discover(problem, 5, checkpoint=save, resume=resume, **settings)


def dying(function: Callable[..., Any], calls: int) -> Callable[..., Any]:
    """A function that kills this process when it has been called so often."""
    left = [calls]

    def call(*arguments: Any, **options: Any) -> Any:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **options)

    return call


def kill_in(module: ModuleType, name: str, calls: int) -> None:
    """Make a module's function the last that this process calls."""
    setattr(module, name, dying(getattr(module, name), calls))


def main() -> None:
    """Die during a sweep, a pass or a checkpoint."""
    folder, mode, place, calls = Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
    after_writing: Callable[[], None] = lambda: None  # noqa: E731
    if place == "sweep":
        kill_in(search, "sweep", calls)
    elif place == "pass":
        kill_in(kernels, "unit_sums", calls)
        kill_in(kernels, "sample_sums", calls)
        kill_in(kernels, "sample_changes", calls)
    else:
        after_writing = dying(after_writing, calls)
    run(folder, mode, after_writing=after_writing)


if __name__ == "__main__":
    main()
