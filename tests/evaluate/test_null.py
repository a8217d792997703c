"""The null model keeps every unit's values and breaks what units share."""

import dask.array as da
import numpy as np
import pytest

from tests.evaluate.problem import Planted
from ulcmod_dist.evaluate.null import permutation_bytes, permute_columns, search_null_model
from ulcmod_dist.iterd.objective import objective
from ulcmod_dist.passes.standardised import Standardised
from ulcmod_dist.results.types import Objective


def test_permuted__keeps_each_column_and_breaks_rows(planted: Planted) -> None:
    found = permute_columns(planted.train, seed=1).raw
    np.testing.assert_array_equal(np.sort(found, axis=0), np.sort(planted.train.raw, axis=0))
    correlation = np.corrcoef(found.T)[~np.eye(found.shape[1], dtype=bool)]
    assert np.abs(np.mean(correlation)) < 0.01
    assert found.dtype == planted.train.raw.dtype


@pytest.mark.parametrize("chunks", [(120, 100), (13, 7), (50, 100)])
def test_permuted__does_not_depend_on_chunks_and_stays_lazy(
    planted: Planted, chunks: tuple[int, int]
) -> None:
    found = permute_columns(planted.lazy(chunks), seed=1).raw
    assert isinstance(found, da.Array)
    np.testing.assert_array_equal(np.asarray(found), permute_columns(planted.train, seed=1).raw)


def test_held_bytes__are_those_of_the_widest_column_of_chunks(planted: Planted) -> None:
    samples, units = planted.train.shape
    itemsize = planted.train.raw.dtype.itemsize
    assert permutation_bytes(planted.lazy((13, 7))) == samples * 7 * itemsize
    assert permutation_bytes(planted.lazy((50, units))) == samples * units * itemsize
    assert permutation_bytes(planted.train) == 0


def test_null_objectives__search_sees_another_permutation_each_time(planted: Planted) -> None:
    seen = []

    def search(activations: Standardised, seed: int) -> dict[int, Objective]:
        seen.append(activations.raw)
        return {3: objective(activations, planted.sample_labels, planted.unit_labels, 3)}

    found = search_null_model(planted.train, search, permutations=3, seed=5)[3]
    real = objective(planted.train, planted.sample_labels, planted.unit_labels, 3)
    assert len(found) == 3
    assert not np.array_equal(seen[0], seen[1])
    assert all(abs(null.value) < 0.2 * real.value for null in found)
