"""Tables by passes equal tables by definition, for any chunking and precision."""

from typing import Any

import dask.array as da
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ulcmod_dist.passes.executors import ThreadExecutor
from ulcmod_dist.passes.linalg import matmat, rmatmat
from ulcmod_dist.passes.matrix import ActivationMatrix
from ulcmod_dist.passes.standardised import Standardised, as_standardised

chunked: Any = da.from_array  # untyped in Dask
EXECUTOR = ThreadExecutor(2)


def statistics(raw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    wide = raw.astype(np.float64)
    std = wide.std(axis=0, ddof=1) if len(wide) > 1 else np.zeros(wide.shape[1])
    return wide.mean(axis=0), np.where(std < 1e-8, 1.0, std)


@st.composite
def problems(draw: st.DrawFn) -> tuple[Standardised, np.ndarray, np.ndarray, int]:
    samples, units = draw(st.integers(1, 70)), draw(st.integers(1, 60))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    raw = rng.gamma(1.0, 0.3, (samples, units)) + 2.0
    raw[:, rng.integers(units)] = 0.5  # a unit that never changes
    raw = raw.astype(draw(st.sampled_from(["float16", "float32", "float64"])))
    chunks = draw(st.integers(1, samples)), draw(st.integers(1, units))
    k = draw(st.integers(1, 6))
    labels = rng.integers(0, k, samples), rng.integers(0, k, units)
    array = chunked(raw, chunks=chunks) if draw(st.booleans()) else raw
    return Standardised(array, *statistics(raw)), *labels, k


def eager(activations: Standardised) -> np.ndarray:
    raw = np.asarray(activations.raw).astype(np.float64)
    return (raw - activations.mean) / activations.std


@settings(max_examples=60, deadline=None)
@given(problems())
def test_tables__equal_sums_of_standardised_activations(
    problem: tuple[Standardised, np.ndarray, np.ndarray, int],
) -> None:
    activations, sample_labels, unit_labels, k = problem
    z = eager(activations)
    by_sample, by_unit = ActivationMatrix(activations, EXECUTOR).both_tables(
        [sample_labels], [unit_labels], [k]
    )
    np.testing.assert_allclose(by_sample[0], z @ np.eye(k)[unit_labels], atol=1e-6)
    np.testing.assert_allclose(by_unit[0], z.T @ np.eye(k)[sample_labels], atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(problems(), st.integers(1, 5))
def test_matmat_and_rmatmat__equal_those_of_standardised_activations(
    problem: tuple[Standardised, np.ndarray, np.ndarray, int], width: int
) -> None:
    activations = problem[0]
    z, rng = eager(activations), np.random.default_rng(0)
    right, left = rng.normal(size=(z.shape[1], width)), rng.normal(size=(z.shape[0], width))
    np.testing.assert_allclose(matmat(activations, right, EXECUTOR), z @ right, atol=1e-6)
    np.testing.assert_allclose(rmatmat(activations, left, EXECUTOR), z.T @ left, atol=1e-6)


def test_tables__several_searches_share_a_pass() -> None:
    rng = np.random.default_rng(1)
    activations = as_standardised(rng.normal(size=(101, 77)))
    ks = [3, 1, 5]
    samples = [rng.integers(0, k, 101) for k in ks]
    units = [rng.integers(0, k, 77) for k in ks]
    matrix = ActivationMatrix(activations, EXECUTOR)
    together = matrix.unit_tables(samples, ks)
    both = matrix.both_tables(samples, units, ks)
    for i, k in enumerate(ks):
        (alone,) = matrix.unit_tables([samples[i]], [k])
        np.testing.assert_allclose(together[i], alone, atol=1e-9)
        (alone_samples,) = matrix.sample_tables([units[i]], [k])
        np.testing.assert_allclose(both[0][i], alone_samples, atol=1e-9)
        np.testing.assert_allclose(both[1][i], alone, atol=1e-9)


def test_tables__float16_is_summed_in_full_precision() -> None:
    raw = np.full((40_000, 2), 1.0, np.float16)
    matrix = ActivationMatrix(as_standardised(raw), EXECUTOR)
    (table,) = matrix.unit_tables([np.zeros(40_000, int)], [1])
    assert table.tolist() == [[40_000.0], [40_000.0]]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_tables__exact_numbers_have_exact_sums(dtype: str) -> None:
    rng = np.random.default_rng(2)
    raw = (rng.integers(-64, 64, (300, 200)) / 16).astype(dtype)
    labels = rng.integers(0, 4, 300)
    (table,) = ActivationMatrix(as_standardised(raw), EXECUTOR).unit_tables([labels], [4])
    assert np.array_equal(table, raw.astype(np.float64).T @ np.eye(4)[labels])
