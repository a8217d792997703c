"""A pass over the matrix: a kernel runs on every block, and its results are added up.

They are added in a binary tree over the blocks of a row, or of a column. A task works on a share,
which is a branch of that tree, and returns its partial sums; the rest of the tree is added here.
The tree depends on the blocks alone, so that any number of workers gives the same bits.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Any, TypeAlias

import numpy as np

from ulcmod_dist.passes.executors import Executor
from ulcmod_dist.passes.shares import (
    Blocks,
    KeptMatrix,
    Share,
    common_blocks,
    cut_shares,
    plan_layout,
)
from ulcmod_dist.passes.standardised import AnyArray, FloatArray

Parts: TypeAlias = tuple[FloatArray | None, FloatArray | None]
Kernel: TypeAlias = Callable[..., Parts]
Node: TypeAlias = tuple[int, int, FloatArray]
"""Level of a branch in the tree, its number among those of the level, and its sum."""


class TreeSum:
    """The sum of the leaves of a binary tree, which come in order; some may be left out."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []

    def add(self, part: FloatArray | None, number: int, level: int = 0) -> None:
        """Add the next leaf or branch by its number; None adds nothing. The part may be changed."""
        if part is None:
            return
        while number % 2 and self.nodes and self.nodes[-1][:2] == (level, number - 1):
            part = _add(self.nodes.pop()[2], part)
            level, number = level + 1, number // 2
        self.nodes.append((level, number, part))

    def result(self) -> FloatArray | None:
        """The sum of all leaves, or None where there were none."""
        while len(self.nodes) > 1:
            (level, number, left), (_, _, right) = self.nodes[-2:]
            self.nodes[-2:] = [(level, number, _add(left, right))]
        return self.nodes[0][2] if self.nodes else None


Place: TypeAlias = tuple[range, range]
"""Rows and columns of the blocks of a share, by their numbers."""
Side: TypeAlias = tuple[dict[int, slice], list[AnyArray]]
"""The part of the arguments of each block that is read, by number; and the arguments of a share."""


@dataclass(frozen=True, eq=False)
class Pass:
    """A kernel over the blocks of a matrix [samples, units], whose results are added up.

    ``kernel(block, *by_sample, *by_unit)`` returns a summand for the block's samples [samples, p]
    and one for its units [q, units], or None. Each block gets its part of the arrays ``by_sample``
    and ``by_unit``, whose last axis is that of samples or units.

    With ``only_samples`` or ``only_units``, both ascending, the arrays of that side hold these
    items alone, and the kernel gets, before them, the items' places in the block. Blocks without
    any are not read; only the sum over the other axis is then meaningful.
    """

    raw: AnyArray
    kernel: Kernel
    by_sample: Sequence[AnyArray] = ()
    by_unit: Sequence[AnyArray] = ()
    only_samples: AnyArray | None = None
    only_units: AnyArray | None = None


def map_reduce(raw: AnyArray, kernel: Kernel, *, executor: Executor, **given: Any) -> Parts:
    """The sums of a `Pass`, whose other fields are ``given``.

    Returns:
        The sum for the samples [samples, p] and for the units [q, units], or None.
    """
    (sums,) = map_reduce_all([Pass(raw, kernel, **given)], executor)
    return sums


def map_reduce_all(passes: Sequence[Pass], executor: Executor) -> Iterator[Parts]:
    """The sums of passes that are made together, in their order."""
    tasks = [_list_shares(one, executor.workers) for one in passes]
    shares = [(share, n) for n, some in enumerate(tasks) for _, share, _ in some]
    shared = [(one.kernel, common_blocks(one.raw)) for one in passes]
    sides = [both for some in tasks for _, _, both in some]
    items, numbers = zip(*shares, strict=True) if shares else ((), ())
    done = executor.map(_sum_share, items, shared, numbers, sides)
    for some in tasks:
        yield _add_up([place for place, _, _ in some], islice(done, len(some)))
    # An executor that reports progress learns of the end.
    next(done, None)


def _list_shares(one: Pass, workers: int) -> list[tuple[Place, Any, tuple[Side, Side]]]:
    """Place of each share that is read, the share or its handle, and its part of the arguments."""
    raw, layout = one.raw, plan_layout(one.raw, workers)
    rows, by_sample = _select_items(layout.rows, one.by_sample, one.only_samples)
    columns, by_unit = _select_items(layout.columns, one.by_unit, one.only_units)
    places = [
        place
        for place in layout.places
        if _overlaps(place[0], rows) and _overlaps(place[1], columns)
    ]
    is_kept = isinstance(raw, KeptMatrix)
    shares = [raw.handles[p] for p in places] if is_kept else cut_shares(raw, layout, places)
    # All labels and weights together would be the most that many workers are sent.
    of_rows = {cut: _cut(rows, cut, by_sample) for cut in {cut for cut, _ in places}}
    of_columns = {cut: _cut(columns, cut, by_unit) for cut in {cut for _, cut in places}}
    sides = [(of_rows[row_cut], of_columns[column_cut]) for row_cut, column_cut in places]
    return list(zip(places, shares, sides, strict=True))


