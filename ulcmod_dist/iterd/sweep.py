"""One sweep of IterD: every unit, or every sample, once in a given order to its best module."""

import numpy as np
from numba import njit

from ulcmod_dist.iterd.objective import EPSILON
from ulcmod_dist.passes.standardised import FloatArray, LabelArray

# A move must raise L by more than this: L grows as N*M/K^2, and at L = 5e10 rounding exceeds an
# absolute threshold of 1e-8 and would move labels for ever.
_THRESHOLD = 1e-8
_RELATIVE_THRESHOLD = 64 * 2.0**-52
# An item is looked at closely only if it may gain: what it gains is estimated without a division,
# with an error far below this share of the sum inside and of its own entry.
_SLACK = 1e-12
# Rows of a table whose margins are computed at a time, so that temporaries stay small.
_PART = 2**14


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


def sweep_part(
    table: FloatArray,
    labels: LabelArray,
    order: LabelArray,
    sizes: LabelArray,
    other_sizes: LabelArray,
    inside: float,
) -> tuple[int, float]:
    """Sweep some of the items, with the totals carried from part to part.

    ``table`` and ``labels`` hold these items alone, and ``order`` their rows. ``sizes`` [K] of the
    modules and ``inside``, the sum of z inside them, count over all parts. Labels and sizes change
    in place. Returns how many items moved, and the sum inside after them.
    """
    widths, modules = other_sizes.astype(np.float64), len(sizes)
    inverses = 1.0 / ((sizes + np.array([[-1], [0], [1]])) * widths + EPSILON)
    room = np.empty(modules), np.empty((modules, modules)), np.full((2, modules), -1)
    moved, inside = _sweep_items(table, labels, order, sizes, widths, inside, inverses, *room)
    return int(moved), float(inside)


def margins(
    table: FloatArray, labels: LabelArray, sizes: LabelArray, other_sizes: LabelArray
) -> FloatArray:
    """L lost by moving each item to the best other module, all else unchanged, float64 [items].

    All of L for the last item of a module, which may not leave it; NaN where there is no other
    module. The table is T_u [units, K] or T_s [samples, K].
    """
    modules = len(sizes)
    if modules == 1:
        return np.full(len(labels), np.nan)
    less, now, more = (1.0 / ((sizes + n) * other_sizes + EPSILON) for n in (-1, 0, 1))
    area, inverse = float(sizes @ other_sizes), float(now.sum())
    inside = float(np.sum(table[np.arange(len(labels)), labels]))
    value = inside / (area + EPSILON) * modules / inverse
    result = np.empty(len(labels))
    for first in range(0, len(labels), _PART):
        homes = labels[first : first + _PART]
        rows, part = np.arange(len(homes)), table[first : first + _PART]
        sums = (inside - part[rows, homes])[:, None] + part
        areas = (area - other_sizes[homes])[:, None] + other_sizes + EPSILON
        totals = (inverse - now[homes] + less[homes])[:, None] - now + more
        values = sums / areas * modules / totals
        values[rows, homes] = -np.inf
        result[first : first + _PART] = np.where(sizes[homes] == 1, 0.0, values.max(axis=1))
    return value - result


# Division by zero cannot occur, and checking for it would keep the loop over K from using SIMD.
@njit(cache=True, nogil=True, error_model="numpy")
def _sweep_items(  # type: ignore[no-untyped-def]
    table, labels, order, sizes, widths, inside, inverses, values, bounds, visited
):
    modules = sizes.size
    less, now, more = inverses[0], inverses[1], inverses[2]
    moved, last = 0, -1
    area, inverse, value, threshold = 0.0, 0.0, 0.0, 0.0
    for item in order:
        if moved != last:
            # Built anew after each accepted move, so that rounding does not accumulate.
            area, inverse, last = 0.0, 0.0, moved
            for k in range(modules):
                area += sizes[k] * widths[k]
                inverse += now[k]
            value = inside / (area + EPSILON) * modules / inverse
            threshold = max(_THRESHOLD, _RELATIVE_THRESHOLD * abs(value))
        home = 0 + labels[item]  # int64, as k is: one compilation of `_invert`
        if sizes[home] == 1:
            continue
        # Bounds hold until a move: they are worth computing from the second item of a module on.
        if visited[0, home] == moved:
            if visited[1, home] != moved:
                visited[1, home] = moved
                goal = value + threshold
                _bound_gains(bounds, home, widths, inverses, area, inverse, inside, goal)
            gaining, own = 0, table[item, home]
            own -= _SLACK * abs(own)
            for k in range(modules):
                gaining += table[item, k] - own > bounds[home, k]
            if not gaining:
                continue
        visited[0, home] = moved
        left_sum = inside - table[item, home]
        left_area = area - widths[home]
        left_inverse = inverse - now[home] + less[home]
        for k in range(modules):
            total = left_inverse - now[k] + more[k]
            mean = (left_sum + table[item, k]) / (left_area + widths[k] + EPSILON)
            values[k] = mean * modules / total
        best, best_value = home, value
        for k in range(modules):
            if k != home and values[k] > best_value + threshold:
                best, best_value = k, values[k]
        if best != home:
            inside = left_sum + table[item, best]
            labels[item] = best
            sizes[home] -= 1
            sizes[best] += 1
            moved += 1
            _invert(inverses, home, sizes[home], widths[home])
            _invert(inverses, best, sizes[best], widths[best])
    return moved, inside


# Inlined, as in `kernels`, since numba would compile each helper by itself.
@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _invert(inverses, k, size, width):  # type: ignore[no-untyped-def]
    """Write 1 / |S_k||U_k| for one item less, as many, and one more."""
    for change in range(3):
        inverses[change, k] = 1.0 / ((size + change - 1) * width + EPSILON)


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _bound_gains(bounds, home, widths, inverses, area, inverse, inside, goal):  # type: ignore[no-untyped-def]
    """Write how much larger than its own entry another has to be for L to exceed the goal."""
    less, now, more = inverses[0], inverses[1], inverses[2]
    left_area, left_inverse = area - widths[home], inverse - now[home] + less[home]
    scale, slack = goal / widths.size, inside + _SLACK * abs(inside)
    for k in range(widths.size):
        total = left_inverse - now[k] + more[k]
        bounds[home, k] = scale * total * (left_area + widths[k] + EPSILON) - slack
    bounds[home, home] = np.inf
