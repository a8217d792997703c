"""Standardised activations refuse what they cannot be, and say where numbers are not finite."""

from typing import Any

import dask.array as da
import numpy as np
import pytest

from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.passes.executors import ThreadExecutor
from ulcmod_dist.passes.linalg import check_finite
from ulcmod_dist.passes.standardised import Standardised, as_standardised

chunked: Any = da.from_array  # untyped in Dask


def test_as_standardised__leaves_activations_as_given() -> None:
    activations = as_standardised(np.ones((3, 2), np.float32))
    assert activations.shape == (3, 2)
    assert activations.mean.tolist() == [0.0, 0.0]
    assert activations.std.tolist() == [1.0, 1.0]
    assert as_standardised(activations) is activations


@pytest.mark.parametrize("raw", [np.ones(3), np.ones((2, 2), int), np.ones((1, 2, 3))])
def test_as_standardised__refuses_what_is_no_matrix_of_floats(raw: np.ndarray) -> None:
    with pytest.raises(InvalidInput, match="floats"):
        as_standardised(raw)


def test_standardised__refuses_statistics_that_do_not_fit() -> None:
    with pytest.raises(InvalidInput, match="5 units need as many"):
        Standardised(np.ones((2, 5)), np.zeros(4), np.ones(4))
    with pytest.raises(InvalidInput, match=r"unit 1 is 0\.0, not positive"):
        Standardised(np.ones((2, 2)), np.zeros(2), np.array([1.0, 0.0]))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_check_finite__names_sample_and_unit(value: float) -> None:
    raw = np.ones((50, 40), np.float32)
    raw[31, 17] = raw[44, 3] = value
    message = f"sample 31 in unit 17 is {value} .2 samples and 2 units"
    for array in (raw, chunked(raw, chunks=(7, 11))):
        with pytest.raises(InvalidInput, match=message):
            check_finite(as_standardised(array), ThreadExecutor())


def test_check_finite__names_a_unit_with_unfit_statistics() -> None:
    mean = np.array([0.0, np.nan])
    with pytest.raises(InvalidInput, match="Unit 1 has mean nan"):
        check_finite(Standardised(np.ones((2, 2)), mean, np.ones(2)), ThreadExecutor())


def test_check_finite__accepts_finite_activations() -> None:
    check_finite(
        as_standardised(np.full((4, 4), np.finfo(np.float32).max, np.float32)), ThreadExecutor()
    )
