"""Block kernels: what one pass does with one block of raw activations in memory.

Pure functions of arrays, called by `map_reduce`: each returns a summand for the block's samples
[samples, modules] and one for its units [modules, units], or None. Sums are float64 for a block of
any precision. Their arguments:

    block                       raw activations [samples, units]
    sample_labels, unit_labels  module of each sample or unit in each search [searches, items]
    moved                       places in the block of samples or units, ascending
    before, after               labels of these alone, earlier and later [searches, moved]
    weights                     weight of each unit, 1 / std [units]
    num_modules                 modules of all searches together

Searches share a pass: each search's modules are numbered after those of the one before, so that one
table holds the modules of all.
"""

import numpy as np
from numba import njit

from ulcmod_dist.passes.lanes import LANES, add_lanes, allocate_lanes, move_lanes, turn_tile
from ulcmod_dist.passes.standardised import AnyArray, FloatArray, LabelArray

# A piece of a block stays in the L2 cache while every search adds it up: rows, columns.
_PIECE_ROWS = 128
_PIECE_COLUMNS = 1024
# Rows that are added to each other before they reach the sums.
_TOGETHER = 4
# In place of labels and weights that a kernel has no use for. Not to be written, as the others that
# it gets: numba would compile it once more.
_NO_LABELS, _NO_WEIGHTS = np.empty((0, 0), np.int32), np.empty(0)
_NO_LABELS.flags.writeable = _NO_WEIGHTS.flags.writeable = False


def unit_sums(
    block: AnyArray, sample_labels: LabelArray, *, num_modules: int
) -> tuple[None, FloatArray]:
    """Sums over the samples of each module."""
    return None, _sum_pieces(block, sample_labels, _NO_LABELS, _NO_WEIGHTS, num_modules)[1]


def sample_sums(
    block: AnyArray, unit_labels: LabelArray, weights: FloatArray, *, num_modules: int
) -> tuple[FloatArray, None]:
    """Weighted sums over the units of each module."""
    return _sum_pieces(block, _NO_LABELS, unit_labels, weights, num_modules)[0], None


def both_sums(
    block: AnyArray,
    sample_labels: LabelArray,
    unit_labels: LabelArray,
    weights: FloatArray,
    *,
    num_modules: int,
) -> tuple[FloatArray, FloatArray]:
    """`sample_sums` and `unit_sums`, reading the block once."""
    return _sum_pieces(block, sample_labels, unit_labels, weights, num_modules)


def sample_changes(
    block: AnyArray,
    moved: LabelArray,
    before: LabelArray,
    after: LabelArray,
    weights: FloatArray,
    *,
    num_modules: int,
) -> tuple[FloatArray, None]:
    """Change of `sample_sums` when units move; reads only their columns."""
    changes, lanes = np.zeros((block.shape[0], num_modules)), allocate_lanes(num_modules)
    # The searches in which a unit moves follow each other, so that it is read once for all.
    unit, search = np.nonzero((before != after).T)
    pair = before[search, unit], after[search, unit]
    _add_sample_changes(_summable(block), moved[unit], *pair, weights[unit], changes, lanes)
    return changes, None


def unit_changes(
    block: AnyArray, moved: LabelArray, before: LabelArray, after: LabelArray, *, num_modules: int
) -> tuple[None, FloatArray]:
    """Change of `unit_sums` when samples move; reads only their rows."""
    changes = np.zeros((num_modules, block.shape[1]))
    _add_unit_changes(_summable(block), moved, before, after, changes)
    return None, changes


def select_entries(
    block: AnyArray,
    rows: LabelArray,
    columns: LabelArray,
    numbers: LabelArray,
    mean: FloatArray,
    std: FloatArray,
    *,
    num_units: int,
) -> tuple[AnyArray, None]:
    """The z of some samples and units [selected samples, ``num_units``], 0 elsewhere.

    In the precision of the block, but at least float32. ``numbers`` are those of the block's
    selected columns among all ``num_units``, whose ``mean`` and ``std`` these are.
    """
    selected = np.zeros((len(rows), num_units), np.result_type(block.dtype, np.float32))
    selected[:, numbers] = (block[np.ix_(rows, columns)] - mean) / std
    return selected, None


def _sum_pieces(
    block: AnyArray,
    sample_labels: LabelArray,
    unit_labels: LabelArray,
    weights: FloatArray,
    num_modules: int,
) -> tuple[FloatArray, FloatArray]:
    """Sums for samples and for units; zero on a side whose other side has no labels."""
    by_sample = np.zeros((block.shape[0], num_modules) if len(unit_labels) else (0, 0))
    sums = by_sample, np.zeros((num_modules, block.shape[1]) if len(sample_labels) else (0, 0))
    # Sorting and extremes are NumPy's: compiling them takes numba seconds.
    pieces = np.arange(sample_labels.shape[1]) // _PIECE_ROWS
    order = np.argsort(pieces * num_modules + sample_labels, axis=1, kind="stable")
    lanes, tile = np.split(allocate_lanes(num_modules + LANES), [num_modules])
    sides = sample_labels, order, unit_labels, weights
    _add_sums(_summable(block), *sides, *sums, lanes, tile)
    return sums


