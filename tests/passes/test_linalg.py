"""Factors of tall matrices, and principal components from few passes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ulcmod_dist.passes import linalg
from ulcmod_dist.passes.executors import ThreadExecutor
from ulcmod_dist.passes.linalg import factor_tall, principal_components
from ulcmod_dist.passes.standardised import Standardised


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 6), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_factor_tall__of_parts_is_a_factorisation(
    further: int, columns: int, rows_at_once: int, seed: int
) -> None:
    matrix = np.random.default_rng(seed).normal(size=(columns + further, columns))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(linalg, "_FACTORED_ROWS", rows_at_once)
        q, r = factor_tall(matrix)
    assert q.shape == matrix.shape
    assert r.shape == (columns, columns)
    np.testing.assert_allclose(q @ r, matrix, atol=1e-12)
    np.testing.assert_allclose(q.T @ q, np.eye(columns), atol=1e-12)
    np.testing.assert_array_equal(np.tril(r, -1), 0)


@pytest.mark.parametrize("side", ["samples", "units"])
def test_principal_components__are_the_singular_vectors_of_the_centred_matrix(side: str) -> None:
    rng = np.random.default_rng(0)
    # Above the noise are three components, and the constants of the samples or of the units.
    z = rng.normal(size=(300, 3)) @ (rng.normal(size=(3, 70)) * 5) + rng.normal(size=(300, 70))
    z += rng.normal(size=(300, 1)) * 10 + rng.normal(size=(1, 70)) * 10
    activations = Standardised(z, np.zeros(70), np.ones(70))
    found = principal_components(activations, ThreadExecutor(), side=side, seed=0, count=4)  # type: ignore[arg-type]
    points = z if side == "samples" else z.T
    left, values, _ = np.linalg.svd(points - points.mean(axis=0), full_matrices=False)
    signs = np.sign((found * left[:, :4]).sum(axis=0))
    np.testing.assert_allclose(found * signs, left[:, :4] * values[:4], atol=1e-6 * values[0])


def test_principal_components__of_equal_samples_are_zero() -> None:
    z = np.broadcast_to(np.arange(5.0), (9, 5)).copy()
    activations = Standardised(z, np.zeros(5), np.ones(5))
    found = principal_components(activations, ThreadExecutor(), side="samples", seed=0)
    np.testing.assert_allclose(found, 0, atol=1e-12)
