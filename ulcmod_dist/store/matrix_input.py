"""Open a matrix of activations that someone else wrote: NumPy, SciPy, safetensors or Zarr."""

import os
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import obstore
import zarr
from numpy.typing import NDArray
from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec
from zarr.storage import ObjectStore

from ulcmod_dist.errors import InvalidInput, one_line
from ulcmod_dist.runtime.files import is_lfs_pointer, lfs_pointer_error, reject_lfs_pointer
from ulcmod_dist.runtime.rundir import RunDir
from ulcmod_dist.store.matrix_rows import (
    DenseRows,
    Member,
    SparseRows,
    list_tensors,
    open_tensor,
)

ACTIVATIONS_NAME = "activations"

# In the index of a shard, offset and length of a chunk that was never written.
_ABSENT = 2**64 - 1
# Size of a pointer of Git LFS at most.
_POINTER_BYTES = 200

# Anything with a shape and a dtype that can be sliced by rows.
MatrixLike = Any


def open_matrix(location: str, *, allow_missing_chunks: bool = False) -> MatrixLike:
    """Open a matrix [samples, units] without reading it, where its format allows that.

    Of several arrays in a file, the one named ``activations`` or the only one. An ``.npz`` may be
    sparse, as SciPy writes it. A chunk that a
    Zarr array lacks reads as its fill value, whether it was lost or, as Zarr does by default, left
    out because it holds nothing else; with ``allow_missing_chunks`` it is read as that.

    Raises:
        InvalidInput: It cannot be read, is no matrix of real numbers, or lacks chunks.
    """
    try:
        matrix = _open(location)
        if isinstance(matrix, zarr.Array) and matrix.ndim == 2 and not allow_missing_chunks:
            _require_all_chunks(matrix, location)
    except InvalidInput:
        raise
    except Exception as error:
        raise InvalidInput(f"The matrix {location} cannot be read: {one_line(error)}.") from error
    if len(matrix.shape) != 2 or np.dtype(matrix.dtype).kind not in "fiu":
        raise InvalidInput(
            f"{location} holds {matrix.dtype} of shape {tuple(matrix.shape)}.",
            "Activations are real numbers of shape [samples, units], such as float32.",
        )
    if 0 in matrix.shape:
        raise InvalidInput(f"{location} is empty: its shape is {tuple(matrix.shape)}.")
    return matrix


def _open(location: str) -> MatrixLike:
    if location.endswith(".npy"):
        _check_npy(location)
        return np.load(location, mmap_mode="r", allow_pickle=False)
    if location.endswith(".npz"):
        return _open_npz(location)
    if location.endswith(".safetensors"):
        reject_lfs_pointer(location)
        return open_tensor(location, _only(list_tensors(location), location))
    if location.rstrip("/").endswith(".zarr"):
        return _open_zarr(location.rstrip("/"))
    raise InvalidInput(
        f"{location} has no known format.",
        "Name a .npy, .npz, .safetensors or .zarr of shape [samples, units].",
    )


def _open_npz(location: str) -> MatrixLike:
    reject_lfs_pointer(location)
    with np.load(location, allow_pickle=False) as archive:
        names = set(archive.files)
        if {"format", "shape", "data"} <= names:
            return SparseRows(location)
        name = _only(sorted(names), location)
        rows = DenseRows(Member(location, name))
        # Column after column: rows cannot be read one after the other.
        return archive[name] if rows.member.fortran_order else rows


def _check_npy(location: str) -> None:
    """Say what NumPy's own errors do not: what a file is instead, and that it is cut short."""
    reject_lfs_pointer(location)
    with open(location, "rb") as file:
        try:
            version = np.lib.format.read_magic(file)
        except ValueError as error:
            raise InvalidInput(f"{location} is no file of NumPy.") from error
        if version not in {(1, 0), (2, 0)}:
            return
        read_header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, _, dtype = read_header(file)
        if dtype.hasobject:
            raise InvalidInput(
                f"{location} cannot be read: it holds pickled Python objects.",
                "Save the activations as float32.",
            )
        expected = file.tell() + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        size = os.fstat(file.fileno()).st_size
        if size < expected:
            raise InvalidInput(
                f"{location} is cut short: it has {size:,} bytes, of {expected:,} that its header "
                f"announces for {dtype} of shape {shape}.",
                "Copy the file again.",
            )


def _open_zarr(location: str) -> MatrixLike:
    if "://" not in location and not Path(location).exists():
        raise InvalidInput(f"There is no {location}.")
    folder = RunDir.at(location)
    for name in ("zarr.json", ".zarray", ".zgroup"):
        if folder.exists(name):
            _reject_pointers(folder, {name: 0})
    opened = zarr.open(ObjectStore(folder.objects, read_only=True), mode="r")
    if isinstance(opened, zarr.Array):
        return opened
    return opened[_only(sorted(opened.array_keys()), location)]


