"""Zarr: how a shard's arrays are written and read, on a local disk or in an object store.

Chunks are stored uncompressed with crc32c: float32 activations shrink by a tenth at most, and one
pass over compressed chunks takes longer than reading that tenth (docs/data-model.md).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.abc.store import ByteRequest
from zarr.codecs import BytesCodec, Crc32cCodec
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import ObjectStore

from ulcmod_dist.runtime.rundir import RunDir
from ulcmod_dist.store.checksums import CorruptionError
from ulcmod_dist.store.schema import ArraySchema


@dataclass(frozen=True)
class ShardArray:
    """An array about to be written.

    Attributes:
        schema: Its name, dimensions and type.
        data: Its values.
        chunks: Shape of a chunk.
    """

    schema: ArraySchema
    data: NDArray[Any]
    chunks: tuple[int, ...]

    def slabs(self) -> Iterator[tuple[slice, ...]]:
        """Regions one chunk wide that cover the array, along its last dimension."""
        size, step = self.data.shape[-1], self.chunks[-1]
        lead = (slice(None),) * (self.data.ndim - 1)
        for start in range(0, size, step):
            yield (*lead, slice(start, min(start + step, size)))


class StrictStore(ObjectStore):  # type: ignore[type-arg]
    """Zarr's view of a run directory, in which an absent chunk is an error and never the fill."""

    def __init__(self, run: RunDir, *, read_only: bool = False) -> None:
        super().__init__(run.objects, read_only=read_only)
        self.place = run.url

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """The bytes of a key; None only for metadata, which Zarr looks for by asking."""
        value = await super().get(key, prototype, byte_range)
        if value is None and "c" in key.split("/"):
            raise CorruptionError(
                f"The chunk {self.place}/{key} is missing.", "Run `ulcmod verify` for all damage."
            )
        return value


@dataclass(frozen=True)
class ObjectChecksum:
    """Size and SHA-256 of a stored object."""

    size: int
    sha256: str


class _ReadBackStore(StrictStore):
    """A store that remembers the fingerprint of every object read through it."""

    def __init__(self, run: RunDir) -> None:
        super().__init__(run, read_only=True)
        self.seen: dict[str, ObjectChecksum] = {}

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        value = await super().get(key, prototype, byte_range)
        if value is not None:
            self.seen[key] = checksum_bytes(value.as_numpy_array())
        return value


def checksum_bytes(data: Any) -> ObjectChecksum:
    """Size and SHA-256 of bytes."""
    view = memoryview(data)
    return ObjectChecksum(view.nbytes, hashlib.sha256(view).hexdigest())


def write_group(
    run: RunDir, folder: str, arrays: list[ShardArray], attributes: Mapping[str, Any]
) -> None:
    """Write a group of arrays below a key at which nothing is yet."""
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
            # Presence is proven by listing, so every chunk has to be there.
            config={"write_empty_chunks": True},
        )
        for slab in array.slabs():
            target[slab] = array.data[slab]


@dataclass(frozen=True)
class ReadBack:
    """What was found when a freshly written group was read again.

    Attributes:
        objects: Key below the group's folder -> its fingerprint.
        arrays: Name of an array -> SHA-256 of its values (little-endian, slab after slab).
    """

    objects: dict[str, ObjectChecksum]
    arrays: dict[str, str] = field(default_factory=dict)


def read_back(run: RunDir, folder: str, arrays: list[ShardArray]) -> ReadBack:
    """Read a group from the store and compare it with what was to be written.

    Raises:
        CorruptionError: A value differs, or a key is missing or not part of the group.
    """
    inner = RunDir(run.show(folder))
    store = _ReadBackStore(inner)
    group = zarr.open_group(store, mode="r")
    found = ReadBack(store.seen)
    for array in arrays:
        stored = group[array.schema.name]
        assert isinstance(stored, zarr.Array)
        content = hashlib.sha256()
        for slab in array.slabs():
            values = np.asarray(stored[slab]).tobytes()
            if values != array.data[slab].tobytes():
                raise CorruptionError(
                    f"{run.show(folder)}/{array.schema.name} reads back differently."
                )
            content.update(values)
        found.arrays[array.schema.name] = content.hexdigest()
    if dict(inner.keys()) != {key: value.size for key, value in found.objects.items()}:
        raise CorruptionError(f"The listing of {run.show(folder)} does not match what was written.")
    return found


@lru_cache(maxsize=512)
def open_array(run: RunDir, folder: str, name: str) -> zarr.Array[Any]:
    """One array of a group for reading; kept open, since its shape never changes."""
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
