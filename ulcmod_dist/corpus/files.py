"""Find the files of samples at a location and read the columns of each."""

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote

import fsspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
from fsspec.implementations.arrow import ArrowFSWrapper
from pyarrow.fs import FileSystem, FSSpecHandler, LocalFileSystem, PyFileSystem

from ulcmod_dist.errors import InvalidInput, one_line

FORMATS = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
    ".csv": "csv",
}
"""Format of a file by its suffix; a further .gz, .bz2 or .zst says how it is compressed."""

_SAVED = "state.json"
_SAVED_SPLITS = "dataset_dict.json"


@dataclass(frozen=True)
class SourceFile:
    """A file of samples: "parquet", "csv", "json" (one object a line) or "arrow".

    The last is written by Hugging Face datasets' ``save_to_disk``.
    """

    files: FileSystem
    path: str
    format: str


@dataclass(frozen=True)
class _Location:
    """A resolved location: ``listing`` lists what is there, ``files`` reads it."""

    location: str
    listing: fsspec.AbstractFileSystem
    files: FileSystem
    path: str


def find_files(location: str, split: str) -> tuple[SourceFile, ...]:
    """Find the files of samples at a location, in the order of their paths.

    A location is a file, a folder (searched recursively; hidden files and unknown suffixes are
    skipped), a glob, a URL, or a folder that Hugging Face datasets saved to disk; ``split`` is the
    one to take of several that were saved together.

    Raises:
        InvalidInput: The location does not exist or has no file that can be read.
    """
    resolved = _resolve(location)
    try:
        found = _list_files(resolved, split)
    except FileNotFoundError as error:
        raise InvalidInput(f"{location} does not exist.", "Correct the path.") from error
    except OSError as error:
        raise InvalidInput(f"{location} cannot be listed: {one_line(error)}.") from error
    if not found:
        raise InvalidInput(f"{location} holds no samples.", f"Known are {', '.join(FORMATS)}.")
    return tuple(found)


def _list_files(resolved: _Location, split: str) -> list[SourceFile]:
    listing, path = resolved.listing, resolved.path
    is_glob = any(mark in path for mark in "*[") or ("?" in path and "://" not in resolved.location)
    if is_glob and not listing.exists(path):
        return _known_files(resolved, listing.glob(path))
    if not listing.isdir(path):
        listing.info(path)
        if (kind := _detect_format(path)) is None:
            raise InvalidInput(
                f"{path} has no suffix that names its format.", f"Known are {', '.join(FORMATS)}."
            )
        return [SourceFile(resolved.files, path, kind)]
    if listing.exists(f"{path}/{_SAVED_SPLITS}"):
        return _list_saved_files(resolved, f"{path}/{_choose_split(resolved, split)}")
    if listing.exists(f"{path}/{_SAVED}"):
        return _list_saved_files(resolved, path)
    return _known_files(resolved, listing.find(path))


def _resolve(location: str) -> _Location:
    if "://" not in location:
        return _Location(
            location, fsspec.filesystem("file"), LocalFileSystem(), location.rstrip("/")
        )
    try:
        # Arrow's own file systems read with several threads outside the GIL; fsspec knows more
        # schemes.
        try:
            files, path = FileSystem.from_uri(quote(location, safe="/:?=&*[]%+@~,;"))
            listing = ArrowFSWrapper(files)
        except pa.ArrowInvalid:
            listing, path = fsspec.url_to_fs(location)
            files = PyFileSystem(FSSpecHandler(listing))
    except (ImportError, ValueError, OSError) as error:
        raise InvalidInput(f"{location} cannot be opened: {one_line(error)}.") from error
    return _Location(location, listing, files, path.rstrip("/"))


def _detect_format(path: str) -> str | None:
    suffixes = PurePosixPath(path).suffixes
    if suffixes and suffixes[-1] in (".gz", ".bz2", ".zst"):
        suffixes = suffixes[:-1]
    return FORMATS.get(suffixes[-1].lower()) if suffixes else None


def _known_files(resolved: _Location, paths: list[str]) -> list[SourceFile]:
    found = []
    for path in sorted(paths):
        parts = PurePosixPath(path.removeprefix(resolved.path)).parts
        is_hidden = any(part.startswith((".", "_")) for part in parts)
        if not is_hidden and (kind := _detect_format(path)):
            found.append(SourceFile(resolved.files, path, kind))
    return found


