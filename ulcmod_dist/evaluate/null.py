"""The null model: the objective that the same search finds where nothing can be found.

Each unit's column is permuted over the samples on its own. That keeps every unit's distribution
and all its statistics, and breaks whatever units had in common.
"""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import dask.array as da
import numpy as np
from numba import njit

from ulcmod_dist.passes.executors import Executor
from ulcmod_dist.passes.shares import read_matrix
from ulcmod_dist.passes.standardised import Standardised
from ulcmod_dist.results.types import Objective
from ulcmod_dist.runtime.memory import release_freed_memory

NULL_TOLERANCE = 1e-3
"""Relative gain of an iteration at which a search of the null model ends: L rises by at most a
fraction of 2e-4 after it."""

_BLOCK_BYTES = 64 * 2**20
_ROWS_AT_ONCE = 512  # of a stripe, they stay in the cache while they are turned


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
    this process, a Dask matrix is permuted in its memory.
    """
    found = []
    for number in range(seed, seed + permutations):
        found.append(search(permute_columns(activations, number, executor), number))
        release_freed_memory()
    return {k: tuple(objectives[k] for objectives in found) for k in found[0]} if found else {}


def permute_columns(
    activations: Standardised, seed: int, executor: Executor | None = None
) -> Standardised:
    """Activations with each unit's column permuted over the samples, independently.

    A column's order depends on the seed and the unit alone, never on chunks. A NumPy matrix is
    copied. A Dask matrix stays lazy: it comes in blocks of whole columns, made anew in each pass;
    to build one, the chunks above each other in that part of the matrix are held for a while. With
    an ``executor`` it is read once, into a NumPy matrix: the graph of a million samples in
    whole columns has a task for each chunk and column of blocks, and takes longer than the search.
    """
    raw = activations.raw
    if not isinstance(raw, da.Array):
        result = _permute(raw, 0, seed)
    elif executor is None:
        result = _lazily(raw, seed)
    else:
        result = _permute_in_memory(raw, seed, executor)
    return Standardised(result, activations.mean, activations.std)


def permutation_bytes(activations: Standardised, workers: int, *, in_memory: bool) -> int:
    """Bytes that permuting holds beside the search of a lazy matrix, or with the matrix itself.

    Lazily, each task holds the chunks above each other. A NumPy matrix is copied.
    """
    raw = activations.raw
    column = raw.shape[0] * raw.dtype.itemsize
    if in_memory:
        # Each thread turns a stripe, and draws a number for each sample.
        stripe = max(_BLOCK_BYTES, column) + 8 * raw.shape[0]
        return int(column * raw.shape[1] + workers * stripe)
    widest = max(raw.chunks[1]) if isinstance(raw, da.Array) else 0
    return int(workers * column * widest)


def _permute_in_memory(raw: Any, seed: int, executor: Executor) -> Any:
    result = read_matrix(raw, executor)
    with ThreadPoolExecutor(executor.workers) as pool:
        tasks = [pool.submit(_permute_in_place, part, at, seed) for at, part in _stripes(result)]
    for task in tasks:
        task.result()
    return result


def _lazily(raw: Any, seed: int) -> Any:
    column_bytes = max(1, raw.shape[0] * raw.dtype.itemsize)
    most = max(1, _BLOCK_BYTES // column_bytes)
    # Within the chunks: a block that straddles two of them holds all samples of both.
    parts = (np.array_split(range(chunk), max(1, -(-chunk // most))) for chunk in raw.chunks[1])
    widths = tuple(len(part) for chunk in parts for part in chunk)
    columns = raw.rechunk({0: -1, 1: widths})
    return columns.map_blocks(_permute_block, seed=seed, dtype=raw.dtype, meta=raw._meta)


def _permute_block(block: Any, seed: int, block_info: Any = None) -> Any:
    first_unit = block_info[0]["array-location"][1][0]
    return _permute(block, first_unit, seed)


def _permute(block: Any, first_unit: int, seed: int) -> Any:
    result = np.array(block)
    for first, stripe in _stripes(result):
        _permute_in_place(stripe, first_unit + first, seed)
    return result


def _stripes(matrix: Any) -> Iterator[tuple[int, Any]]:
    """The first column and a view of each part of a matrix that is permuted at a time."""
    width = max(1, _BLOCK_BYTES // max(1, matrix.shape[0] * matrix.dtype.itemsize))
    for first in range(0, matrix.shape[1], width):
        yield first, matrix[:, first : first + width]


def _permute_in_place(stripe: Any, first_unit: int, seed: int) -> None:
    # A column is shuffled many times faster where its entries lie side by side.
    columns = np.empty(stripe.shape[::-1], stripe.dtype)
    rows = [slice(at, at + _ROWS_AT_ONCE) for at in range(0, len(stripe), _ROWS_AT_ONCE)]
    for part in rows:
        columns[:, part] = stripe[part].T
    for unit, column in enumerate(columns, first_unit):
        _shuffle(column, np.random.default_rng([seed, unit]))
    for part in rows:
        stripe[part] = columns[:, part].T


def _shuffle(column: Any, rng: np.random.Generator) -> None:
    """Permute in place (Fisher and Yates), in a quarter of the time of `Generator.shuffle`."""
    _swap(column.view(f"u{column.itemsize}"), rng.random(len(column)))


@njit(cache=True, nogil=True)
def _swap(column, draws):  # type: ignore[no-untyped-def]
    for i in range(column.size - 1, 0, -1):
        j = int(draws[i] * (i + 1))
        column[i], column[j] = column[j], column[i]
