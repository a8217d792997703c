"""An executor that tells how far its passes are, for steps that people wait for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from dask.callbacks import Callback

from ulcmod_dist.passes.executors import Executor


class ProgressExecutor:
    """Another executor, followed.

    Within a pass only threads tell how far they are; elsewhere each pass counts when it is done.

    Args:
        executor: Where the tasks run.
        tell: Called with the passes done so far, the one under way as a fraction.
    """

    def __init__(self, executor: Executor, tell: Callable[[float], None]) -> None:
        self._executor = executor
        self._tell = tell
        self._done = 0
        self.workers = executor.workers
        self.memory = executor.memory
        self.in_process = executor.in_process

    def compute(self, tasks: Sequence[Any]) -> list[Any]:
        """Run delayed values to their results, in the given order."""
        with _TaskCounter(lambda share: self._tell(self._done + share)):
            results = self._executor.compute(tasks)
        self._done += 1
        self._tell(self._done)
        return results

    def persist(self, array: Any) -> Any:
        """The same Dask array, its chunks computed and kept where tasks run."""
        return self._executor.persist(array)


class _TaskCounter(Callback):
    """Counts the tasks of Dask's own schedulers."""

    def __init__(self, tell: Callable[[float], None]) -> None:
        self._tell_share = tell
        self._total = self._count = 0

    def _start_state(self, _graph: Any, state: Any) -> None:
        self._total, self._count = len(state["waiting"]) + len(state["ready"]), 0

    def _posttask(self, *_: Any) -> None:
        self._count += 1
        self._tell_share(self._count / max(1, self._total))