def _summable(block: AnyArray) -> AnyArray:
    # numba has no float16 on CPUs and no foreign byte order; both conversions are exact. Other
    # layouts than C order would each compile a kernel of their own.
    dtype = np.float32 if block.dtype.itemsize == 2 else block.dtype.newbyteorder("=")
    return np.ascontiguousarray(block, dtype)


@njit(cache=True, nogil=True)
def _add_sums(  # type: ignore[no-untyped-def]
    block, sample_labels, order, unit_labels, weights, by_sample, by_unit, lanes, tile
):
    rows, columns = block.shape
    for s in range(0, rows, _PIECE_ROWS):
        for u in range(0, columns, _PIECE_COLUMNS):
            t, v = min(rows, s + _PIECE_ROWS), min(columns, u + _PIECE_COLUMNS)
            if unit_labels.shape[0]:
                _add_sample_piece(block, s, t, u, v, unit_labels, weights, by_sample, lanes, tile)
            _add_unit_piece(block, s, t, u, v, sample_labels, order, by_unit)


# Helpers are inlined: numba would compile, optimise and link each by itself, half a second in all.
#
# Slices from `u` to `v` are indexed from 0: numba supports negative numbers in arrays, and a loop
# from `u`, which might be negative, is not compiled to vectors.
@njit(cache=True, nogil=True, inline="always")
def _add_unit_piece(block, s, t, u, v, labels, order, sums):  # type: ignore[no-untyped-def]
    for search in range(labels.shape[0]):
        i = s
        while i < t:
            a = order[search, i]
            k = labels[search, a]
            total, first = sums[k, u:v], block[a, u:v]
            if i + 3 < t and labels[search, order[search, i + 3]] == k:
                second = block[order[search, i + 1], u:v]
                third = block[order[search, i + 2], u:v]
                fourth = block[order[search, i + 3], u:v]
                for j in range(v - u):
                    left = np.float64(first[j]) + np.float64(second[j])
                    total[j] += left + (np.float64(third[j]) + np.float64(fourth[j]))
                i += _TOGETHER
            else:
                for j in range(v - u):
                    total[j] += first[j]
                i += 1


@njit(cache=True, nogil=True, inline="always")
def _add_sample_piece(  # type: ignore[no-untyped-def]
    block, s, t, u, v, labels, weights, sums, lanes, tile
):
    whole_rows, whole_columns = t - (t - s) % LANES, v - (v - u) % LANES
    for row in range(s, whole_rows, LANES):
        _clear(lanes)
        for column in range(u, whole_columns, LANES):
            turn_tile(block, row, column, weights, tile)
            for search in range(labels.shape[0]):
                for j in range(LANES):
                    add_lanes(lanes, labels[search, column + j], tile, j)
        for column in range(whole_columns, v):
            for search in range(labels.shape[0]):
                for i in range(LANES):
                    lanes[labels[search, column], i] += block[row + i, column] * weights[column]
        for k in range(lanes.shape[0]):
            for i in range(LANES):
                sums[row + i, k] += lanes[k, i]
    for row in range(whole_rows, t):
        for search in range(labels.shape[0]):
            for column in range(u, v):
                sums[row, labels[search, column]] += block[row, column] * weights[column]


# A loop over numbers, which numba compiles sooner than an assignment to all.
@njit(cache=True, nogil=True, inline="always")
def _clear(lanes):  # type: ignore[no-untyped-def]
    for k in range(lanes.shape[0]):
        for i in range(lanes.shape[1]):
            lanes[k, i] = 0.0


@njit(cache=True, nogil=True)
def _add_sample_changes(  # type: ignore[no-untyped-def]
    block, moved, before, after, weights, changes, lanes
):
    whole = block.shape[0] - block.shape[0] % LANES
    for row in range(0, whole, LANES):
        _clear(lanes)
        for j in range(moved.size):
            move_lanes(block, row, moved[j], weights[j], lanes, before[j], after[j])
        for k in range(lanes.shape[0]):
            for i in range(LANES):
                changes[row + i, k] += lanes[k, i]
    for row in range(whole, block.shape[0]):
        for j in range(moved.size):
            value = block[row, moved[j]] * weights[j]
            changes[row, before[j]] -= value
            changes[row, after[j]] += value


@njit(cache=True, nogil=True)
def _add_unit_changes(block, moved, before, after, changes):  # type: ignore[no-untyped-def]
    for search in range(before.shape[0]):
        for i in range(moved.size):
            row, old, new = moved[i], before[search, i], after[search, i]
            if old != new:
                for column in range(block.shape[1]):
                    changes[old, column] -= block[row, column]
                for column in range(block.shape[1]):
                    changes[new, column] += block[row, column]
