"""Executors: where the tasks of a pass run. They know no science; the search knows no executor.

dask.distributed and Ray are imported on first use, since both are slow to import.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Protocol

import dask.base
from dask.callbacks import Callback
from dask.system import CPU_COUNT
from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

from ulcmod_dist.errors import InvalidInput

# Untyped in Dask.
_dask: Any = dask.base


class Executor(Protocol):
    """Runs Dask tasks, ``workers`` at once, on machines with ``memory`` bytes.

    ``in_process``: tasks run in this process, so that arrays in its memory need not travel.
    """

    workers: int
    memory: int
    in_process: bool

    def compute(self, tasks: Sequence[Any]) -> list[Any]:
        """Run delayed values to their results, in the given order."""

    def persist(self, array: Any) -> Any:
        """The same Dask array, its chunks computed and kept where tasks run."""


class ThreadExecutor:
    """Threads of this process, by default one a core; kernels and codecs release the GIL."""

    in_process = True

    def __init__(self, workers: int | None = None) -> None:
        from distributed.system import MEMORY_LIMIT

        self.workers = workers or CPU_COUNT
        self.memory = int(MEMORY_LIMIT)
        self._blas = ThreadpoolController()
        self._run: dict[str, Any] = {"scheduler": "threads", "num_workers": self.workers}

    def compute(self, tasks: Sequence[Any]) -> list[Any]:
        """Run delayed values to their results, in the given order."""
        # A task occupies a thread; BLAS threads below it would oversubscribe the cores.
        with self._blas.limit(limits=1, user_api="blas"):
            return list(_dask.compute(*tasks, **self._run))

    def map(self, call: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
        """The result of a call for each item, in order, from a thread pool without a graph."""
        with self._blas.limit(limits=1, user_api="blas"), ThreadPoolExecutor(self.workers) as pool:
            yield from pool.map(call, items)

    def persist(self, array: Any) -> Any:
        """The same Dask array, its chunks computed and kept in this process."""
        return _dask.persist(array, **self._run)[0]


class DaskExecutor:
    """A dask.distributed cluster, by an open ``distributed.Client``."""

    in_process = False

    def __init__(self, client: Any) -> None:
        self._client = client
        self.workers = max(1, sum(client.nthreads().values()))
        self.memory = sum(
            int(worker["memory_limit"]) for worker in client.scheduler_info(-1)["workers"].values()
        )

    def compute(self, tasks: Sequence[Any]) -> list[Any]:
        """Run delayed values to their results, in the given order."""
        return list(_dask.compute(*tasks, scheduler=self._client))

    def persist(self, array: Any) -> Any:
        """The same Dask array, its chunks kept by the cluster's workers."""
        import distributed

        persisted = self._client.persist(array)
        with self._client.as_current():
            distributed.wait(persisted)
        return persisted


class RayExecutor:
    """Dask tasks as Ray tasks, on the Ray that this process is connected to."""

    in_process = False

    def __init__(self) -> None:
        import ray
        from ray.util.dask import ray_dask_get

        self._get = ray_dask_get
        resources = ray.cluster_resources()  # type: ignore[no-untyped-call]
        self.workers = max(1, int(resources.get("CPU", 1)))
        self.memory = int(resources.get("memory", 0) + resources.get("object_store_memory", 0))

    def compute(self, tasks: Sequence[Any]) -> list[Any]:
        """Run delayed values to their results, in the given order."""
        return list(_dask.compute(*tasks, scheduler=self._get))

    def persist(self, array: Any) -> Any:
        """The same Dask array, its chunks kept in Ray's object store."""
        return _dask.persist(array, scheduler=self._get, ray_persist=True)[0]


class ProgressExecutor:
    """Another executor; calls ``on_update`` with the passes done, the one under way as a fraction.

    Dask's own schedulers call back after every task, so threads report within a pass; a cluster
    and Ray report when a pass is done.
    """

    def __init__(self, executor: Executor, on_update: Callable[[float], None]) -> None:
        self._executor = executor
        self._on_update = on_update
        self._done = 0
        self.workers = executor.workers
        self.memory = executor.memory
        self.in_process = executor.in_process

    def compute(self, tasks: Sequence[Any]) -> list[Any]:
        """Run delayed values to their results, in the given order."""
        with _TaskCounter(lambda share: self._on_update(self._done + share)):
            results = self._executor.compute(tasks)
        self._done += 1
        self._on_update(self._done)
        return results

    def persist(self, array: Any) -> Any:
        """The same Dask array, its chunks computed and kept where tasks run."""
        return self._executor.persist(array)


class _TaskCounter(Callback):
    """Counts the tasks that Dask's own schedulers have run."""

    def __init__(self, on_share: Callable[[float], None]) -> None:
        self._on_share = on_share
        self._total = self._count = 0

    def _start_state(self, _graph: Any, state: Any) -> None:
        self._total, self._count = len(state["waiting"]) + len(state["ready"]), 0

    def _posttask(self, *_: Any) -> None:
        self._count += 1
        self._on_share(self._count / max(1, self._total))


@contextmanager
def open_executor(
    executor: str | Executor, *, ray_address: str | None = None
) -> Iterator[Executor]:
    """The executor of a name, or the given one, for as long as it is needed.

    The names are ``threads``; ``distributed`` for a Dask cluster of this machine's processes; the
    address of a Dask scheduler; ``ray`` for the Ray that this process is connected to, or else that
    of ``ray_address`` or RAY_ADDRESS, or else a local one.

    Raises:
        InvalidInput: No executor has this name, or the Ray cluster is on another machine and there
            is no token.
        UlcmodError: There is no Ray cluster at the address.
    """
    if not isinstance(executor, str):
        yield executor
    elif executor == "threads":
        yield ThreadExecutor()
    elif executor == "distributed":
        import distributed

        # The dashboard has no authentication. Without an address it is not off, but listens on
        # every interface.
        local = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
        with (
            distributed.LocalCluster(n_workers=CPU_COUNT, threads_per_worker=1, **local) as cluster,
            distributed.Client(cluster, set_as_default=False) as client,
        ):
            yield DaskExecutor(client)
    elif "://" in executor:
        import distributed

        with distributed.Client(executor, set_as_default=False) as client:
            yield DaskExecutor(client)
    elif executor == "ray":
        # Ray takes two seconds to import, which the other executors need not wait for.
        from ulcmod_dist.runtime.ray_session import ray_session

        # Persisted chunks live in the object store: let Ray size it by the machine's memory.
        with ray_session(ray_address, object_store_bytes=None):
            yield RayExecutor()
    else:
        raise InvalidInput(
            f"There is no executor {executor!r}.",
            "Use 'threads', 'distributed', the address of a Dask scheduler (tcp://...) or 'ray'.",
        )
