"""A pass over the matrix: a kernel runs on every block, and its results are added up.

Blocks that are lazy or on other machines run as a Dask graph. Blocks in this process's memory run
on a thread pool without one: building and scheduling the graph takes as long as the kernels. Both
add up in the same tree, so both give the same bits.
"""

import uuid
from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate, chain, pairwise
from operator import getitem
from typing import Any, TypeAlias

import dask.array as da
import numpy as np
from dask.delayed import Delayed
from dask.highlevelgraph import HighLevelGraph, MaterializedLayer

from ulcmod_dist.passes.executors import Executor, ThreadExecutor
from ulcmod_dist.passes.standardised import AnyArray, FloatArray

FAN_IN = 8
"""Partial sums that are added up at a time."""

# Blocks that a matrix in memory is cut into, in bytes: some for every thread, none too small.
_BLOCK_BYTES = 16 * 2**20

Parts: TypeAlias = tuple[FloatArray | None, FloatArray | None]
Kernel: TypeAlias = Callable[..., Parts]
BlockGetter: TypeAlias = Callable[[tuple[int, slice], tuple[int, slice]], AnyArray]
"""Returns the block of a numbered row of blocks and a numbered column of them."""


def map_reduce(
    raw: AnyArray,
    kernel: Kernel,
    *,
    by_sample: Sequence[AnyArray] = (),
    by_unit: Sequence[AnyArray] = (),
    executor: Executor,
    only_samples: AnyArray | None = None,
    only_units: AnyArray | None = None,
) -> Parts:
    """Run a kernel over the blocks of a matrix [samples, units] and add up its results.

    ``kernel(block, *by_sample, *by_unit)`` returns a summand for the block's samples [samples, p]
    and one for its units [q, units], or None. Each block gets its part of the arrays ``by_sample``
    and ``by_unit``, whose last axis is that of samples or units.

    Blocks without any of ``only_samples`` or ``only_units``, both ascending, are not read; only the
    sum over the other axis is then meaningful.

    Returns:
        The sum for the samples [samples, p] and for the units [q, units], or None.
    """
    row_slices, column_slices = block_slices(raw)
    rows = _select_blocks(row_slices, only_samples)
    columns = _select_blocks(column_slices, only_units)
    get_block = local_blocks(raw)
    if isinstance(executor, ThreadExecutor) and get_block is not None:
        row_values = [[_slice(array, part) for array in by_sample] for _, part in rows]
        column_values = [[_slice(array, part) for array in by_unit] for _, part in columns]

        def run(place: tuple[int, int]) -> Parts:
            i, j = place
            return kernel(get_block(rows[i], columns[j]), *row_values[i], *column_values[j])

        row_trees, column_trees = ([TreeSum() for _ in parts] for parts in (rows, columns))
        # Column by column: the sums for units, the larger ones, are soon complete.
        places = [(i, j) for j in range(len(columns)) for i in range(len(rows))]
        for (i, j), (of_samples, of_units) in zip(places, executor.map(run, places), strict=True):
            row_trees[i].add(of_samples)
            column_trees[j].add(of_units)
        row_sums, column_sums = (
            [tree.result() for tree in trees] for trees in (row_trees, column_trees)
        )
    else:
        results = executor.compute(_plan_sums(raw, rows, columns, kernel, by_sample, by_unit))
        row_sums, column_sums = results[: len(rows)], results[len(rows) :]
    return _concatenate(row_sums, 0), _concatenate(column_sums, 1)


