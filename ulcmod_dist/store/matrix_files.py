"""Import a matrix extracted elsewhere: it becomes shards and a snapshot, by the same protocol."""

import hashlib
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ulcmod_dist.corpus.digests import Digests, join_digests, to_arrow
from ulcmod_dist.errors import InvalidInput, describe_error
from ulcmod_dist.passes.moments import count_block_rows
from ulcmod_dist.passes.standardised import Moments
from ulcmod_dist.runtime.rundir import RunDir
from ulcmod_dist.store.manifest import CORPUS_SCHEMA, write_manifest
from ulcmod_dist.store.matrix_input import MatrixLike
from ulcmod_dist.store.records import (
    Commit,
    Origin,
    committed_digests,
    latest_provenance,
    read_commit,
)
from ulcmod_dist.store.schema import ChunkShape, cache_key, shard_digest
from ulcmod_dist.store.shards import ShardContent, ShardWriter
from ulcmod_dist.store.snapshot import UNIT_SCHEMA, Snapshot

PROVENANCE = {"source": "imported matrix"}

MAX_ROUNDING = 0.01
"""Error of the float32 that are stored, as a share of a unit's standard deviation, at most."""

_PIECE_ROWS = 64
_WRITERS = 2


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
        InvalidInput: An activation is NaN or infinite (the message names sample and unit), a unit
            varies too little beside its size for float32, the tables do not fit the matrix, or the
            run holds activations of another origin.
    """
    count, width = map(int, matrix.shape)
    samples = _number_samples(count) if samples is None else samples
    units = _number_units(width) if units is None else units
    if (samples.num_rows, units.num_rows) != (count, width):
        raise InvalidInput(
            f"The matrix has shape {(count, width)}, but {samples.num_rows} samples and "
            f"{units.num_rows} units are described."
        )
    _require_same_origin(run)
    height = count_block_rows(width)
    writer = ShardWriter(run, ChunkShape.of(min(height, count), width), check=check)
    there = committed_digests(run)
    stored: list[Future[Commit]] = []
    rows: list[Digests] = []
    rounding = _Rounding(Moments.none(width), np.zeros(width))
    # Shards are written while the next is read.
    with ThreadPoolExecutor(_WRITERS) as background:
        for start in range(0, count, height):
            given = _read(matrix, start, min(start + height, count))
            block = _as_float32(given, start, samples)
            if not np.can_cast(given.dtype, np.float32):
                rounding = rounding.after(given, block)
            named = join_digests(hashlib.sha256(row).digest() for row in block)
            if len(stored) >= _WRITERS:
                stored[-_WRITERS].result()
                report((len(stored) - _WRITERS + 1) * height)
            stored.append(background.submit(_store, writer, there, named, block))
            rows.append(named)
    report(count)
    rounding.check()
    shards = [commit.result() for commit in stored]
    table = samples.select(["sample_id", "split", "category"])
    corpus = table.append_column("prompt", to_arrow(join_digests(rows))).cast(CORPUS_SCHEMA)
    return write_manifest(run, corpus, units, shards, provenance=PROVENANCE, check=check)


def _number_samples(count: int) -> pa.Table:
    columns = {"sample_id": [str(number) for number in range(count)], "split": ["train"] * count}
    return pa.table({**columns, "category": pa.nulls(count, pa.string())})


def _number_units(width: int) -> pa.Table:
    unknown = {field.name: pa.nulls(width, field.type) for field in UNIT_SCHEMA}
    return pa.table({**unknown, "unit": pa.array(range(width))}, schema=UNIT_SCHEMA)


def _store(
    writer: ShardWriter, there: set[str], rows: Digests, block: NDArray[np.float32]
) -> Commit:
    digest = shard_digest(PROVENANCE, rows)
    if digest in there:
        return read_commit(writer.run, digest)
    content = ShardContent(rows, block, np.zeros(len(block), np.int64))
    return writer.write(content, Origin(PROVENANCE))


def _read(matrix: MatrixLike, start: int, stop: int) -> NDArray[Any]:
    try:
        return np.asarray(matrix[start:stop])
    except Exception as error:
        raise InvalidInput(
            f"The rows {start} to {stop - 1} of the matrix cannot be read: {describe_error(error)}."
        ) from error


def _as_float32(given: NDArray[Any], start: int, samples: pa.Table) -> NDArray[np.float32]:
    # A number beyond float32 becomes infinite here and is refused by name below.
    with np.errstate(over="ignore"):
        block = np.ascontiguousarray(given, dtype=np.float32)
    bad = ~np.isfinite(block)
    if bad.any():
        row, unit = (int(index[0]) for index in np.nonzero(bad))
        raise InvalidInput(
            f"The activation of sample {samples['sample_id'][start + row].as_py()} (row "
            f"{start + row}) at unit {unit} (column {unit}) is {given[row, unit]}.",
            "Activations must be finite numbers within the range of float32.",
        )
    return block


@dataclass(frozen=True)
class _Rounding:
    """What the conversion to float32 does to each unit, over the rows so far."""

    moments: Moments  # of the values as given
    squares: NDArray[np.float64]  # sum of the squared changes [units]

    def after(self, given: NDArray[Any], stored: NDArray[np.float32]) -> Self:
        """With further rows, as given and as stored."""
        moments, squares = self.moments, self.squares.copy()
        for start in range(0, len(given), _PIECE_ROWS):
            part = given[start : start + _PIECE_ROWS].astype(np.float64)
            moments = moments.merge(Moments.of(part))
            part -= stored[start : start + _PIECE_ROWS]
            squares += np.einsum("su,su->u", part, part)
        return type(self)(moments, squares)

    def check(self) -> None:
        """Require that float32 keeps enough of every unit."""
        std = self.moments.std()
        error = np.sqrt(self.squares / max(1, self.moments.count))
        # A constant stays one.
        share = np.where(self.moments.varies(), error / std, 0.0)
        unit = int(np.argmax(share))
        if share[unit] > MAX_ROUNDING:
            raise InvalidInput(
                f"Unit {unit} (column {unit}) varies too little for float32, in which activations "
                f"are stored: it has mean {self.moments.mean[unit]:.6g} and standard deviation "
                f"{std[unit]:.3g}, of which rounding would change {share[unit]:.0%}.",
                "Subtract a constant, such as its mean, from every unit; standardised activations "
                "stay the same.",
            )


def _require_same_origin(run: RunDir) -> None:
    # Not by opening the snapshot: importing again is how damaged shards are repaired.
    provenance = latest_provenance(run)
    if provenance is not None and cache_key(provenance) != PROVENANCE:
        origin = provenance.get("source") or provenance.get("model.id", "another model")
        raise InvalidInput(
            f"{run.url} holds activations of {origin}.", "Import into another run directory."
        )
