"""A pass over blocks that this process holds: threads, and no graph, which costs as much again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import dask.array as da
import numpy as np
from dask.highlevelgraph import MaterializedLayer

from ulcmod_dist.passes.executors import ThreadExecutor
from ulcmod_dist.passes.standardised import AnyArray, FloatArray

FAN_IN = 8
"""Partial sums that are added up at a time, here as in a graph, so that both give the same bits."""

Kernel = Callable[..., tuple[FloatArray | None, FloatArray | None]]
BlockGetter: TypeAlias = Callable[[tuple[int, slice], tuple[int, slice]], AnyArray]
"""The block of a numbered row of blocks and a numbered column of them."""


def local_blocks(raw: AnyArray) -> BlockGetter | None:
    """How to get at the blocks of a matrix without computing any, or None where that cannot be."""
    if isinstance(raw, np.ndarray):
        return lambda row, column: raw[row[1], column[1]]
    graph: Any = raw.__dask_graph__()
    layer = graph.layers.get(raw.name)
    if not isinstance(layer, MaterializedLayer):
        return None
    blocks: Any = layer.mapping
    if not all(isinstance(block, np.ndarray) for block in blocks.values()):
        return None
    return lambda row, column: blocks[raw.name, row[0], column[0]]


def map_reduce_local(
    block_at: BlockGetter,
    kernel: Kernel,
    rows: Sequence[tuple[int, slice]],
    columns: Sequence[tuple[int, slice]],
    by_sample: Sequence[AnyArray],
    by_unit: Sequence[AnyArray],
    executor: ThreadExecutor,
) -> tuple[list[FloatArray | None], list[FloatArray | None]]:
    """Run a kernel over blocks at hand and add up its parts.

    Args:
        block_at: The blocks.
        kernel: As `grid.total`.
        rows: Numbers and slices of the blocks' samples.
        columns: The same of their units.
        by_sample: As `grid.total`.
        by_unit: As `grid.total`.
        executor: Threads of this process.

    Returns:
        The sum of each row of blocks, and of each column.
    """
    of_rows = [[slice_last_axis(array, part) for array in by_sample] for _, part in rows]
    of_columns = [[slice_last_axis(array, part) for array in by_unit] for _, part in columns]
    # Column by column: the sums for units, the larger ones, are soon complete.
    places = [(i, j) for j in range(len(columns)) for i in range(len(rows))]

    def part(place: tuple[int, int]) -> tuple[FloatArray | None, FloatArray | None]:
        i, j = place
        return kernel(block_at(rows[i], columns[j]), *of_rows[i], *of_columns[j])

    row_sums, column_sums = ([TreeSum() for _ in side] for side in (rows, columns))
    for (i, j), (of_samples, of_units) in zip(places, executor.map(part, places), strict=True):
        row_sums[i].add(of_samples)
        column_sums[j].add(of_units)
    return [one.result() for one in row_sums], [one.result() for one in column_sums]


class TreeSum:
    """The sum of parts that come one by one, added up in the same tree as a graph's.

    Groups of ``FAN_IN`` parts are summed, then groups of these sums, until one is left.
    """

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


def slice_last_axis(array: AnyArray, part: slice) -> AnyArray:
    """The part of an array along its last axis, as kernels want it."""
    return np.ascontiguousarray(array[..., part])


def select_block_columns(raw: AnyArray, first: int, end: int) -> AnyArray:
    """Some columns of a Dask array's chunks, held by this process where the whole array is."""
    part = raw.blocks[:, first:end]
    block_at = local_blocks(raw)
    if block_at is None:
        return part
    whole = slice(None)
    rows, columns = (range(count) for count in part.numblocks)
    blocks = {
        (part.name, i, j): block_at((i, whole), (first + j, whole)) for i in rows for j in columns
    }
    array: Any = da.Array
    return array(blocks, part.name, part.chunks, part.dtype)
