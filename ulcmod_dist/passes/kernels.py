"""Block kernels: what one pass does with one block of raw activations in memory.

Pure functions of arrays, called by `map_reduce`: each returns a summand for the block's samples
[samples, modules] and one for its units [modules, units], or None. Sums are float64 for a block of
any precision. Their arguments:

    block                       raw activations [samples, units]
    sample_labels, unit_labels  module of each sample or unit in each search [searches, items]
    before, after               such labels, earlier and later
    weights                     weight of each unit, 1 / std [units]
    num_modules                 modules of all searches together

Searches share a pass: each search's modules are numbered after those of the one before, so that one
table holds the modules of all.
"""

import numpy as np
from numba import njit

from ulcmod_dist.passes.standardised import AnyArray, FloatArray, LabelArray

# A piece of a block stays in the L2 cache while every search adds it up: rows, columns.
_PIECE_ROWS = 128
_PIECE_COLUMNS = 1024
# Rows that are summed side by side: one visit to the sums of a module for all of them. Measured, 8
# are 11% faster than 4 and 16 are 40% slower.
_LANES = 8
# Rows that are added to each other before they reach the sums.
_TOGETHER = 4


def unit_sums(
    block: AnyArray, sample_labels: LabelArray, *, num_modules: int
) -> tuple[None, FloatArray]:
    """Sums over the samples of each module."""
    unused = np.empty((0, block.shape[1]), np.int32)
    return None, _sum_pieces(block, sample_labels, unused, np.empty(0), num_modules)[1]


def sample_sums(
    block: AnyArray, unit_labels: LabelArray, weights: FloatArray, *, num_modules: int
) -> tuple[FloatArray, None]:
    """Weighted sums over the units of each module."""
    unused = np.empty((0, block.shape[0]), np.int32)
    return _sum_pieces(block, unused, unit_labels, weights, num_modules)[0], None


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
    before: LabelArray,
    after: LabelArray,
    weights: FloatArray,
    *,
    num_modules: int,
) -> tuple[FloatArray, None]:
    """Change of `sample_sums` when units move; reads only the columns of those that moved."""
    block, changes = _summable(block), np.zeros((block.shape[0], num_modules))
    lanes = np.zeros((num_modules, _LANES))
    for old, new in zip(before, after, strict=True):
        moved = np.flatnonzero(old != new)
        if moved.size:
            pair = old[moved], new[moved]
            bounds = int(np.min(pair)), int(np.max(pair)) + 1
            _add_sample_changes(block, moved, *pair, weights[moved], *bounds, changes, lanes)
    return changes, None


def unit_changes(
    block: AnyArray, before: LabelArray, after: LabelArray, *, num_modules: int
) -> tuple[None, FloatArray]:
    """Change of `unit_sums` when samples move; reads only the rows of those that moved."""
    changes = np.zeros((num_modules, block.shape[1]))
    _add_unit_changes(_summable(block), before, after, changes)
    return None, changes


def select_entries(
    block: AnyArray,
    sample_places: LabelArray,
    unit_places: LabelArray,
    mean: FloatArray,
    std: FloatArray,
    *,
    num_units: int,
) -> tuple[AnyArray, None]:
    """The z of some samples and units [selected samples, ``num_units``], 0 elsewhere.

    In the precision of the block, but at least float32. Places are those among the selected samples
    or units, ascending, and -1 for the others.
    """
    rows, columns = np.flatnonzero(sample_places >= 0), np.flatnonzero(unit_places >= 0)
    selected = np.zeros((len(rows), num_units), np.result_type(block.dtype, np.float32))
    z = (block[np.ix_(rows, columns)] - mean[columns]) / std[columns]
    selected[:, unit_places[columns]] = z
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
    pieces = np.arange(block.shape[0]) // _PIECE_ROWS
    order = np.argsort(pieces * num_modules + sample_labels, axis=1, kind="stable")
    bounds = np.stack([unit_labels.min(axis=1), unit_labels.max(axis=1) + 1]).astype(np.int64)
    lanes = np.zeros((len(by_sample) and num_modules, _LANES))
    _add_sums(_summable(block), sample_labels, order, unit_labels, bounds, weights, *sums, lanes)
    return sums


