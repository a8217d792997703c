"""Read the columns of a file in each format: Parquet, JSON lines, CSV and Arrow streams."""

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import TextIOWrapper
from itertools import chain
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from ulcmod_dist.corpus.columns import ColumnBuilder, TextRule, convert_column, parse_json
from ulcmod_dist.corpus.files import SourceFile
from ulcmod_dist.errors import InvalidInput, one_line
from ulcmod_dist.runtime.files import is_lfs_pointer, lfs_pointer_error

Rules: TypeAlias = Mapping[str, TextRule]
"""The columns to read, and how each is read."""

_MAX_FIELD = 2**31 - 1  # of characters, the most that the csv module takes on every platform
# Fed to the csv reader after the last line: an empty field, but a quote that is part of the text
# where the file ends within quotes.
_SENTINEL = '""'
_HEAD_BYTES = 64


@dataclass(frozen=True)
class Columns:
    """Columns of a file: those asked for that exist, the names of all, and the number of rows."""

    values: dict[str, pa.ChunkedArray]
    names: list[str]
    rows: int


def read_columns(source: SourceFile, rules: Rules) -> Columns:
    """Read those columns of the rules that a file has, all rows in order.

    Raises:
        InvalidInput: The file cannot be read, or a value has no text.
    """
    try:
        return _READERS[source.format](source, rules)
    except (pa.ArrowException, OSError, ValueError, EOFError, csv.Error, InvalidInput) as error:
        if is_lfs_pointer(_read_head(source)):
            raise lfs_pointer_error(source.path) from error
        if isinstance(error, InvalidInput):
            raise
        raise _unreadable(source, one_line(error)) from error


def _unreadable(
    source: SourceFile, reason: str, remedy: str = "Replace the file or leave it out."
) -> InvalidInput:
    return InvalidInput(f"{source.path} cannot be read as {source.format}: {reason}.", remedy)


def _read_head(source: SourceFile) -> bytes:
    try:
        with source.files.open_input_stream(source.path, compression=None) as stream:
            return bytes(stream.read(_HEAD_BYTES))
    except (pa.ArrowException, OSError, UnicodeError):
        return b""


def _require_one_each(source: SourceFile, names: Sequence[str], rules: Rules) -> None:
    repeated = [name for name in rules if names.count(name) > 1]
    if repeated:
        raise InvalidInput(
            f"{source.path} has several columns {', '.join(map(repr, repeated))}.",
            "Name each column once.",
        )


def _convert(source: SourceFile, table: pa.Table, schema: pa.Schema, rules: Rules) -> Columns:
    labelled = _decode_class_labels(table, schema)
    values = {
        name: convert_column(labelled[name], source.path, name, rules[name])
        for name in labelled.column_names
    }
    return Columns(values, schema.names, table.num_rows)


def _read_parquet(source: SourceFile, rules: Rules) -> Columns:
    # Imports pandas, a second that commands which read no corpus need not spend.
    import pyarrow.dataset as pads

    dataset = pads.dataset([source.path], format="parquet", filesystem=source.files)
    names = dataset.schema.names
    _require_one_each(source, names, rules)
    table = dataset.to_table(columns=[name for name in rules if name in names])
    return _convert(source, table, dataset.schema, rules)


def _read_arrow(source: SourceFile, rules: Rules) -> Columns:
    with source.files.open_input_file(source.path) as file:
        reader = pa.ipc.open_stream(file)
        _require_one_each(source, reader.schema.names, rules)
        chosen = [name for name in rules if name in reader.schema.names]
        batches = [batch.select(chosen) for batch in reader]
        schema = pa.schema([reader.schema.field(name) for name in chosen])
        table = pa.Table.from_batches(batches, schema)
        return _convert(source, table, reader.schema, rules)