def _choose_split(resolved: _Location, split: str) -> str:
    splits = list(_read_json_file(resolved, f"{resolved.path}/{_SAVED_SPLITS}")["splits"])
    if split not in splits:
        raise InvalidInput(
            f"{resolved.location} holds the splits {', '.join(splits)}, not {split!r}.",
            "Name the folder of one split.",
        )
    return split


def _list_saved_files(resolved: _Location, folder: str) -> list[SourceFile]:
    """Files of a data set written by Hugging Face datasets' ``save_to_disk``."""
    state = _read_json_file(resolved, f"{folder}/{_SAVED}")
    # The data set is a permutation or selection of its files, in an Arrow file of indices.
    if state.get("_indices_data_files"):
        raise InvalidInput(
            f"{folder} was saved with a separate order of its rows.",
            "Call flatten_indices() on the data set and save it again.",
        )
    names = [entry["filename"] for entry in state["_data_files"]]
    return [SourceFile(resolved.files, f"{folder}/{name}", "arrow") for name in names]


def _read_json_file(resolved: _Location, path: str) -> dict[str, Any]:
    with resolved.files.open_input_stream(path) as stream:
        return dict(json.loads(stream.read()))


def read_table(source: SourceFile, columns: Sequence[str], texts: Collection[str] = ()) -> pa.Table:
    """Read the named columns of a file, all rows in order.

    Columns of CSV and JSON files are read as strings, null where a field is missing. A JSON value
    that is no string is read as JSON text, or as null in the columns of ``texts``. Columns of other
    files keep their types, but class labels become their names.

    Raises:
        InvalidInput: The file cannot be read, or lacks a column (the existing ones are named).
    """
    try:
        if source.format == "json":
            return _read_json(source, columns, texts)
        if source.format == "arrow":
            return _read_arrow(source, columns)
        return _read_dataset(source, columns)
    except (pa.ArrowException, OSError, UnicodeDecodeError, EOFError) as error:
        raise InvalidInput(
            f"{source.path} cannot be read as {source.format}: {one_line(error)}.",
            "Replace the file or leave it out.",
        ) from error


def _require_columns(source: SourceFile, columns: Sequence[str], existing: Sequence[str]) -> None:
    missing = [name for name in columns if name not in existing]
    if missing:
        raise InvalidInput(
            f"{source.path} has no column {', '.join(map(repr, missing))}.",
            f"Its columns are {', '.join(map(repr, existing)) or 'none'}.",
        )


def _read_dataset(source: SourceFile, columns: Sequence[str]) -> pa.Table:
    # Imports pandas, a second that commands which read no corpus need not spend.
    import pyarrow.dataset as pads

    file_format = pads.ParquetFileFormat()
    if source.format == "csv":
        file_format = pads.CsvFileFormat(
            parse_options=pacsv.ParseOptions(newlines_in_values=True),
            convert_options=pacsv.ConvertOptions(
                column_types={name: pa.string() for name in columns}
            ),
        )
    dataset = pads.dataset([source.path], format=file_format, filesystem=source.files)
    _require_columns(source, columns, dataset.schema.names)
    return _decode_class_labels(dataset.to_table(columns=list(columns)), dataset.schema)


def _read_arrow(source: SourceFile, columns: Sequence[str]) -> pa.Table:
    with source.files.open_input_file(source.path) as file:
        reader = pa.ipc.open_stream(file)
        _require_columns(source, columns, reader.schema.names)
        batches = [batch.select(list(columns)) for batch in reader]
        schema = pa.schema([reader.schema.field(name) for name in columns])
        return _decode_class_labels(pa.Table.from_batches(batches, schema), reader.schema)


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


def _read_json(source: SourceFile, columns: Sequence[str], texts: Collection[str]) -> pa.Table:
    # Line by line with the standard library: Arrow's reader infers one type a field from a whole
    # block, so it fails on files whose other fields vary, and would not tell "1" from 1.
    values: dict[str, list[str | None]] = {name: [] for name in columns}
    known: dict[str, None] = {}
    for record in _iter_records(source):
        known.update(dict.fromkeys(record))
        for name, column in values.items():
            value = record.get(name)
            if not isinstance(value, str | None):
                value = None if name in texts else json.dumps(value, ensure_ascii=False)
            column.append(value)
    _require_columns(source, columns, list(known))
    return pa.table({name: pa.array(column, pa.large_string()) for name, column in values.items()})


def _iter_records(source: SourceFile) -> Iterator[dict[str, Any]]:
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
