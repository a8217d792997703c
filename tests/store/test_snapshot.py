"""A snapshot is the newest manifest: samples in corpus order, read lazily from shards."""

import pickle
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TypeAlias

import dask
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.store.conftest import (
    GRID,
    RECORD,
    UNITS,
    Write,
    activation_of,
    content_of,
    corpus_of,
    units_table,
)
from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.runtime.rundir import RunDir
from ulcmod_dist.store.lazy_rows import _row_bounds, lazy_rows
from ulcmod_dist.store.manifest import write_manifest
from ulcmod_dist.store.records import Commit, CorruptionError, Origin
from ulcmod_dist.store.shards import ShardWriter
from ulcmod_dist.store.snapshot import Snapshot, open_snapshot

Thirty: TypeAlias = tuple[RunDir, list[str], NDArray[np.int64]]


def names(count: int) -> list[str]:
    return [f"prompt {number}" for number in range(count)]


def publish(
    run: RunDir,
    prompts: Sequence[str],
    shards: Sequence[Commit],
    splits: Sequence[str] | None = None,
) -> Snapshot:
    corpus = corpus_of(prompts, splits)
    return write_manifest(run, corpus, units_table(), shards, provenance=RECORD)


def test_snapshot__rows_are_in_corpus_order(run: RunDir, write: Write) -> None:
    prompts = names(11)
    publish(run, prompts, [write(prompts[6:]), write(prompts[:6])])
    snapshot = open_snapshot(run)
    train = snapshot.activations("train")
    expected = content_of(prompts).activations
    np.testing.assert_array_equal(train.raw.compute(), expected)
    np.testing.assert_allclose(train.mean, expected.astype(float).mean(0), rtol=1e-6)
    np.testing.assert_allclose(train.std, expected.astype(float).std(0, ddof=1), rtol=1e-6)
    assert snapshot.sample_ids("train") == [f"s{number}" for number in range(11)]
    assert snapshot.samples["tokens"].to_pylist() == [len(prompt) for prompt in prompts]
    assert snapshot.units["path"].to_pylist()[7] == "layers.1.mlp.down_proj"


def test_snapshot__statistics_are_those_of_the_train_samples_alone(
    run: RunDir, write: Write
) -> None:
    prompts = names(8)
    splits = ["train"] * 5 + ["test"] * 3
    snapshot = publish(run, prompts, [write(prompts[:3]), write(prompts[3:])], splits)
    train = content_of(prompts[:5]).activations.astype(float)
    test = snapshot.activations("test")
    np.testing.assert_allclose(test.mean, train.mean(0), rtol=1e-9)
    np.testing.assert_allclose(test.std, train.std(0, ddof=1), rtol=1e-9)
    np.testing.assert_array_equal(test.raw.compute(), content_of(prompts[5:]).activations)


def test_snapshot__equal_prompts_share_a_row_and_each_counts(run: RunDir, write: Write) -> None:
    prompts = ["x", "y", "x", "z", "x"]
    snapshot = publish(run, prompts, [write(["x", "y", "z"])])
    found = snapshot.activations()
    expected = np.array([activation_of(prompt) for prompt in prompts])
    np.testing.assert_array_equal(found.raw.compute(), expected)
    np.testing.assert_allclose(found.mean, expected.astype(float).mean(0), rtol=1e-9)


def test_snapshot__added_and_removed_prompts_make_a_version_and_old_ones_stay(
    run: RunDir, write: Write
) -> None:
    prompts = names(6)
    shards = [write(prompts)]
    first = publish(run, prompts, shards)
    added = [*prompts[:2], *prompts[3:], "new one"]
    second = publish(run, added, [*shards, write(["new one"])])
    assert (first.version, second.version) == (1, 2)
    np.testing.assert_array_equal(
        open_snapshot(run).activations().raw.compute(), content_of(added).activations
    )
    old = open_snapshot(run, version=1)
    assert old.digest == first.digest
    np.testing.assert_array_equal(old.activations().raw.compute(), content_of(prompts).activations)


def test_snapshot__the_same_again_makes_no_version(run: RunDir, write: Write) -> None:
    shards = [write(names(4))]
    publish(run, names(4), shards)
    assert publish(run, names(4), shards).version == 1


def test_snapshot__samples_without_rows_stay_out(run: RunDir, write: Write) -> None:
    snapshot = publish(run, ["a", "lost", "b"], [write(["a", "b"])])
    assert snapshot.sample_ids() == ["s0", "s2"]


