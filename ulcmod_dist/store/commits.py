"""Commits: the records that make attempts shards, read by all that open a run.

Like `ulcmod_dist.store.records` without Zarr and Dask.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

from ulcmod_dist.runtime.rundir import RunDir
from ulcmod_dist.store.records import (
    CorruptionError,
    ObjectChecksum,
    committed_digests,
    load_checksummed,
)
from ulcmod_dist.store.schema import ChunkShape, commit_key

READERS = 16
"""Commit records read in parallel: object stores have a high latency and serve many requests."""


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
