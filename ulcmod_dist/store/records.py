"""Records of the store, each with a checksum: commits, headers of manifests, the quarantine.

Reading them imports neither Zarr nor Dask, so that `ulcmod status` answers in under a second.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Self

from ulcmod_dist.errors import UlcmodError
from ulcmod_dist.runtime.rundir import RunDir, canonical_json, fingerprint, parse_parquet
from ulcmod_dist.store.schema import (
    COMMITS,
    MANIFESTS,
    QUARANTINE,
    ChunkShape,
    commit_key,
    manifest_key,
)

if TYPE_CHECKING:
    import pyarrow as pa

READERS = 16
"""Commit records read in parallel: object stores have a high latency and serve many requests."""

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
class Origin:
    """How a shard was computed; kept in its commit but not part of its digest.

    ``provenance`` is what its rows depend on: model, tokenizer, rule, versions. ``batches`` are the
    sizes of the batches that were run, in their order, ``splits`` those of the batches that were
    split after running out of memory. ``epoch`` is that of the lease it was written under; 0
    without one. ``prefix_tokens`` is the number of tokens at the beginning of prompts that were
    computed once for all of them; 0 if none were.
    """

    provenance: dict[str, str]
    batches: tuple[int, ...] = ()
    splits: tuple[int, ...] = ()
    attempt: int = 1
    worker: str = ""
    seconds: float = 0.0
    epoch: int = 0
    prefix_tokens: int = 0


@dataclass(frozen=True)
class Commit:
    """The record that makes an attempt, whose arrays lie in ``folder``, a shard.

    Attributes:
        digest: Digest of what the rows depend on.
        rows: Number of rows.
        tokens: Tokens that count, over all rows.
        arrays: Name of an array -> SHA-256 of its values.
        objects: Key below the folder -> size and SHA-256.
    """

    digest: str
    folder: str
    rows: int
    units: int
    chunk_shape: ChunkShape
    tokens: int
    arrays: dict[str, str]
    objects: dict[str, ObjectChecksum]
    origin: Origin


def commit_to_json(commit: Commit) -> dict[str, Any]:
    """The commit record; its keys are the file format, kept when attributes are renamed."""
    value = asdict(commit)
    value["grid"] = value.pop("chunk_shape")
    value["origin"]["record"] = value["origin"].pop("provenance")
    return value


def read_commit(run: RunDir, digest: str) -> Commit:
    """One commit record; CorruptionError where it is missing or its bytes have changed."""
    value = read_record(run, digest)
    try:
        return _commit_from_json(value)
    except (KeyError, TypeError, AttributeError) as error:
        name = run.show(commit_key(digest))
        raise CorruptionError(f"{name} is no commit record of this version.") from error


def read_record(run: RunDir, digest: str) -> dict[str, Any]:
    """The JSON of a commit record; raises as `read_commit` does where it is not there."""
    key = commit_key(digest)
    try:
        return load_checksummed(run.read(key), run.show(key))
    except FileNotFoundError as error:
        raise CorruptionError(f"The commit record {run.show(key)} is missing.") from error


def read_commits(run: RunDir, digests: Sequence[str] | None = None) -> dict[str, Commit]:
    """Commit records by digest, of the given shards or of all, in the order of the digests."""
    names = sorted(committed_digests(run)) if digests is None else list(digests)
    with ThreadPoolExecutor(READERS) as readers:
        commits = list(readers.map(lambda name: read_commit(run, name), names))
    return dict(zip(names, commits, strict=True))


def _commit_from_json(value: dict[str, Any]) -> Commit:
    origin = dict(value["origin"])
    for name in ("batches", "splits"):
        # Older records list the rows of each.
        origin[name] = tuple(n if isinstance(n, int) else len(n) for n in origin[name])
    return Commit(
        digest=value["digest"],
        folder=value["folder"],
        rows=value["rows"] if "rows" in value else len(value["prompts"]),
        units=value["units"],
        chunk_shape=ChunkShape(**value["grid"]),
        tokens=value["tokens"],
        arrays=value["arrays"],
        objects={key: ObjectChecksum(**entry) for key, entry in value["objects"].items()},
        origin=Origin(provenance=origin.pop("record"), **origin),
    )


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