def _only(names: list[str], location: str) -> str:
    if ACTIVATIONS_NAME in names:
        return ACTIVATIONS_NAME
    if len(names) != 1:
        raise InvalidInput(
            f"{location} holds the arrays {names}.",
            f"Name the one with the activations {ACTIVATIONS_NAME!r}.",
        )
    return names[0]


def _require_all_chunks(array: zarr.Array[Any], location: str) -> None:
    folder = RunDir.at(location.rstrip("/"))
    try:
        sizes = dict(folder.keys(array.path))
    except Exception as error:
        # Such as a plain web server, which has no listings.
        raise InvalidInput(
            f"The chunks of {location} cannot be listed: {one_line(error)}.",
            "Download the array; or set matrix.allow_missing_chunks to true if all are there.",
        ) from error
    absent = find_missing_chunks(array, folder, sizes)
    if not absent.any():
        return
    first = [int(index) for index in np.argwhere(absent)[0]]
    rows, columns = (
        f"{number * size} to {min((number + 1) * size, length) - 1}"
        for number, size, length in zip(first, array.chunks, array.shape, strict=True)
    )
    raise InvalidInput(
        f"{location} lacks {int(absent.sum()):,} of its {absent.size:,} chunks, the first that of "
        f"the samples {rows} and the units {columns}; they would read as {array.fill_value}.",
        f"Restore them; or, if they were left out because they hold nothing but "
        f"{array.fill_value}, set matrix.allow_missing_chunks to true.",
    )


def find_missing_chunks(
    array: zarr.Array[Any], folder: RunDir, sizes: dict[str, int]
) -> NDArray[np.bool_]:
    """Which chunks of an array in a Zarr folder are not stored, in the shape of its grid of chunks.

    ``sizes`` are the bytes of each key of the folder. Of a sharded array the index of each shard is
    read too, since a shard may lack some of its chunks.
    """
    prefix = f"{array.path}/" if array.path else ""
    _reject_pointers(folder, sizes)
    shape, chunks, whole = array.shape, array.chunks, array.shards or array.chunks
    absent = np.ones([-(-n // size) for n, size in zip(shape, chunks, strict=True)], bool)
    per_shard = [outer // inner for outer, inner in zip(whole, chunks, strict=True)]
    for place in product(*(range(-(-n // size)) for n, size in zip(shape, whole, strict=True))):
        key = prefix + array.metadata.encode_chunk_key(place)
        if key not in sizes:
            continue
        if array.shards is None:
            absent[place] = False
            continue
        # Beyond the edge of the array, a slice is cut off.
        region = tuple(slice(i * n, (i + 1) * n) for i, n in zip(place, per_shard, strict=True))
        part = absent[region]
        lacking = _absent_in_shard(array, folder, key, sizes[key], per_shard)
        part[:] = lacking[tuple(slice(length) for length in part.shape)]
    return absent


def _reject_pointers(folder: RunDir, sizes: dict[str, int]) -> None:
    # Whoever cloned without Git LFS has pointers for all chunks: the first small one tells.
    small = next((key for key, size in sizes.items() if size <= _POINTER_BYTES), None)
    if small is not None and is_lfs_pointer(folder.read(small)):
        raise lfs_pointer_error(folder.show(small))


def _absent_in_shard(
    array: zarr.Array[Any], folder: RunDir, key: str, size: int, per_shard: list[int]
) -> NDArray[np.bool_]:
    """Which chunks the index of a shard marks as absent; none without shards."""
    codec = next(_sharding_codecs(array), None)
    # The index is an array of (offset, length), by default followed by a checksum of four bytes.
    # Any other encoding of it is possible in theory and known of no writer.
    if codec is None or not all(
        isinstance(c, BytesCodec | Crc32cCodec) for c in codec.index_codecs
    ):
        return np.zeros(per_shard, bool)
    entries = int(np.prod(per_shard))
    length = 16 * entries + 4 * sum(isinstance(c, Crc32cCodec) for c in codec.index_codecs)
    start = 0 if codec.index_location.value == "start" else max(0, size - length)
    index = bytes(obstore.get_range(folder.objects, key, start=start, length=16 * entries))
    # Unset bytes are the same in either byte order.
    offsets = np.frombuffer(index, np.uint64).reshape(*per_shard, 2)[..., 0]
    return np.asarray(offsets == _ABSENT)


def _sharding_codecs(array: zarr.Array[Any]) -> Iterator[ShardingCodec]:
    codecs = getattr(array.metadata, "codecs", ())
    yield from (codec for codec in codecs if isinstance(codec, ShardingCodec))
