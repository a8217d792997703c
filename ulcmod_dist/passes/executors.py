"""Where the tasks of a pass run; the rest of the search does not know which.

Tasks are Dask's: an executor is handed delayed values and hands their results back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import dask.base
from dask.system import CPU_COUNT
from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

from ulcmod_dist.errors import InvalidInput


class Executor(Protocol):
    """Runs Dask tasks."""

    workers: int

    def compute(self, tasks: Sequence[Any]) -> list[Any]:
        """Run delayed values to their results, in the given order."""


class Threads:
    """Threads of this process (kernels and codecs release the interpreter's lock).

    Args:
        workers: Threads; by default one a core this process may use.
    """

    def __init__(self, workers: int | None = None) -> None:
        self.workers = workers or CPU_COUNT
        self._blas = ThreadpoolController()

    def compute(self, tasks: Sequence[Any]) -> list[Any]:
        """Run delayed values to their results, in the given order."""
        compute: Any = dask.base.compute
        # Each task is one thread; BLAS threads below them would only contend.
        with self._blas.limit(limits=1, user_api="blas"):
            return list(compute(*tasks, scheduler="threads", num_workers=self.workers))


def executor_named(executor: str | Executor) -> Executor:
    """The executor of a name, or the given one.

    Raises:
        InvalidInput: No executor has this name.
    """
    if not isinstance(executor, str):
        return executor
    if executor == "threads":
        return Threads()
    raise InvalidInput(f"There is no executor {executor!r}.", "Use 'threads'.")
