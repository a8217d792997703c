"""Shares of a matrix: the rectangles of blocks that are the tasks of a pass.

A share is read block by block where it is worked on, so that a pass has a few tasks for each worker
however many chunks there are. What it is read from travels with it: a part of a NumPy matrix, a
part of a Dask graph, or the rule of a graph, which is the same for all shares.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise, product
from typing import Any, TypeAlias

import dask.array as da
import numpy as np
from dask.blockwise import Blockwise
from dask.highlevelgraph import HighLevelGraph
from dask.local import get_sync

from ulcmod_dist.passes.executors import Executor
from ulcmod_dist.passes.standardised import AnyArray

# Shares of a worker in a pass, and some more, where there are blocks enough: a worker that is
# slower, or busy with something else, leaves some to the others.
_SHARES_EACH = 2
_MORE_SHARES = 4
# What a number in a partial sum costs, in numbers of the matrix that are read: a table has many
# columns, and all its parts reach one process.
_SUM_COST = 32
# Blocks that a matrix in memory is cut into, in bytes: some for every thread, none too small.
_BLOCK_BYTES = 16 * 2**20


@dataclass(frozen=True, eq=False)
class GraphBlocks:
    """Blocks of a Dask array by row and column, each computed by the thread that asks for it."""

    graph: HighLevelGraph
    name: str

    def __getitem__(self, place: tuple[int, int]) -> AnyArray:
        key = (self.name, *place)
        tasks: Any = self.graph.cull({key})
        # A chunk that its owner persisted on a Dask cluster is a future in the graph.
        ready = {
            name: task.result() if _is_future(task) else task
            for name, task in tasks.to_dict().items()
        }
        return np.ascontiguousarray(get_sync(ready, key))


Blocks: TypeAlias = dict[tuple[int, int], AnyArray] | GraphBlocks
"""Blocks by the numbers of their row and column: in memory, or to be computed."""


@dataclass(frozen=True, eq=False)
class Share:
    """Some rows and columns of blocks, by their numbers; ``blocks`` if they travel with it."""

    rows: range
    columns: range
    blocks: Blocks | None = None


@dataclass(frozen=True)
class Layout:
    """Where a matrix is cut: by number, its rows and columns of blocks; and these into shares."""

    rows: dict[int, slice]
    columns: dict[int, slice]
    row_cuts: list[range]
    column_cuts: list[range]

    @property
    def shape(self) -> tuple[int, int]:
        """Samples and units."""
        samples, units = (sum(_length(s) for s in side.values()) for side in self._sides)
        return samples, units

    @property
    def widest_block(self) -> tuple[int, int]:
        """Most samples and most units of a block."""
        samples, units = (max(map(_length, side.values())) for side in self._sides)
        return samples, units

    @property
    def places(self) -> list[tuple[range, range]]:
        """Rows and columns of every share; the shares of the same columns follow each other."""
        return [(rows, columns) for columns, rows in product(self.column_cuts, self.row_cuts)]

    def select_units(self, units: slice) -> Layout:
        """The layout of some units, made of whole columns of blocks; these keep their numbers."""
        inside = {
            number: slice(part.start - units.start, part.stop - units.start)
            for number, part in self.columns.items()
            if units.start <= part.start < units.stop
        }
        cuts = [cut for cut in self.column_cuts if any(number in inside for number in cut)]
        return replace(self, columns=inside, column_cuts=cuts)

    @property
    def _sides(self) -> tuple[dict[int, slice], dict[int, slice]]:
        return self.rows, self.columns


@dataclass(frozen=True, eq=False)
class KeptMatrix:
    """A matrix whose shares are held in memory where tasks run, in the place of an array.

    Attributes:
        source: NumPy or Dask array that it was read from; ``units`` are those kept of it.
        handles: By rows and columns of a share, what its executor finds it by.
    """

    source: AnyArray
    units: slice
    layout: Layout
    handles: dict[tuple[range, range], Any]

    ndim = 2

    @property
    def shape(self) -> tuple[int, int]:
        """Samples and units."""
        return self.layout.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of its numbers."""
        dtype: np.dtype[Any] = self.source.dtype
        return dtype

    def __getitem__(self, key: Any) -> AnyArray:
        """A part of what it was read from."""
        return self.source[:, self.units][key]

    def select_units(self, units: slice) -> KeptMatrix:
        """Some of its units, made of whole columns of blocks."""
        first = self.units.start
        inside = slice(first + units.start, first + units.stop)
        return replace(self, units=inside, layout=self.layout.select_units(units))


def keep_matrix(
    raw: AnyArray, executor: Executor, *, units: slice | None = None, blocks: Sequence[slice] = ()
) -> KeptMatrix:
    """Read a matrix, or some of its units, into the memory of the workers.

    ``blocks`` are units that passes will read by themselves: no share has units of two of them.
    """
    if not isinstance(raw, da.Array) and units is not None:
        raw, units = raw[:, units], None
    units = units or slice(0, raw.shape[1])
    layout = plan_layout(raw, executor.workers, units=units, blocks=blocks)
    places = layout.places
    handles = executor.keep(_load, cut_shares(raw, layout, places), common_blocks(raw))
    return KeptMatrix(raw, units, layout, dict(zip(places, handles, strict=True)))


def read_matrix(raw: AnyArray, executor: Executor, out: AnyArray | None = None) -> AnyArray:
    """A Dask array as a NumPy array in this process, read by the executor block after block.

    It is written to ``out``, if given.
    """
    if isinstance(raw, np.ndarray):
        return raw
    result = np.empty(raw.shape, raw.dtype) if out is None else out
    rows, columns = (dict(enumerate(consecutive_slices(sizes))) for sizes in raw.chunks)
    cuts = ([range(n, n + 1) for n in side] for side in (rows, columns))
    layout = Layout(rows, columns, *cuts)
    read = executor.map(_read_block, cut_shares(raw, layout, layout.places), common_blocks(raw))
    for (row, column), block in zip(layout.places, read, strict=True):
        result[rows[row[0]], columns[column[0]]] = block
    return result


