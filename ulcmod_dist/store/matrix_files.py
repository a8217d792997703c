"""Import a matrix extracted elsewhere: it becomes shards and a snapshot, by the same protocol."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import zarr
from numpy.typing import NDArray
from zarr.storage import ObjectStore

from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.runtime.rundir import RunDir
from ulcmod_dist.store.manifest import CORPUS_SCHEMA, write_manifest
from ulcmod_dist.store.records import committed_digests, latest_provenance
from ulcmod_dist.store.schema import ChunkShape, cache_key, shard_digest
from ulcmod_dist.store.shards import Commit, Origin, ShardContent, ShardWriter, read_commit
from ulcmod_dist.store.snapshot import UNIT_SCHEMA, Snapshot

ACTIVATIONS_NAME = "activations"
SHARD_ROWS = 512
PROVENANCE = {"source": "imported matrix"}

# NumPy, memory-mapped NumPy or Zarr: anything with a shape that can be sliced by rows.
MatrixLike = Any


def open_matrix(location: str) -> MatrixLike:
    """Open a matrix [samples, units] without reading it, where its format allows that.

    Of an ``.npz`` or a ``.zarr``, the array named ``activations`` or the only one.

    Raises:
        InvalidInput: It cannot be read, or is no matrix of numbers.
    """
    try:
        matrix = _open(location)
    except InvalidInput:
        raise
    except Exception as error:
        raise InvalidInput(f"The matrix {location} cannot be read: {error}.") from error
    if len(matrix.shape) != 2 or np.dtype(matrix.dtype).kind not in "fiu":
        raise InvalidInput(
            f"{location} holds {matrix.dtype} of shape {tuple(matrix.shape)}.",
            "Activations are numbers of shape [samples, units].",
        )
    if 0 in matrix.shape:
        raise InvalidInput(f"{location} is empty: its shape is {tuple(matrix.shape)}.")
    return matrix


def import_matrix(
    run: RunDir,
    matrix: MatrixLike,
    *,
    samples: pa.Table | None = None,
    units: pa.Table | None = None,
    check: Callable[[], None] = lambda: None,
    report: Callable[[int], None] = lambda rows: None,
) -> Snapshot:
    """Write a matrix [samples, units] as float32 shards and publish it as the run's next snapshot.

    A shard's digest follows from its rows, so that importing again writes nothing twice. By default
    samples and units are numbered, the samples are all train and the units otherwise unknown.
    ``check`` is called before each commit and raises if this process may not commit; ``report`` is
    called with the number of rows stored so far.

    Raises:
        InvalidInput: An activation is NaN or infinite (the message names sample and unit), the
            tables do not fit the matrix, or the run holds activations of another origin.
    """
    count, width = map(int, matrix.shape)
    if samples is None:
        columns = {
            "sample_id": [str(number) for number in range(count)],
            "split": ["train"] * count,
        }
        samples = pa.table({**columns, "category": pa.nulls(count, pa.string())})
    if units is None:
        unknown = {field.name: pa.nulls(width, field.type) for field in UNIT_SCHEMA}
        units = pa.table({**unknown, "unit": pa.array(range(width))}, schema=UNIT_SCHEMA)
    if (samples.num_rows, units.num_rows) != (count, width):
        raise InvalidInput(
            f"The matrix has shape {(count, width)}, but {samples.num_rows} samples and "
            f"{units.num_rows} units are described."
        )
    _require_same_origin(run)
    writer = ShardWriter(run, ChunkShape.of(min(SHARD_ROWS, count), width), check=check)
    there = committed_digests(run)
    shards: list[Commit] = []
    rows: list[str] = []
    for start in range(0, count, SHARD_ROWS):
        block = _block(matrix, start, samples)
        named = tuple(hashlib.sha256(row.tobytes()).hexdigest() for row in block)
        digest = shard_digest(PROVENANCE, named)
        if digest in there:
            shards.append(read_commit(run, digest))
        else:
            content = ShardContent(named, block, np.zeros(len(block), np.int64))
            shards.append(writer.write(content, Origin(PROVENANCE)))
        rows.extend(named)
        report(start + len(block))
    table = samples.select(["sample_id", "split", "category"])
    corpus = table.append_column("prompt", pa.array(rows, pa.string())).cast(CORPUS_SCHEMA)
    return write_manifest(run, corpus, units, shards, provenance=PROVENANCE, check=check)


def _open(location: str) -> MatrixLike:
    if location.endswith(".npy"):
        return np.load(location, mmap_mode="r", allow_pickle=False)
    if location.endswith(".npz"):
        with np.load(location, allow_pickle=False) as archive:
            return archive[_only(list(archive.files), location)]
    if location.rstrip("/").endswith(".zarr"):
        return _open_zarr(location.rstrip("/"))
    raise InvalidInput(
        f"{location} has no known format.",
        "Name a .npy, an .npz or a .zarr of shape [samples, units].",
    )


def _open_zarr(location: str) -> MatrixLike:
    if "://" not in location and not Path(location).exists():
        raise InvalidInput(f"There is no {location}.")
    # Elsewhere an absent chunk is an ordinary way to store zeros.
    opened = zarr.open(ObjectStore(RunDir.at(location).objects, read_only=True), mode="r")
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


def _block(matrix: MatrixLike, start: int, samples: pa.Table) -> NDArray[np.float32]:
    stop = min(start + SHARD_ROWS, matrix.shape[0])
    # A number beyond float32 becomes infinite here and is refused by name below.
    with np.errstate(over="ignore"):
        block = np.ascontiguousarray(matrix[start:stop], dtype=np.float32)
    bad = ~np.isfinite(block)
    if bad.any():
        row, unit = (int(index[0]) for index in np.nonzero(bad))
        raise InvalidInput(
            f"The activation of sample {samples['sample_id'][start + row].as_py()} (row "
            f"{start + row}) at unit {unit} is {block[row, unit]}.",
            "Activations must be finite numbers within the range of float32.",
        )
    return block


def _require_same_origin(run: RunDir) -> None:
    # Not by opening the snapshot: importing again is how damaged shards are repaired.
    provenance = latest_provenance(run)
    if provenance is not None and cache_key(provenance) != PROVENANCE:
        origin = provenance.get("source") or provenance.get("model.id", "another model")
        raise InvalidInput(
            f"{run.url} holds activations of {origin}.", "Import into another run directory."
        )
