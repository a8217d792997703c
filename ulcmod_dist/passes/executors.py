"""Executors: where the tasks of a pass run. They know no science; the search knows no executor.

dask.distributed and Ray are imported on first use, since both are slow to import.
"""

import asyncio
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Protocol

import dask.base
from dask.callbacks import Callback
from dask.system import CPU_COUNT
from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

from ulcmod_dist.errors import InvalidInput, UlcmodError, one_line
from ulcmod_dist.runtime.addresses import explain_no_answer

# Untyped in Dask.
_dask: Any = dask.base

NAMES = ("threads", "distributed", "ray")
DASK_TIMEOUT = 10.0  # seconds for a scheduler to answer, and for a cluster to have a worker
STARTUP_TIMEOUT = 120.0  # seconds for the workers of a local cluster to start


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
        """Run delayed values to their results, in the given order.

        Raises:
            UlcmodError: Workers were ended again and again, or the scheduler is gone.
        """
        from distributed import CancelledError, KilledWorker
        from distributed.comm.core import CommClosedError

        try:
            return list(_dask.compute(*tasks, scheduler=self._client))
        except KilledWorker as error:
            raise UlcmodError(
                "Workers of the Dask cluster ended again and again in the same task, mostly "
                f"because they ran out of memory: {one_line(error)[:300]}.",
                "Lower discover.memory, or give the workers more memory.",
            ) from error
        except (CancelledError, CommClosedError) as error:
            raise UlcmodError(
                f"The Dask cluster was lost: {one_line(error)[:300]}.",
                "Start the same command again: it continues from its last checkpoint.",
            ) from error

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
        """Run delayed values to their results, in the given order.

        Raises:
            UlcmodError: A machine or Ray failed.
        """
        from ray.exceptions import RayError

        from ulcmod_dist.runtime.ray_failures import MemoryShortage, find_machine_failure

        try:
            return list(_dask.compute(*tasks, scheduler=self._get))
        except RayError as error:
            failure = find_machine_failure(error)
            if isinstance(failure, MemoryShortage):
                remedy = "Lower discover.memory, or use machines with more memory."
                raise MemoryShortage(failure.fact, remedy) from error
            if failure is None:
                raise
            raise failure from error

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
        InvalidInput: No executor has this name, an address is none, or the Ray cluster is on
            another machine and there is no token.
        UlcmodError: There is no cluster at the address, or it has no workers.
    """
    if not isinstance(executor, str):
        yield executor
        return
    check_executor(executor)
    if executor == "threads":
        yield ThreadExecutor()
    elif executor == "distributed":
        with _local_cluster() as cluster, _connect(cluster, CPU_COUNT) as client:
            yield DaskExecutor(client)
    elif "://" in executor:
        with _connect(executor) as client:
            yield DaskExecutor(client)
    else:
        # Ray takes two seconds to import, which the other executors need not wait for.
        from ulcmod_dist.runtime.ray_session import ray_session

        # Persisted chunks live in the object store: let Ray size it by the machine's memory.
        with ray_session(ray_address, object_store_bytes=None):
            yield RayExecutor()


def check_executor(executor: str) -> None:
    """Raise as `open_executor` for a name or an address of Dask that is wrong; starts nothing."""
    if "://" in executor:
        _require_scheduler(executor)
    elif executor not in NAMES:
        raise InvalidInput(
            f"There is no executor {executor!r}.",
            "Use 'threads', 'distributed', the address of a Dask scheduler (tcp://...) or 'ray'.",
        )


def _local_cluster() -> Any:
    """A Dask cluster whose workers are other programs on this machine.

    The workers of `distributed.LocalCluster` are processes of multiprocessing, which import the
    script that started them: without a main guard it would start over in every worker.
    """
    import distributed
    from distributed.deploy.subprocess import SubprocessWorker
    from distributed.system import MEMORY_LIMIT

    class Worker(SubprocessWorker):
        async def _start(self) -> None:
            spec = json.dumps({"cls": "distributed.Nanny", "opts": self.worker_kwargs})
            self.process = await asyncio.create_subprocess_exec(
                *[sys.executable, "-m", "dask", "spec", self.scheduler, "--spec", spec],
                # What this process can import, its workers can. At INFO they log a traceback if the
                # scheduler ends before they do.
                env={"DASK_DISTRIBUTED__LOGGING__DISTRIBUTED": "warning"}
                | os.environ
                | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )

    # The dashboard has no authentication. Without an address it is not off, but listens on every
    # interface.
    local = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
    nanny = local | {"nthreads": 1, "memory_limit": int(MEMORY_LIMIT) // CPU_COUNT}
    nanny |= {"silence_logs": logging.WARNING}
    worker = {"cls": Worker, "options": {"worker_kwargs": nanny}}
    return distributed.SpecCluster(
        workers=dict.fromkeys(range(CPU_COUNT), worker),
        scheduler={"cls": distributed.Scheduler, "options": local},
        silence_logs=logging.WARNING,
    )


@contextmanager
def _connect(cluster: Any, workers: int = 1) -> Iterator[Any]:
    """A client of a Dask cluster, or of a scheduler's address, once it has ``workers``."""
    import distributed

    address = cluster if isinstance(cluster, str) else cluster.scheduler_address
    # Workers of this machine have to be started first, which takes long where it is busy.
    timeout = DASK_TIMEOUT if cluster is address else STARTUP_TIMEOUT
    try:
        client = distributed.Client(cluster, timeout=DASK_TIMEOUT, set_as_default=False)
    except (OSError, TimeoutError) as error:
        raise _no_scheduler(address, one_line(error)) from error
    with client:
        try:
            client.wait_for_workers(workers, timeout=timeout)
        except TimeoutError as error:
            raise UlcmodError(
                f"The Dask cluster at {address} has no workers.",
                "Start some: `dask worker ADDRESS`, or name another executor.",
            ) from error
        yield client


def _require_scheduler(address: str) -> None:
    """Raise unless something listens at the address of a Dask scheduler."""
    from distributed.comm.registry import get_backend

    scheme = address.partition("://")[0]
    try:
        get_backend(scheme)
        reason = None if scheme == "inproc" else explain_no_answer(address)
    except (ValueError, ImportError) as error:
        raise InvalidInput(
            f"discover.executor is {address!r}, which is no address of a Dask scheduler: "
            f"{one_line(error)}.",
            "An address is scheme, host and port, such as tcp://10.0.0.1:8786.",
        ) from error
    if reason is not None:
        raise _no_scheduler(address, reason)


def _no_scheduler(address: str, reason: str) -> UlcmodError:
    return UlcmodError(
        f"No Dask scheduler answers at {address}: {reason}.",
        "Start the scheduler, correct discover.executor, or remove it to use this machine.",
    )