def plan_layout(
    raw: AnyArray, workers: int, *, units: slice | None = None, blocks: Sequence[slice] = ()
) -> Layout:
    """Cut a matrix, or some of its units, into shares for so many workers.

    A share is a whole branch of the tree in which `map_reduce` adds up, so that one partial sum for
    each of its sides leaves it.
    """
    if isinstance(raw, KeptMatrix):
        return raw.layout
    rows, columns = block_slices(raw)
    if blocks and not isinstance(raw, da.Array):
        columns = list(blocks)
    whole = Layout(dict(enumerate(rows)), dict(enumerate(columns)), [], [])
    chosen = whole if units is None else whole.select_units(units)
    starts = {part.start for part in blocks}
    bounds = [n for n, part in chosen.columns.items() if part.start in starts]
    first, end = min(chosen.columns, default=0), max(chosen.columns, default=-1) + 1
    bands = [range(a, b) for a, b in pairwise(sorted({first, *bounds, end}))]
    widest = max(map(len, bands), default=0)
    row_level, column_level = _choose_levels(chosen, widest, workers)
    return replace(
        chosen,
        row_cuts=_cut(range(len(chosen.rows)), row_level),
        column_cuts=[cut for band in bands for cut in _cut(band, column_level)],
    )


def cut_shares(raw: AnyArray, layout: Layout, places: Sequence[tuple[range, range]]) -> list[Share]:
    """The shares of an array; a part of it travels with each unless `common_blocks` does."""
    if not isinstance(raw, da.Array):
        at, to = layout.rows, layout.columns
        return [
            Share(*place, {(i, j): raw[at[i], to[j]] for i, j in product(*place)})
            for place in places
        ]
    if common_blocks(raw) is not None:
        return [Share(*place) for place in places]
    return [_cut_graph(raw, layout, *place) for place in places]


def common_blocks(raw: AnyArray) -> Blocks | None:
    """What every share of a Dask array is read from if its graph is a rule; else None.

    Such a graph is as small for millions of chunks as for one; any other lists its tasks, and maybe
    arrays, and every share gets a part of it.
    """
    if not isinstance(raw, da.Array):
        return None
    graph: Any = raw.dask
    by_rule = all(isinstance(layer, Blockwise) for layer in graph.layers.values())
    return GraphBlocks(graph, raw.name) if by_rule else None


def block_slices(raw: AnyArray) -> tuple[list[slice], list[slice]]:
    """Samples and units of the blocks in which a matrix is read: its chunks, if it has any."""
    if isinstance(raw, KeptMatrix):
        return list(raw.layout.rows.values()), list(raw.layout.columns.values())
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


def _choose_levels(layout: Layout, band: int, workers: int) -> tuple[int, int]:
    """Levels of the tree, along rows and along columns, whose branches are the shares.

    Of those that give every worker some shares of a band, so many columns of blocks, the cheapest.
    """
    samples, units = layout.shape
    height = len(layout.rows)
    cells = samples * units / max(1, height * len(layout.columns))
    least = min(_SHARES_EACH * workers + _MORE_SHARES, height * band)

    def cost(levels: tuple[int, int]) -> tuple[bool, float]:
        tall, wide = (-(-n // 2**level) for n, level in zip((height, band), levels, strict=True))
        share = cells * min(height, 2 ** levels[0]) * min(band, 2 ** levels[1])
        read = -(-tall * wide // workers) * share
        sums = tall * units * band / max(1, len(layout.columns)) + wide * samples
        return not least <= tall * wide <= 2 * least, read + _SUM_COST * sums

    heights, widths = (range(length.bit_length() + 1) for length in (height, band))
    return min(product(heights, widths), key=cost)


def _cut(numbers: range, level: int) -> list[range]:
    """Numbers of blocks by the branch of the tree, at a level, that they belong to."""
    size = 2**level
    inner = range(numbers.start - numbers.start % size + size, numbers.stop, size)
    return [range(a, b) for a, b in pairwise([numbers.start, *inner, numbers.stop])]


def _cut_graph(raw: Any, layout: Layout, rows: range, columns: range) -> Share:
    places = list(product(rows, columns))
    tasks = raw.dask.cull({(raw.name, *place) for place in places}).to_dict()
    graph: Any = HighLevelGraph.from_collections(raw.name, tasks)
    share = Share(rows, columns, GraphBlocks(graph, raw.name))
    values = [getattr(task, "value", task) for task in tasks.values()]
    samples, units = (
        sum(_length(side[n]) for n in cut)
        for side, cut in [(layout.rows, rows), (layout.columns, columns)]
    )
    held = sum(getattr(value, "nbytes", 0) for value in values)
    if held <= samples * units * raw.dtype.itemsize and not any(map(_is_future, tasks.values())):
        return share
    # Every share would take along an array that Dask cuts when it reads, such as a mapped file;
    # and a future of a Dask cluster is known to the client that has it, not to other processes.
    return _load(share, None)


def _load(share: Share, common: Blocks | None) -> Share:
    blocks = share.blocks or common
    assert blocks is not None
    places = product(share.rows, share.columns)
    return replace(share, blocks={place: blocks[place] for place in places})


def _read_block(share: Share, common: Blocks | None) -> AnyArray:
    blocks = share.blocks or common
    assert blocks is not None
    return blocks[share.rows[0], share.columns[0]]


def _is_future(task: Any) -> bool:
    return hasattr(task, "result")


def _length(part: slice) -> int:
    return int(part.stop - part.start)
