"""Find the files of samples at a location: a file, folder, glob, URL or saved data set."""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import takewhile
from pathlib import PurePosixPath
from typing import Any, TypeVar
from urllib.parse import quote, unquote

import fsspec
import pyarrow as pa
from fsspec.implementations.arrow import ArrowFSWrapper
from pyarrow.fs import FileSystem, FSSpecHandler, LocalFileSystem, PyFileSystem

from ulcmod_dist.errors import InvalidInput, describe_error, one_line
from ulcmod_dist.runtime.files import is_lfs_pointer, lfs_pointer_error

T = TypeVar("T")

FORMATS = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
    ".csv": "csv",
}
"""Format of a file by its suffix; a further .gz, .bz2 or .zst says how it is compressed."""

_NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"
_SAVED = "state.json"
_HASHED_BYTES = 2**22
_SAVED_SPLITS = "dataset_dict.json"


@dataclass(frozen=True)
class SourceFile:
    """A file of samples: "parquet", "csv", "json" (one object a line) or "arrow".

    The last is written by Hugging Face datasets' ``save_to_disk``.
    """

    files: FileSystem
    path: str
    format: str

    def fingerprint(self) -> str:
        """SHA-256 of the path and the bytes of the file; none where reading would say why not."""
        total = hashlib.sha256(self.path.encode(errors="surrogateescape") + b"\0")
        try:
            with self.files.open_input_stream(self.path, compression=None) as stream:
                while block := stream.read(_HASHED_BYTES):
                    total.update(block)
        except (OSError, ValueError, pa.ArrowException):
            return ""
        return total.hexdigest()

    def partition(self) -> dict[str, str | None]:
        """Columns that the path names as Hive does: ``category=Math`` in one of its folders.

        Raises:
            InvalidInput: A name or value is not the percent-encoding of UTF-8.
        """
        columns: dict[str, str | None] = {}
        for folder in PurePosixPath(self.path).parts[:-1]:
            name, equals, value = folder.partition("=")
            if not (name and equals):
                continue
            try:
                text = unquote(value, errors="strict")
                text.encode()
                columns[unquote(name, errors="strict")] = (
                    text if text.strip() and value != _NULL_PARTITION else None
                )
            except UnicodeError as error:
                raise InvalidInput(
                    f"The folder {folder!r} of {self.path} names a column in another encoding "
                    "than UTF-8.",
                    "Rename the folder.",
                ) from error
        return columns


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
    named = PurePosixPath(listing._strip_protocol(path)).parts
    is_glob = any(mark in path for mark in "*[") or ("?" in path and "://" not in resolved.location)
    if is_glob and not listing.exists(path):
        depth = len(list(takewhile(lambda part: not set("*?[") & set(part), named)))
        return _known_files(resolved, _expand(listing, path), depth, named[depth:])
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
    return _known_files(resolved, listing.find(path), len(named))


def _expand(listing: fsspec.AbstractFileSystem, pattern: str) -> set[str]:
    """The files that match a glob, and those of the folders that match (``category=*``)."""
    files: set[str] = set()
    for path, info in listing.glob(pattern, detail=True).items():
        files.update(listing.find(path) if info["type"] == "directory" else [path])
    return files


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


def _known_files(
    resolved: _Location, paths: Iterable[str], depth: int, pattern: Sequence[str] = ()
) -> list[SourceFile]:
    """The files of known formats that are not hidden below ``depth`` parts of their paths."""
    # What the pattern itself names is not hidden either: `*/_parts/*.csv`.
    marks = {part[0] for part in pattern} & set("._")
    found = []
    for path in sorted(paths):
        is_hidden = any(_is_hidden(part, marks) for part in PurePosixPath(path).parts[depth:])
        if not is_hidden and (kind := _detect_format(path)):
            found.append(SourceFile(resolved.files, path, kind))
    return found


def _is_hidden(name: str, marks: AbstractSet[str]) -> bool:
    # As Spark does: `_lang=en` is a partition of a column `_lang`, `_SUCCESS` no data.
    return name[0] in "._" and name[0] not in marks and not ("=" in name and name[0] == "_")


def _choose_split(resolved: _Location, split: str) -> str:
    path = f"{resolved.path}/{_SAVED_SPLITS}"
    splits = _read_json_file(resolved, path, lambda content: list(map(str, content["splits"])))
    if split not in splits:
        raise InvalidInput(
            f"{resolved.location} holds the splits {', '.join(splits)}, not {split!r}.",
            "Name the folder of one split.",
        )
    return split


def _list_saved_files(resolved: _Location, folder: str) -> list[SourceFile]:
    """Files of a data set written by Hugging Face datasets' ``save_to_disk``."""
    names, indices = _read_json_file(
        resolved,
        f"{folder}/{_SAVED}",
        lambda state: (
            [str(entry["filename"]) for entry in state["_data_files"]],
            state.get("_indices_data_files"),
        ),
    )
    # The data set is a permutation or selection of its files, in an Arrow file of indices.
    if indices:
        raise InvalidInput(
            f"{folder} was saved with a separate order of its rows.",
            "Call flatten_indices() on the data set and save it again.",
        )
    return [SourceFile(resolved.files, f"{folder}/{name}", "arrow") for name in names]


def _read_json_file(resolved: _Location, path: str, pick: Callable[[Any], T]) -> T:
    with resolved.files.open_input_stream(path) as stream:
        data = stream.read()
    if is_lfs_pointer(data):
        raise lfs_pointer_error(path)
    try:
        return pick(json.loads(data))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise InvalidInput(
            f"{path} was not written by Hugging Face datasets' save_to_disk: "
            f"{describe_error(error)}.",
            "Save the data set again.",
        ) from error
