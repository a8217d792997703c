"""Prompts become committed rows, once each, whatever fails on the way."""

import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from tests.extract.conftest import Go
from tests.extract.fakes import (
    EXPERTS,
    RECORD,
    UNITS,
    FakeForward,
    SlowStore,
    expected,
    fake,
    prompts_of,
    words,
)
from ulcmod_dist.config.schema import AUTOSCALING_TIMEOUT, PLACEMENT_TIMEOUT, ExtractConfig
from ulcmod_dist.corpus.digests import from_hex
from ulcmod_dist.errors import UlcmodError
from ulcmod_dist.extract.driver import prepare, publish
from ulcmod_dist.extract.monitor import ExtractionProgress
from ulcmod_dist.extract.planner import list_remaining_tasks
from ulcmod_dist.extract.pool import WorkerPool, define_worker
from ulcmod_dist.runtime.lease import Lease
from ulcmod_dist.runtime.ray_session import ActorResources
from ulcmod_dist.runtime.rundir import RunDir
from ulcmod_dist.store.records import read_commits, read_quarantine
from ulcmod_dist.store.shards import ShardWriter
from ulcmod_dist.store.snapshot import open_snapshot


def batches_run(folder: Path) -> int:
    return len(list(folder.iterdir()))


def test_extract__rows_are_those_of_the_model(go: Go, run: RunDir) -> None:
    texts = words(22)
    done = go(prompts_of(texts, test=6))
    assert done.exit_code == 0
    view = open_snapshot(run)
    np.testing.assert_array_equal(view.activations().raw.compute(), expected(texts))
    np.testing.assert_array_equal(view.activations("test").raw.compute(), expected(texts[16:]))
    assert view.samples["tokens"].to_pylist() == [len(text) for text in texts]
    assert view.samples["category"].to_pylist()[:4] == ["c0", "c1", "c2", "c0"]
    assert view.units["index"].to_pylist() == [*range(5), *range(7)]
    assert view.provenance == RECORD


def test_extract__again_computes_nothing_and_starts_no_actor(go: Go, tmp_path: Path) -> None:
    (marks := tmp_path / "marks").mkdir()
    texts = words(9)
    first = go(prompts_of(texts), fake(marks=str(marks)))
    ran = batches_run(marks)
    second = go(prompts_of(texts), fake(marks=str(marks)))
    assert ran > 0
    assert batches_run(marks) == ran
    assert second.snapshot.digest == first.snapshot.digest
    assert second.reused == 9


def test_extract__reports_progress_to_the_end(go: Go) -> None:
    seen: list[ExtractionProgress] = []
    go(prompts_of(words(12)), on_progress=seen.append)
    last = seen[-1]
    assert (last.shards_done, last.shards, last.prompts_done) == (3, 3, 12)
    assert last.tokens_done == last.tokens > 0
    assert last.prompts_per_second > 0
    assert last.seconds_left == 0


def test_extract__another_corpus_reuses_the_rows_that_still_hold(
    go: Go, run: RunDir, tmp_path: Path
) -> None:
    (marks := tmp_path / "marks").mkdir()
    go(prompts_of(words(8)), shard_samples=8, batch_tokens=10**6)
    texts = [*words(8)[1:], *words(2, start=50)]
    done = go(
        prompts_of(texts),
        fake(marks=str(marks)),
        shard_samples=8,
        batch_tokens=10**6,
    )
    assert batches_run(marks) == 1
    assert done.reused == 7
    np.testing.assert_array_equal(open_snapshot(run).activations().raw.compute(), expected(texts))
    assert open_snapshot(run, version=1).samples.num_rows == 8


def test_extract__another_record_reuses_nothing(go: Go, run: RunDir) -> None:
    go(prompts_of(words(8)))
    done = go(prompts_of(words(8)), provenance={**RECORD, "model.revision": "b"})
    assert done.reused == 0
    assert done.snapshot.version == 2
    assert len(read_commits(run)) == 4


def test_extract__equal_prompts_are_computed_once(go: Go, run: RunDir) -> None:
    texts = ["twin", "other", "twin", "third", "twin"]
    go(prompts_of(texts))
    assert sum(commit.rows for commit in read_commits(run).values()) == 3
    np.testing.assert_array_equal(open_snapshot(run).activations().raw.compute(), expected(texts))


def test_extract__a_batch_that_exceeds_memory_is_split_and_the_split_recorded(
    go: Go, run: RunDir
) -> None:
    texts = [f"same {number:04d}" for number in range(8)]
    options = {"shard_samples": 8, "batch_tokens": 10**6}
    go(prompts_of(texts), fake(largest=3), **options)
    (commit,) = read_commits(run).values()
    assert commit.origin.splits == (8,)
    assert commit.origin.batches == (2, 2, 2, 2)
    np.testing.assert_array_equal(open_snapshot(run).activations().raw.compute(), expected(texts))