def _add_up(places: Sequence[Place], results: Iterator[tuple[list[Node], list[Node]]]) -> Parts:
    row_trees = {cut: TreeSum() for cut, _ in places}
    column_trees = {cut: TreeSum() for _, cut in places}
    for (row_cut, column_cut), parts in zip(places, results, strict=True):
        for tree, nodes in zip((row_trees[row_cut], column_trees[column_cut]), parts, strict=True):
            for level, number, part in nodes:
                tree.add(part, number, level)
    sums = ([tree.result() for tree in trees.values()] for trees in (row_trees, column_trees))
    by_row, by_column = (_concatenate(side, axis) for axis, side in enumerate(sums))
    return by_row, by_column


def _sum_share(
    share: Share,
    shared: Sequence[tuple[Kernel, Blocks | None]],
    number: int,
    sides: tuple[Side, Side],
) -> tuple[list[Node], list[Node]]:
    """Sums of a share's blocks for its samples, over columns, and for its units, over rows."""
    kernel, common = shared[number]
    blocks = share.blocks or common
    assert blocks is not None
    (rows, of_samples), (columns, of_units) = sides
    row_values = [[_slice(array, part) for array in of_samples] for part in rows.values()]
    by_sample, by_unit = TreeSum(), []
    # Column by column: the sums for units, the larger ones, are soon complete.
    for j, part in columns.items():
        column_values = [_slice(array, part) for array in of_units]
        of_rows, of_column = [], TreeSum()
        for i, values in zip(rows, row_values, strict=True):
            block = _freeze(blocks[i, j])
            for_samples, for_units = kernel(block, *values, *column_values)
            of_rows.append(for_samples)
            of_column.add(for_units, i)
        by_sample.add(_concatenate(of_rows, 0), j)
        by_unit.append(of_column.nodes)
    merged = []
    # All columns have the same rows, and so the same branches.
    for same in zip(*by_unit, strict=True):
        level, number, _ = same[0]
        whole = _concatenate([sums for _, _, sums in same], 1)
        assert whole is not None
        merged.append((level, number, whole))
    return by_sample.nodes, merged


def _add(left: FloatArray, right: FloatArray) -> FloatArray:
    # What comes from Ray's object store cannot be written.
    return np.add(left, right, out=left if left.flags.writeable else None)


def _overlaps(cut: range, numbers: Mapping[int, slice]) -> bool:
    return any(number in numbers for number in cut)


def _select_items(
    blocks: Mapping[int, slice], arrays: Sequence[AnyArray], items: AnyArray | None
) -> Side:
    """The part of the arrays that belongs to each block, and the arrays.

    If they hold the ascending ``items`` alone, only blocks with some, and before the arrays that of
    the items' places in their blocks.
    """
    if items is None:
        return dict(blocks), list(arrays)
    starts = np.array([part.start for part in blocks.values()])
    bounds = np.searchsorted(items, [*starts, max(part.stop for part in blocks.values())])
    places = items - np.repeat(starts, np.diff(bounds))
    pairs = zip(blocks, pairwise(bounds.tolist()), strict=True)
    chosen = {number: slice(first, end) for number, (first, end) in pairs if end > first}
    return chosen, [places, *arrays]


def _cut(blocks: Mapping[int, slice], cut: range, arrays: Sequence[AnyArray]) -> Side:
    """One side of a share: its blocks count from where its part of the arrays begins."""
    chosen = {number: blocks[number] for number in cut if number in blocks}
    first = min(part.start for part in chosen.values())
    end = max(part.stop for part in chosen.values())
    inside = {number: slice(p.start - first, p.stop - first) for number, p in chosen.items()}
    return inside, [np.ascontiguousarray(array[..., first:end]) for array in arrays]


def _slice(array: AnyArray, part: slice) -> AnyArray:
    """The part of an array along its last axis, contiguous as kernels want it."""
    return _freeze(np.ascontiguousarray(array[..., part]))


def _freeze(array: AnyArray) -> AnyArray:
    """A view that cannot be written, as what comes from other processes mostly is.

    numba would compile and load every kernel for each combination of arrays that can and cannot.
    """
    view = array.view()
    view.flags.writeable = False
    return view


def _concatenate(parts: Sequence[FloatArray | None], axis: int) -> FloatArray | None:
    known = [part for part in parts if part is not None]
    if len(known) == 1:
        return known[0]
    return np.concatenate(known, axis=axis) if known else None
