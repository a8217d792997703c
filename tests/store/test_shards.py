"""A shard is written privately, read back and committed once."""

from dataclasses import replace

import numpy as np
import pytest

from tests.store.conftest import GRID, RECORD, Write, content_of, digests_of
from ulcmod_dist.corpus.digests import to_hex
from ulcmod_dist.errors import InvalidInput, UlcmodError
from ulcmod_dist.passes.standardised import Moments
from ulcmod_dist.runtime.lease import LeaseLost
from ulcmod_dist.runtime.rundir import RunDir, fingerprint
from ulcmod_dist.store.arrays import read_region
from ulcmod_dist.store.records import (
    CorruptionError,
    Origin,
    committed_digests,
    dump_checksummed,
    load_checksummed,
    read_commit,
)
from ulcmod_dist.store.schema import (
    ACTIVATION_ARRAY,
    CHUNK_BYTES,
    ROUTED_ARRAY,
    TOKEN_ARRAY,
    ChunkShape,
    cache_key,
    commit_key,
    shard_digest,
)
from ulcmod_dist.store.shards import ShardWriter, read_prompts, shard_moments

ALL = (slice(None), slice(None))


def test_write__what_was_written_is_read(run: RunDir, write: Write) -> None:
    commit = write(["a", "bb", "ccc"])
    content = content_of(["a", "bb", "ccc"])
    np.testing.assert_array_equal(
        read_region(run, commit.folder, ACTIVATION_ARRAY, ALL), content.activations
    )
    assert read_region(run, commit.folder, TOKEN_ARRAY, (slice(None),)).tolist() == [1, 2, 3]
    assert commit.tokens == 6
    assert read_commit(run, commit.digest) == commit


def test_read_prompts__of_new_and_of_older_commits(run: RunDir, write: Write) -> None:
    old, new = write(["a", "bb"]), write(["ccc"])
    key = commit_key(old.digest)
    record = load_checksummed(run.read(key), key)
    del record["rows"], record["arrays"]["prompts"]
    run.write(key, dump_checksummed({**record, "prompts": to_hex(digests_of(["a", "bb"]))}))
    old = read_commit(run, old.digest)
    assert old.rows == 2
    expected = [digests_of(["ccc"]), digests_of(["a", "bb"])]
    for read, wanted in zip(read_prompts(run, [new, old]), expected, strict=True):
        np.testing.assert_array_equal(read, wanted)


def test_write__statistics_are_those_of_the_rows(run: RunDir, write: Write) -> None:
    prompts = [f"p{number}" for number in range(9)]
    kept = shard_moments(run, write(prompts))
    rows = content_of(prompts).activations.astype(float)
    np.testing.assert_allclose(kept.mean, rows.mean(0), rtol=1e-12)
    np.testing.assert_allclose(kept.std(), rows.std(0, ddof=1), rtol=1e-12)


def test_write__routed_counts_are_kept(run: RunDir) -> None:
    routed = np.arange(12, dtype=np.int32).reshape(2, 6)
    content = replace(content_of(["a", "b"]), routed=routed)
    commit = ShardWriter(run, GRID).write(content, Origin(RECORD))
    np.testing.assert_array_equal(read_region(run, commit.folder, ROUTED_ARRAY, ALL), routed)


def test_write__all_zero_rows_are_stored_and_not_left_out(run: RunDir) -> None:
    content = replace(content_of(["a", "b"]), activations=np.zeros((2, 10), np.float32))
    commit = ShardWriter(run, GRID).write(content, Origin(RECORD))
    chunks = [key for key in commit.objects if key.startswith("activations/c/")]
    assert len(chunks) == 4
    assert {key for key, _ in run.keys(commit.folder)} == {
        f"{commit.folder}/{key}" for key in commit.objects
    }


def test_write__of_two_attempts_one_holds_and_the_other_leaves_nothing(
    run: RunDir, write: Write
) -> None:
    first = write(["a", "b"])
    second = write(["a", "b"])
    assert second == first
    folders = {key.split("/")[3] for key, _ in run.keys("activations.zarr/shards")}
    assert folders == {first.folder.split("/")[-1]}


