"""The rows of many shards as one Dask array.

Apart from `arrays`, so that what writes shards, as every actor does, imports no Dask.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import dask.array as da
import numpy as np
from dask.base import tokenize
from dask.blockwise import blockwise
from dask.highlevelgraph import HighLevelGraph
from dask.layers import ArrayBlockwiseDep
from numpy.typing import NDArray

from ulcmod_dist.runtime.rundir import RunDir
from ulcmod_dist.store.arrays import read_region
from ulcmod_dist.store.schema import ACTIVATION_ARRAY, ChunkShape


@dataclass(frozen=True)
class BlockRows:
    """What a block of the Dask array, or the whole of it, is read from.

    ``shard`` (an index in ``folders``) and ``row`` locate each row of the block; ``columns`` are
    its first unit and the one after the last.
    """

    run: RunDir
    folders: tuple[str, ...]
    shard: NDArray[np.integer]
    row: NDArray[np.integer]
    columns: tuple[int, int]
    chunk_rows: int


def lazy_rows(
    run: RunDir,
    folders: Sequence[str],
    shard: NDArray[np.integer],
    row: NDArray[np.integer],
    *,
    units: int,
    chunk_shape: ChunkShape,
) -> da.Array:
    """The activations of samples as a float32 Dask array [samples, units].

    Neighbouring samples that lie in one chunk's rows are read together; short stretches are
    gathered until a block has the rows of a chunk. ``shard`` (an index in ``folders``) and ``row``
    locate each sample.
    """
    bounds = _row_bounds(shard, row, chunk_shape.rows)
    widths = [
        min(chunk_shape.columns, units - start) for start in range(0, units, chunk_shape.columns)
    ]
    chunks = (tuple(int(size) for size in np.diff(bounds)), tuple(widths))
    if len(shard) == 0:
        empty: da.Array = da.zeros((0, units), chunks=(0, chunk_shape.columns), dtype=np.float32)
        return empty
    whole = BlockRows(run, tuple(folders), shard, row, (0, units), chunk_shape.rows)
    name = f"activations-{tokenize(run.url, folders, shard, row, chunks)}"
    layer = blockwise(
        read_block, name, "su", _Blocks(chunks, whole), "su", numblocks={}, _data_producer=True
    )
    graph = HighLevelGraph.from_collections(name, layer)
    return da.Array(graph, name, chunks, dtype=np.float32)


def read_block(block: BlockRows) -> NDArray[np.float32]:
    """Read one block [rows, units of the block]; rows of one chunk are read together.

    Raises:
        CorruptionError: A chunk is missing or damaged.
    """
    first, end = block.columns
    out = np.empty((len(block.row), end - first), np.float32)
    cells = _cells(block.shard, block.row, block.chunk_rows)
    for cell in dict.fromkeys(cells.tolist()):
        place = np.flatnonzero(cells == cell)
        rows = block.row[place]
        start, stop = int(rows.min()), int(rows.max()) + 1
        region = (slice(start, stop), slice(first, end))
        folder = block.folders[int(block.shard[place[0]])]
        values = read_region(block.run, folder, ACTIVATION_ARRAY, region)
        consecutive = np.array_equal(rows, np.arange(start, stop))
        if consecutive and len(rows) == len(out):
            # The common case, a block of neighbouring rows, needs no copy.
            return values
        out[place] = values if consecutive else values[rows - start]
    return out


class _Blocks(ArrayBlockwiseDep):
    """The argument of each task, worked out when the task is made.

    The graph of a million rows then holds this rule in place of a list of tasks, and pickles small.
    """

    def __init__(self, chunks: tuple[tuple[int, ...], ...], whole: BlockRows) -> None:
        super().__init__(chunks)
        self.whole = whole
        self.starts = [np.concatenate([[0], np.cumsum(sizes)]) for sizes in chunks]

    def __reduce__(self) -> tuple[Any, ...]:
        # Every worker gets it: of rows that follow each other the first and their number.
        shard, row = self.whole.shard, self.whole.row
        first = np.flatnonzero((np.diff(shard, prepend=-1) != 0) | (np.diff(row, prepend=-1) != 1))
        lengths = np.diff(first, append=len(row))
        runs = replace(self.whole, shard=shard[first], row=row[first])
        return _expand_runs, (self.chunks, runs, lengths)

    def __getitem__(self, idx: tuple[int, ...]) -> BlockRows:
        (first, last), columns = (
            (int(starts[i]), int(starts[i + 1])) for starts, i in zip(self.starts, idx, strict=True)
        )
        used, shard = np.unique(self.whole.shard[first:last], return_inverse=True)
        folders = tuple(self.whole.folders[int(i)] for i in used)
        row = self.whole.row[first:last]
        return replace(self.whole, folders=folders, shard=shard, row=row, columns=columns)


def _expand_runs(
    chunks: tuple[tuple[int, ...], ...], runs: BlockRows, lengths: NDArray[np.integer]
) -> _Blocks:
    before = np.cumsum(lengths) - lengths
    row = np.repeat(runs.row - before, lengths) + np.arange(lengths.sum())
    return _Blocks(chunks, replace(runs, shard=np.repeat(runs.shard, lengths), row=row))


def _cells(shard: NDArray[np.integer], row: NDArray[np.integer], height: int) -> NDArray[np.int64]:
    """For each sample, a number for the shard and the row of chunks that it lies in."""
    tallest = int(row.max(initial=0)) // height + 1
    return shard.astype(np.int64) * tallest + row // height


def _row_bounds(
    shard: NDArray[np.integer], row: NDArray[np.integer], height: int
) -> NDArray[np.int64]:
    """First sample of every block and, at the end, the number of samples."""
    if len(shard) == 0:
        return np.zeros(1, np.int64)
    cells = _cells(shard, row, height)
    changes = np.flatnonzero(np.diff(cells)) + 1
    bounds = [0]
    last = 0
    for change in [*changes.tolist(), len(cells)]:
        if change - bounds[-1] > height and last > bounds[-1]:
            bounds.append(last)
        last = change
    # A run of rows longer than a chunk (one row repeated many times) is cut as well.
    stops = [*bounds[1:], len(cells)]
    pieces = [np.arange(a, b, height) for a, b in zip(bounds, stops, strict=True)]
    return np.concatenate([*pieces, [len(cells)]])
