"""Executors: the same answers wherever tasks run."""

from collections.abc import Iterator
from typing import Any

import dask.array as da
import numpy as np
import pytest

from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.passes.executors import Distributed, Executor, Threads, executor_named
from ulcmod_dist.passes.products import times
from ulcmod_dist.passes.standardised import from_array
from ulcmod_dist.passes.tables import both_tables

chunked: Any = da.from_array  # untyped in Dask
# Ray and distributed warn about their own insides and leave sockets to the end of the process.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module", params=["threads", "distributed", "ray"])
def executor(request: pytest.FixtureRequest) -> Iterator[Executor]:
    with executor_named(request.param) as running:
        yield running


def test_executors__make_the_same_tables(executor: Executor) -> None:
    rng = np.random.default_rng(0)
    raw = (rng.integers(-64, 64, (90, 70)) / 16).astype(np.float32)
    samples, units = rng.integers(0, 4, 90), rng.integers(0, 4, 70)
    kept = executor.persist(chunked(raw, chunks=(31, 20)))
    assert isinstance(kept, da.Array)
    for array in (kept, chunked(raw, chunks=(31, 20)), raw):
        by_sample, by_unit = both_tables(from_array(array), [samples], [units], [4], executor)
        assert np.array_equal(by_sample[0], raw @ np.eye(4)[units])
        assert np.array_equal(by_unit[0], raw.T @ np.eye(4)[samples])
    product = times(from_array(kept), np.ones((70, 1)), executor)
    np.testing.assert_allclose(product[:, 0], raw.sum(axis=1))


def test_executors__know_their_machines(executor: Executor) -> None:
    assert executor.workers >= 1
    assert executor.memory > 2**28


def test_executor_named__an_address_is_a_scheduler() -> None:
    import distributed

    cluster_of: Any = distributed.LocalCluster
    local = {"n_workers": 1, "threads_per_worker": 2, "dashboard_address": ":0"}
    with (
        cluster_of(processes=False, **local) as cluster,
        executor_named(cluster.scheduler_address) as executor,
    ):
        assert isinstance(executor, Distributed)
        assert executor.workers == 2


def test_executor_named__refuses_a_name_it_does_not_know() -> None:
    with pytest.raises(InvalidInput, match="no executor 'spark'"), executor_named("spark"):
        pass


def test_executor_named__hands_an_executor_on() -> None:
    threads = Threads(1)
    with executor_named(threads) as executor:
        assert executor is threads
