"""The published implementation's answers, label for label."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest

from ulcmod_dist.config.schema import SearchConfig
from ulcmod_dist.iterd.driver import discover
from ulcmod_dist.iterd.modules import Modules
from ulcmod_dist.iterd.objective import objective
from ulcmod_dist.iterd.plan import plan_search
from ulcmod_dist.passes.executors import Executor, open_executor
from ulcmod_dist.passes.standardised import as_standardised

pytestmark = pytest.mark.acceptance
chunked: Any = da.from_array  # untyped in Dask
PROBLEMS = ("planted_a", "planted_b", "planted_c")


def searched(given: Any, chunks: tuple[int, int] | None, **options: Any) -> Modules:
    """The search of a golden problem: its start and its orders."""
    matrix = given["activations"]
    return discover(
        matrix if chunks is None else chunked(matrix, chunks=chunks),
        int(given["num_modules"]),
        initial_sample_labels=given["initial_sample_labels"],
        initial_unit_labels=given["initial_unit_labels"],
        sweep_orders=list(zip(given["unit_orders"], given["sample_orders"], strict=True)),
        **options,
    )


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("chunks", [None, (50, 130), (13, 611)])
def test_discover__returns_the_published_labels(
    golden: Path, problem: str, chunks: tuple[int, int] | None
) -> None:
    with np.load(golden / f"{problem}.npz") as given:
        modules = searched(given, chunks)
        assert np.array_equal(modules.sample_labels, given["final_sample_labels"])
        assert np.array_equal(modules.unit_labels, given["final_unit_labels"])
        after = [record.objective for record in modules.history[1:]]
        np.testing.assert_allclose(after, given["objective_per_iteration"], atol=1e-6)
        assert modules.objective.value == pytest.approx(float(given["objective"]), rel=1e-9)


@pytest.fixture(scope="module", params=["distributed", "an address", "ray"])
def executor(request: pytest.FixtureRequest) -> Iterator[Executor]:
    if request.param != "an address":
        with open_executor(request.param) as running:
            yield running
        return
    import distributed

    cluster_of: Any = distributed.LocalCluster
    local = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": ":0"}
    with cluster_of(**local) as cluster, open_executor(cluster.scheduler_address) as running:
        yield running


# Ray and distributed warn about their own insides and leave sockets to the end of the process.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("memory", [None, "streaming"])
def test_discover__returns_the_published_labels_on_every_executor(
    golden: Path, problem: str, executor: Executor, memory: str | None
) -> None:
    with np.load(golden / f"{problem}.npz") as given:
        limit = None
        if memory == "streaming":
            lazy = as_standardised(chunked(given["activations"], chunks=(50, 130)))
            resident = SearchConfig(modules=(1,), restarts=1, mode="exact")
            limit = (
                plan_search(lazy, [int(given["num_modules"])], resident, executor).projected_mem - 1
            )
        modules = searched(given, (50, 130), mode="exact", executor=executor, memory=limit)
        assert np.array_equal(modules.sample_labels, given["final_sample_labels"])
        assert np.array_equal(modules.unit_labels, given["final_unit_labels"])


@pytest.mark.parametrize("problem", PROBLEMS)
def test_objective__equals_the_published_figures(golden: Path, problem: str) -> None:
    with np.load(golden / f"{problem}.npz") as given:
        labels = given["final_sample_labels"], given["final_unit_labels"]
        found = objective(given["activations"], *labels, int(given["num_modules"]))
        assert found.xi == pytest.approx(float(given["xi"]), rel=1e-9)
        assert found.balance == pytest.approx(float(given["balance"]), rel=1e-9)
        assert found.value == pytest.approx(float(given["objective"]), rel=1e-9)
