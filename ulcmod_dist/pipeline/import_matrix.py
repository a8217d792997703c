"""``ulcmod import``: a matrix that someone extracted elsewhere becomes a run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import yaml

from ulcmod_dist.config.job import Job
from ulcmod_dist.corpus.files import find_files
from ulcmod_dist.corpus.tables import MAX_SHOWN, Rows, read_known_columns
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

_SAMPLE_COLUMNS = ("sample_id", "split", "category")
_UNIT_KEY = ("layer", "index", "path", "expert")
_INT32_MAX = 2**31 - 1


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
    samples = None if section.samples is None else _read_samples(section.samples, count)
    units = None if section.units is None else _read_units(section.units, width)
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


def _read_samples(location: str, count: int) -> pa.Table:
    """The described samples; without a split all are train, without an id they are numbered."""
    rows = _read_rows(location, "samples", count, _SAMPLE_COLUMNS)
    columns: dict[str, Any] = {
        "sample_id": pa.array([str(row) for row in range(count)]),
        "split": pa.array(["train"] * count),
        "category": pa.nulls(count, pa.string()),
    }
    if "sample_id" in rows.names():
        columns["sample_id"] = rows.ids("sample_id")
        rows.reject_repeated(columns["sample_id"], "ids")
    if "category" in rows.names():
        columns["category"] = rows.labels("category")
    if "split" in rows.names():
        splits = rows.column("split").to_pylist()
        strange = {n: repr(name) for n, name in enumerate(splits) if name not in ("train", "test")}
        rows.reject(list(strange), "have no known 'split'", "A split is train or test.", strange)
        if "train" not in splits:
            raise InvalidInput(f"{location} has no train samples.", "The search needs some.")
        columns["split"] = pa.array(splits)
    return pa.table(columns)


def _read_units(location: str, width: int) -> pa.Table:
    rows = _read_rows(location, "units", width, UNIT_SCHEMA.names)
    columns = {name: _read_integers(rows, name) for name in ("unit", "layer", "index", "expert")}
    columns["path"] = rows.labels("path").cast(pa.string())
    # Units of a dense layer have no expert; where another column says nothing, it says so for all.
    for name in ("unit", "layer", "index", "path"):
        missing = np.flatnonzero(columns[name].is_null().to_numpy())
        if len(missing) < width:
            rows.reject(missing, f"have no value in {name!r}, where others have one")
    numbers = pa.chunked_array([pa.array(range(width), pa.int64())])
    rows.reject(
        np.flatnonzero(pc.not_equal(columns["unit"], numbers).fill_null(False).to_numpy()),
        "have another number than their row in 'unit'",
        "Sort the table by unit, as the matrix is.",
    )
    if columns["index"].null_count < width:
        names = [name for name in _UNIT_KEY if columns[name].null_count < width]
        keys = pa.table({name: columns[name] for name in names})
        if keys.group_by(names).aggregate([]).num_rows < width:
            repeated = [tuple(key.values()) for key in keys.to_pylist()]
            rows.reject_repeated(repeated, f"units ({', '.join(names)})")
    columns["unit"] = numbers
    columns["path"] = columns["path"].dictionary_encode()
    return pa.table(columns).select(UNIT_SCHEMA.names).cast(UNIT_SCHEMA)


def _read_integers(rows: Rows, name: str) -> pa.ChunkedArray:
    texts = rows.labels(name)
    # int64 holds any 10 digits, int32 of the store holds the smaller ones.
    digits = pc.match_substring_regex(texts, "^[0-9]{1,10}$").fill_null(True)
    numbers = pc.if_else(digits, texts, None).cast(pa.int64())
    small = pc.less_equal(numbers, _INT32_MAX).fill_null(True)
    faulty = np.flatnonzero(~pc.and_(digits, small).to_numpy())
    rows.reject(
        faulty,
        f"have no whole number from 0 to {_INT32_MAX:,} in {name!r}",
        "Correct them, or remove the column.",
        {int(row): repr(texts[int(row)].as_py()) for row in faulty[:MAX_SHOWN]},
    )
    return numbers


def _read_rows(location: str, title: str, count: int, known: Sequence[str]) -> Rows:
    sources = find_files(location, "train")
    tables = tuple(read_known_columns(source, known) for source in sources)
    rows = Rows(title, sources, tables)
    if len(rows) != count:
        raise InvalidInput(
            f"{location} describes {len(rows):,} {title}; the matrix has {count:,}.",
            "The table needs a row for each, in the order of the matrix.",
        )
    return rows
