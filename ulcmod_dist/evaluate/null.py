"""The null model: the objective that the same search finds where nothing can be found.

Each unit's column is permuted over the samples on its own. That keeps every unit's distribution
and all its statistics, and breaks whatever units had in common.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import dask.array as da
import numpy as np
from numba import njit

from ulcmod_dist.passes.executors import Executor
from ulcmod_dist.passes.lanes import LANES, transpose_tile
from ulcmod_dist.passes.shares import read_matrix
from ulcmod_dist.passes.standardised import Standardised
from ulcmod_dist.results.types import Objective
from ulcmod_dist.runtime.memory import release_freed_memory

NULL_TOLERANCE = 1e-3
"""Relative gain of an iteration at which a search of the null model ends: L rises by at most a
fraction of 2e-4 after it."""

_BLOCK_BYTES = 64 * 2**20
# Rows that are transposed together: their lines stay in the cache meanwhile.
_TILE_ROWS = 64
_HALF, _LOW = np.uint64(32), np.uint64(2**32 - 1)


SearchFunction = Callable[[Standardised, int], Mapping[int, Objective]]
"""Finds modules in activations with a seed and says how good they are, by K."""


def search_null_model(
    activations: Standardised,
    search: SearchFunction,
    permutations: int,
    seed: int,
    executor: Executor | None = None,
) -> dict[int, tuple[Objective, ...]]:
    """Objectives of each K that ``search(permuted, seed)`` finds; seeds count on from ``seed``.

    One search finds the modules for every K, so that all share each pass over a permuted matrix:
    permuting its columns takes longer than reading them. With an ``executor`` whose tasks run in
    this process, a Dask matrix is permuted in its memory. Permuted matrices in memory take each
    other's place: ``search`` keeps none.
    """
    raw, found = activations.raw, []
    is_lazy = isinstance(raw, da.Array) and executor is None
    # Clearing new pages for each permutation takes as long as a pass over them.
    out = None if is_lazy else np.empty(raw.shape, raw.dtype)
    for number in range(seed, seed + permutations):
        found.append(search(permute_columns(activations, number, executor, out), number))
        release_freed_memory()
    return {k: tuple(objectives[k] for objectives in found) for k in found[0]} if found else {}


def permute_columns(
    activations: Standardised, seed: int, executor: Executor | None = None, out: Any = None
) -> Standardised:
    """Activations with each unit's column permuted over the samples, independently.

    A column's order depends on the seed and the unit alone, never on chunks. A NumPy matrix is
    copied. A Dask matrix stays lazy: it comes in blocks of whole columns, made anew in each pass;
    to build one, the chunks above each other in that part of the matrix are held for a while. With
    an ``executor`` it is read once, into a NumPy matrix: the graph of a million samples in
    whole columns has a task for each chunk and column of blocks, and takes longer than the search.
    A matrix in memory is written to ``out``, if given.
    """
    raw = activations.raw
    if isinstance(raw, da.Array) and executor is None:
        result = _lazily(raw, seed)
    else:
        result = np.empty(raw.shape, raw.dtype) if out is None else out
        if isinstance(raw, da.Array):
            assert executor is not None
            read_matrix(raw, executor, result)
        else:
            result[:] = raw
        _permute_in_place(result, 0, seed, executor.workers if executor else 1)
    return Standardised(result, activations.mean, activations.std)


def permutation_bytes(activations: Standardised, workers: int, *, in_memory: bool) -> int:
    """Bytes that permuting holds beside the search of a lazy matrix, or with the matrix itself.

    Lazily, each task holds the chunks above each other. A NumPy matrix is copied.
    """
    raw = activations.raw
    column = raw.shape[0] * raw.dtype.itemsize
    if in_memory:
        # Each thread turns a stripe.
        return int(column * raw.shape[1] + workers * max(_BLOCK_BYTES, column))
    widest = max(raw.chunks[1]) if isinstance(raw, da.Array) else 0
    return int(workers * column * widest)


def _lazily(raw: Any, seed: int) -> Any:
    column_bytes = max(1, raw.shape[0] * raw.dtype.itemsize)
    most = max(1, _BLOCK_BYTES // column_bytes)
    # Within the chunks: a block that straddles two of them holds all samples of both.
    parts = (np.array_split(range(chunk), max(1, -(-chunk // most))) for chunk in raw.chunks[1])
    widths = tuple(len(part) for chunk in parts for part in chunk)
    columns = raw.rechunk({0: -1, 1: widths})
    return columns.map_blocks(_permute_block, seed=seed, dtype=raw.dtype, meta=raw._meta)


def _permute_block(block: Any, seed: int, block_info: Any = None) -> Any:
    result = np.array(block, order="C")
    _permute_in_place(result, block_info[0]["array-location"][1][0], seed)
    return result


def _permute_in_place(matrix: Any, first_unit: int, seed: int, workers: int = 1) -> None:
    """Permute the columns of a matrix in C order, whose first is that of a unit."""
    numbers = matrix.view(f"u{matrix.itemsize}")
    width = max(1, _BLOCK_BYTES // max(1, matrix.shape[0] * matrix.itemsize))

    def permute(starts: range) -> None:
        # One buffer a thread: clearing new pages for each stripe takes a tenth of the time.
        columns = np.empty((min(width, matrix.shape[1]), matrix.shape[0]), numbers.dtype)
        for first in starts:
            units = range(first, min(first + width, matrix.shape[1]))
            generator = np.random.PCG64(seed).advance(4 * (first_unit + first))
            states = generator.random_raw(4 * len(units)).reshape(-1, 4)
            _permute_stripe(numbers, first, columns[: len(units)], states)

    starts = range(0, matrix.shape[1], width)
    with ThreadPoolExecutor(workers, "permute") as pool:
        for _ in pool.map(permute, (starts[worker::workers] for worker in range(workers))):
            pass


@njit(cache=True, nogil=True)
def _permute_stripe(matrix, first, columns, states):  # type: ignore[no-untyped-def]
    # A column is shuffled many times faster where its entries lie side by side.
    width, samples = columns.shape
    for s in range(0, samples, _TILE_ROWS):
        t = min(s + _TILE_ROWS, samples)
        _transpose(matrix[s:t, first : first + width], columns[:, s:t])
    for column in range(width):
        _shuffle(columns[column], states[column])
    for s in range(0, samples, _TILE_ROWS):
        t = min(s + _TILE_ROWS, samples)
        _transpose(columns[:, s:t], matrix[s:t, first : first + width])


@njit(cache=True, nogil=True)
def _transpose(source, target):  # type: ignore[no-untyped-def]
    rows, columns = source.shape
    whole_rows, whole_columns = rows - rows % LANES, columns - columns % LANES
    for row in range(0, whole_rows, LANES):
        for column in range(0, whole_columns, LANES):
            transpose_tile(source, row, column, target)
    for row in range(rows):
        for column in range(whole_columns if row < whole_rows else 0, columns):
            target[column, row] = source[row, column]


@njit(cache=True, nogil=True)
def _shuffle(column, state):  # type: ignore[no-untyped-def]
    """Permute in place (Fisher and Yates), every order as likely as any other.

    Numbers come from xoshiro256++ (Blackman and Vigna 2021), inline: drawn by NumPy beforehand,
    they take as long as the swaps. Each half of one becomes a whole number below ``left`` (Lemire
    2019): 2**32 % left of its values are rejected, which would make some numbers likelier.
    """
    a, b, c, d = state
    i = column.size - 1
    while i > 0:
        total, shifted = a + d, b << np.uint64(17)
        draw = ((total << np.uint64(23)) | (total >> np.uint64(41))) + a
        c, d = c ^ a, d ^ b
        b, a = b ^ c, a ^ d
        c, d = c ^ shifted, (d << np.uint64(45)) | (d >> np.uint64(19))
        for half in (draw >> _HALF, draw & _LOW):
            left = np.uint64(i + 1)
            product = half * left
            if product & _LOW < left and product & _LOW < (_LOW - left + np.uint64(1)) % left:
                continue
            j = product >> _HALF
            column[i], column[j] = column[j], column[i]
            # The second half may find a single entry left, which stays.
            i -= i > 0