def test_write__nothing_is_committed_before_everything_is_there(run: RunDir) -> None:
    class Stop(Exception):
        pass

    def stop_at(step: str) -> None:
        if step == "checked":
            raise Stop

    writer = ShardWriter(run, GRID, on_event=stop_at)
    with pytest.raises(Stop):
        writer.write(content_of(["a"]), Origin(RECORD))
    assert committed_digests(run) == set()


def test_write__a_fenced_writer_does_not_commit(run: RunDir) -> None:
    def lost() -> None:
        raise LeaseLost("taken over")

    with pytest.raises(LeaseLost):
        ShardWriter(run, GRID, check=lost).write(content_of(["a"]), Origin(RECORD))
    assert committed_digests(run) == set()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_write__non_finite_names_row_and_unit(run: RunDir, bad: float) -> None:
    content = content_of(["a", "b", "c"])
    content.activations[1, 7] = bad
    with pytest.raises(InvalidInput, match=r"unit 7 on row 1"):
        ShardWriter(run, GRID).write(content, Origin(RECORD))


def test_write__a_store_that_returns_other_bytes_is_not_committed(run: RunDir) -> None:
    def flip(step: str) -> None:
        if step == "written":
            key = next(key for key, _ in run.keys("activations.zarr/shards") if "/c/" in key)
            data = bytearray(run.read(key))
            data[5] ^= 1
            run.write(key, bytes(data))

    with pytest.raises((UlcmodError, ValueError)):
        ShardWriter(run, GRID, on_event=flip).write(content_of(["a", "b"]), Origin(RECORD))
    assert committed_digests(run) == set()


def test_digest__covers_provenance_and_prompts_but_no_library_version() -> None:
    prompts = digests_of(["a", "b"])
    digest = shard_digest(RECORD, prompts)
    # As earlier versions computed it.
    assert digest == fingerprint({"record": cache_key(RECORD), "prompts": to_hex(prompts)})
    assert shard_digest({**RECORD, "model.dtype": "bfloat16"}, prompts) != digest
    assert shard_digest(RECORD, prompts[::-1]) != digest
    assert shard_digest({**RECORD, "model.library.torch": "2.14.0"}, prompts) == digest


@pytest.mark.parametrize("units", [1, 9216, 126 * 53248, 396_288])
@pytest.mark.parametrize("rows", [1, 512, 3000])
def test_chunk_shape__chunks_are_bounded_on_both_axes(rows: int, units: int) -> None:
    grid = ChunkShape.of(rows, units)
    size = 4 * grid.rows * grid.columns
    assert grid.rows <= 1024
    assert size <= CHUNK_BYTES * 1.51
    if rows * units * 4 > 16 * 2**20:
        assert size >= 4 * 2**20


def test_load_checksummed__any_changed_byte_is_noticed() -> None:
    data = dump_checksummed({"name": "x", "values": [1, 2.5, None]})
    assert load_checksummed(data, "it") == {"name": "x", "values": [1, 2.5, None]}
    for place in range(len(data)):
        for bit in range(8):
            changed = bytearray(data)
            changed[place] ^= 1 << bit
            with pytest.raises(CorruptionError):
                load_checksummed(bytes(changed), "it")


def test_moments__merging_any_cut_equals_the_whole() -> None:
    rows = np.random.default_rng(0).lognormal(3.0, 2.0, (700, 5)).astype(np.float32)
    merged = Moments.none(5)
    for part in np.split(rows, [1, 3, 300, 690]):
        merged = merged.merge(Moments.of(part))
    whole = Moments.of(rows)
    np.testing.assert_allclose(merged.mean, whole.mean, rtol=1e-12)
    np.testing.assert_allclose(merged.std(), rows.astype(float).std(0, ddof=1), rtol=1e-12)


def test_moments__a_constant_unit_and_a_single_sample_count_as_one() -> None:
    assert Moments.of(np.full((5, 2), 3.0)).std().tolist() == [1.0, 1.0]
    assert Moments.of(np.full((1, 2), 3.0)).std().tolist() == [1.0, 1.0]
