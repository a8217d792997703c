"""Points to groups of equal size at the least total cost: a transport problem with few groups.

With a price on every group, each point at its cheapest group (cost + price) is an optimal transport
for the sizes it leads to. Prices are first raised where a group is too large; what imbalance is
left is then mended along shortest paths between groups, where moving from a to b costs the
cheapest point of a. Each path keeps the answer optimal, so the end is exact (successive shortest
paths; Ahuja, Magnanti and Orlin 1993, section 9.7, on the graph of groups).
"""

from __future__ import annotations

import numpy as np
from numba import njit

from ulcmod_dist.passes.standardised import FloatArray, LabelArray

# Share of points out of place at which prices stop moving: a round costs as much as a few paths.
_ENOUGH = 0.002


@njit(cache=True, nogil=True)
def cheapest(costs, prices, labels):  # type: ignore[no-untyped-def]
    """Each point to the group of least cost + price; hands back the group sizes.

    Args:
        costs: Cost of each point in each group [N, K].
        prices: Price of each group [K].
        labels: Group of each point [N]; written.
    """
    points, groups = costs.shape
    sizes = np.zeros(groups, np.int64)
    for i in range(points):
        best, best_cost = 0, np.inf
        for k in range(groups):
            cost = costs[i, k] + prices[k]
            if cost < best_cost:
                best, best_cost = k, cost
        labels[i] = best
        sizes[best] += 1
    return sizes


@njit(cache=True, nogil=True)
def raise_prices(costs, prices, labels, rounds):  # type: ignore[no-untyped-def]
    """Move prices, in place, until the cheapest groups are nearly equal in size.

    Args:
        costs: Cost of each point in each group [N, K].
        prices: Price of each group [K]; changed.
        labels: Group of each point [N]; written.
        rounds: Rounds at most.

    Returns:
        The group sizes.
    """
    points, groups = costs.shape
    target = points / groups
    step = np.full(groups, costs.mean() / groups)
    before = np.zeros(groups)
    sizes = cheapest(costs, prices, labels)
    for _ in range(rounds):
        excess = sizes - target
        if np.abs(excess).sum() <= 2 * _ENOUGH * points:
            break
        for k in range(groups):
            # A price that overshot moves by less from then on.
            step[k] *= 0.5 if excess[k] * before[k] < 0 else 1.1
            prices[k] += step[k] * max(-1.0, min(1.0, excess[k] / target))
        before = excess
        sizes = cheapest(costs, prices, labels)
    return sizes


@njit(cache=True, nogil=True)
def balance_exactly(costs, labels, sizes):  # type: ignore[no-untyped-def]
    """Mend group sizes to floor(N/K) or ceil(N/K) along shortest paths, in place.

    Args:
        costs: Cost of each point in each group [N, K].
        labels: Group of each point [N], an optimal transport for ``sizes``; changed.
        sizes: Points in each group [K]; changed.
    """
    points, groups = costs.shape
    least = points // groups
    most = least + (1 if points % groups else 0)
    edges = np.full((groups, groups), np.inf)
    movers = np.zeros((groups, groups), np.int64)
    stale = np.ones(groups, np.bool_)
    while True:
        _refresh_edges(costs, labels, stale, edges, movers)
        if sizes.max() > most:
            givers, takers, needed = sizes > most, sizes < most, True
        elif sizes.min() < least:
            givers, takers, needed = sizes > least, sizes < least, True
        else:
            # Which groups are the larger ones is part of the optimum.
            givers, takers, needed = sizes > least, sizes < most, False
        end, length, parents = _shortest(edges, givers, takers)
        if end < 0 or (not needed and length > -1e-12):
            return
        stale[:] = False
        stale[end] = True
        sizes[end] += 1
        while parents[end] >= 0:
            labels[movers[parents[end], end]] = end
            end = parents[end]
            stale[end] = True
        sizes[end] -= 1


@njit(cache=True, nogil=True)
def _refresh_edges(costs, labels, stale, edges, movers):  # type: ignore[no-untyped-def]
    groups = edges.shape[0]
    for a in range(groups):
        if stale[a]:
            edges[a] = np.inf
    for i in range(labels.size):
        a = labels[i]
        if stale[a]:
            for b in range(groups):
                change = costs[i, b] - costs[i, a]
                if b != a and change < edges[a, b]:
                    edges[a, b] = change
                    movers[a, b] = i


@njit(cache=True, nogil=True)
def _shortest(edges, givers, takers):  # type: ignore[no-untyped-def]
    """Cheapest path from any giver to any taker (Bellman and Ford): end, length, parents."""
    groups = edges.shape[0]
    lengths = np.where(givers, 0.0, np.inf)
    parents = np.full(groups, -1)
    for _ in range(groups):
        changed = False
        for a in range(groups):
            for b in range(groups):
                # Rounding must not close a loop of edges that sum to nothing.
                if lengths[a] + edges[a, b] < lengths[b] - 1e-12:
                    lengths[b] = lengths[a] + edges[a, b]
                    parents[b] = a
                    changed = True
        if not changed:
            break
    end = -1
    for b in range(groups):
        if takers[b] and parents[b] >= 0 and (end < 0 or lengths[b] < lengths[end]):
            end = b
    return end, lengths[end], parents


def fill_up(costs: FloatArray, labels: LabelArray, sizes: LabelArray) -> None:
    """Mend group sizes to floor(N/K) or ceil(N/K) by cheapest single moves, in place.

    Not exact, but of one sort a group: for so many points that `balance_exactly` takes too long and
    the imbalance left by `raise_prices` is a small share.

    Args:
        costs: Cost of each point in each group [N, K].
        labels: Group of each point [N]; changed.
        sizes: Points in each group [K]; changed.
    """
    points, groups = costs.shape
    least, larger = divmod(points, groups)
    goals = np.full(groups, least)
    goals[np.argsort(-sizes, kind="stable")[:larger]] += 1
    for giver in np.flatnonzero(sizes > goals):
        members = np.flatnonzero(labels == giver)
        takers = np.flatnonzero(sizes < goals)
        changes = costs[members][:, takers] - costs[members, giver][:, None]
        for place in np.argsort(changes, axis=None, kind="stable"):
            if sizes[giver] == goals[giver]:
                break
            member, taker = members[place // len(takers)], takers[place % len(takers)]
            if labels[member] == giver and sizes[taker] < goals[taker]:
                labels[member] = taker
                sizes[giver] -= 1
                sizes[taker] += 1
