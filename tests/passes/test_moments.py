"""The statistics of units, and the standardisation by them."""

from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
from numpy.typing import NDArray

import ulcmod_dist as um
from ulcmod_dist.passes.executors import ThreadExecutor
from ulcmod_dist.passes.moments import require_variation, standardize
from ulcmod_dist.passes.standardised import Moments
from ulcmod_dist.runtime.rundir import RunDir
from ulcmod_dist.store.matrix_files import import_matrix


@pytest.fixture
def raw() -> NDArray[np.float32]:
    rng = np.random.default_rng(7)
    given = rng.lognormal(sigma=2.0, size=(700, 40)).astype(np.float32)
    given *= 10.0 ** rng.integers(-3, 9, size=40)
    # A large constant, whose mean of floats is off by rounding, and one that hardly varies.
    given[:, 3] = 1.2345e20
    given[:, 8] = 2.0
    given[5, 8] += 2e-7
    return given


def test_standardize__is_what_a_run_does(tmp_path: Path, raw: NDArray[np.float32]) -> None:
    stored = import_matrix(RunDir.at(tmp_path), raw).activations()
    found = standardize(raw, ThreadExecutor())
    np.testing.assert_array_equal(found.mean, stored.mean)
    np.testing.assert_array_equal(found.std, stored.std)
    assert found.std[3] == found.std[8] == 1.0


@pytest.mark.parametrize("chunks", [None, (60, 40)])
def test_discover__standardised_by_it_finds_the_modules_of_a_run(
    tmp_path: Path, raw: NDArray[np.float32], chunks: tuple[int, int] | None
) -> None:
    # One block: other orders of summation round otherwise, and without any structure in the data
    # that is enough for other modules.
    run, raw = RunDir.at(tmp_path), raw[:60]
    import_matrix(run, raw)
    expected = um.discover(um.open_run(tmp_path).activations(), 4, restarts=2, seed=3)
    given = raw if chunks is None else da.from_array(raw, chunks=chunks)
    found = um.discover(given, 4, standardize=True, restarts=2, seed=3)
    np.testing.assert_array_equal(found.unit_labels, expected.unit_labels)
    np.testing.assert_array_equal(found.sample_labels, expected.sample_labels)
    assert found.objective.value == pytest.approx(expected.objective.value, rel=1e-10)


@pytest.mark.parametrize("dtype", [">f4", ">f8", "float16"])
def test_discover__floats_of_any_width_and_byte_order(dtype: str) -> None:
    given = np.random.default_rng(0).integers(0, 99, size=(30, 20)).astype("f4")
    expected = um.discover(given, 3, standardize=True)
    found = um.discover(given.astype(dtype), 3, standardize=True)
    np.testing.assert_array_equal(found.unit_labels, expected.unit_labels)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (np.full((9, 6), 3.3), "No unit of 6 varies over 9 train samples"),
        (np.ones((1, 6)), "No unit of 6 varies over 1 train sample "),
        (np.eye(9, 6) * 1e-12, "multiply tiny activations"),
        (np.eye(9, 6) * 1e200, "Unit 0 has mean 1.11111e.199"),
        (np.eye(9, 6) + 1e12, "Unit 0 has mean 1e.12 and standard deviation 0.333"),
        (np.where(np.eye(9, 6) > 0, np.nan, 0.0), "sample 0 in unit 0 is nan"),
        (np.eye(9, 6).astype(np.longdouble), "Activations are floats"),
        (np.eye(9, 6).astype(bool), "Activations are floats"),
        (np.ma.masked_equal(np.eye(9, 6), 1.0), "masked"),
        (um.Standardised(np.eye(9, 6), np.zeros(6), np.ones(6)), "standardised already"),
    ],
)
def test_discover__names_what_cannot_be_standardised(given: object, said: str) -> None:
    with pytest.raises(um.InvalidInput, match=said):
        um.discover(given, 1, standardize=True)


def test_discover__names_a_dask_array_of_unknown_shape() -> None:
    lazy: Any = da.ones((9, 6), chunks=(3, 6))
    with pytest.raises(um.InvalidInput, match="chunks of unknown size"):
        um.discover(lazy[lazy[:, 0] > 0], 2)


def test_require_variation__without_train_samples() -> None:
    with pytest.raises(um.InvalidInput, match="no train samples"):
        require_variation(Moments.none(4))
