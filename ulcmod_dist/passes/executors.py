"""Executors: where the tasks of a pass run. They know no science; the search knows no executor.

dask.distributed and Ray are imported on first use, since both are slow to import.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import uuid
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import repeat
from typing import Any, Protocol

from dask.system import CPU_COUNT
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from ulcmod_dist.errors import InvalidInput, UlcmodError, one_line
from ulcmod_dist.passes.remote import (
    START_TIMEOUT,
    Message,
    RemoteExecutor,
    Task,
    TaskRunner,
    Worker,
)
from ulcmod_dist.runtime.addresses import explain_no_answer
from ulcmod_dist.runtime.memory import machine_memory

NAMES = ("threads", "distributed", "ray")
DASK_TIMEOUT = 10.0  # seconds for a scheduler to answer, and for a cluster to have a worker

# By default Dask's workers give freed memory back at once: every table then begins with page
# faults, which take longer than many a kernel.
_KEEP_FREED = {"MALLOC_TRIM_THRESHOLD_": str(2**27), "MALLOC_MMAP_THRESHOLD_": str(2**25)}


class Executor(Protocol):
    """Calls functions on ``workers`` at once, on machines with ``memory`` bytes.

    A function is called with an item and with what all items share, which travels once in each
    message to a worker.

    ``in_process``: tasks run in this process, so that what it holds in memory is not copied.
    """

    workers: int
    memory: int
    in_process: bool

    def map(
        self, function: Task, items: Sequence[Any], shared: Any, *others: Sequence[Any]
    ) -> Iterator[Any]:
        """The result of ``function(item, shared, *others)`` for each item or handle, in order.

        As in the builtin ``map``, each of the ``others`` holds one value for each item.
        """

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
        self._pool = ThreadPoolExecutor(self.workers, "pass")

    def map(
        self, function: Task, items: Sequence[Any], shared: Any, *others: Sequence[Any]
    ) -> Iterator[Any]:
        """The result of ``function(item, shared, *others)`` for each item or handle, in order."""
        return self._pool.map(function, items, repeat(shared), *others)

    def keep(self, function: Task, items: Sequence[Any], shared: Any) -> list[Any]:
        """The results, which are the handles."""
        return list(self.map(function, items, shared))


class DaskExecutor(RemoteExecutor):
    """A dask.distributed cluster, by an open ``distributed.Client``."""

    # A worker that does not know its actor is another process than before, at the same address.
    losses = OSError, KeyError, CancelledError

    def __init__(self, client: Any) -> None:
        super().__init__()
        self._client = client
        self.workers = max(1, sum(client.nthreads().values()))
        self.memory = sum(
            int(worker["memory_limit"]) for worker in client.scheduler_info(-1)["workers"].values()
        )

    def launch(self, known: Sequence[Worker]) -> dict[Future[Any], Worker]:
        """Start an actor on every worker of the cluster that has none."""
        try:
            found = self._client.nthreads()
        except (OSError, RuntimeError) as error:
            raise UlcmodError(
                f"The Dask cluster was lost: {one_line(error)[:300]}.",
                "Start the same command again: it continues from its last checkpoint.",
            ) from error
        missing = found.keys() - {worker.address for worker in known}
        actors = [_DaskActor(self._client, at, found[at]) for at in sorted(missing) if found[at]]
        return {actor.started: actor.worker for actor in actors}


class _DaskActor:
    """The `TaskRunner` of a Dask worker.

    `distributed.Actor` is not used for its calls: with a lost worker some of them never end.
    """

    def __init__(self, client: Any, address: str, threads: int) -> None:
        self._client, self._rpc = client, client.rpc(address)
        self._key = f"{TaskRunner.__name__}-{uuid.uuid4().hex}"
        where = {"key": self._key, "workers": [address], "actor": True}
        # The actor lives as long as this future.
        self._future = client.submit(TaskRunner, threads, **where)
        self.worker = Worker(address, threads, lambda message: self._schedule(self._run(message)))
        self.started = self._schedule(self._start())

    def _schedule(self, coroutine: Coroutine[Any, Any, Any]) -> Future[Any]:
        return asyncio.run_coroutine_threadsafe(coroutine, self._client.loop.asyncio_loop)

    async def _start(self) -> None:
        from distributed.actor import ProxyRPC

        await self._client.gather(self._future, asynchronous=True)
        try:
            await asyncio.wait_for(self._rpc.identity(), DASK_TIMEOUT)
        except OSError:
            # The scheduler reaches its workers also where this process does not.
            self._rpc = ProxyRPC(self._client.scheduler, self.worker.address)

    async def _run(self, message: Message) -> Any:
        from distributed.protocol.serialize import to_serialize

        call = {"actor": self._key, "function": "run", "args": [to_serialize(message)]}
        answer = await self._rpc.actor_execute(**call, kwargs={})
        if answer["status"] != "OK":
            raise answer["exception"]
        return answer["result"]


class RayExecutor(RemoteExecutor):
    """Ray actors, one a CPU, on the Ray that this process is connected to."""

    def __init__(self) -> None:
        super().__init__()
        import ray
        from ray.exceptions import RayError

        self.losses = (RayError,)
        self._runner: Any = ray.remote(num_cpus=1)(TaskRunner)
        resources = ray.cluster_resources()  # type: ignore[no-untyped-call]
        self.workers = max(1, int(resources.get("CPU", 1)))
        self.memory = int(resources.get("memory", 0) + resources.get("object_store_memory", 0))

    def launch(self, known: Sequence[Worker]) -> dict[Future[Any], Worker]:
        """Start an actor for every CPU that has none."""
        actors = [
            self._runner.remote(1, own_process=True) for _ in range(self.workers - len(known))
        ]
        return {actor.__ray_ready__.remote().future(): _ray_worker(actor) for actor in actors}


def _ray_worker(actor: Any) -> Worker:
    return Worker("", 1, lambda message: actor.run.remote(message).future())


class ProgressExecutor:
    """Another executor; ``on_update`` hears of the passes done, the one under way as a fraction."""

    def __init__(self, executor: Executor, on_update: Callable[[float], None]) -> None:
        self._executor = executor
        self._on_update = on_update
        self._done = 0
        self._under_way: dict[object, float] = {}
        self.workers = executor.workers
        self.memory = executor.memory
        self.in_process = executor.in_process

    def map(
        self, function: Task, items: Sequence[Any], shared: Any, *others: Sequence[Any]
    ) -> Iterator[Any]:
        """The result of ``function(item, shared, *others)`` for each item or handle, in order."""
        this = object()
        for number, result in enumerate(self._executor.map(function, items, shared, *others), 1):
            yield result
            self._under_way[this] = number / len(items)
            # Passes may overlap.
            self._on_update(self._done + sum(list(self._under_way.values())))
        self._under_way.pop(this, None)
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
    of ``ray_address`` or RAY_ADDRESS, or else a local one. Meanwhile BLAS has one thread in this
    process: work is shared out to tasks.

    Raises:
        InvalidInput: No executor has this name, an address is none, or the Ray cluster is on
            another machine and there is no token.
        UlcmodError: There is no cluster at the address, or it has no workers.
    """
    with ExitStack() as opened:
        # A task occupies a core, so threads of BLAS below it, or beside it, wait for each other.
        opened.enter_context(threadpool_limits(1, user_api="blas"))
        if not isinstance(executor, str):
            yield executor
            return
        check_executor(executor)
        if executor == "threads":
            yield ThreadExecutor()
        elif executor == "distributed":
            cluster = opened.enter_context(_local_cluster())
            yield DaskExecutor(opened.enter_context(_connect(cluster, CPU_COUNT)))
        elif "://" in executor:
            yield DaskExecutor(opened.enter_context(_connect(executor)))
        else:
            # Ray takes two seconds to import, which the other executors need not wait for.
            from ulcmod_dist.runtime.ray_session import ray_session

            # A matrix of this process, and tables, pass through the object store: let Ray size it.
            opened.enter_context(ray_session(ray_address, object_store_bytes=None))
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


