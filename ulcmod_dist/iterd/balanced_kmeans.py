"""Balanced k-means: groups of equal size around their means.

Assigning points to given centres under equal sizes is a transport problem with few groups. With a
price on every group, each point at its cheapest group (cost + price) is an optimal transport for
the sizes it leads to. Prices are first moved until sizes are nearly equal; the remaining imbalance
is repaired along shortest paths between groups, where moving from a to b costs the cheapest point
of a. Each path keeps the answer optimal, so the end is exact (successive shortest paths; Ahuja,
Magnanti and Orlin 1993, section 9.7, on the graph of groups).

Own code in place of k-means-constrained, which solves the same problem as a min-cost flow over all
points: a start of 7,000 samples at K = 20 takes 50 s with it and 2 s here (docs/benchmarks.md).
"""

from concurrent.futures import ThreadPoolExecutor
from itertools import repeat

import numpy as np
from dask.system import CPU_COUNT
from numba import njit
from sklearn.cluster import kmeans_plusplus

from ulcmod_dist.passes.standardised import FloatArray, LabelArray

# Sets of initial centres that are tried; the smallest mean squared distance wins.
INITIALISATIONS = 10
# Groups are fitted on this many points; beyond it, the others are only assigned.
_FITTED = 20_000
# Fits of so few points lose more by waiting for the interpreter's lock than threads gain, and by
# starting a thread, whose memory is new to it.
_FITTED_ALONE = 5_000
_ROUNDS = 100
# Rounds with nearly equal groups, which cost little, before those with exactly equal ones.
_ROUGH_ROUNDS = 30
_PRICE_ROUNDS = 60
# Distances that change by less than this share end the fit.
_TOLERANCE = 1e-5
# Share of points out of place at which prices stop moving: a round costs as much as a few paths.
_MAX_IMBALANCE = 0.002
# Points whose groups are compared together, in the L1 cache.
_PART = 1024


def balanced_kmeans(
    points: FloatArray,
    num_groups: int,
    rng: np.random.Generator,
    initialisations: int = INITIALISATIONS,
) -> LabelArray:
    """Groups of points [N, dimensions], of floor(N/K) or ceil(N/K) each, around their means.

    Up to 20,000 points the assignment to given centres is the best possible one; beyond that,
    centres are fitted on a random part and the points assigned under the same limits on size.
    """
    if num_groups == 1:
        return np.zeros(len(points), np.int32)
    fitted = points
    if len(points) > max(_FITTED, 2 * num_groups):
        fitted = points[np.sort(rng.permutation(len(points))[: max(_FITTED, 2 * num_groups)])]
    seeds = rng.integers(2**31, size=initialisations)
    labels, prices = _find_best_fit(fitted, num_groups, seeds)
    if len(fitted) == len(points):
        return labels
    costs = np.empty((num_groups, len(points)))
    centres = _group_means(_extend_points(fitted), labels, num_groups)
    _write_distances(_extend_points(points), centres, costs)
    labels = np.zeros(len(points), np.int32)
    balance_greedily(costs, labels, adjust_prices(costs, prices.copy(), labels, _PRICE_ROUNDS))
    return labels


def _find_best_fit(
    points: FloatArray, num_groups: int, seeds: LabelArray
) -> tuple[LabelArray, FloatArray]:
    """Labels and prices of the fit with the smallest mean squared distance, the first of equals."""
    arguments = repeat(points), repeat(num_groups), seeds.tolist()
    if len(points) <= _FITTED_ALONE:
        return min(map(_fit, *arguments), key=lambda fit: fit[2])[:2]
    with ThreadPoolExecutor(CPU_COUNT, "fit") as pool:
        return min(pool.map(_fit, *arguments), key=lambda fit: fit[2])[:2]


def _fit(points: FloatArray, num_groups: int, seed: int) -> tuple[LabelArray, FloatArray, float]:
    """Lloyd's algorithm from one set of centres: labels, prices, mean squared distance."""
    centres, _ = kmeans_plusplus(points, num_groups, random_state=seed)
    extended = _extend_points(points)
    labels, prices = np.zeros(len(points), np.int32), np.zeros(num_groups)
    costs, each = np.empty((num_groups, len(points))), np.arange(len(points))
    spread = np.inf
    for round_ in range(_ROUNDS):
        rough = round_ < _ROUGH_ROUNDS
        _write_distances(extended, centres, costs)
        sizes = adjust_prices(costs, prices, labels, 3 if rough and round_ else _PRICE_ROUNDS)
        if not rough:
            balance_exactly(costs, labels, sizes)
        if round_ >= _ROUGH_ROUNDS - 1:
            before, spread = spread, float(costs[labels, each].mean())
        if not rough and before - spread <= _TOLERANCE * spread:
            break
        centres = _group_means(extended, labels, num_groups)
    return labels, prices, spread


