"""The search answers the same on every executor, and outlives a lost worker."""

from typing import Any

import dask.array as da
import numpy as np
import pytest

from tests.iterd.problem import Planted, planted
from ulcmod_dist.iterd.driver import discover
from ulcmod_dist.iterd.values import Iteration, Modules
from ulcmod_dist.passes.executors import Distributed
from ulcmod_dist.passes.standardised import Standardised

chunked: Any = da.from_array  # untyped in Dask
# Ray and distributed warn about their own insides and leave sockets to the end of the process.
pytestmark = pytest.mark.filterwarnings("ignore")


def lazily(problem: Planted) -> Standardised:
    given = problem.standardised()
    return Standardised(chunked(problem.raw, chunks=(40, 50)), given.mean, given.std)


def same(first: Modules, second: Modules) -> bool:
    return np.array_equal(first.sample_labels, second.sample_labels) and np.array_equal(
        first.unit_labels, second.unit_labels
    )


@pytest.mark.parametrize("executor", ["distributed", "ray"])
@pytest.mark.parametrize("mode", ["exact", "blockwise"])
def test_discover__labels_do_not_depend_on_the_executor(
    hard: Planted, executor: str, mode: Any
) -> None:
    settings: dict[str, Any] = {"mode": mode, "block_units": 100, "max_iterations": 4}
    here = discover(lazily(hard), 4, **settings)
    assert same(here, discover(lazily(hard), 4, executor=executor, **settings))
    assert same(here, discover(hard.standardised(), 4, executor=executor, **settings))


@pytest.mark.faults
def test_discover__a_lost_worker_costs_no_label() -> None:
    import distributed

    cluster_of: Any = distributed.LocalCluster
    client_of: Any = distributed.Client
    problem = planted(noise=3.0, samples=400, units=900)
    here = discover(lazily(problem), 5, restarts=2)
    killed: list[str] = []
    with (
        cluster_of(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
        client_of(cluster, set_as_default=False) as client,
    ):

        def kill_one(done: Iteration) -> None:
            if done.iteration == 2 and not killed:
                worker = next(iter(cluster.workers.values()))
                killed.append(worker.worker_address)
                worker.process.process.kill()

        found = discover(
            lazily(problem), 5, restarts=2, executor=Distributed(client), progress=kill_one
        )
    assert killed
    assert same(here, found)