def _decode_class_labels(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Class numbers as names, which Hugging Face datasets keep in the schema's metadata."""
    metadata = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    features = metadata.get("info", {}).get("features", {})
    for index, name in enumerate(table.column_names):
        kind = features.get(name)
        if not isinstance(kind, dict) or kind.get("_type") != "ClassLabel":
            continue
        names = pa.array(kind["names"], pa.string())
        known = pc.if_else(pc.greater_equal(table[name], 0), table[name], None)
        table = table.set_column(index, name, pc.take(names, known))
    return table


def _read_json(source: SourceFile, rules: Rules) -> Columns:
    # Line by line with the standard library: Arrow's reader infers one type a field from a whole
    # block, so it fails on files whose other fields vary, and would not tell "1" from 1.
    builders = {name: ColumnBuilder(source.path, name, rule) for name, rule in rules.items()}
    names: dict[str, None] = {}
    rows = 0
    for record in _iter_records(source):
        rows += 1
        names.update(dict.fromkeys(record))
        for name, builder in builders.items():
            builder.append(record.get(name))
    if not rows:
        raise _empty(source)
    return _finish(builders, list(names), rows)


def _finish(builders: Mapping[str, ColumnBuilder], names: list[str], rows: int) -> Columns:
    values = {name: builders[name].finish() for name in builders if name in names}
    return Columns(values, names, rows)


def _empty(source: SourceFile) -> InvalidInput:
    # Not no rows: a download that failed leaves such a file as well.
    return InvalidInput(f"{source.path} is empty.", "Remove the file or replace it.")


def _iter_records(source: SourceFile) -> Iterator[dict[str, Any]]:
    with _open_text(source, newline=None) as lines:
        for number, line in enumerate(lines, 1):
            _require_utf8(source, number, line)
            if not line.isspace():
                yield _parse_record(source, number, line)


def _parse_record(source: SourceFile, number: int, line: str) -> dict[str, Any]:
    try:
        record = parse_json(line)
        reason = f"it is a {type(record).__name__}"
    except ValueError as error:
        record, reason = None, one_line(error)
    if not isinstance(record, dict):
        raise InvalidInput(
            f"Line {number} of {source.path} is no JSON object: {reason}.",
            "One object a line is expected.",
        )
    return record


@contextmanager
def _open_text(source: SourceFile, newline: str | None) -> Iterator[TextIOWrapper]:
    """The lines of a file of UTF-8, which may begin with a byte order mark."""
    with source.files.open_input_stream(source.path) as stream:
        # Other bytes are escaped, to be found by `_require_utf8`: the decoder itself would fail
        # where its buffer is, which is ahead of the line.
        yield TextIOWrapper(stream, "utf-8-sig", errors="surrogateescape", newline=newline)


def _require_utf8(source: SourceFile, line: int, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        byte = ord(text[error.start]) - 0xDC00
        reason = f"line {line} is not UTF-8, it has the byte 0x{byte:02x}"
        raise _unreadable(source, reason, "Save the file as UTF-8.") from error


def _read_csv(source: SourceFile, rules: Rules) -> Columns:
    # With Python's module, which reads fields of any length and with any characters. Arrow's reader
    # is faster, but loses newlines and refuses rows at the edges of its blocks.
    builders = {name: ColumnBuilder(source.path, name, rule) for name, rule in rules.items()}
    with _unlimited_fields():
        reader = _iter_rows(source)
        header = next(reader, None)
        if header is None:
            raise _empty(source)
        if is_lfs_pointer(header[0].encode()):
            raise lfs_pointer_error(source.path)
        _require_one_each(source, header, rules)
        chosen = [(header.index(name), builders[name]) for name in rules if name in header]
        rows = 0
        for fields in reader:
            rows += 1
            for index, builder in chosen:
                builder.append(fields[index])
    return _finish(builders, header, rows)


def _iter_rows(source: SourceFile) -> Iterator[list[str]]:
    """The header and the rows of a CSV file, all of equal length; blank lines are skipped."""
    width, start, end = 0, 1, 0
    row: list[str] | None = None
    with _open_text(source, newline="") as lines:
        reader = csv.reader(chain(lines, [_SENTINEL]))
        for following in reader:
            if row:
                _require_utf8(source, start, "".join(row))
                width = width or len(row)
                if len(row) != width:
                    raise InvalidInput(
                        f"Line {start} of {source.path} has {len(row)} fields, but its header "
                        f"{width}.",
                        "Quote fields that contain commas, quotes or newlines.",
                    )
                yield row
            row, start, end = following, end + 1, reader.line_num
    if row != [""]:
        raise _unreadable(source, f"a quote in the record of line {start} is never closed")


@contextmanager
def _unlimited_fields() -> Iterator[None]:
    """The csv module refuses fields above 131,072 characters unless told otherwise."""
    limit = csv.field_size_limit(_MAX_FIELD)
    try:
        yield
    finally:
        csv.field_size_limit(limit)


_READERS: dict[str, Callable[[SourceFile, Rules], Columns]] = {
    "parquet": _read_parquet,
    "arrow": _read_arrow,
    "json": _read_json,
    "csv": _read_csv,
}
