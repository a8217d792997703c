"""A Dask cluster of several machines, which are network namespaces of this one."""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import distributed

from tests.submit.hosts import Host, host, network, wait_for

ENVIRONMENT = {
    "PYTHONPATH": str(Path(__file__).parents[2]),
    "DASK_DISTRIBUTED__LOGGING__DISTRIBUTED": "error",
    # A machine that is silent for 15 seconds is lost; by default it takes minutes.
    "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "15s",
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": "15s",
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "15s",
}


@contextmanager
def dask_hosts(machines: int, processes: int) -> Iterator[tuple[str, list[Host]]]:
    """Address of a scheduler on a machine of its own, and machines of so many workers each."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        switch = stack.enter_context(network(88))
        head, *others = (
            stack.enter_context(host(switch, 1 + number, folder, ENVIRONMENT))
            for number in range(1 + machines)
        )
        address = f"tcp://{head.address}:8786"
        dask = ("python", "-m", "dask")
        options = ("--no-dashboard", "--host")
        head.start(*dask, "scheduler", *options, head.address, output=folder / "scheduler.log")
        for one in others:
            count = ("--nthreads", "1", "--nworkers", str(processes))
            words = (*dask, "worker", address, *count, *options, one.address)
            one.start(*words, output=folder / f"{one.name}.log")
        client = stack.enter_context(_connect(address))
        wait_for(lambda: len(client.nthreads()) == machines * processes, 120, "workers")
        yield address, others


@contextmanager
def _connect(address: str) -> Iterator[distributed.Client]:
    with distributed.Client(address, timeout=60, set_as_default=False) as client:
        yield client