@contextmanager
def _local_cluster() -> Iterator[Any]:
    """A Dask cluster whose workers are other programs on this machine.

    The workers of `distributed.LocalCluster` are processes of multiprocessing, which import the
    script that started them: without a main guard it would start over in every worker.
    """
    import distributed
    from distributed.deploy.subprocess import SubprocessWorker
    from distributed.utils import silence_logging_cmgr

    class Worker(SubprocessWorker):
        async def _start(self) -> None:
            spec = json.dumps({"cls": "distributed.Nanny", "opts": self.worker_kwargs})
            self.process = await asyncio.create_subprocess_exec(
                *[sys.executable, "-m", "dask", "spec", self.scheduler, "--spec", spec],
                # What this process can import, its workers can. At INFO they log a traceback if the
                # scheduler ends before they do.
                env={"DASK_DISTRIBUTED__LOGGING__DISTRIBUTED": "warning"}
                | _KEEP_FREED
                | os.environ
                | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )

    # The dashboard has no authentication. Without an address it is not off, but listens on every
    # interface.
    local = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
    nanny = local | {"nthreads": 1, "memory_limit": machine_memory() // CPU_COUNT}
    nanny |= {"silence_logs": logging.WARNING}
    worker = {"cls": Worker, "options": {"worker_kwargs": nanny}}
    workers = dict.fromkeys(range(CPU_COUNT), worker)
    scheduler = {"cls": distributed.Scheduler, "options": local}
    # Its own `silence_logs` ends before its last connections do, each with a traceback at INFO.
    with (
        silence_logging_cmgr(logging.WARNING),
        distributed.SpecCluster(workers=workers, scheduler=scheduler) as cluster,
    ):
        yield cluster


@contextmanager
def _connect(cluster: Any, workers: int = 1) -> Iterator[Any]:
    """A client of a Dask cluster, or of a scheduler's address, once it has ``workers``."""
    import distributed

    address = cluster if isinstance(cluster, str) else cluster.scheduler_address
    # Workers of this machine have to be started first, which takes long where it is busy.
    timeout = DASK_TIMEOUT if cluster is address else START_TIMEOUT
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
