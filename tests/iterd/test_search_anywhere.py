"""Searches run the same on every executor, and outlive a lost worker."""

import contextlib
import os
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.iterd.problem import Planted, planted
from ulcmod_dist.config.schema import SearchConfig
from ulcmod_dist.iterd.driver import discover
from ulcmod_dist.iterd.modules import Iteration, Modules
from ulcmod_dist.iterd.plan import plan_search
from ulcmod_dist.passes.executors import DaskExecutor, ThreadExecutor
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


@pytest.fixture(scope="module", params=["distributed", "ray"])
def executor(request: pytest.FixtureRequest) -> Iterator[str]:
    """The name of an executor whose processes run already: the tests need not start them anew."""
    if request.param == "ray":
        request.getfixturevalue("local_ray")
        yield "ray"
        return
    import distributed

    cluster_of: Any = distributed.LocalCluster
    with cluster_of(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster:
        yield cluster.scheduler_address


@pytest.mark.parametrize("mode", ["exact", "blockwise"])
def test_discover__labels_do_not_depend_on_the_executor(
    hard: Planted, executor: str, mode: Any
) -> None:
    search: dict[str, Any] = {"mode": mode, "block_units": 100, "max_iterations": 4}
    here = discover(lazily(hard), 4, **search)
    assert same(here, discover(lazily(hard), 4, executor=executor, **search))
    assert same(here, discover(hard.standardised(), 4, executor=executor, **search))


@st.composite
def cuts(draw: st.DrawFn) -> tuple[int, int, int, int]:
    """Seed of a problem, chunk shape, threads."""
    return (
        draw(st.integers(0, 1000)),
        draw(st.integers(7, 60)),
        draw(st.integers(11, 90)),
        draw(st.integers(1, 5)),
    )


@pytest.mark.parametrize("somewhere", [True, False])
def test_discover__takes_an_array_that_is_persisted_on_a_cluster(
    hard: Planted, somewhere: bool
) -> None:
    import distributed

    client_of: Any = distributed.Client
    with client_of(n_workers=1, threads_per_worker=1, dashboard_address=":0") as client:
        given = lazily(hard)
        kept = Standardised(client.persist(given.raw), given.mean, given.std)
        executor = client.scheduler.address if somewhere else "threads"
        found = discover(kept, 4, executor=executor, max_iterations=2)
    assert same(found, discover(given, 4, max_iterations=2))


@settings(max_examples=15, deadline=None)
@given(cuts())
def test_exact__labels_depend_on_neither_chunks_nor_workers(cut: tuple[int, int, int, int]) -> None:
    seed, rows, columns, workers = cut
    problem = planted(noise=2.0, samples=60, units=90, seed=seed)
    given_ = problem.standardised()
    lazy = Standardised(chunked(problem.raw, chunks=(rows, columns)), given_.mean, given_.std)
    search: dict[str, Any] = {"seed": seed, "restarts": 2}
    search["initial_sample_labels"] = np.arange(60) % 3
    whole = discover(given_, 3, **search)
    assert same(whole, discover(lazy, 3, executor=ThreadExecutor(workers), **search))


def murderous(problem: Planted, folder: Path, reads: int) -> Standardised:
    """A lazy matrix whose reader kills its own process, once, after so many chunks."""
    given_, home = problem.standardised(), os.getpid()

    def reading(block: np.ndarray) -> np.ndarray:
        read = folder / f"{os.getpid()}-{uuid.uuid4()}"
        read.touch()
        if os.getpid() != home and len(list(folder.iterdir())) >= reads:
            with contextlib.suppress(FileExistsError):
                (folder.parent / "killed").touch(exist_ok=False)
                os.kill(os.getpid(), signal.SIGKILL)
        return block

    lazy = chunked(problem.raw, chunks=(100, 150)).map_blocks(
        reading, dtype=problem.raw.dtype, meta=problem.raw[:0, :0]
    )
    return Standardised(lazy, given_.mean, given_.std)


@pytest.mark.faults
@pytest.mark.parametrize("mode", ["exact", "blockwise"])
@pytest.mark.parametrize("keep", [True, False])
def test_discover__a_worker_lost_in_mid_pass_costs_no_label(
    tmp_path: Path, mode: Any, keep: bool
) -> None:
    import distributed

    cluster_of: Any = distributed.LocalCluster
    client_of: Any = distributed.Client
    problem = planted(noise=3.0, samples=400, units=900)
    search: dict[str, Any] = {
        "mode": mode,
        "block_units": 150,
        "initial_sample_labels": np.arange(400) % 5,
        "max_iterations": 4,
    }
    here = discover(problem.standardised(), 5, **search)
    (reads := tmp_path / "reads").mkdir()
    # Kept, a matrix is read once: 24 chunks. Read anew, the kill falls into an iteration.
    activations = murderous(problem, reads, 15 if keep else 60)
    with (
        cluster_of(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
        client_of(cluster, set_as_default=False) as client,
    ):
        executor = DaskExecutor(client)
        config = SearchConfig(modules=(5,), restarts=1, mode=mode)
        plan = plan_search(activations, [5], config, executor, block_units=150)
        memory = plan.projected_mem if keep else plan.projected_mem - 1
        found = discover(activations, 5, executor=executor, memory=memory, **search)
    assert (tmp_path / "killed").exists()
    assert same(here, found)


@pytest.mark.faults
def test_discover__an_actor_of_ray_lost_in_mid_pass_costs_no_label(
    tmp_path: Path, local_ray: None
) -> None:
    problem = planted(noise=3.0, samples=400, units=900)
    search: dict[str, Any] = {"mode": "blockwise", "block_units": 150, "max_iterations": 4}
    here = discover(problem.standardised(), 5, **search)
    (reads := tmp_path / "reads").mkdir()
    found = discover(murderous(problem, reads, 15), 5, executor="ray", **search)
    assert (tmp_path / "killed").exists()
    assert same(here, found)


@pytest.mark.faults
def test_discover__a_worker_lost_with_what_it_kept_costs_no_label() -> None:
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
            lazily(problem), 5, restarts=2, executor=DaskExecutor(client), progress=kill_one
        )
    assert killed
    assert same(here, found)
