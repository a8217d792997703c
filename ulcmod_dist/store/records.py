"""Records of the store, each with a checksum: headers of manifests, their tables, the quarantine.

Reading them imports neither Zarr nor Dask, so that `ulcmod status` answers in under a second.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Self

from ulcmod_dist.errors import UlcmodError
from ulcmod_dist.runtime.rundir import RunDir, canonical_json, fingerprint, parse_parquet
from ulcmod_dist.store.schema import COMMITS, MANIFESTS, QUARANTINE, manifest_key

if TYPE_CHECKING:
    import pyarrow as pa

_VERSION = re.compile(rf"{MANIFESTS}/(\d+)\.json")


class CorruptionError(UlcmodError):
    """Stored bytes are not what was written."""


def dump_checksummed(value: dict[str, Any]) -> bytes:
    """The canonical JSON of a value, with the SHA-256 of the value added as a key."""
    return canonical_json({**value, "checksum": fingerprint(value)})


def load_checksummed(data: bytes, name: str) -> dict[str, Any]:
    """The value of a record of ``dump_checksummed``; ``name`` is its path or URL, for the error.

    Raises:
        CorruptionError: The bytes are not those that ``dump_checksummed`` returned.
    """
    try:
        value = json.loads(data)
        checksum = value.pop("checksum")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptionError(f"{name} is damaged: it is no record with a checksum.") from error
    # The bytes without the line of the checksum are those it is of: encoding the value again, for
    # each of thousands of commits, takes seconds.
    line = f'\n "checksum": "{checksum}"'.encode()
    head, _, tail = data.partition(line)
    body = head + tail[1:] if tail.startswith(b",") else head.removesuffix(b",") + tail
    if hashlib.sha256(body).hexdigest() != checksum:
        raise CorruptionError(f"{name} is damaged: its checksum does not match its contents.")
    assert isinstance(value, dict)
    return value


@dataclass(frozen=True)
class ObjectChecksum:
    """Size and SHA-256 of a stored object."""

    size: int
    sha256: str

    @classmethod
    def of(cls, data: Any) -> Self:
        """The checksum of bytes, or of an array's memory."""
        view = memoryview(data)
        return cls(view.nbytes, hashlib.sha256(view).hexdigest())


def read_checked_table(run: RunDir, key: str, size: int, sha256: str) -> pa.Table:
    """The Parquet table of a key; `CorruptionError` where it is missing or has other bytes."""
    try:
        data = run.read(key)
    except FileNotFoundError as error:
        raise CorruptionError(f"{run.show(key)} is missing.") from error
    if ObjectChecksum.of(data) != ObjectChecksum(size, sha256):
        raise CorruptionError(f"{run.show(key)} is damaged: its checksum does not match.")
    return parse_parquet(data)


def list_snapshots(run: RunDir) -> list[int]:
    """Versions of the snapshots that are there, ascending."""
    found = (_VERSION.fullmatch(key) for key, _ in run.keys(MANIFESTS))
    return [int(match[1]) for match in found if match]


def read_header(run: RunDir, version: int) -> dict[str, Any]:
    """The JSON part of a manifest; CorruptionError where its checksum does not match."""
    key = manifest_key(version)
    return load_checksummed(run.read(key), run.show(key))


def latest_provenance(run: RunDir) -> dict[str, str] | None:
    """Provenance of the newest snapshot, None before the first; reads no shard."""
    versions = list_snapshots(run)
    if not versions:
        return None
    provenance: dict[str, str] = read_header(run, versions[-1])["record"]
    return provenance


def committed_digests(run: RunDir) -> set[str]:
    """Digests of the shards that are there, by listing alone."""
    return {
        key.removeprefix(f"{COMMITS}/").removesuffix(".json")
        for key, _ in run.keys(COMMITS)
        if key.endswith(".json")
    }


@dataclass(frozen=True)
class QuarantineEntry:
    """A prompt, by its digest, that was given up after repeated failures, and the last error."""

    prompt: str
    sample_ids: tuple[str, ...]
    reason: str
    attempts: int


def add_to_quarantine(run: RunDir, entry: QuarantineEntry) -> None:
    """Quarantine a prompt; later runs skip it."""
    run.write(f"{QUARANTINE}/{entry.prompt}.json", dump_checksummed(asdict(entry)))


def read_quarantine(run: RunDir) -> dict[str, QuarantineEntry]:
    """The quarantine, by the prompt's digest; CorruptionError where an entry has changed."""
    found = {}
    for key, _ in run.keys(QUARANTINE):
        value = load_checksummed(run.read(key), run.show(key))
        entry = QuarantineEntry(**{**value, "sample_ids": tuple(value["sample_ids"])})
        found[entry.prompt] = entry
    return found


def describe_quarantine(entries: Iterable[QuarantineEntry]) -> list[str]:
    """A sentence for each prompt: the samples that have it, and the last error."""
    return [f"In quarantine: {', '.join(each.sample_ids)}: {each.reason}" for each in entries]


def clear_quarantine(run: RunDir) -> int:
    """Empty the quarantine, so that its prompts are tried again; returns how many there were."""
    keys = [key for key, _ in run.keys(QUARANTINE)]
    for key in keys:
        run.delete(key)
    return len(keys)
