"""Matrices in files that are read row after row: archives of NumPy and SciPy, and safetensors.

Each has ``shape`` and ``dtype`` and gives slices of rows as dense arrays, in bounded memory. An
archive has no random access: a slice that begins before the end of the last starts it anew.
"""

import json
import zipfile
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from scipy.sparse import csr_array

from ulcmod_dist.errors import InvalidInput

_SKIPPED_BYTES = 16 * 2**20
_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"} | {
    f"{kind}{8 * size}": f"<{kind.lower()}{size}" for kind in "IU" for size in (1, 2, 4, 8)
}


class Member:
    """An array in an ``.npz``, compressed or not, that is read in the order of its elements."""

    def __init__(self, location: str, name: str) -> None:
        self._location, self._name = location, name
        self._restart()

    def _restart(self) -> None:
        with zipfile.ZipFile(self._location) as archive:
            # A member keeps its archive open.
            self._file: IO[bytes] = archive.open(f"{self._name}.npy")
        version = np.lib.format.read_magic(self._file)
        read_header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        self.shape, self.fortran_order, self.dtype = read_header(self._file)
        self._position = 0

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """The elements from ``start`` to ``stop``, counted in C order."""
        if start < self._position:
            self._restart()
        while (skipped := start - self._position) > 0:
            self._read_next(min(skipped, _SKIPPED_BYTES // self.dtype.itemsize))
        return self._read_next(stop - start)

    def _read_next(self, count: int) -> NDArray[Any]:
        data = self._file.read(count * self.dtype.itemsize)
        self._position += count
        return np.frombuffer(data, self.dtype, count)


@dataclass(frozen=True)
class DenseRows:
    """A matrix in an ``.npz``."""

    member: Member

    @property
    def shape(self) -> tuple[int, ...]:
        """[samples, units], where it is a matrix."""
        return tuple(self.member.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of its numbers."""
        return np.dtype(self.member.dtype)

    def __getitem__(self, rows: slice) -> NDArray[Any]:
        start, stop, _ = rows.indices(self.shape[0])
        width = self.shape[1]
        return self.member.read(start * width, stop * width).reshape(-1, width)


class SparseRows:
    """A sparse matrix that ``scipy.sparse.save_npz`` wrote, such as latents of an autoencoder."""

    def __init__(self, location: str) -> None:
        """Open it; the starts of its rows are read.

        Raises:
            InvalidInput: It is not stored by rows.
        """
        with np.load(location, allow_pickle=False) as archive:
            layout = bytes(archive["format"].item()).decode()
            if layout != "csr":
                raise InvalidInput(
                    f"{location} holds a sparse matrix in the format {layout}.",
                    "Save it by rows: scipy.sparse.save_npz(FILE, matrix.tocsr()).",
                )
            self.shape: tuple[int, ...] = tuple(archive["shape"].tolist())
            self._starts = archive["indptr"].astype(np.int64)
        self._values, self._units = Member(location, "data"), Member(location, "indices")
        self.dtype = np.dtype(self._values.dtype)
        if len(self._starts) != self.shape[0] + 1 or (np.diff(self._starts) < 0).any():
            raise InvalidInput(f"{location} holds a sparse matrix with damaged starts of rows.")

    def __getitem__(self, rows: slice) -> NDArray[Any]:
        start, stop, _ = rows.indices(self.shape[0])
        starts = self._starts[start : stop + 1]
        parts = [part.read(int(starts[0]), int(starts[-1])) for part in (self._values, self._units)]
        sparse = csr_array((*parts, starts - starts[0]), shape=(stop - start, self.shape[1]))
        # toarray would write beyond the array.
        sparse.check_format(full_check=True)
        return np.asarray(sparse.toarray())


@dataclass(frozen=True)
class BfloatRows:
    """A matrix of bfloat16, which NumPy lacks, as float32."""

    bits: NDArray[np.uint16]

    dtype = np.dtype(np.float32)

    @property
    def shape(self) -> tuple[int, ...]:
        """[samples, units], where it is a matrix."""
        return self.bits.shape

    def __getitem__(self, rows: slice) -> NDArray[np.float32]:
        return (self.bits[rows].astype(np.uint32) << 16).view(np.float32)


def list_tensors(location: str) -> list[str]:
    """Names of the tensors in a ``.safetensors``, whose header is checked."""
    with safe_open(location, framework="numpy") as file:
        return sorted(file.keys())


def open_tensor(location: str, name: str) -> NDArray[Any] | BfloatRows:
    """Map a tensor of a ``.safetensors`` into memory.

    Raises:
        InvalidInput: NumPy has no such type of numbers.
    """
    with open(location, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        entry = json.loads(file.read(length))[name]
    if entry["dtype"] not in _DTYPES:
        raise InvalidInput(
            f"The tensor {name} in {location} has the type {entry['dtype']}.",
            f"Types that are read: {', '.join(_DTYPES)}.",
        )
    offset = 8 + length + entry["data_offsets"][0]
    dtype, shape = np.dtype(_DTYPES[entry["dtype"]]), tuple(entry["shape"])
    bits: NDArray[Any] = np.memmap(location, dtype, "r", offset, shape)
    return BfloatRows(bits) if entry["dtype"] == "BF16" else bits
