"""Zarr: how a shard's arrays are written and read.

Chunks are stored uncompressed with crc32c: float32 activations shrink by a tenth at most, and one
pass over compressed chunks takes longer than reading that tenth (docs/data-model.md).
"""

import asyncio
import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, TypeAlias

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.abc.store import ByteRequest
from zarr.codecs import BytesCodec, Crc32cCodec
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import ObjectStore

from ulcmod_dist.runtime.rundir import RunDir
from ulcmod_dist.store.records import CorruptionError, ObjectChecksum
from ulcmod_dist.store.schema import ArraySchema

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