def _extend_points(points: FloatArray) -> FloatArray:
    """Points with their squared length and a one: [N, dimensions + 2]."""
    return np.column_stack([points, _squared_lengths(points), np.ones(len(points))])


def _write_distances(extended: FloatArray, centres: FloatArray, costs: FloatArray) -> None:
    """Write squared distances [K, N] of points, by `_extend_points`, as one product to ``costs``.

    |x - c|^2 = -2 c x + 1 |x|^2 + |c|^2 1.
    """
    factors = np.column_stack([-2 * centres, np.ones(len(centres)), _squared_lengths(centres)])
    np.matmul(factors, extended.T, out=costs)


def _squared_lengths(points: FloatArray) -> FloatArray:
    return np.asarray(np.einsum("id,id->i", points, points))


def _group_means(extended: FloatArray, labels: LabelArray, num_groups: int) -> FloatArray:
    sums = np.zeros((num_groups, extended.shape[1]))
    _add_points(extended, labels, sums)
    return sums[:, :-2] / np.maximum(sums[:, -1:], 1)


def adjust_prices(
    costs: FloatArray, prices: FloatArray, labels: LabelArray, rounds: int
) -> LabelArray:
    """Move prices, in place, until the cheapest groups, written to ``labels``, are nearly equal.

    ``costs`` are [K, N], of each point in each group. Returns the group sizes.
    """
    groups = len(prices)
    sizes, before, least = np.empty(groups, np.int64), np.zeros(groups), np.empty(_PART)
    step = np.full(groups, costs.mean() / groups)
    _adjust_prices(costs, prices, labels, rounds, sizes, step, before, least)
    return sizes


def balance_exactly(costs: FloatArray, labels: LabelArray, sizes: LabelArray) -> None:
    """Balance group sizes to floor(N/K) or ceil(N/K) along shortest paths, in place.

    ``labels`` is the optimal assignment for ``sizes``, by the costs [K, N] of each point.
    """
    groups, points = costs.shape
    least = points // groups
    most = least + (1 if points % groups else 0)
    by_point = np.ascontiguousarray(costs.T)
    edges, movers = np.full((groups, groups), np.inf), np.zeros((groups, groups), np.int64)
    lengths, parents = np.empty(groups), np.empty(groups, int)
    for group in range(groups):
        _refresh_edges(by_point, labels, group, edges, movers)
    while True:
        largest, smallest = sizes.max(), sizes.min()
        # Once sizes fit, which groups are the larger ones is optimised as well.
        is_needed = largest > most or smallest < least
        above = most if largest > most else least
        below = most if largest > most or smallest >= least else least
        end, length = _shortest(edges, sizes, above, below, lengths, parents)
        if end < 0 or (not is_needed and length > -1e-12):
            return
        sizes[end] += 1
        steps = []
        while parents[end] >= 0:
            steps.append((movers[parents[end], end], parents[end], end))
            end = parents[end]
        sizes[end] -= 1
        for point, _, taker in steps:
            labels[point] = taker
        for step in steps:
            _update_edges(by_point, labels, *step, edges, movers)


# numba compiles loops over numbers in a fraction of the seconds that functions of arrays take.
@njit(cache=True, nogil=True)
def _add_points(points, labels, sums):  # type: ignore[no-untyped-def]
    for i in range(labels.size):
        row, total = points[i], sums[labels[i]]
        for d in range(row.size):
            total[d] += row[d]