def test_extract__routed_counts_are_stored(go: Go, run: RunDir) -> None:
    texts = words(6)
    go(prompts_of(texts), fake(units=EXPERTS), units=EXPERTS)
    commits = read_commits(run).values()
    assert all("routed" in commit.arrays for commit in commits)
    assert open_snapshot(run).units["expert"].to_pylist()[-8:] == [0] * 4 + [1] * 4


@pytest.mark.parametrize("what", ["nan", "large", "raise", "kill"])
def test_extract__poison_is_quarantined_and_the_rest_finishes(
    go: Go, run: RunDir, what: str
) -> None:
    texts = [*words(6), "has poison inside", *words(3, start=20)]
    done = go(prompts_of(texts), fake(poison={"poison": what}), shard_samples=5)
    assert done.exit_code == 3
    lost = {entry.sample_ids for entry in done.quarantined}
    assert ("s6",) in lost
    # A process that is killed says nothing about the prompt, so its shard goes with it.
    assert len(lost) == (5 if what == "kill" else 1)
    kept = [text for number, text in enumerate(texts) if (f"s{number}",) not in lost]
    np.testing.assert_array_equal(open_snapshot(run).activations().raw.compute(), expected(kept))


def test_extract__what_an_actor_refuses_is_quarantined_at_once(go: Go, run: RunDir) -> None:
    texts = [*words(3), "endless one", *words(3, start=20), "endless two"]
    done = go(prompts_of(texts), fake(refused="endless"), shard_samples=5)
    assert (done.exit_code, done.progress.failures) == (3, 0)
    found = [(entry.sample_ids, entry.reason, entry.attempts) for entry in done.quarantined]
    why = "The prompt is too long."
    assert sorted(found) == [(("s3",), why, 1), (("s7",), why, 1)]
    kept = [text for text in texts if "endless" not in text]
    np.testing.assert_array_equal(open_snapshot(run).activations().raw.compute(), expected(kept))


def test_extract__a_failing_machine_ends_the_run_and_puts_no_prompt_into_quarantine(
    go: Go, run: RunDir, tmp_path: Path
) -> None:
    (illness := tmp_path / "illness").touch()
    texts = [*words(6), "has poison inside", *words(3, start=20)]
    load_model = fake(poison={"poison": "ecc"}, illness=str(illness))
    with pytest.raises(UlcmodError, match=r"A device failed: .*ECC error") as raised:
        go(prompts_of(texts), load_model, shard_samples=5)
    assert "it continues where it stopped" in str(raised.value)
    assert read_quarantine(run) == {}
    assert len(read_commits(run)) == 1  # the other shard was not held up
    illness.unlink()
    done = go(prompts_of(texts), load_model, shard_samples=5)
    assert (done.exit_code, done.reused) == (0, 5)
    np.testing.assert_array_equal(open_snapshot(run).activations().raw.compute(), expected(texts))


def test_extract__actors_that_die_on_every_shard_blame_the_machine(go: Go, run: RunDir) -> None:
    with pytest.raises(UlcmodError, match="the machine is the likely cause, not the prompts"):
        go(prompts_of(words(4)), fake(poison={"prompt": "kill"}))
    assert read_quarantine(run) == {}


def test_extract__quarantined_prompts_are_left_alone_until_asked_for(go: Go, run: RunDir) -> None:
    texts = [*words(4), "has poison inside"]
    go(prompts_of(texts), fake(poison={"poison": "nan"}))
    assert go(prompts_of(texts)).exit_code == 3
    healed = go(prompts_of(texts), retry_quarantined=True)
    assert healed.exit_code == 0
    np.testing.assert_array_equal(open_snapshot(run).activations().raw.compute(), expected(texts))


def test_extract__nothing_but_poison_is_an_error(go: Go) -> None:
    with pytest.raises(UlcmodError, match="Not one of the 2 prompts"):
        go(prompts_of(["poison a", "poison b"]), fake(poison={"poison": "nan"}))


def test_extract__resources_that_no_node_has_are_named(go: Go) -> None:
    with pytest.raises(UlcmodError, match=r"An actor needs 3 GPU, of which the largest node has 0"):
        go(prompts_of(words(3)), gpus=3, patience=1)