def block_slices(raw: AnyArray) -> tuple[list[slice], list[slice]]:
    """Samples and units of the blocks in which a matrix is read: its chunks, if it has any."""
    if isinstance(raw, da.Array):
        row_sizes, column_sizes = raw.chunks
    else:
        # Whole rows: a contiguous view, which no kernel has to copy.
        height = max(1, _BLOCK_BYTES // max(1, raw.shape[1] * raw.dtype.itemsize))
        starts = range(0, raw.shape[0], height)
        row_sizes = tuple(min(height, raw.shape[0] - start) for start in starts)
        column_sizes = (raw.shape[1],)
    return consecutive_slices(row_sizes), consecutive_slices(column_sizes)


def consecutive_slices(sizes: Sequence[int]) -> list[slice]:
    """Slices of the given sizes, each from where the one before ends."""
    ends = list(accumulate(sizes, initial=0))
    return [slice(first, end) for first, end in pairwise(ends)]


def local_blocks(raw: AnyArray) -> BlockGetter | None:
    """A getter of the blocks of a matrix in this process's memory, or None for any other."""
    if isinstance(raw, np.ndarray):
        return lambda row, column: raw[row[1], column[1]]
    # `persist` on threads leaves a layer that maps keys to NumPy arrays; a cluster leaves futures.
    graph: Any = raw.__dask_graph__()
    layer = graph.layers.get(raw.name)
    if not isinstance(layer, MaterializedLayer):
        return None
    blocks: Any = layer.mapping
    if not all(isinstance(block, np.ndarray) for block in blocks.values()):
        return None
    return lambda row, column: blocks[raw.name, row[0], column[0]]


def select_block_columns(raw: AnyArray, first: int, end: int) -> AnyArray:
    """Some columns of a Dask array's chunks, in this process's memory where the whole array is."""
    part = raw.blocks[:, first:end]
    get_block = local_blocks(raw)
    if get_block is None:
        return part
    whole = slice(None)
    rows, columns = (range(count) for count in part.numblocks)
    # Slicing alone would leave a graph to compute; this keeps `local_blocks` true of the part.
    blocks = {
        (part.name, i, j): get_block((i, whole), (first + j, whole)) for i in rows for j in columns
    }
    array: Any = da.Array
    return array(blocks, part.name, part.chunks, part.dtype)


class TreeSum:
    """The sum of parts that come one by one, added up in the same tree as a graph's."""

    def __init__(self) -> None:
        self._groups: list[list[FloatArray]] = []
        self._counts: list[int] = []

    def add(self, part: FloatArray | None, level: int = 0) -> None:
        """Add the next part; None adds nothing."""
        if part is None:
            return
        if level == len(self._groups):
            self._groups.append([])
            self._counts.append(0)
        group = self._groups[level]
        if group:
            group[0] += part
        else:
            group.append(part.copy())
        self._counts[level] += 1
        if self._counts[level] == FAN_IN:
            self._counts[level] = 0
            self.add(group.pop(), level + 1)

    def result(self) -> FloatArray | None:
        """The sum of all parts, or None where there were none."""
        for level in range(len(self._groups)):
            if self._groups[level] and any(self._groups[level + 1 :]):
                self._counts[level] = 0
                self.add(self._groups[level].pop(), level + 1)
        left = [group[0] for group in self._groups if group]
        return left[0] if left else None


def _plan_sums(
    raw: AnyArray,
    rows: list[tuple[int, slice]],
    columns: list[tuple[int, slice]],
    kernel: Kernel,
    by_sample: Sequence[AnyArray],
    by_unit: Sequence[AnyArray],
) -> list[Any]:
    """Delayed sums of each row of blocks, then of each column, in one Dask graph.

    Written down directly: `dask.delayed` takes longer than the kernels of small blocks.
    """
    name = f"pass-{uuid.uuid4().hex}"
    tasks: dict[Any, Any] = {}

    def put(place: tuple[Any, ...], task: Any) -> Any:
        key = (f"{name}-{place[0]}", *place[1:])
        tasks[key] = task
        return key

    def put_sum(side: int, blocks: Sequence[tuple[int, int]]) -> Any:
        # A tree whose shape depends on the blocks only.
        keys = [
            put(("part", side, i, j), (getitem, (f"{name}-block", i, j), side)) for i, j in blocks
        ]
        level = 0
        while len(keys) > 1:
            place = ("sum", side, *blocks[0], level)
            starts = range(0, len(keys), FAN_IN)
            keys = [put((*place, i), (_add, keys[i : i + FAN_IN])) for i in starts]
            level += 1
        return keys[0]

    # One node for each array of a row or column, which all of its blocks read.
    row_values, column_values = [
        [
            [put((side, n, i), _slice(array, part)) for n, array in enumerate(arrays)]
            for i, (_, part) in enumerate(parts)
        ]
        for arrays, parts, side in [(by_sample, rows, "samples"), (by_unit, columns, "units")]
    ]
    lazily = isinstance(raw, da.Array)
    places = [[(i, j) for j in range(len(columns))] for i in range(len(rows))]
    for i, j in chain.from_iterable(places):
        (row, samples), (column, units) = rows[i], columns[j]
        block = (raw.name, row, column) if lazily else put(("raw", i, j), raw[samples, units])
        task = (partial(_apply, kernel), block, *row_values[i], *column_values[j])
        put(("block", i, j), task)
    keys = [put_sum(0, blocks) for blocks in places]
    keys += [put_sum(1, blocks) for blocks in zip(*places, strict=True)]
    graph: Any = HighLevelGraph.from_collections
    whole = graph(name, tasks, dependencies=[raw] if lazily else [])
    value: Any = Delayed
    return [value(key, whole, layer=name) for key in keys]


def _apply(kernel: Kernel, block: AnyArray, *values: AnyArray) -> Parts:
    return kernel(np.asarray(block), *values)


def _add(parts: list[FloatArray | None]) -> FloatArray | None:
    first, *others = parts
    if first is None or not others:
        return first
    result = first.copy()
    for other in others:
        assert other is not None
        result += other
    return result


def _select_blocks(slices: list[slice], items: AnyArray | None) -> list[tuple[int, slice]]:
    """Numbers and slices of the blocks that hold one of the ascending items."""
    numbered = list(enumerate(slices))
    if items is None:
        return numbered
    firsts = np.searchsorted(items, [part.start for part in slices])
    ends = np.searchsorted(items, [part.stop for part in slices])
    return [numbered[i] for i in np.flatnonzero(ends > firsts)]


def _slice(array: AnyArray, part: slice) -> AnyArray:
    """The part of an array along its last axis, contiguous as kernels want it."""
    return np.ascontiguousarray(array[..., part])


def _concatenate(parts: list[FloatArray | None], axis: int) -> FloatArray | None:
    known = [part for part in parts if part is not None]
    return np.concatenate(known, axis=axis) if known else None
