"""Balanced groups: exact sizes, and the best assignment there is."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import adjusted_rand_score

from ulcmod_dist.iterd import balanced_kmeans as balanced
from ulcmod_dist.iterd.balanced_kmeans import (
    adjust_prices,
    balance_exactly,
    balance_greedily,
    balanced_kmeans,
)


def transported(costs: np.ndarray, rounds: int) -> np.ndarray:
    labels, prices = np.zeros(len(costs), np.int32), np.zeros(costs.shape[1])
    sizes = adjust_prices(costs.T, prices, labels, rounds)
    balance_exactly(costs.T, labels, sizes)
    return labels


def least_cost(costs: np.ndarray) -> float:
    """The optimum by the assignment problem, over every choice of the larger groups."""
    least, larger = divmod(costs.shape[0], costs.shape[1])
    values = []
    for extra in itertools.combinations(range(costs.shape[1]), larger):
        slots = [k for k in range(costs.shape[1]) for _ in range(least + (k in extra))]
        rows, columns = linear_sum_assignment(costs[:, slots])
        values.append(costs[:, slots][rows, columns].sum())
    return float(min(values))


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 5), st.integers(0, 30), st.integers(0, 2**32 - 1), st.integers(0, 8))
def test_balance_exactly__is_optimal(groups: int, further: int, seed: int, rounds: int) -> None:
    costs = np.random.default_rng(seed).random((groups + further, groups))
    labels = transported(costs, rounds)
    sizes = np.bincount(labels, minlength=groups)
    assert sizes.max() - sizes.min() <= 1
    found = costs[np.arange(len(costs)), labels].sum()
    assert found == pytest.approx(least_cost(costs), abs=1e-9)


def test_balance_exactly__equal_costs_still_balance() -> None:
    assert sorted(np.bincount(transported(np.ones((23, 5)), 10))) == [4, 4, 5, 5, 5]


def test_balance_greedily__costs_little_more_than_the_optimum() -> None:
    rng = np.random.default_rng(0)
    points, centres = rng.normal(size=(5003, 2)), rng.normal(size=(7, 2))
    costs = ((points[:, None] - centres) ** 2).sum(axis=2)
    labels, prices = np.zeros(5003, np.int32), np.zeros(7)
    sizes = adjust_prices(costs.T, prices, labels, 60)
    balance_greedily(costs.T, labels, sizes)
    assert np.array_equal(sizes, np.bincount(labels))
    assert sizes.max() - sizes.min() <= 1
    best = costs[np.arange(5003), transported(costs, 60)].mean()
    assert costs[np.arange(5003), labels].mean() <= best * 1.001


@pytest.mark.parametrize(("points", "groups"), [(60, 4), (61, 4), (7, 7), (9, 1)])
def test_balanced_kmeans__sizes_differ_by_one_at_most(points: int, groups: int) -> None:
    rng = np.random.default_rng(1)
    sizes = np.bincount(balanced_kmeans(rng.normal(size=(points, 3)), groups, rng))
    assert len(sizes) == groups
    assert sizes.max() - sizes.min() <= 1


@pytest.mark.parametrize("fitted", [20_000, 150])
def test_balanced_kmeans__finds_groups_also_from_a_part(
    fitted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(balanced, "_FITTED", fitted)
    rng = np.random.default_rng(2)
    truth = rng.permutation(602) % 4
    points = rng.normal(size=(602, 5)) + 8 * np.eye(4, 5)[truth]
    labels = balanced_kmeans(points, 4, np.random.default_rng(3))
    assert adjusted_rand_score(truth, labels) == 1.0


def test_balanced_kmeans__identical_points_are_shared_out() -> None:
    labels = balanced_kmeans(np.zeros((10, 3)), 5, np.random.default_rng(0))
    assert np.bincount(labels).tolist() == [2, 2, 2, 2, 2]