def _summable(block: AnyArray) -> AnyArray:
    # numba has no float16 on CPUs and no foreign byte order; both conversions are exact. Other
    # layouts than C order would each compile a kernel of their own.
    dtype = np.float32 if block.dtype.itemsize == 2 else block.dtype.newbyteorder("=")
    return np.ascontiguousarray(block, dtype)


@njit(cache=True, nogil=True)
def _add_sums(  # type: ignore[no-untyped-def]
    block, sample_labels, order, unit_labels, bounds, weights, by_sample, by_unit, lanes
):
    rows, columns = block.shape
    for s in range(0, rows, _PIECE_ROWS):
        for u in range(0, columns, _PIECE_COLUMNS):
            t, v = min(rows, s + _PIECE_ROWS), min(columns, u + _PIECE_COLUMNS)
            _add_sample_piece(block, s, t, u, v, unit_labels, bounds, weights, by_sample, lanes)
            _add_unit_piece(block, s, t, u, v, sample_labels, order, by_unit)


@njit(cache=True, nogil=True)
def _add_unit_piece(block, s, t, u, v, labels, order, sums):  # type: ignore[no-untyped-def]
    for search in range(labels.shape[0]):
        i = s
        while i < t:
            a = order[search, i]
            k = labels[search, a]
            if i + 3 < t and labels[search, order[search, i + 3]] == k:
                b, c, d = order[search, i + 1], order[search, i + 2], order[search, i + 3]
                for column in range(u, v):
                    first = np.float64(block[a, column]) + np.float64(block[b, column])
                    second = np.float64(block[c, column]) + np.float64(block[d, column])
                    sums[k, column] += first + second
                i += _TOGETHER
            else:
                for column in range(u, v):
                    sums[k, column] += block[a, column]
                i += 1


@njit(cache=True, nogil=True)
def _add_sample_piece(  # type: ignore[no-untyped-def]
    block, s, t, u, v, labels, bounds, weights, sums, lanes
):
    for search in range(labels.shape[0]):
        # Each search has modules of its own among those of all.
        first, last = bounds[0, search], bounds[1, search]
        for row in range(s, t, _LANES):
            if row + _LANES <= t:
                for k in range(first, last):
                    for i in range(_LANES):
                        lanes[k, i] = 0.0
                for column in range(u, v):
                    k = labels[search, column]
                    for i in range(_LANES):
                        lanes[k, i] += block[row + i, column] * weights[column]
                for k in range(first, last):
                    for i in range(_LANES):
                        sums[row + i, k] += lanes[k, i]
            else:
                for single in range(row, t):
                    for column in range(u, v):
                        k = labels[search, column]
                        sums[single, k] += block[single, column] * weights[column]


@njit(cache=True, nogil=True)
def _add_sample_changes(  # type: ignore[no-untyped-def]
    block, moved, before, after, weights, first, last, changes, lanes
):
    whole = block.shape[0] - block.shape[0] % _LANES
    for row in range(0, whole, _LANES):
        for k in range(first, last):
            for i in range(_LANES):
                lanes[k, i] = 0.0
        for j in range(moved.size):
            for i in range(_LANES):
                value = block[row + i, moved[j]] * weights[j]
                lanes[before[j], i] -= value
                lanes[after[j], i] += value
        for k in range(first, last):
            for i in range(_LANES):
                changes[row + i, k] += lanes[k, i]
    for row in range(whole, block.shape[0]):
        for j in range(moved.size):
            value = block[row, moved[j]] * weights[j]
            changes[row, before[j]] -= value
            changes[row, after[j]] += value


@njit(cache=True, nogil=True)
def _add_unit_changes(block, before, after, changes):  # type: ignore[no-untyped-def]
    for search in range(before.shape[0]):
        for row in range(block.shape[0]):
            old, new = before[search, row], after[search, row]
            if old != new:
                for column in range(block.shape[1]):
                    changes[old, column] -= block[row, column]
                for column in range(block.shape[1]):
                    changes[new, column] += block[row, column]
