"""The published implementation's answers, label for label."""

from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest

from ulcmod_dist.iterd.driver import discover
from ulcmod_dist.iterd.objective import objective

pytestmark = pytest.mark.acceptance
chunked: Any = da.from_array  # untyped in Dask
PROBLEMS = ("planted_a", "planted_b", "planted_c")


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("chunks", [None, (50, 130), (13, 611)])
def test_discover__returns_the_published_labels(
    golden: Path, problem: str, chunks: tuple[int, int] | None
) -> None:
    with np.load(golden / f"{problem}.npz") as given:
        matrix = given["activations"]
        modules = discover(
            matrix if chunks is None else chunked(matrix, chunks=chunks),
            int(given["num_modules"]),
            initial_sample_labels=given["initial_sample_labels"],
            initial_unit_labels=given["initial_unit_labels"],
            sweep_orders=list(zip(given["unit_orders"], given["sample_orders"], strict=True)),
        )
        assert np.array_equal(modules.sample_labels, given["final_sample_labels"])
        assert np.array_equal(modules.unit_labels, given["final_unit_labels"])
        after = [record.objective for record in modules.history[1:]]
        np.testing.assert_allclose(after, given["objective_per_iteration"], atol=1e-6)
        assert modules.objective.value == pytest.approx(float(given["objective"]), rel=1e-9)


@pytest.mark.parametrize("problem", PROBLEMS)
def test_objective__equals_the_published_figures(golden: Path, problem: str) -> None:
    with np.load(golden / f"{problem}.npz") as given:
        labels = given["final_sample_labels"], given["final_unit_labels"]
        found = objective(given["activations"], *labels, int(given["num_modules"]))
        assert found.xi == pytest.approx(float(given["xi"]), rel=1e-9)
        assert found.balance == pytest.approx(float(given["balance"]), rel=1e-9)
        assert found.value == pytest.approx(float(given["objective"]), rel=1e-9)
