"""Balanced k-means: groups of equal size around their means."""

from __future__ import annotations

import numpy as np
from sklearn.cluster import kmeans_plusplus
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from ulcmod_dist.iterd.transport import balance_exactly, fill_up, raise_prices
from ulcmod_dist.passes.standardised import FloatArray, LabelArray

# Initial centres that are tried; the tightest groups win.
INITIALISATIONS = 10
# Groups are fitted on this many points; beyond it, the others are only assigned.
_FITTED = 20_000
_ROUNDS = 100
# Rounds with nearly equal groups, which cost little, before those with equal ones.
_ROUGH_ROUNDS = 30
_PRICE_ROUNDS = 60
# Distances that change by less than this share end the fit.
_TOLERANCE = 1e-5


def balanced_kmeans(
    points: FloatArray,
    num_groups: int,
    rng: np.random.Generator,
    initialisations: int = INITIALISATIONS,
) -> LabelArray:
    """Groups whose sizes are floor(N/K) or ceil(N/K), with small squared distances to their means.

    Up to 20,000 points the assignment to given centres is the best possible one; beyond that,
    centres are fitted on a random part and the points assigned under the same limits on size.

    Args:
        points: Points [N, dimensions].
        num_groups: K, at most N.
        rng: Source of the initial centres.
        initialisations: Sets of initial centres that are tried.

    Returns:
        Group of each point [N].
    """
    if num_groups == 1:
        return np.zeros(len(points), np.int32)
    fitted = points
    if len(points) > max(_FITTED, 2 * num_groups):
        fitted = points[np.sort(rng.permutation(len(points))[: max(_FITTED, 2 * num_groups)])]
    # Products this small only lose time to the threads of BLAS.
    with threadpool_limits(1, user_api="blas"):
        seeds = rng.integers(2**31, size=initialisations)
        fits = [_fit(fitted, num_groups, int(seed)) for seed in seeds]
        labels, prices, _ = min(fits, key=lambda fit: fit[2])
        if len(fitted) == len(points):
            return labels
        return _assign_all(points, _means(fitted, labels, num_groups), prices)


def _fit(points: FloatArray, num_groups: int, seed: int) -> tuple[LabelArray, FloatArray, float]:
    """Lloyd's rounds from one set of centres: labels, prices, mean squared distance."""
    centres, _ = kmeans_plusplus(points, num_groups, random_state=seed)
    labels, prices = np.zeros(len(points), np.int32), np.zeros(num_groups)
    before = np.inf
    for round_ in range(_ROUNDS):
        rough = round_ < _ROUGH_ROUNDS
        costs = _distances(points, centres)
        sizes = raise_prices(costs, prices, labels, 3 if rough and round_ else _PRICE_ROUNDS)
        if not rough:
            balance_exactly(costs, labels, sizes)
        spread = float(costs[np.arange(len(points)), labels].mean())
        if not rough and before - spread <= _TOLERANCE * spread:
            break
        before = spread
        centres = _means(points, labels, num_groups)
    return labels, prices, spread


def _assign_all(points: FloatArray, centres: FloatArray, prices: FloatArray) -> LabelArray:
    costs = _distances(points, centres)
    labels = np.zeros(len(points), np.int32)
    sizes = raise_prices(costs, prices.copy(), labels, _PRICE_ROUNDS)
    fill_up(costs, labels, sizes)
    return labels


def _distances(points: FloatArray, centres: FloatArray) -> FloatArray:
    """Squared distances [N, K]."""
    inner = points @ centres.T
    lengths = np.einsum("id,id->i", points, points)
    return np.asarray(lengths[:, None] - 2 * inner + np.einsum("kd,kd->k", centres, centres))


def _means(points: FloatArray, labels: LabelArray, num_groups: int) -> FloatArray:
    members = np.eye(num_groups)[labels]
    sizes = np.maximum(members.sum(axis=0), 1)
    return np.asarray(members.T @ points / sizes[:, None])
