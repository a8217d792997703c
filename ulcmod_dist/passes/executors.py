"""Executors: where the tasks of a pass run. They know no science; the search knows no executor.

dask.distributed and Ray are imported on first use, since both are slow to import.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Protocol

from dask.system import CPU_COUNT
from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

from ulcmod_dist.errors import InvalidInput, UlcmodError, one_line
from ulcmod_dist.passes.dask_batch import DaskBatch, DaskHandle, Task
from ulcmod_dist.runtime.addresses import explain_no_answer
from ulcmod_dist.runtime.memory import machine_memory

NAMES = ("threads", "distributed", "ray")
DASK_TIMEOUT = 10.0  # seconds for a scheduler to answer, and for a cluster to have a worker
STARTUP_TIMEOUT = 120.0  # seconds for the workers of a local cluster to start

# Results that are gathered at once, at least: each time takes some milliseconds.
_GATHERED = 8


class Executor(Protocol):
    """Calls functions on ``workers`` at once, on machines with ``memory`` bytes.

    A function is called with an item and with what all items share, which travels once to each
    worker.

    ``in_process``: tasks run in this process, so that what it holds in memory is not copied.
    """

    workers: int
    memory: int
    in_process: bool

    def map(self, function: Task, items: Sequence[Any], shared: Any) -> Iterator[Any]:
        """The result of ``function(item, shared)`` for each item or handle, in their order."""

    def keep(self, function: Task, items: Sequence[Any], shared: Any) -> Sequence[Any]:
        """As `map`, with the results kept where they are made; returns a handle of each for `map`.

        They are freed with the handles. A later call finds each on the same worker; those of a
        lost worker are made again elsewhere.
        """


class ThreadExecutor:
    """Threads of this process, by default one a core; kernels and codecs release the GIL."""

    in_process = True

    def __init__(self, workers: int | None = None) -> None:
        self.workers = workers or CPU_COUNT
        self.memory = machine_memory()
        self._blas = ThreadpoolController()

    def map(self, function: Task, items: Sequence[Any], shared: Any) -> Iterator[Any]:
        """The result of ``function(item, shared)`` for each item or handle, in their order."""
        # A task occupies a thread; BLAS threads below it would oversubscribe the cores.
        with self._blas.limit(limits=1, user_api="blas"), ThreadPoolExecutor(self.workers) as pool:
            yield from pool.map(lambda item: function(item, shared), items)

    def keep(self, function: Task, items: Sequence[Any], shared: Any) -> list[Any]:
        """The results, which are the handles."""
        return list(self.map(function, items, shared))


class DaskExecutor:
    """A dask.distributed cluster, by an open ``distributed.Client``."""

    in_process = False

    def __init__(self, client: Any) -> None:
        self._client = client
        self.workers = max(1, sum(client.nthreads().values()))
        self.memory = sum(
            int(worker["memory_limit"]) for worker in client.scheduler_info(-1)["workers"].values()
        )

    def map(self, function: Task, items: Sequence[Any], shared: Any) -> Iterator[Any]:
        """The result of ``function(item, shared)`` for each item or handle, in their order.

        Raises:
            UlcmodError: Workers were ended again and again, or the scheduler is gone.
        """
        from distributed import CancelledError, KilledWorker
        from distributed.comm.core import CommClosedError

        try:
            batch = DaskBatch(self._client, function, items, shared)
            together = max(self.workers, _GATHERED)
            for first in range(0, len(items), together):
                yield from batch.gather(range(first, min(len(items), first + together)))
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

    def keep(self, function: Task, items: Sequence[Any], shared: Any) -> list[Any]:
        """Handles of the results, which may still be under way."""
        batch = DaskBatch(self._client, function, items, shared)
        return [DaskHandle(batch, number) for number in range(len(items))]


class RayExecutor:
    """Ray tasks, on the Ray that this process is connected to."""

    in_process = False

    def __init__(self) -> None:
        import ray

        self._ray: Any = ray
        self._call: Any = ray.remote(_call)
        resources = ray.cluster_resources()  # type: ignore[no-untyped-call]
        self.workers = max(1, int(resources.get("CPU", 1)))
        self.memory = int(resources.get("memory", 0) + resources.get("object_store_memory", 0))

    def map(self, function: Task, items: Sequence[Any], shared: Any) -> Iterator[Any]:
        """The result of ``function(item, shared)`` for each item or handle, in their order.

        Raises:
            UlcmodError: A machine or Ray failed.
        """
        from ray.exceptions import RayError

        from ulcmod_dist.runtime.ray_failures import MemoryShortage, find_machine_failure

        # Tasks go to the machines that hold their items.
        sent = self._ray.put(shared)
        results = deque(self._call.remote(function, item, sent) for item in items)
        try:
            while results:
                yield self._ray.get(results.popleft())
        except RayError as error:
            failure = find_machine_failure(error)
            if isinstance(failure, MemoryShortage):
                remedy = "Lower discover.memory, or use machines with more memory."
                raise MemoryShortage(failure.fact, remedy) from error
            if failure is None:
                raise
            raise failure from error

    def keep(self, function: Task, items: Sequence[Any], shared: Any) -> list[Any]:
        """References to the results in Ray's object store, which may still be under way."""
        sent = self._ray.put(shared)
        spread = self._call.options(scheduling_strategy="SPREAD")
        return [spread.remote(function, item, sent) for item in items]


def _call(function: Task, item: Any, shared: Any) -> Any:
    return function(item, shared)


class ProgressExecutor:
    """Another executor; ``on_update`` hears of the passes done, the one under way as a fraction."""

    def __init__(self, executor: Executor, on_update: Callable[[float], None]) -> None:
        self._executor = executor
        self._on_update = on_update
        self._done = 0
        self.workers = executor.workers
        self.memory = executor.memory
        self.in_process = executor.in_process

    def map(self, function: Task, items: Sequence[Any], shared: Any) -> Iterator[Any]:
        """The result of ``function(item, shared)`` for each item or handle, in their order."""
        results = self._executor.map(function, items, shared)
        for number, result in enumerate(results, 1):
            yield result
            self._on_update(self._done + number / len(items))
        self._done += 1

    def keep(self, function: Task, items: Sequence[Any], shared: Any) -> Sequence[Any]:
        """Handles of results that stay where they are made."""
        return self._executor.keep(function, items, shared)


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
    nanny = local | {"nthreads": 1, "memory_limit": machine_memory() // CPU_COUNT}
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
        # Results do not pass through the scheduler of this machine's cluster.
        client = distributed.Client(
            cluster,
            timeout=DASK_TIMEOUT,
            set_as_default=False,
            direct_to_workers=cluster is not address or None,
        )
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
