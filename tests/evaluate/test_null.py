"""The null model keeps every unit's values and breaks what units share."""

import functools

import dask.array as da
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.evaluate.problem import Planted
from ulcmod_dist.evaluate import null
from ulcmod_dist.evaluate.null import permutation_bytes, permute_columns, search_null_model
from ulcmod_dist.iterd.objective import objective
from ulcmod_dist.passes.executors import ThreadExecutor
from ulcmod_dist.passes.standardised import Standardised
from ulcmod_dist.results.types import Objective


def test_permuted__keeps_each_column_and_breaks_rows(planted: Planted) -> None:
    found = permute_columns(planted.train, seed=1).raw
    np.testing.assert_array_equal(np.sort(found, axis=0), np.sort(planted.train.raw, axis=0))
    correlation = np.corrcoef(found.T)[~np.eye(found.shape[1], dtype=bool)]
    assert np.abs(np.mean(correlation)) < 0.01
    assert found.dtype == planted.train.raw.dtype


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 200), st.integers(1, 40), st.sampled_from([np.float16, np.float32, np.float64])
)
def test_permuted__of_any_shape_keeps_each_column(samples: int, units: int, dtype: type) -> None:
    numbers = np.random.default_rng(0).permutation(samples * units).reshape(samples, units)
    raw: np.ndarray = numbers.astype(np.uint16).view(np.float16).astype(dtype)
    found = permute_columns(Standardised(raw, np.zeros(units), np.ones(units)), seed=3).raw
    np.testing.assert_array_equal(np.sort(found, axis=0), np.sort(raw, axis=0))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_permuted__every_order_is_as_likely(dtype: type) -> None:
    columns = 24_000
    rows: np.ndarray = np.repeat(np.arange(4, dtype=dtype)[:, None], columns, axis=1)
    plain = Standardised(rows, np.zeros(columns), np.ones(columns))
    orders = permute_columns(plain, seed=0).raw.astype(int)
    assert rows.tolist()[1][:3] == [1, 1, 1]
    counts = np.unique(10 ** np.arange(4) @ orders, return_counts=True)[1]
    assert len(counts) == 24
    # Chi square with 23 degrees of freedom exceeds 50 once in 1,100 times.
    assert ((counts - 1000) ** 2 / 1000).sum() < 50


def test_permuted__each_column_has_an_order_of_its_own() -> None:
    rows: np.ndarray = np.repeat(np.arange(500, dtype=np.float32)[:, None], 300, axis=1)
    plain = Standardised(rows, np.zeros(300), np.ones(300))
    found = permute_columns(plain, seed=0).raw
    correlation = np.corrcoef(np.column_stack([rows[:, 0], found]).T)[np.triu_indices(301, 1)]
    # Independent orders of n samples correlate by 0 +- 1 / sqrt(n - 1).
    assert abs(correlation.mean()) < 0.001
    assert correlation.std() == pytest.approx(499**-0.5, rel=0.02)
    assert np.abs(correlation).max() < 6 * 499**-0.5


@pytest.mark.parametrize("chunks", [(120, 100), (13, 7), (50, 100)])
def test_permuted__does_not_depend_on_chunks_and_stays_lazy(
    planted: Planted, chunks: tuple[int, int]
) -> None:
    found = permute_columns(planted.lazy(chunks), seed=1).raw
    assert isinstance(found, da.Array)
    np.testing.assert_array_equal(np.asarray(found), permute_columns(planted.train, seed=1).raw)


def test_permuted__in_memory_is_the_same_matrix(
    planted: Planted, threads: ThreadExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(null, "_BLOCK_BYTES", 7 * 120 * 4)
    found = permute_columns(planted.lazy((13, 7)), 1, threads).raw
    assert isinstance(found, np.ndarray)
    np.testing.assert_array_equal(found, permute_columns(planted.train, seed=1).raw)


def test_held_bytes__are_those_of_the_widest_column_of_chunks_or_of_the_matrix(
    planted: Planted,
) -> None:
    samples, units = planted.train.shape
    itemsize = planted.train.raw.dtype.itemsize
    lazily = functools.partial(permutation_bytes, workers=2, in_memory=False)
    assert lazily(planted.lazy((13, 7))) == 2 * samples * 7 * itemsize
    assert lazily(planted.lazy((50, units))) == 2 * samples * units * itemsize
    assert lazily(planted.train) == 0
    held = permutation_bytes(planted.lazy((13, 7)), 1, in_memory=True)
    assert held == samples * units * itemsize + 64 * 2**20


def test_null_objectives__search_sees_another_permutation_each_time(planted: Planted) -> None:
    seen = []

    def search(activations: Standardised, seed: int) -> dict[int, Objective]:
        seen.append(np.array(activations.raw))
        return {3: objective(activations, planted.sample_labels, planted.unit_labels, 3)}

    found = search_null_model(planted.train, search, permutations=3, seed=5)[3]
    real = objective(planted.train, planted.sample_labels, planted.unit_labels, 3)
    assert len(found) == 3
    assert not np.array_equal(seen[0], seen[1])
    assert all(abs(one.value) < 0.2 * real.value for one in found)


def test_null_objectives__permuted_matrices_take_each_others_place(
    planted: Planted, threads: ThreadExecutor
) -> None:
    seen, lazy = [], planted.lazy((13, 7))

    def search(activations: Standardised, seed: int) -> dict[int, Objective]:
        seen.append(activations.raw)
        expected = permute_columns(lazy, seed).raw
        np.testing.assert_array_equal(activations.raw, np.asarray(expected))
        return {}

    search_null_model(lazy, search, 3, 5, threads)
    assert all(np.shares_memory(seen[0], later) for later in seen[1:])
