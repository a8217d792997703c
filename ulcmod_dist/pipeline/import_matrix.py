"""``ulcmod import``: a matrix that someone extracted elsewhere becomes a run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
import yaml

from ulcmod_dist.config.job import Job
from ulcmod_dist.config.schema import MatrixConfig
from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.pipeline.context import Context, save_job, writes
from ulcmod_dist.pipeline.ledger import replacing
from ulcmod_dist.pipeline.summary import Summary
from ulcmod_dist.runtime.progress import ProgressCallback, ignore_progress, track
from ulcmod_dist.runtime.rundir import RunDir
from ulcmod_dist.store.matrix_files import import_matrix as write_matrix
from ulcmod_dist.store.matrix_input import open_matrix
from ulcmod_dist.store.snapshot import UNIT_SCHEMA

# K where the command names none; `discover` takes any other.
DEFAULT_MODULES = 10


def import_context(
    files: Mapping[str, str | None],
    out: str,
    overrides: Sequence[str],
    on_progress: ProgressCallback = ignore_progress,
) -> Context:
    """The context of a new run made of a matrix, whose ``files`` are the job's matrix section."""
    given = {key: value for key, value in files.items() if value is not None}
    text = yaml.safe_dump({"run": out, "matrix": given, "discover": {"modules": [DEFAULT_MODULES]}})
    job = Job.from_text(text, source="ulcmod import", folder=Path.cwd(), overrides=overrides)
    return Context(job, RunDir.at(job.run), on_progress)


@writes
def import_matrix(context: Context) -> Summary:
    """Write the job's matrix into its activation store; rows that are there stay.

    Raises:
        InvalidInput: Matrix or tables cannot be read, do not fit each other, or hold what is not
            a number.
    """
    section = context.job.matrix
    assert section is not None
    matrix = open_matrix(section.path, allow_missing_chunks=section.allow_missing_chunks)
    count, width = map(int, matrix.shape)
    samples = None if section.samples is None else _samples(section, count)
    units = None if section.units is None else _units(section, width)
    save_job(context)
    with track(context.on_progress, "Importing", count, "samples") as step:
        snapshot = write_matrix(
            context.run,
            matrix,
            samples=samples,
            units=units,
            check=context.fence.check,
            report=lambda rows: step.update(rows),
        )
    facts = {"samples": snapshot.samples.num_rows, "units": snapshot.units.num_rows}
    with replacing(context, "snapshot") as record:
        record.identity = snapshot.digest
        record.facts = {"version": snapshot.version, **facts}
    closing = [f"Run: {context.run.url}"]
    return Summary(title="Import", facts=facts, closing=closing)


def _samples(section: MatrixConfig, count: int) -> pa.Table:
    """The described samples; without a split all are train, without an id they are numbered."""
    table = _read(str(section.samples), count, "samples")
    columns = {
        "sample_id": _text(table, "sample_id", pa.array([str(row) for row in range(count)])),
        "split": _text(table, "split", pa.array(["train"] * count)),
        "category": _text(table, "category", pa.nulls(count, pa.string())),
    }
    strange = set(pc.unique(columns["split"]).to_pylist()) - {"train", "test"}
    if strange:
        raise InvalidInput(
            f"{section.samples} names the splits {sorted(map(str, strange))}.",
            "A split is train or test.",
        )
    return pa.table(columns)


def _units(section: MatrixConfig, width: int) -> pa.Table:
    table = _read(str(section.units), width, "units")
    columns: dict[str, Any] = {"unit": pa.array(range(width), pa.int64())}
    for field in UNIT_SCHEMA:
        given = table[field.name] if field.name in table.column_names else None
        columns.setdefault(
            field.name, pa.nulls(width, field.type) if given is None else given.cast(field.type)
        )
    return pa.table(columns, schema=UNIT_SCHEMA)


def _read(location: str, rows: int, what: str) -> pa.Table:
    try:
        table = pa.csv.read_csv(location) if location.endswith(".csv") else pq.read_table(location)
    except (OSError, pa.ArrowInvalid) as error:
        raise InvalidInput(f"The table of {what} {location} cannot be read: {error}.") from error
    if table.num_rows != rows:
        raise InvalidInput(
            f"{location} describes {table.num_rows:,} {what}; the matrix has {rows:,}."
        )
    return table


def _text(table: pa.Table, name: str, default: pa.Array) -> pa.Array:
    return table[name].cast(pa.string()) if name in table.column_names else default