def test_snapshot__another_run_with_the_same_rows_has_the_same_digest(
    run: RunDir, write: Write, tmp_path: Path
) -> None:
    first = publish(run, names(5), [write(names(5))])
    other = RunDir.at(tmp_path / "other")
    origin = Origin(RECORD, attempt=3, worker="elsewhere", seconds=9.0)
    commit = ShardWriter(other, GRID).write(content_of(names(5)), origin)
    assert publish(other, names(5), [commit]).digest == first.digest


def test_snapshot__nothing_there_is_said(run: RunDir) -> None:
    with pytest.raises(InvalidInput, match="no activations"):
        open_snapshot(run)


def test_snapshot__unknown_version_names_those_there(run: RunDir, write: Write) -> None:
    publish(run, ["a"], [write(["a"])])
    with pytest.raises(InvalidInput, match=r"version 7, only \[1\]"):
        open_snapshot(run, version=7)


def test_snapshot__a_deleted_chunk_is_found_when_opened(run: RunDir, write: Write) -> None:
    commit = write(names(6))
    publish(run, names(6), [commit])
    run.delete(f"{commit.folder}/activations/c/1/2")
    with pytest.raises(CorruptionError, match="c/1/2 is missing"):
        open_snapshot(run)


def test_snapshot__a_chunk_deleted_later_never_reads_as_zero(run: RunDir, write: Write) -> None:
    commit = write(names(6))
    snapshot = publish(run, names(6), [commit])
    run.delete(f"{commit.folder}/activations/c/1/2")
    with pytest.raises(CorruptionError, match="missing"):
        snapshot.activations().raw.compute()


def test_snapshot__a_flipped_bit_is_an_error_when_read(run: RunDir, write: Write) -> None:
    commit = write(names(6))
    snapshot = publish(run, names(6), [commit])
    key = f"{commit.folder}/activations/c/0/0"
    data = bytearray(run.read(key))
    data[11] ^= 4
    run.write(key, bytes(data))
    with pytest.raises(CorruptionError, match="checksum"):
        snapshot.activations().raw.compute()


def test_snapshot__graph_is_a_rule_and_pickles_small(run: RunDir, write: Write) -> None:
    prompts = names(40)
    snapshot = publish(
        run, prompts, [write(prompts[start : start + 8]) for start in range(0, 40, 8)]
    )
    raw = snapshot.activations().raw
    assert len(pickle.dumps(raw)) < 20_000
    assert raw.chunks[1] == (3, 3, 3, 1)
    assert raw.chunks[0] == (4,) * 10


def test_snapshot__reading_whole_rows_opens_a_shard_once_a_block(run: RunDir, write: Write) -> None:
    prompts = names(8)
    snapshot = publish(run, prompts, [write(prompts)])
    raw = snapshot.activations().raw
    assert raw.numblocks == (2, 4)


@pytest.fixture(scope="module")
def thirty(tmp_path_factory: pytest.TempPathFactory) -> Thirty:
    """Thirty prompts in shards of uneven size, and where each of them lies."""
    run = RunDir.at(tmp_path_factory.mktemp("run"))
    bounds = [0, 1, 9, 13, 30]
    writer = ShardWriter(run, GRID)
    shards = [writer.write(content_of(names(30)[a:b]), Origin(RECORD)) for a, b in pairwise(bounds)]
    places = [(number, row) for number, shard in enumerate(shards) for row in range(shard.rows)]
    return run, [shard.folder for shard in shards], np.array(places)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(order=st.lists(st.integers(0, 29), min_size=1, max_size=60))
def test_lazy_rows__any_selection_reads_the_right_rows(thirty: Thirty, order: list[int]) -> None:
    run, folders, places = thirty
    shard, row = places[order].T
    raw = lazy_rows(run, folders, shard, row, units=UNITS, chunk_shape=GRID)
    assert max(raw.chunks[0]) <= GRID.rows
    raw = pickle.loads(pickle.dumps(raw))
    with dask.config.set(scheduler="synchronous"):
        values = raw.compute()
    np.testing.assert_array_equal(values, content_of([names(30)[i] for i in order]).activations)


def test_row_bounds__full_chunks_stay_whole_and_scraps_are_gathered() -> None:
    shard = np.array([0] * 8 + [1, 2, 3, 4, 5] + [6] * 4)
    row = np.array([*range(8), 0, 0, 0, 0, 0, *range(4)])
    assert _row_bounds(shard, row, 4).tolist() == [0, 4, 8, 12, 13, 17]
