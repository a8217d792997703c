"""One file of samples as a table of the columns that were asked for."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from io import TextIOWrapper
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.dataset as pads

from ulcmod_dist.corpus.locations import SourceFile
from ulcmod_dist.errors import InvalidInput, one_line


def read_table(source: SourceFile, columns: Sequence[str], texts: Collection[str] = ()) -> pa.Table:
    """The named columns of a file, all its rows in order.

    Columns of CSV and JSON files come as strings, null where a field is missing. Other JSON values
    come as JSON, or as null in the columns named by ``texts``, of which only strings count.
    Columns of other files keep their types, but class numbers become the names noted with them.

    Raises:
        InvalidInput: The file cannot be read, or lacks a column (the existing ones are named).
    """
    read = {"parquet": _read_parquet, "arrow": _read_arrow, "csv": _read_csv}
    try:
        if source.format == "json":
            return _read_json(source, list(columns), texts)
        return read[source.format](source, list(columns))
    except (pa.ArrowException, OSError, UnicodeDecodeError, EOFError) as error:
        reason = one_line(error)
        raise InvalidInput(
            f"{source.path} cannot be read as {source.format}: {reason}.",
            "Replace the file or leave it out.",
        ) from error


def _require(source: SourceFile, columns: Sequence[str], existing: Sequence[str]) -> None:
    missing = [name for name in columns if name not in existing]
    if missing:
        raise InvalidInput(
            f"{source.path} has no column {', '.join(map(repr, missing))}.",
            f"Its columns are {', '.join(map(repr, existing)) or 'none'}.",
        )


def _read_parquet(source: SourceFile, columns: list[str]) -> pa.Table:
    dataset = pads.dataset([source.path], format="parquet", filesystem=source.files)
    _require(source, columns, dataset.schema.names)
    return _named(dataset.to_table(columns=columns), dataset.schema)


def _read_arrow(source: SourceFile, columns: list[str]) -> pa.Table:
    with source.files.open_input_file(source.path) as file:
        reader = pa.ipc.open_stream(file)
        _require(source, columns, reader.schema.names)
        batches = [batch.select(columns) for batch in reader]
        schema = pa.schema([reader.schema.field(name) for name in columns])
        return _named(pa.Table.from_batches(batches, schema), reader.schema)


def _named(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Class numbers as names, where the Hugging Face library noted them beside the schema."""
    noted = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    features = noted.get("info", {}).get("features", {})
    for place, name in enumerate(table.column_names):
        kind = features.get(name)
        if not isinstance(kind, dict) or kind.get("_type") != "ClassLabel":
            continue
        names = pa.array(kind["names"], pa.string())
        known = pc.if_else(pc.greater_equal(table[name], 0), table[name], None)
        table = table.set_column(place, name, pc.take(names, known))
    return table


def _read_csv(source: SourceFile, columns: list[str]) -> pa.Table:
    table = pads.dataset(
        [source.path],
        filesystem=source.files,
        format=pads.CsvFileFormat(
            parse_options=pacsv.ParseOptions(newlines_in_values=True),
            convert_options=pacsv.ConvertOptions(
                column_types={name: pa.string() for name in columns}
            ),
        ),
    )
    _require(source, columns, table.schema.names)
    return table.to_table(columns=columns)


def _read_json(source: SourceFile, columns: list[str], texts: Collection[str]) -> pa.Table:
    # Line by line with the standard library: Arrow's reader infers one type a field over the whole
    # file, so it refuses a file whose other fields vary, and cannot say which text is a number.
    values: dict[str, list[str | None]] = {name: [] for name in columns}
    known: dict[str, None] = {}
    for record in _records(source):
        known.update(dict.fromkeys(record))
        for name, column in values.items():
            value = record.get(name)
            if not isinstance(value, str | None):
                value = None if name in texts else json.dumps(value, ensure_ascii=False)
            column.append(value)
    _require(source, columns, list(known))
    return pa.table({name: pa.array(column, pa.large_string()) for name, column in values.items()})


def _records(source: SourceFile) -> Iterator[dict[str, Any]]:
    with source.files.open_input_stream(source.path) as stream:
        for number, line in enumerate(TextIOWrapper(stream, encoding="utf-8-sig")):
            if line.isspace():
                continue
            try:
                record = json.loads(line)
            except json.JSONDecodeError as error:
                record = error
            if not isinstance(record, dict):
                raise InvalidInput(
                    f"Line {number + 1} of {source.path} is no JSON object.",
                    "One object a line is expected.",
                )
            yield record
