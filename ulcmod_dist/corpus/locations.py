"""Where samples lie: a file, a folder, a glob or a URL becomes a list of files to read."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote

import fsspec
import pyarrow as pa
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

_COMPRESSIONS = (".gz", ".bz2", ".zst")
_SAVED = "state.json"
_SAVED_SPLITS = "dataset_dict.json"


@dataclass(frozen=True)
class SourceFile:
    """One file of samples.

    Attributes:
        files: The file system that holds it.
        path: Its path there.
        format: "parquet", "json" (one object a line), "csv" or "arrow" (a data set saved on disk).
    """

    files: FileSystem
    path: str
    format: str


@dataclass(frozen=True)
class _Place:
    """A location opened: ``listing`` answers what is there, ``files`` reads it."""

    location: str
    listing: fsspec.AbstractFileSystem
    files: FileSystem
    path: str


def find_files(location: str, split: str) -> tuple[SourceFile, ...]:
    """The files of samples at a location, in the order of their paths.

    Args:
        location: A file, a folder (searched to the bottom; hidden files and unknown suffixes are
            passed over), a glob, a URL, or a folder that the Hugging Face library saved to disk.
        split: "train" or "test": which part of a saved set of splits is meant.

    Raises:
        InvalidInput: Nothing is there, or nothing that can be read.
    """
    place = _open(location)
    try:
        found = _look(place, split)
    except FileNotFoundError as error:
        raise InvalidInput(f"{location} does not exist.", "Correct the path.") from error
    except OSError as error:
        raise InvalidInput(f"{location} cannot be listed: {one_line(error)}.") from error
    if not found:
        raise InvalidInput(f"{location} holds no samples.", f"Known are {', '.join(FORMATS)}.")
    return tuple(found)


def _look(place: _Place, split: str) -> list[SourceFile]:
    listing, path = place.listing, place.path
    is_glob = any(mark in path for mark in "*[") or ("?" in path and "://" not in place.location)
    if is_glob and not listing.exists(path):
        return _known_files(place, listing.glob(path))
    if not listing.isdir(path):
        listing.info(path)
        return [_file(place, path)]
    if listing.exists(f"{path}/{_SAVED_SPLITS}"):
        return _saved(place, f"{path}/{_choose_split(place, split)}")
    if listing.exists(f"{path}/{_SAVED}"):
        return _saved(place, path)
    return _known_files(place, listing.find(path))


def _open(location: str) -> _Place:
    if "://" not in location:
        return _Place(location, fsspec.filesystem("file"), LocalFileSystem(), location.rstrip("/"))
    try:
        files, path = FileSystem.from_uri(quote(location, safe="/:?=&*[]%+@~,;"))
        return _Place(location, ArrowFSWrapper(files), files, path.rstrip("/"))
    except pa.ArrowInvalid:
        return _open_by_fsspec(location)
    except OSError as error:
        raise InvalidInput(f"{location} cannot be opened: {one_line(error)}.") from error


def _open_by_fsspec(location: str) -> _Place:
    try:
        listing, path = fsspec.url_to_fs(location)
    except (ImportError, ValueError) as error:
        raise InvalidInput(f"{location} cannot be opened: {one_line(error)}.") from error
    return _Place(location, listing, PyFileSystem(FSSpecHandler(listing)), path.rstrip("/"))


def _format_of(path: str) -> str | None:
    suffixes = PurePosixPath(path).suffixes
    if suffixes and suffixes[-1] in _COMPRESSIONS:
        suffixes = suffixes[:-1]
    return FORMATS.get(suffixes[-1].lower()) if suffixes else None


def _known_files(place: _Place, paths: list[str]) -> list[SourceFile]:
    shown = [path for path in sorted(paths) if not _hidden(path, place.path)]
    return [SourceFile(place.files, path, kind) for path in shown if (kind := _format_of(path))]


def _hidden(path: str, base: str) -> bool:
    below = path.removeprefix(base)
    return any(part.startswith((".", "_")) for part in PurePosixPath(below).parts)


def _file(place: _Place, path: str) -> SourceFile:
    kind = _format_of(path)
    if kind is None:
        raise InvalidInput(
            f"{path} has no suffix that names its format.", f"Known are {', '.join(FORMATS)}."
        )
    return SourceFile(place.files, path, kind)


def _choose_split(place: _Place, split: str) -> str:
    splits = list(_read_json(place, f"{place.path}/{_SAVED_SPLITS}")["splits"])
    if split not in splits:
        raise InvalidInput(
            f"{place.location} holds the splits {', '.join(splits)}, not {split!r}.",
            "Name the folder of one split.",
        )
    return split


def _saved(place: _Place, folder: str) -> list[SourceFile]:
    """Files of a data set written by the Hugging Face library's ``save_to_disk``."""
    state = _read_json(place, f"{folder}/{_SAVED}")
    if state.get("_indices_data_files"):
        raise InvalidInput(
            f"{folder} was saved with a separate order of its rows.",
            "Call flatten_indices() on the data set and save it again.",
        )
    names = [entry["filename"] for entry in state["_data_files"]]
    return [SourceFile(place.files, f"{folder}/{name}", "arrow") for name in names]


def _read_json(place: _Place, path: str) -> dict[str, Any]:
    with place.files.open_input_stream(path) as stream:
        return dict(json.loads(stream.read()))
