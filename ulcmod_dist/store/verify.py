"""Verify the store and list orphaned objects."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ulcmod_dist.errors import UlcmodError
from ulcmod_dist.runtime.rundir import ACTIVATIONS, PLAN, RunDir
from ulcmod_dist.store.records import (
    Commit,
    CorruptionError,
    ObjectChecksum,
    committed_digests,
    list_snapshots,
    load_checksummed,
    read_commit,
    read_header,
)
from ulcmod_dist.store.schema import (
    COMMITS,
    MANIFESTS,
    QUARANTINE,
    SHARDS,
    manifest_key,
    shard_digest,
)
from ulcmod_dist.store.shards import read_prompts

READERS = 4
"""Objects read and hashed in parallel; more would hold more of them in memory."""


@dataclass(frozen=True)
class Finding:
    """Damage that a verification found: a key below the run directory and what is wrong with it."""

    key: str
    problem: str


@dataclass(frozen=True)
class Verification:
    """Result of a verification: all damage, and the number of objects read and their bytes."""

    findings: tuple[Finding, ...]
    objects: int
    bytes: int


@dataclass(frozen=True)
class Orphan:
    """An object that no commit and no manifest names, by its key below the run directory."""

    key: str
    size: int


def verify(run: RunDir, report: Callable[[int], None] = lambda done: None) -> Verification:
    """Read every object of every commit and manifest again and compare its checksum.

    ``report`` is called with the number of bytes read so far.
    """
    findings: list[Finding] = []
    commits = list(_commits(run, findings))
    expected = {
        f"{commit.folder}/{name}": entry
        for commit in commits
        for name, entry in commit.objects.items()
    }
    expected.update(_manifests(run, {commit.digest: commit for commit in commits}, findings))
    # No commit names the plan and the quarantine.
    for key in [PLAN] * run.exists(PLAN) + [key for key, _ in run.keys(QUARANTINE)]:
        try:
            value = load_checksummed(run.read(key), run.show(key))
            if "rows" in value:
                table = value["rows"].pop("key")
                expected[table] = ObjectChecksum(**value["rows"])
        except CorruptionError as error:
            findings.append(Finding(key, error.fact))
    done = 0
    with ThreadPoolExecutor(READERS) as readers:
        problems = readers.map(lambda item: _object_problem(run, *item), expected.items())
        for (key, entry), problem in zip(expected.items(), problems, strict=True):
            done += entry.size
            report(done)
            if problem is not None:
                findings.append(Finding(key, problem))
    return Verification(tuple(findings), len(expected), done)


def find_orphans(run: RunDir) -> list[Orphan]:
    """Objects of attempts that were never committed, and tables of manifests never created.

    Raises:
        CorruptionError: A commit or a manifest cannot be read, so what it names is not known.
    """
    kept = {read_commit(run, digest).folder for digest in committed_digests(run)}
    named = {
        entry["key"]
        for version in list_snapshots(run)
        for entry in read_header(run, version)["files"].values()
    }
    named.update(manifest_key(version) for version in list_snapshots(run))
    found = [
        Orphan(key, size)
        for key, size in run.keys(SHARDS)
        if "/".join(key.split("/")[:4]) not in kept
    ]
    found += [Orphan(key, size) for key, size in run.keys(MANIFESTS) if key not in named]
    if run.local is not None:
        # Half-written files, ``<name>#<number>``, which obstore's listing hides.
        for path in sorted((run.local / ACTIVATIONS).rglob("*#*")):
            if path.is_file():
                found.append(Orphan(path.relative_to(run.local).as_posix(), path.stat().st_size))
    return found


def delete_orphans(run: RunDir, found: Iterable[Orphan]) -> None:
    """Delete orphans. The caller holds the lease: an attempt under way looks like an orphan.

    Raises:
        UlcmodError: One of them is named by a commit or a manifest after all.
    """
    orphans = {entry.key for entry in find_orphans(run)}
    for entry in found:
        if entry.key not in orphans:
            raise UlcmodError(f"{run.show(entry.key)} is in use and was not removed.")
        if run.local is not None and "#" in entry.key:
            (run.local / entry.key).unlink(missing_ok=True)
        else:
            run.delete(entry.key)


def _commits(run: RunDir, findings: list[Finding]) -> Iterator[Commit]:
    for digest in sorted(committed_digests(run)):
        try:
            commit = read_commit(run, digest)
        except CorruptionError as error:
            findings.append(Finding(f"{COMMITS}/{digest}.json", error.fact))
            continue
        yield commit
        try:
            (prompts,) = read_prompts(run, [commit])
        except CorruptionError:
            # Its object is found missing or damaged like any other.
            continue
        if shard_digest(commit.origin.provenance, prompts) != digest:
            findings.append(Finding(f"{COMMITS}/{digest}.json", "its name is not its digest"))


def _manifests(
    run: RunDir, commits: dict[str, Commit], findings: list[Finding]
) -> dict[str, ObjectChecksum]:
    """Objects that manifests name, with their checksums; damage goes to the findings."""
    expected: dict[str, ObjectChecksum] = {}
    for version in list_snapshots(run):
        key = manifest_key(version)
        try:
            header = read_header(run, version)
        except CorruptionError as error:
            findings.append(Finding(key, error.fact))
            continue
        for entry in header["files"].values():
            expected[entry["key"]] = ObjectChecksum(entry["size"], entry["sha256"])
        absent = [digest for digest in header["shards"] if digest not in commits]
        findings.extend(Finding(key, f"names the absent shard {digest}") for digest in absent)
        if not absent:
            rows = {digest: commits[digest].rows for digest in header["shards"]}
            findings.extend(
                Finding(key, text) for text in _sample_table_problems(run, header, rows)
            )
    return expected


def _sample_table_problems(
    run: RunDir, header: dict[str, Any], rows: dict[str, int]
) -> Iterator[str]:
    """Ids that occur twice in a manifest's table of samples, and rows out of range."""
    try:
        table = run.read_parquet(header["files"]["samples"]["key"])
    except (FileNotFoundError, OSError, pa.ArrowException):
        # `verify` reads this object as well and reports it as missing or damaged.
        return
    keys = table.select(["split", "sample_id"])
    if keys.group_by(["split", "sample_id"]).aggregate([]).num_rows != table.num_rows:
        yield "a sample id occurs twice in a split"
    last = table.select(["shard", "row"]).set_column(0, "shard", table["shard"].cast(pa.string()))
    for entry in last.group_by("shard").aggregate([("row", "max")]).to_pylist():
        if entry["row_max"] >= rows.get(entry["shard"], 0):
            yield f"row {entry['row_max']} is beyond shard {entry['shard']}"
    if pc.min(table["row"]).as_py() is not None and pc.min(table["row"]).as_py() < 0:
        yield "a row is negative"


def _object_problem(run: RunDir, key: str, entry: ObjectChecksum) -> str | None:
    try:
        found = ObjectChecksum.of(run.read(key))
    except FileNotFoundError:
        return "missing"
    except Exception as error:
        return f"cannot be read: {error}"
    if found.size != entry.size:
        return f"has {found.size} bytes, not {entry.size}"
    return None if found == entry else "checksum does not match"
