"""Reruns in processes of their own, which may be killed, held up, or started together."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ulcmod_dist.pipeline.context import open_target
from ulcmod_dist.pipeline.rerun import rerun
from ulcmod_dist.runtime.rundir import RunDir

# Each child begins with everything imported and nothing started.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.pipeline.reruns"])


def planted_rows(count: int, seed: int = 0) -> NDArray[np.float32]:
    """Activations [count, 90] with three modules of units and samples."""
    rng = np.random.default_rng(seed)
    samples, units = np.arange(count) % 3, np.arange(90) // 30
    rows: NDArray[np.float64] = rng.random((count, 90)) + 2.0 * (samples[:, None] == units)
    return rows.astype(np.float32)


def start(run: Path, results: Any = None, **faults: Any) -> BaseProcess:
    """Rerun a run in another process.

    Args:
        run: The run directory.
        results: Queue that gets state and exit code.
        faults: ``kill_at``: what the key begins with before whose first change it is killed;
            ``gate``: file that its first change waits for.
    """
    process = CONTEXT.Process(target=_rerun, args=(str(run), results), kwargs=faults)
    process.start()
    return process


def _rerun(run: str, results: Any, kill_at: str = "", gate: str | None = None) -> None:
    def suffer(key: str) -> None:
        if kill_at and key.startswith(f"{run}/{kill_at}"):
            os.kill(os.getpid(), signal.SIGKILL)
        while gate is not None and not Path(gate).exists():
            time.sleep(0.02)

    for name in ("write", "create", "delete"):
        setattr(RunDir, name, _suffering(getattr(RunDir, name), suffer))
    summary = rerun(open_target(run, []))
    if results is not None:
        results.put((summary.facts["state"], summary.exit_code))


def _suffering(method: Callable[..., None], suffer: Callable[[str], None]) -> Callable[..., None]:
    def wrapped(self: RunDir, key: str, *rest: Any) -> None:
        if not key.startswith("lease/"):
            suffer(self.show(key))
        method(self, key, *rest)

    return wrapped