@njit(cache=True, nogil=True)
def _adjust_prices(costs, prices, labels, rounds, sizes, step, before, least):  # type: ignore[no-untyped-def]
    groups, points = costs.shape
    target = points / groups
    for left in range(rounds, -1, -1):
        for k in range(groups):
            sizes[k] = 0
        for first in range(0, points, least.size):
            part = labels[first : first + least.size]
            for i in range(part.size):
                least[i], part[i] = np.inf, 0
            # Two groups at once, the last again where they are odd. A single one would be written
            # only where it is cheaper, by masked stores, which take some processors twice as long.
            for k in range(0, groups, 2):
                other = k + 1 if k + 1 < groups else k
                row, price, number = costs[k, first : first + least.size], prices[k], np.int32(k)
                other_row, other_price = costs[other, first : first + least.size], prices[other]
                other_number = np.int32(other)
                for i in range(part.size):
                    lowest, group = least[i], part[i]
                    cost, other_cost = row[i] + price, other_row[i] + other_price
                    group = number if cost < lowest else group
                    lowest = cost if cost < lowest else lowest
                    group = other_number if other_cost < lowest else group
                    lowest = other_cost if other_cost < lowest else lowest
                    least[i], part[i] = lowest, group
            for i in range(part.size):
                sizes[part[i]] += 1
        imbalance = 0.0
        for k in range(groups):
            imbalance += abs(sizes[k] - target)
        if not left or imbalance <= 2 * _MAX_IMBALANCE * points:
            return
        for k in range(groups):
            excess = (sizes[k] - target) / target
            # A price that overshot moves by less from then on.
            step[k] *= 0.5 if excess * before[k] < 0 else 1.1
            prices[k] += step[k] * (excess if excess < 1.0 else 1.0)
            before[k] = excess


@njit(cache=True, nogil=True)
def _refresh_edges(costs, labels, a, edges, movers):  # type: ignore[no-untyped-def]
    groups = edges.shape[0]
    for b in range(groups):
        edges[a, b] = np.inf
    for i in range(labels.size):
        if labels[i] == a:
            for b in range(groups):
                change = costs[i, b] - costs[i, a]
                if b != a and change < edges[a, b]:
                    edges[a, b] = change
                    movers[a, b] = i


# Where nothing groups the points, a fit takes dozens of rounds, and paths take most of their time.
@njit(cache=True, nogil=True)
def _update_edges(costs, labels, point, giver, taker, edges, movers):  # type: ignore[no-untyped-def]
    """Write the edges that change when a point is moved, as `_refresh_edges` would."""
    for b in range(edges.shape[0]):
        change = costs[point, b] - costs[point, taker]
        is_first = change == edges[taker, b] and point < movers[taker, b]
        if b != taker and (change < edges[taker, b] or is_first):
            edges[taker, b] = change
            movers[taker, b] = point
        if b != giver and movers[giver, b] == point:
            edges[giver, b] = np.inf
            for i in range(labels.size):
                if labels[i] == giver and costs[i, b] - costs[i, giver] < edges[giver, b]:
                    edges[giver, b] = costs[i, b] - costs[i, giver]
                    movers[giver, b] = i


@njit(cache=True, nogil=True)
def _shortest(edges, sizes, above, below, lengths, parents):  # type: ignore[no-untyped-def]
    """Cheapest path from a group of more than ``above`` to one of fewer than ``below`` points.

    By Bellman and Ford. Returns its end (-1 without a path) and length; ``parents`` hold the way.
    """
    groups = edges.shape[0]
    for k in range(groups):
        lengths[k] = 0.0 if sizes[k] > above else np.inf
        parents[k] = -1
    for _ in range(groups):
        changed = False
        for a in range(groups):
            for b in range(groups):
                # Without a margin, rounding would close cycles whose edges sum to zero.
                if lengths[a] + edges[a, b] < lengths[b] - 1e-12:
                    lengths[b] = lengths[a] + edges[a, b]
                    parents[b] = a
                    changed = True
        if not changed:
            break
    end = -1
    for b in range(groups):
        if sizes[b] < below and parents[b] >= 0 and (end < 0 or lengths[b] < lengths[end]):
            end = b
    return end, lengths[end]


def balance_greedily(costs: FloatArray, labels: LabelArray, sizes: LabelArray) -> None:
    """Balance group sizes to floor(N/K) or ceil(N/K) by cheapest single moves, in place.

    Not optimal, but a single sort for each group: for numbers of points at which `balance_exactly`
    takes too long and the imbalance left by `adjust_prices` is a small share.
    """
    groups, points = costs.shape
    least, larger = divmod(points, groups)
    goals = np.full(groups, least)
    goals[np.argsort(-sizes, kind="stable")[:larger]] += 1
    for giver in np.flatnonzero(sizes > goals):
        members = np.flatnonzero(labels == giver)
        takers = np.flatnonzero(sizes < goals)
        changes = costs[takers][:, members].T - costs[giver, members][:, None]
        for place in np.argsort(changes, axis=None, kind="stable"):
            if sizes[giver] == goals[giver]:
                break
            member, taker = members[place // len(takers)], takers[place % len(takers)]
            if labels[member] == giver and sizes[taker] < goals[taker]:
                labels[member] = taker
                sizes[giver] -= 1
                sizes[taker] += 1
