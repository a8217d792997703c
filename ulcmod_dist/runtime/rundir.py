"""The run directory: the paths in it, and reading and writing of its files.

Local disks and object stores share one code path (obstore). Keys are relative to the run directory
and use ``/``.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import obstore
from obstore.exceptions import AlreadyExistsError
from obstore.store import LocalStore, ObjectStore, from_url

from ulcmod_dist.errors import InvalidInput, UlcmodError, one_line
from ulcmod_dist.runtime.credentials import reject_credentials
from ulcmod_dist.runtime.files import check_writable, create_exclusively

if TYPE_CHECKING:
    import pyarrow as pa

NO_LOCKS = (errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP)

FORMAT_FILE = "format.json"
JOB = "job.yaml"
PLAN = "plan.json"
PLAN_ROWS = "plan"
ACTIVATIONS = "activations.zarr"
REPORT = "report.html"
ARTIFACTS = "artifacts"
EXTRACTION_FILE = "status/extract.json"
EVALUATION = "evaluation"
CHECKPOINTS = "modules/checkpoints"
VERSIONS = "versions"
DRIFT = "drift"
SIDES = ("units", "samples")


def modules_key(num_modules: int, name: str) -> str:
    """Key of one file of the modules found for ``num_modules``."""
    return f"modules/K={num_modules:03d}/{name}"


def evaluation_key(name: str, num_modules: int) -> str:
    """Key of a file of results of one K, such as ``evaluation/ablation-K=007.json``."""
    return f"{EVALUATION}/{name}K={num_modules:03d}.json"


def membership_key(side: str, num_modules: int | str) -> str:
    """Key of the degrees of the ``units`` or ``samples`` in each of ``num_modules``."""
    return f"{EVALUATION}/{side}-K={num_modules:0>3}.parquet"


def grouping_key(side: str, num_modules: int | str) -> str:
    """Key of the modules of the ``units`` or ``samples`` by each of the methods compared."""
    return f"{EVALUATION}/methods-{side}-K={num_modules:0>3}.parquet"


def figure_key(name: str, ending: str) -> str:
    """Key of one file of a figure."""
    return f"figures/{name}.{ending}"


def table_key(name: str) -> str:
    """Key of one table."""
    return f"tables/{name}.parquet"


def version_folder(number: int) -> str:
    """Folder of one version of the results."""
    return f"{VERSIONS}/{number:06d}"


class KeyExists(UlcmodError):
    """A key that must not exist yet exists already."""


@dataclass(frozen=True)
class RunDir:
    """A run directory at a local path or a URL; cheap to make and to pickle."""

    url: str

    @classmethod
    def at(cls, location: str | Path) -> RunDir:
        """The run directory at a local path (made absolute) or a URL.

        Raises:
            InvalidInput: The URL carries credentials; run directories are shown and stored.
        """
        text = str(location)
        if "://" in text:
            reject_credentials(text, "The run directory")
            return cls(text.rstrip("/"))
        try:
            return cls(str(Path(text).expanduser().resolve()))
        except (OSError, ValueError, RuntimeError) as error:  # a null byte, an unknown ~user
            raise InvalidInput(
                f"The run directory {text!r} is no path: {one_line(error)}."
            ) from error

    @cached_property
    def objects(self) -> ObjectStore:
        """The object store rooted at the run directory; a local folder is created."""
        try:
            if self.local is not None:
                return LocalStore(self.local, mkdir=True)
            return from_url(self.url)
        except Exception as error:
            raise InvalidInput(
                f"The run directory {self.url} cannot be opened: {one_line(error)}."
            ) from error

    @property
    def local(self) -> Path | None:
        """The folder on this machine, or None for a URL."""
        return None if "://" in self.url else Path(self.url)

    # Object stores hold connections and cannot be pickled: a worker opens its own.
    def __getstate__(self) -> dict[str, str]:
        return {"url": self.url}

    def __setstate__(self, state: dict[str, str]) -> None:
        object.__setattr__(self, "url", state["url"])

    def check_writable(self) -> None:
        """Raise `InvalidInput` if files cannot be created in a local folder; makes nothing."""
        if self.local is not None:
            check_writable(self.local)

    def show(self, key: str = "") -> str:
        """The full path or URL of a key, for people."""
        return f"{self.url}/{key}" if key else self.url

    def exists(self, key: str) -> bool:
        """Whether a key exists; does not read its contents."""
        try:
            obstore.head(self.objects, key)
        except FileNotFoundError:
            return False
        return True

    def read(self, key: str) -> bytes:
        """The bytes of a key; FileNotFoundError if it does not exist."""
        return bytes(obstore.get(self.objects, key).bytes())

    def write(self, key: str, data: bytes) -> None:
        """Write a key, replacing earlier contents atomically; durable when it returns."""
        obstore.put(self.objects, key, data)
        self.sync(key)

    def create(self, key: str, data: bytes) -> None:
        """Write a key that must not exist yet; durable when it returns.

        Raises:
            KeyExists: The key exists; of concurrent callers exactly one succeeds.
            InvalidInput: The file system has neither hard links nor locks.
        """
        try:
            if self.local is None:
                obstore.put(self.objects, key, data, mode="create")
            else:
                # obstore needs hard links for this, which not every file system has.
                create_exclusively(self.local / key, data)
        except (AlreadyExistsError, FileExistsError) as error:
            raise KeyExists(f"{self.show(key)} exists already.") from error
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            raise InvalidInput(
                f"The file system of {self.url} has neither hard links nor locks: "
                f"{error.strerror}.",
                "Name a run directory on another file system.",
            ) from error
        self.sync(key)

    def read_json(self, key: str) -> Any:
        """The parsed JSON of a key; FileNotFoundError if it does not exist."""
        return json.loads(self.read(key))

    def write_json(self, key: str, value: Any) -> None:
        """Write a value as canonical JSON."""
        self.write(key, canonical_json(value))

    def read_parquet(self, key: str) -> pa.Table:
        """The Parquet table of a key; FileNotFoundError if it does not exist."""
        return parse_parquet(self.read(key))

    def write_parquet(self, key: str, table: pa.Table) -> None:
        """Put a table as Parquet."""
        self.write(key, parquet_bytes(table))

    def keys(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        """Every key below a prefix (a folder) with its size in bytes, in key order."""
        pages = obstore.list(self.objects, prefix or None)
        yield from sorted((entry["path"], entry["size"]) for page in pages for entry in page)

    def delete(self, key: str) -> None:
        """Delete a key if it exists."""
        with contextlib.suppress(FileNotFoundError):
            obstore.delete(self.objects, key)

    def sync(self, *keys: str) -> None:
        """Make keys survive a power failure, however they were written.

        An object store acknowledges durable writes. A local file system needs fsync of the files,
        and of all folders above them, which hold their names.
        """
        if self.local is None:
            return
        files = [self.local / key for key in keys]
        folders = {
            folder for file in files for folder in file.parents if folder.is_relative_to(self.local)
        }
        for path in [*files, *sorted(folders, reverse=True)]:
            handle = os.open(path, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


def parse_parquet(data: bytes) -> pa.Table:
    """The table of a Parquet file.

    It is read in this thread: a thread of Arrow that still holds the bytes while Python shuts down
    aborts the process (exit code 134), as a short script that opens a run would see.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetFile(pa.BufferReader(data), pre_buffer=False) as file:
        return file.read(use_threads=False)


def parquet_bytes(table: pa.Table) -> bytes:
    """A table as one Parquet file; equal tables give equal bytes, however they are chunked."""
    # PyArrow takes a tenth of a second to import; commands that read JSON alone do without.
    import pyarrow.parquet as pq

    sink = io.BytesIO()
    pq.write_table(table.combine_chunks(), sink, compression="zstd")
    return sink.getvalue()


def canonical_json(value: Any) -> bytes:
    """JSON with sorted keys: equal values give equal bytes (NaN and infinity are refused)."""
    return json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False).encode()


def fingerprint(value: Any) -> str:
    """SHA-256 (hexadecimal) of a value's canonical JSON."""
    return hashlib.sha256(canonical_json(value)).hexdigest()
