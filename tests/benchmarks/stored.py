"""A stored matrix to be read by benchmarks, and the state of the page cache while it is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import zarr
from numpy.typing import NDArray

from ulcmod_dist.passes.standardised import Standardised, as_standardised

# Untyped in Dask and Zarr.
DASK: Any = da
ZARR: Any = zarr
CHUNKS = (1024, 2048)


def side(gigabytes: float) -> int:
    """Samples, and units, of a square matrix of about this size: whole chunks."""
    return max(1, round(float(np.sqrt(gigabytes * 1e9 / 4)) / CHUNKS[1])) * CHUNKS[1]


def written(folder: Path, gigabytes: float) -> Path:
    """A square matrix of noise with modules, coded as the store codes its chunks; made once."""
    size = side(gigabytes)
    path = folder / f"{size}x{size}.zarr"
    if not path.exists():
        array = ZARR.create_array(
            str(path),
            shape=(size, size),
            chunks=CHUNKS,
            dtype="float32",
            compressors=[ZARR.codecs.Crc32cCodec()],
            filters=None,
        )
        rng = np.random.default_rng(0)
        columns = rng.permutation(size) % 10
        noise = rng.standard_normal((CHUNKS[0], size), dtype=np.float32) * np.float32(3)
        for first in range(0, size, CHUNKS[0]):
            rows = rng.integers(0, 10, CHUNKS[0])
            shift = int(rng.integers(size))
            block = np.roll(noise, shift, axis=1) + (rows[:, None] == columns)
            array[first : first + CHUNKS[0]] = block.astype(np.float32)
        os.sync()
    return path


def set_cache(path: Path, cache: str) -> None:
    """Put an array's files out of the page cache, or into it."""
    for file in path.rglob("c/*/*"):
        if cache == "warm":
            file.read_bytes()
            continue
        with file.open("rb") as opened:
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def lazily(path: Path, count: list[int] | None = None, size: int | None = None) -> Standardised:
    """A stored matrix, or its first rows and columns, over Dask; counts the bytes that are read."""
    stored: Any = zarr.open_array(str(path), mode="r")
    shape = stored.shape if size is None else (size, size)

    def read(block_info: Any = None) -> NDArray[np.float32]:
        place = tuple(slice(a, b) for a, b in block_info[None]["array-location"])
        block: NDArray[np.float32] = stored[place]
        if count is not None:
            count[0] += block.nbytes
        return block

    chunks = DASK.core.normalize_chunks(stored.chunks, shape, dtype=stored.dtype)
    return as_standardised(
        DASK.map_blocks(read, chunks=chunks, dtype=stored.dtype, meta=np.empty((0, 0)))
    )
