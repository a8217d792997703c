"""A view's rows as one lazy array: which blocks it has, and how a block is read.

The graph holds a rule and never a list of tasks; what a block consists of is worked out when its
task is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
class RowRange:
    """Rows of one block that come from one stretch of a shard.

    Attributes:
        folder: The shard's group.
        start, stop: The stretch of the shard's rows that is read.
        take: Which rows of the stretch, in which order; None for all of them.
        place: Where they go in the block; None for a block that is this piece alone.
    """

    folder: str
    start: int
    stop: int
    take: NDArray[np.intp] | None
    place: NDArray[np.intp] | None


@dataclass(frozen=True)
class BlockRows:
    """One block of the lazy array.

    Attributes:
        run: The run directory.
        rows: Number of rows.
        columns: First unit and the one after the last.
        pieces: Where the rows come from.
    """

    run: RunDir
    rows: int
    columns: tuple[int, int]
    pieces: tuple[RowRange, ...]


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
    gathered until a block has the rows of a chunk.

    Args:
        run: The run directory.
        folders: Groups of the shards.
        shard: For each sample, the index of its shard in ``folders``.
        row: For each sample, its row in the shard.
        units: Number of units.
        chunk_shape: Chunk shape of the store.
    """
    bounds = _row_bounds(shard, row, chunk_shape.rows)
    widths = [
        min(chunk_shape.columns, units - start) for start in range(0, units, chunk_shape.columns)
    ]
    chunks = (tuple(int(size) for size in np.diff(bounds)), tuple(widths))
    if len(shard) == 0:
        empty: da.Array = da.zeros((0, units), chunks=(0, chunk_shape.columns), dtype=np.float32)
        return empty
    rule = _Blocks(chunks, run, tuple(folders), shard, row, chunk_shape.rows)
    name = f"activations-{tokenize(run.url, folders, shard, row, chunks)}"
    layer = blockwise(read_block, name, "su", rule, "su", numblocks={}, _data_producer=True)
    graph = HighLevelGraph.from_collections(name, layer)
    return da.Array(graph, name, chunks, dtype=np.float32)


def read_block(block: BlockRows) -> NDArray[np.float32]:
    """Read one block [rows, units of the block].

    Raises:
        CorruptionError: A chunk is missing or damaged.
    """
    columns = slice(*block.columns)
    out: NDArray[np.float32] | None = None
    for piece in block.pieces:
        region = (slice(piece.start, piece.stop), columns)
        values = read_region(block.run, piece.folder, ACTIVATION_ARRAY, region)
        if piece.take is not None:
            values = values[piece.take]
        if piece.place is None:
            return values
        if out is None:
            out = np.empty((block.rows, values.shape[1]), np.float32)
        out[piece.place] = values
    assert out is not None
    return out


class _Blocks(ArrayBlockwiseDep):
    """Dask's way to hand each task of a layer its own argument."""

    def __init__(
        self,
        chunks: tuple[tuple[int, ...], ...],
        run: RunDir,
        folders: tuple[str, ...],
        shard: NDArray[np.integer],
        row: NDArray[np.integer],
        height: int,
    ) -> None:
        super().__init__(chunks)
        self.run, self.folders, self.height = run, folders, height
        self.shard, self.row = shard, row
        self.starts = [np.concatenate([[0], np.cumsum(sizes)]) for sizes in chunks]

    def __getitem__(self, idx: tuple[int, ...]) -> BlockRows:
        (first, last), columns = (
            (int(starts[i]), int(starts[i + 1])) for starts, i in zip(self.starts, idx, strict=True)
        )
        shard, row = self.shard[first:last], self.row[first:last]
        cells = _cells(shard, row, self.height)
        names = list(dict.fromkeys(cells.tolist()))
        pieces = (self._piece(np.flatnonzero(cells == name), shard, row) for name in names)
        if len(names) == 1:
            only = next(pieces)
            only = RowRange(only.folder, only.start, only.stop, only.take, None)
            return BlockRows(self.run, last - first, columns, (only,))
        return BlockRows(self.run, last - first, columns, tuple(pieces))

    def _piece(
        self, place: NDArray[np.intp], shard: NDArray[np.integer], row: NDArray[np.integer]
    ) -> RowRange:
        rows = row[place]
        start, stop = int(rows.min()), int(rows.max()) + 1
        whole = len(rows) == stop - start and bool(np.all(np.diff(rows) == 1))
        take = None if whole else (rows - start).astype(np.intp)
        return RowRange(self.folders[int(shard[place[0]])], start, stop, take, place)


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
    # A stretch longer than a chunk (a row named again and again) is cut as well.
    stops = [*bounds[1:], len(cells)]
    pieces = [np.arange(a, b, height) for a, b in zip(bounds, stops, strict=True)]
    return np.concatenate([*pieces, [len(cells)]])
