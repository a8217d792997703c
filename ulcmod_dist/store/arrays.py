"""Zarr: how a shard's arrays are written and read, and the rows of many shards as one Dask array.

Chunks are stored uncompressed with crc32c: float32 activations shrink by a tenth at most, and one
pass over compressed chunks takes longer than reading that tenth (docs/data-model.md).
"""

import asyncio
import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any, TypeAlias

import dask.array as da
import numpy as np
import zarr
from dask.base import tokenize
from dask.blockwise import blockwise
from dask.highlevelgraph import HighLevelGraph
from dask.layers import ArrayBlockwiseDep
from numpy.typing import NDArray
from zarr.abc.store import ByteRequest
from zarr.codecs import BytesCodec, Crc32cCodec
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import ObjectStore

from ulcmod_dist.runtime.rundir import RunDir
from ulcmod_dist.store.records import CorruptionError, ObjectChecksum
from ulcmod_dist.store.schema import ACTIVATION_ARRAY, ArraySchema, ChunkShape

Apply: TypeAlias = Callable[[Callable[[Any], Any], Iterable[Any]], Iterator[Any]]
"""Calls a function with each item and yields what it returns, in order: `map`, or a pool's."""


@dataclass(frozen=True)
class ShardArray:
    """An array about to be written, and the shape of its chunks."""

    schema: ArraySchema
    data: NDArray[Any]
    chunks: tuple[int, ...]

    def regions(self) -> Iterator[tuple[slice, ...]]:
        """The regions of its chunks, the last dimension slowest."""
        sides = [
            [slice(start, min(start + step, size)) for start in range(0, size, step)]
            for size, step in zip(self.data.shape[::-1], self.chunks[::-1], strict=True)
        ]
        return (region[::-1] for region in itertools.product(*sides))


class StrictStore(ObjectStore):  # type: ignore[type-arg]
    """A Zarr store of a run directory; a missing chunk raises, where Zarr would return the fill."""

    def __init__(self, run: RunDir, *, read_only: bool = False) -> None:
        super().__init__(run.objects, read_only=read_only)
        self.url = run.url

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """The bytes of a key; None only for metadata, whose absence Zarr probes for."""
        value = await super().get(key, prototype, byte_range)
        if value is None and "c" in key.split("/"):
            raise CorruptionError(
                f"The chunk {self.url}/{key} is missing.", "Run `ulcmod verify` for all damage."
            )
        return value


class _ReadBackStore(StrictStore):
    """A store that keeps the checksum of every object read through it."""

    def __init__(self, run: RunDir) -> None:
        super().__init__(run, read_only=True)
        self.seen: dict[str, ObjectChecksum] = {}

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        value = await super().get(key, prototype, byte_range)
        if value is not None:
            self.seen[key] = await asyncio.to_thread(ObjectChecksum.of, value.as_numpy_array())
        return value


def write_group(
    run: RunDir,
    folder: str,
    arrays: list[ShardArray],
    attributes: Mapping[str, Any],
    apply: Apply = map,
) -> None:
    """Write a group of arrays below a key that is still empty, its chunks as ``apply`` does."""
    # Rooted at the folder: from higher up Zarr would write metadata for every folder in between.
    store = StrictStore(RunDir(run.show(folder)))
    group = zarr.create_group(store, attributes=dict(attributes))
    for array in arrays:
        target = group.create_array(
            array.schema.name,
            shape=array.data.shape,
            dtype=np.dtype(array.schema.dtype).newbyteorder("<"),
            chunks=array.chunks,
            serializer=BytesCodec(endian="little"),
            filters=None,
            compressors=[Crc32cCodec()],
            fill_value=array.schema.fill,
            dimension_names=array.schema.dims,
            # By default Zarr leaves out chunks of fill values; presence is proven by listing.
            config={"write_empty_chunks": True},
        )
        for _ in apply(partial(_write_region, target, array.data), array.regions()):
            pass


def _write_region(target: zarr.Array[Any], data: NDArray[Any], region: tuple[slice, ...]) -> None:
    target[region] = data[region]


def read_back(
    run: RunDir, folder: str, arrays: list[ShardArray], apply: Apply = map
) -> tuple[dict[str, ObjectChecksum], dict[str, str]]:
    """Read a group from the store, as ``apply`` does, and compare it with what was written.

    Returns the checksum of each object by its key below the folder, and the SHA-256 of each array's
    values (little-endian, in regions one chunk wide) by its name.

    Raises:
        CorruptionError: A value differs, or a key is missing or not part of the group.
    """
    inner = RunDir(run.show(folder))
    store = _ReadBackStore(inner)
    group = zarr.open_group(store, mode="r")
    digests = {}
    for array in arrays:
        stored = group[array.schema.name]
        assert isinstance(stored, zarr.Array)
        same = apply(partial(_is_stored, stored, array.data), array.regions())
        content = hashlib.sha256()
        for region, is_same in zip(array.regions(), same, strict=True):
            if not is_same:
                raise CorruptionError(
                    f"{run.show(folder)}/{array.schema.name} reads back differently."
                )
            content.update(np.ascontiguousarray(array.data[region]).data)
        digests[array.schema.name] = content.hexdigest()
    if dict(inner.keys()) != {key: value.size for key, value in store.seen.items()}:
        raise CorruptionError(f"The listing of {run.show(folder)} does not match what was written.")
    return dict(sorted(store.seen.items())), digests


def _is_stored(stored: zarr.Array[Any], data: NDArray[Any], region: tuple[slice, ...]) -> bool:
    values = np.asarray(stored[region])
    # As integers: equal bits, where NaN would differ from itself and 0 equal -0.
    bits = f"u{values.itemsize}"
    return np.array_equal(values.view(bits), data[region].view(bits))


@lru_cache(maxsize=512)
def open_array(run: RunDir, folder: str, name: str) -> zarr.Array[Any]:
    """One array of a group for reading; cached, since opening it costs a request."""
    return zarr.open_array(StrictStore(run, read_only=True), path=f"{folder}/{name}", mode="r")


def read_region(
    run: RunDir, folder: str, schema: ArraySchema, region: tuple[slice, ...]
) -> NDArray[Any]:
    """Values of a region of an array.

    Raises:
        CorruptionError: A chunk is missing or its checksum does not match.
    """
    try:
        return np.asarray(open_array(run, folder, schema.name)[region])
    except (ValueError, FileNotFoundError) as error:
        raise CorruptionError(
            f"{run.show(folder)}/{schema.name} cannot be read: {error}.",
            "Run `ulcmod verify` for all damage.",
        ) from error


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
