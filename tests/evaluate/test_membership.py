"""Degrees, shares and kinds of membership, each against its definition."""

import numpy as np
import pytest

from tests.evaluate.problem import Planted
from ulcmod_dist.evaluate.membership import (
    Degrees,
    compute_degrees,
    grade_samples,
    grade_units,
    share_degrees,
)
from ulcmod_dist.passes.executors import ThreadExecutor
from ulcmod_dist.passes.standardised import Standardised
from ulcmod_dist.results.discovery import MembershipKind

KINDS = list(MembershipKind)


def test_compute_degrees__are_means_of_z_over_the_members_of_each_module(
    planted: Planted, threads: ThreadExecutor
) -> None:
    labels = [planted.sample_labels], [planted.unit_labels]
    (features,), (units,) = compute_degrees(planted.lazy((17, 23)), *labels, [3], threads)
    z = planted.z()
    for k in range(3):
        samples, members = planted.sample_labels == k, planted.unit_labels == k
        np.testing.assert_allclose(units[:, k], z[samples].mean(axis=0), atol=1e-6)
        np.testing.assert_allclose(features.values[:, k], z[:, members].mean(axis=1), atol=1e-6)
        # Both sides average to the mean z inside the module.
        inside = z[np.ix_(samples, members)].mean()
        assert units[members, k].mean() == pytest.approx(inside)
        assert features.values[samples, k].mean() == pytest.approx(inside)


def test_share_degrees__are_the_positive_parts_as_shares() -> None:
    shares = share_degrees(np.array([[1.0, 3.0, -4.0], [-1.0, 0.0, 0.0]]))
    np.testing.assert_allclose(shares, [[0.25, 0.75, 0.0], [0.0, 0.0, 0.0]])


def test_breadth__is_the_effective_number_of_modules() -> None:
    values = np.array([[1.0, 1.0, 1.0, 1.0], [2.0, -1.0, -1.0, 0.0], [1.0, 1.0, 0.0, -2.0]])
    degrees = Degrees(np.vstack([values, np.zeros(4)]), np.zeros((4, 4), bool), np.zeros(4, bool))
    np.testing.assert_allclose(degrees.breadth, [4.0, 1.0, 2.0, 0.0])


def grade(degrees: list[list[float]], mean: list[float], sizes: tuple[int, int]) -> list[str]:
    placed = np.repeat([0, 1], sizes).astype(np.int32)
    statistics = Standardised(np.zeros((1, len(mean))), np.array(mean), np.ones(len(mean)))
    graded = grade_units(np.array(degrees), np.array([1.0, 2.0]), placed, statistics, None)
    return [str(KINDS[kind]) for kind in graded.kinds]


def test_grade_units__strong_in_one_in_several_in_none_and_silent() -> None:
    degrees = [[0.6, 0.9], [0.6, 1.1], [0.4, 0.9], [0.0, 0.0], [0.0, 0.0]]
    mean = [50.0, 50.0, 50.0, 50.0, 0.1]
    kinds = ["specific", "shared", "general", "general", "silent"]
    assert grade(degrees, mean, (100, 100)) == kinds


def test_grade_units__chance_over_few_samples_is_not_strength() -> None:
    # With nine samples a mean of z exceeds one only by more than three standard errors.
    assert grade([[0.9, 0.0], [1.1, 0.0]], [9.0, 9.0], (9, 100)) == ["general", "specific"]


def test_grade_units__a_layer_of_small_activations_is_not_silent() -> None:
    statistics = Standardised(np.zeros((1, 4)), np.array([10.0, 10.0, 0.1, 0.1]), np.full(4, 0.01))
    placed = np.zeros(10, np.int32)
    degrees, inside = np.zeros((4, 1)), np.ones(1)
    layers = np.array([0, 0, 1, 1])
    assert not grade_units(degrees, inside, placed, statistics, layers).silent.any()
    assert grade_units(degrees, inside, placed, statistics, None).silent.tolist() == [
        False, False, True, True,
    ]  # fmt: skip


def test_grade_units__noise_is_strong_in_no_module(threads: ThreadExecutor) -> None:
    rng = np.random.default_rng(0)
    raw = rng.lognormal(size=(400, 300)).astype(np.float32)
    mean, std = raw.mean(axis=0, dtype=np.float64), raw.std(axis=0, ddof=1, dtype=np.float64)
    activations = Standardised(raw, mean, std)
    placed, units = np.arange(400) % 4, np.arange(300) % 4
    (features,), (degrees,) = compute_degrees(activations, [placed], [units], [4], threads)
    graded = grade_units(degrees, np.zeros(4), placed, activations, None)
    assert graded.strong.mean() < 0.01
    assert np.isfinite(grade_samples(features.values, np.zeros(4)).breadth).all()


def test_count_kinds__of_each_module() -> None:
    strong = np.array([[1, 0], [1, 1], [0, 1], [0, 0]], bool)
    degrees = Degrees(strong.astype(float), strong, np.array([False, False, False, True]))
    assert degrees.count_kinds(np.array([0, 0, 1, 1])).tolist() == [[1, 1, 0, 0], [1, 0, 0, 1]]
