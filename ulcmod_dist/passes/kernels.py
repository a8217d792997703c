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
    sums = np.zeros((num_modules, block.shape[1]))
    # Without labels of units, nothing is added up for samples.
    unused = np.empty((0, 0))
    _add_sums(_summable(block), sample_labels, sample_labels[:0], np.empty(0), unused, sums)
    return None, sums


def sample_sums(
    block: AnyArray, unit_labels: LabelArray, weights: FloatArray, *, num_modules: int
) -> tuple[FloatArray, None]:
    """Weighted sums over the units of each module."""
    sums = np.zeros((block.shape[0], num_modules))
    _add_sums(_summable(block), unit_labels[:0], unit_labels, weights, sums, np.empty((0, 0)))
    return sums, None


def both_sums(
    block: AnyArray,
    sample_labels: LabelArray,
    unit_labels: LabelArray,
    weights: FloatArray,
    *,
    num_modules: int,
) -> tuple[FloatArray, FloatArray]:
    """`sample_sums` and `unit_sums`, reading the block once."""
    by_sample = np.zeros((block.shape[0], num_modules))
    by_unit = np.zeros((num_modules, block.shape[1]))
    _add_sums(_summable(block), sample_labels, unit_labels, weights, by_sample, by_unit)
    return by_sample, by_unit


def sample_changes(
    block: AnyArray,
    before: LabelArray,
    after: LabelArray,
    weights: FloatArray,
    *,
    num_modules: int,
) -> tuple[FloatArray, None]:
    """Change of `sample_sums` when units move; reads only the columns of those that moved."""
    changes = np.zeros((block.shape[0], num_modules))
    _add_sample_changes(_summable(block), before, after, weights, changes)
    return changes, None


def unit_changes(
    block: AnyArray, before: LabelArray, after: LabelArray, *, num_modules: int
) -> tuple[None, FloatArray]:
    """Change of `unit_sums` when samples move; reads only the rows of those that moved."""
    changes = np.zeros((num_modules, block.shape[1]))
    _add_unit_changes(_summable(block), before, after, changes)
    return None, changes


def _summable(block: AnyArray) -> AnyArray:
    # numba has no float16 on CPUs and no foreign byte order; both conversions are exact. Other
    # layouts than C order would each compile a kernel of their own.
    dtype = np.float32 if block.dtype.itemsize == 2 else block.dtype.newbyteorder("=")
    return np.ascontiguousarray(block, dtype)


@njit(cache=True, nogil=True)
def _add_unit_piece(block, s, t, u, v, labels, sums):  # type: ignore[no-untyped-def]
    for search in range(labels.shape[0]):
        rows = s + np.argsort(labels[search, s:t], kind="mergesort")
        i = 0
        while i < rows.size:
            k = labels[search, rows[i]]
            if i + 3 < rows.size and labels[search, rows[i + 3]] == k:
                a, b, c, d = rows[i], rows[i + 1], rows[i + 2], rows[i + 3]
                for column in range(u, v):
                    first = np.float64(block[a, column]) + np.float64(block[b, column])
                    second = np.float64(block[c, column]) + np.float64(block[d, column])
                    sums[k, column] += first + second
                i += _TOGETHER
            else:
                for column in range(u, v):
                    sums[k, column] += block[rows[i], column]
                i += 1


@njit(cache=True, nogil=True)
def _add_sample_piece(block, s, t, u, v, labels, weights, sums, lanes):  # type: ignore[no-untyped-def]
    for search in range(labels.shape[0]):
        # Each search has modules of its own among those of all.
        first, last = labels[search, u:v].min(), labels[search, u:v].max() + 1
        for row in range(s, t, _LANES):
            if row + _LANES <= t:
                lanes[first:last] = 0.0
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
def _add_sums(block, sample_labels, unit_labels, weights, by_sample, by_unit):  # type: ignore[no-untyped-def]
    rows, columns = block.shape
    lanes = np.zeros((by_sample.shape[1], _LANES))
    for s in range(0, rows, _PIECE_ROWS):
        for u in range(0, columns, _PIECE_COLUMNS):
            t, v = min(rows, s + _PIECE_ROWS), min(columns, u + _PIECE_COLUMNS)
            _add_sample_piece(block, s, t, u, v, unit_labels, weights, by_sample, lanes)
            _add_unit_piece(block, s, t, u, v, sample_labels, by_unit)


@njit(cache=True, nogil=True)
def _add_sample_changes(block, before, after, weights, changes):  # type: ignore[no-untyped-def]
    lanes = np.zeros((changes.shape[1], _LANES))
    whole = block.shape[0] - block.shape[0] % _LANES
    for search in range(before.shape[0]):
        moved = np.flatnonzero(before[search] != after[search])
        if moved.size == 0:
            continue
        first = min(before[search].min(), after[search].min())
        last = max(before[search].max(), after[search].max()) + 1
        for row in range(0, whole, _LANES):
            lanes[first:last] = 0.0
            for column in moved:
                old, new, weight = before[search, column], after[search, column], weights[column]
                for i in range(_LANES):
                    value = block[row + i, column] * weight
                    lanes[old, i] -= value
                    lanes[new, i] += value
            for k in range(first, last):
                for i in range(_LANES):
                    changes[row + i, k] += lanes[k, i]
        for row in range(whole, block.shape[0]):
            for column in moved:
                value = block[row, column] * weights[column]
                changes[row, before[search, column]] -= value
                changes[row, after[search, column]] += value


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
