"""A pass over the matrix: a kernel for every block, and the sum of what the kernels hand back."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from functools import partial
from operator import getitem
from typing import Any

import dask.array as da
import numpy as np
from dask.delayed import Delayed
from dask.highlevelgraph import HighLevelGraph

from ulcmod_dist.passes.executors import Executor, ThreadExecutor
from ulcmod_dist.passes.local import FAN_IN, Kernel, local_blocks, map_reduce_local, slice_last_axis
from ulcmod_dist.passes.standardised import AnyArray, FloatArray

# Blocks that a matrix in memory is cut into, in bytes: some for every thread, none too small.
_BLOCK_BYTES = 16 * 2**20


def map_reduce(
    raw: AnyArray,
    kernel: Kernel,
    *,
    by_sample: Sequence[AnyArray] = (),
    by_unit: Sequence[AnyArray] = (),
    executor: Executor,
    only_samples: AnyArray | None = None,
    only_units: AnyArray | None = None,
) -> tuple[FloatArray | None, FloatArray | None]:
    """Run a kernel over the blocks of a matrix and add up its parts.

    Args:
        raw: NumPy or Dask array [samples, units].
        kernel: Called as ``kernel(block, *by_sample, *by_unit)``; hands back a part of the answer
            for the block's samples [samples, p] and one for its units [q, units], or None.
        by_sample: Arrays of which each block gets its samples' part, samples on the last axis.
        by_unit: Arrays of which each block gets its units' part, units on the last axis.
        executor: Where the kernels run.
        only_samples: Ascending samples; blocks without any of them are not read.
        only_units: The same for units.

    Returns:
        The sum for the samples [samples, p] and for the units [q, units], or None. Where blocks
        are left out, only a sum over the axis they are left out of is meaningful.
    """
    all_rows, all_columns = block_slices(raw)
    rows, columns = (
        _touched_blocks(all_rows, only_samples),
        _touched_blocks(all_columns, only_units),
    )
    if isinstance(executor, ThreadExecutor) and (block_at := local_blocks(raw)) is not None:
        sums = map_reduce_local(block_at, kernel, rows, columns, by_sample, by_unit, executor)
        return _concatenate(sums[0], 0), _concatenate(sums[1], 1)
    graph = _Graph(raw, rows, columns, kernel, by_sample, by_unit)
    sample_sums = [graph.sum(0, [(i, j) for j in range(len(columns))]) for i in range(len(rows))]
    unit_sums = [graph.sum(1, [(i, j) for i in range(len(rows))]) for j in range(len(columns))]
    results = executor.compute(graph.values([*sample_sums, *unit_sums]))
    return _concatenate(results[: len(rows)], 0), _concatenate(results[len(rows) :], 1)


class _Graph:
    """The tasks of a pass, written down directly: `dask.delayed` takes longer than small blocks.

    Args:
        raw: Dask or NumPy array [samples, units].
        rows: Numbers and slices of the blocks' samples.
        columns: The same of their units.
        kernel: As `map_reduce`.
        by_sample: As `map_reduce`.
        by_unit: As `map_reduce`.
    """

    def __init__(
        self,
        raw: AnyArray,
        rows: list[tuple[int, slice]],
        columns: list[tuple[int, slice]],
        kernel: Kernel,
        by_sample: Sequence[AnyArray],
        by_unit: Sequence[AnyArray],
    ) -> None:
        self._raw, self._rows, self._columns = raw, rows, columns
        self._name = f"pass-{uuid.uuid4().hex}"
        self._tasks: dict[Any, Any] = {}
        self._apply = partial(_apply, kernel)
        sides = [(by_sample, rows, "samples"), (by_unit, columns, "units")]
        # One node for each array of a row or column, which all of its blocks read.
        self._values = [
            [
                [
                    self._put((side, n, i), slice_last_axis(array, part))
                    for n, array in enumerate(arrays)
                ]
                for i, (_, part) in enumerate(parts)
            ]
            for arrays, parts, side in sides
        ]
        for i in range(len(rows)):
            for j in range(len(columns)):
                self._put(
                    ("block", i, j),
                    (self._apply, self._block(i, j), *self._values[0][i], *self._values[1][j]),
                )

    def sum(self, side: int, blocks: Sequence[tuple[int, int]]) -> Any:
        """Key of the sum of some blocks' parts, in a tree whose shape depends on them only."""
        keys = [
            self._put(("part", side, i, j), (getitem, (f"{self._name}-block", i, j), side))
            for i, j in blocks
        ]
        level = 0
        while len(keys) > 1:
            place = ("sum", side, *blocks[0], level)
            keys = [
                self._put((*place, first), (_add, keys[first : first + FAN_IN]))
                for first in range(0, len(keys), FAN_IN)
            ]
            level += 1
        return keys[0]

    def values(self, keys: Sequence[Any]) -> list[Any]:
        """Delayed values of some keys."""
        sources = [self._raw] if isinstance(self._raw, da.Array) else []
        graph: Any = HighLevelGraph.from_collections
        whole = graph(self._name, self._tasks, dependencies=sources)
        value: Any = Delayed
        return [value(key, whole, layer=self._name) for key in keys]

    def _put(self, place: tuple[Any, ...], task: Any) -> Any:
        key = (f"{self._name}-{place[0]}", *place[1:])
        self._tasks[key] = task
        return key

    def _block(self, i: int, j: int) -> Any:
        (row, rows), (column, columns) = self._rows[i], self._columns[j]
        if isinstance(self._raw, da.Array):
            return (self._raw.name, row, column)
        return self._put(("raw", i, j), self._raw[rows, columns])


def block_slices(raw: AnyArray) -> tuple[list[slice], list[slice]]:
    """Samples and units of the blocks in which a matrix is read: its chunks, if it has any."""
    if isinstance(raw, da.Array):
        row_sizes, column_sizes = raw.chunks
    else:
        # Whole rows: a contiguous view, which no kernel has to copy.
        height = max(1, _BLOCK_BYTES // max(1, raw.shape[1] * raw.dtype.itemsize))
        row_sizes, column_sizes = _chunk_sizes(raw.shape[0], height), (raw.shape[1],)
    return list(_consecutive_slices(row_sizes)), list(_consecutive_slices(column_sizes))


def _touched_blocks(slices: list[slice], items: AnyArray | None) -> list[tuple[int, slice]]:
    """Numbers and slices of the blocks that hold one of the ascending items."""
    numbered = list(enumerate(slices))
    if items is None:
        return numbered
    firsts = np.searchsorted(items, [part.start for part in slices])
    ends = np.searchsorted(items, [part.stop for part in slices])
    return [numbered[i] for i in np.flatnonzero(ends > firsts)]


def _apply(
    kernel: Kernel, block: AnyArray, *values: AnyArray
) -> tuple[FloatArray | None, FloatArray | None]:
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


def _concatenate(parts: list[FloatArray | None], axis: int) -> FloatArray | None:
    known = [part for part in parts if part is not None]
    return np.concatenate(known, axis=axis) if known else None


def _chunk_sizes(length: int, size: int) -> tuple[int, ...]:
    return tuple(min(size, length - first) for first in range(0, length, size))


def _consecutive_slices(sizes: Sequence[int]) -> Iterator[slice]:
    first = 0
    for size in sizes:
        yield slice(first, first + size)
        first += size
