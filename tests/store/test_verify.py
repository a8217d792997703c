"""Verification finds all damage; orphans are found, and nothing else is deleted."""

import random
from pathlib import Path

import pytest

from tests.store.conftest import RECORD, Write, corpus_of, units_table
from ulcmod_dist.errors import UlcmodError
from ulcmod_dist.runtime.rundir import RunDir
from ulcmod_dist.store.manifest import write_manifest
from ulcmod_dist.store.records import QuarantineEntry, add_to_quarantine
from ulcmod_dist.store.snapshot import open_snapshot
from ulcmod_dist.store.verify import Orphan, delete_orphans, find_orphans, verify


@pytest.fixture
def whole(run: RunDir, write: Write) -> RunDir:
    """A run with two shards, a snapshot and an entry in quarantine."""
    prompts = [f"prompt {number}" for number in range(9)]
    shards = [write(prompts[:5]), write(prompts[5:])]
    write_manifest(run, corpus_of(prompts), units_table(), shards, provenance=RECORD)
    add_to_quarantine(run, QuarantineEntry("f" * 64, ("s99",), "it failed", 3))
    return run


def folder_of(run: RunDir) -> Path:
    assert run.local is not None
    return run.local


def stored(run: RunDir) -> list[str]:
    return [key for key, _ in run.keys("activations.zarr")]


def test_verify__a_whole_store_has_no_findings(whole: RunDir) -> None:
    seen: list[int] = []
    result = verify(whole, seen.append)
    assert result.findings == ()
    assert result.objects > 20
    assert seen[-1] == result.bytes


def test_verify__three_hundred_flipped_bits_are_three_hundred_findings(whole: RunDir) -> None:
    chance = random.Random(0)
    folder = folder_of(whole)
    sizes = dict(whole.keys("activations.zarr"))
    for _ in range(300):
        key = chance.choice([*sizes])
        data = whole.read(key)
        changed = bytearray(data)
        changed[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        folder.joinpath(key).write_bytes(changed)
        assert key in {finding.key for finding in verify(whole).findings}
        folder.joinpath(key).write_bytes(data)
    assert verify(whole).findings == ()


def test_verify__every_missing_object_is_found(whole: RunDir) -> None:
    for key in stored(whole):
        if "/commits/" in key or "/quarantine/" in key or key.endswith("000001.json"):
            continue
        data = whole.read(key)
        whole.delete(key)
        assert [(finding.key, finding.problem) for finding in verify(whole).findings] == [
            (key, "missing")
        ]
        whole.write(key, data)


def test_verify__a_missing_commit_is_found_through_the_manifest(whole: RunDir) -> None:
    key = next(key for key in stored(whole) if "/commits/" in key)
    whole.delete(key)
    assert ["names the absent shard" in f.problem for f in verify(whole).findings] == [True]


def test_find_orphans__lists_nothing_committed(whole: RunDir) -> None:
    assert find_orphans(whole) == []


def test_find_orphans__lists_attempts_tables_and_staged_files(whole: RunDir) -> None:
    folder = next(key for key in stored(whole) if "/shards/" in key).split("/")[2]
    strays = [
        f"activations.zarr/shards/{folder}/2-00000000/activations/c/0/0",
        "activations.zarr/manifests/000002.samples.0123456789ab.parquet",
        f"activations.zarr/shards/{folder}/2-00000000/mean/c/0#1",
    ]
    for key in strays:
        path = folder_of(whole) / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half")
    found = find_orphans(whole)
    assert sorted(entry.key for entry in found) == sorted(strays)
    digest = open_snapshot(whole).digest
    delete_orphans(whole, found)
    assert find_orphans(whole) == []
    assert not any((folder_of(whole) / key).exists() for key in strays)
    assert verify(whole).findings == ()
    assert open_snapshot(whole).digest == digest


def test_delete_orphans__refuses_what_is_in_use(whole: RunDir) -> None:
    key = next(key for key in stored(whole) if "/shards/" in key)
    with pytest.raises(UlcmodError, match="in use"):
        delete_orphans(whole, [Orphan(key, 1)])
    assert whole.exists(key)
