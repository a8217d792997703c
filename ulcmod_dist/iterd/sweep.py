"""One sweep of IterD: every unit, or every sample, once in a given order to its best module."""

import numpy as np
from numba import njit

from ulcmod_dist.iterd.objective import EPSILON
from ulcmod_dist.passes.standardised import FloatArray, LabelArray

# A move must raise L by more than this: L grows as N*M/K^2, and at L = 5e10 rounding exceeds an
# absolute threshold of 1e-8 and would move labels for ever.
_THRESHOLD = 1e-8
_RELATIVE_THRESHOLD = 64 * 2.0**-52


def sweep(
    table: FloatArray, labels: LabelArray, order: LabelArray, other_labels: LabelArray
) -> int:
    """Move each item to the module where L is highest, at once, in order; returns how many moved.

    The other modules are tried in ascending order; a candidate replaces the best so far only if it
    beats it by more than max(1e-8, 64 * 2^-52 * |L|). No move empties a module. A candidate costs
    O(1): with |S_k||U_k| of two modules changed, the numerator changes by two entries of the table
    and the sum of inverse sizes by two terms; that sum is built anew after each accepted move.

    ``labels`` [items] change in place. The table is T_u [units, K] to sweep units, T_s [samples, K]
    to sweep samples; ``other_labels`` are the modules of the other side.
    """
    modules = table.shape[1]
    sizes = np.bincount(labels, minlength=modules)
    other_sizes = np.bincount(other_labels, minlength=modules)
    inside = float(np.sum(table[np.arange(len(labels)), labels]))
    # numba compiles a kernel for each dtype; one dtype of orders, one compilation.
    order = np.asarray(order, np.int32)
    moved, _ = sweep_part(table, labels, order, sizes, other_sizes, inside)
    return int(moved)


@njit(cache=True, nogil=True)
def sweep_part(table, labels, order, sizes, other_sizes, inside):  # type: ignore[no-untyped-def]
    """Sweep some of the items, with the totals carried from part to part.

    ``table`` and ``labels`` hold these items alone, and ``order`` their rows. ``sizes`` [K] of the
    modules and ``inside``, the sum of z inside them, count over all parts. Labels and sizes change
    in place. Returns how many items moved, and the sum inside after them.
    """
    area, inverse = _totals(sizes, other_sizes)
    moved = 0
    for item in order:
        home = labels[item]
        if sizes[home] == 1:
            continue
        value = _value(inside, area, inverse, sizes.size)
        threshold = max(_THRESHOLD, _RELATIVE_THRESHOLD * abs(value))
        best, best_value = home, value
        left_sum = inside - table[item, home]
        left_area = area - other_sizes[home]
        left_inverse = _resized(inverse, sizes[home], -1, other_sizes[home])
        for k in range(sizes.size):
            if k != home:
                new_value = _value(
                    left_sum + table[item, k],
                    left_area + other_sizes[k],
                    _resized(left_inverse, sizes[k], 1, other_sizes[k]),
                    sizes.size,
                )
                if new_value > best_value + threshold:
                    best, best_value = k, new_value
        if best != home:
            inside = left_sum + table[item, best]
            labels[item] = best
            sizes[home] -= 1
            sizes[best] += 1
            moved += 1
            area, inverse = _totals(sizes, other_sizes)
    return moved, inside


@njit(cache=True, nogil=True)
def margins(table, labels, sizes, other_sizes):  # type: ignore[no-untyped-def]
    """L lost by moving each item to the best other module, all else unchanged, float64 [items].

    All of L for the last item of a module, which may not leave it; NaN where there is no other
    module. The table is T_u [units, K] or T_s [samples, K].
    """
    result = np.full(labels.size, np.nan)
    if sizes.size == 1:
        return result
    area, inverse = _totals(sizes, other_sizes)
    inside = 0.0
    for item in range(labels.size):
        inside += table[item, labels[item]]
    value = _value(inside, area, inverse, sizes.size)
    for item in range(labels.size):
        home = labels[item]
        best = 0.0 if sizes[home] == 1 else -np.inf
        left_inverse = _resized(inverse, sizes[home], -1, other_sizes[home])
        for k in range(sizes.size):
            if k != home and sizes[home] > 1:
                new_value = _value(
                    inside - table[item, home] + table[item, k],
                    area - other_sizes[home] + other_sizes[k],
                    _resized(left_inverse, sizes[k], 1, other_sizes[k]),
                    sizes.size,
                )
                best = max(best, new_value)
        result[item] = value - best
    return result


@njit(cache=True, nogil=True)
def _totals(sizes, other_sizes):  # type: ignore[no-untyped-def]
    area, inverse = 0, 0.0
    for k in range(sizes.size):
        area += sizes[k] * other_sizes[k]
        inverse += 1.0 / (sizes[k] * other_sizes[k] + EPSILON)
    return area, inverse


@njit(cache=True, nogil=True)
def _resized(inverse, size, change, other_size):  # type: ignore[no-untyped-def]
    before = 1.0 / (size * other_size + EPSILON)
    return inverse - before + 1.0 / ((size + change) * other_size + EPSILON)


@njit(cache=True, nogil=True)
def _value(inside, area, inverse, modules):  # type: ignore[no-untyped-def]
    return inside / (area + EPSILON) * modules / inverse