@pytest.mark.parametrize(
    ("given", "workers", "address", "seconds"),
    [
        (None, 4, None, PLACEMENT_TIMEOUT),
        (None, None, "10.0.0.7:6379", PLACEMENT_TIMEOUT),
        (None, 4, "10.0.0.7:6379", AUTOSCALING_TIMEOUT),
        (7.0, 4, "10.0.0.7:6379", 7.0),
        (7.0, None, None, 7.0),
    ],
)
def test_placement_timeout__is_longer_where_machines_may_come(
    monkeypatch: pytest.MonkeyPatch,
    given: float | None,
    workers: int | None,
    address: str | None,
    seconds: float,
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    config = ExtractConfig(patience=given, workers=workers, address=address)
    assert config.placement_timeout == seconds
    # A driver that a cluster runs is told of it by its environment.
    monkeypatch.setenv("RAY_ADDRESS", address or "")
    config = ExtractConfig(patience=given, workers=workers)
    assert config.placement_timeout == seconds


@pytest.mark.faults
def test_extract__resources_that_no_node_has_end_the_run_within_a_minute(go: Go) -> None:
    began = time.monotonic()
    with pytest.raises(UlcmodError, match="An actor needs 3 GPU"):
        go(prompts_of(words(3)), gpus=3)
    assert time.monotonic() - began < 60


def test_extract__the_next_shard_is_computed_while_one_is_written(go: Go, tmp_path: Path) -> None:
    (folder := tmp_path / "marks").mkdir()
    go(prompts_of(words(12)), on_event=SlowStore(str(folder)))
    passed = [name.name.split("-")[1:] for name in sorted(folder.iterdir())]
    order = list(dict.fromkeys(digest for _, digest in passed))
    assert len(order) == 3
    for one, following in pairwise(order):
        computed, committed = passed.index(["computed", one]), passed.index(["committed", one])
        assert computed < passed.index(["halfway", following]) < committed


def test_extract__memory_below_the_projection_is_refused(go: Go) -> None:
    with pytest.raises(UlcmodError, match="projected to take"):
        go(prompts_of(words(3)), model_bytes=lambda tokens, longest: 2**60)


def test_extract__stopping_keeps_what_is_done_and_a_later_run_goes_on(go: Go, run: RunDir) -> None:
    texts = words(24)
    seen: list[ExtractionProgress] = []

    def stop() -> bool:
        return bool(seen) and seen[-1].shards_done >= 2

    with pytest.raises(UlcmodError, match="was stopped"):
        go(prompts_of(texts), fake(seconds=0.05), on_progress=seen.append, stop=stop)
    committed = len(read_commits(run))
    assert 2 <= committed < 6
    go(prompts_of(texts))
    np.testing.assert_array_equal(open_snapshot(run).activations().raw.compute(), expected(texts))


def test_pool__starts_and_ends_actors_as_their_wanted_number_changes(
    run: RunDir, local_ray: None, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    # Many more shards than three actors hold at a time: two end long before the last.
    texts = words(120)
    corpus = prompts_of(texts)
    prepared = prepare(run, corpus, FakeForward(), UNITS, RECORD, shard_samples=4, batch_tokens=64)
    resources, ready = ActorResources(cpus=0.5), []
    with Lease.acquire(run, "extract") as lease:
        load_model = fake(gate=str(gate), seconds=0.15)
        writer = ShardWriter(run, prepared.plan.chunk_shape, check=lease.fence.check)
        worker = define_worker(resources)
        pool = WorkerPool(
            lambda: worker.remote(
                load_model, writer, RECORD, prepared.plan_batches, lease.fence.epoch
            ),
            lambda task: corpus.prompts(task.rows),
            resources,
            workers=1,
        )
        for _ in pool.run(list_remaining_tasks(prepared.plan, prepared.digests, from_hex([]))):
            ready.append(pool.ready)
            if pool.ready == 3:
                gate.touch()
            if pool.ready:
                pool.workers = 1 if gate.exists() else 3
        pool.close()
        snapshot = publish(run, prepared, lease.fence)
    assert max(ready) == 3
    assert ready[-1] == 1
    assert pool.failures == 0
    np.testing.assert_array_equal(snapshot.activations().raw.compute(), expected(texts))


def test_extract__the_last_shards_are_left_to_idle_actors(go: Go, tmp_path: Path) -> None:
    gate, marks = tmp_path / "gate", tmp_path / "marks"
    marks.mkdir()
    deadline = time.monotonic() + 120

    def watch(progress: ExtractionProgress) -> None:
        # The first actor computes nothing until the second one has loaded its model.
        if progress.actors == 2 or time.monotonic() > deadline:
            gate.touch()

    load_model = fake(gate=str(gate), marks=str(marks), seconds=0.5)
    go(prompts_of(words(8)), load_model, workers=2, on_progress=watch)
    processes = [path.name.split("-")[1] for path in marks.iterdir()]
    assert len(set(processes)) == 2


def test_extract__more_actors_than_memory_holds_are_refused(
    go: Go, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    fact = r"1000 actors are projected to take 0\.88 GiB of memory each; this machine has \S+ GiB"
    with pytest.raises(UlcmodError, match=fact):
        go(prompts_of(words(3)), workers=1000, cpus=0.001)


def test_extract__progress_moves_with_the_batches_of_every_actor(go: Go, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    deadline = time.monotonic() + 120
    seen: list[ExtractionProgress] = []

    def watch(progress: ExtractionProgress) -> None:
        seen.append(progress)
        # Two actors wait at the gate, each with two prompts of a shard of four.
        if progress.prompts_done == 4 or time.monotonic() > deadline:
            gate.touch()

    load_model = fake(gate=str(gate), free_batches=2)
    go(prompts_of(words(16)), load_model, batch_tokens=1, workers=2, on_progress=watch)
    before_commits = [progress.prompts_done for progress in seen if progress.shards_done == 0]
    assert 4 in before_commits
    assert before_commits == sorted(before_commits)
    assert any(progress.seconds_left for progress in seen if progress.shards_done == 0)
    assert seen[-1].prompts_done == seen[-1].prompts == 16
