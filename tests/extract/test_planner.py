"""What a plan projects."""

import numpy as np
import pytest

from tests.extract.fakes import RECORD, UNITS, FakeForward, prompts_of, words
from ulcmod_dist.corpus.digests import fingerprint_digests, to_hex
from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.extract import planner
from ulcmod_dist.extract.driver import prepare
from ulcmod_dist.extract.planner import PreparedExtraction, load_plan
from ulcmod_dist.runtime.rundir import PLAN, RunDir, fingerprint
from ulcmod_dist.store.records import CorruptionError, dump_checksummed, load_checksummed


@pytest.mark.parametrize(
    ("lengths", "largest", "longest"),
    [([10, 9, 8], 20, 10), ([30, 9, 8], 30, 30), ([3, 4, 5], 15, 5)],
)
def test_plan__memory_is_that_of_its_largest_batch_and_longest_prompt(
    run: RunDir, lengths: list[int], largest: int, longest: int
) -> None:
    prepared = prepare(
        run,
        prompts_of(["x" * length for length in lengths]),
        FakeForward(),
        UNITS,
        RECORD,
        shard_samples=4,
        batch_tokens=20,
        model_bytes=lambda tokens, length: 1000 * tokens + length,
    )
    assert prepared.plan.model_bytes == 1000 * largest + longest


def planned(
    run: RunDir, texts: list[str], tokenizer: FakeForward | None = None
) -> PreparedExtraction:
    return prepare(
        run,
        prompts_of(texts),
        tokenizer or FakeForward(),
        UNITS,
        RECORD,
        shard_samples=4,
        batch_tokens=20,
    )


def test_plan__tokenizes_the_longest_of_a_large_corpus_and_estimates_the_rest(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planner, "SAMPLED", 8)
    texts = [f"{number:03d}" + "x" * (number % 7) for number in range(1000)]
    texts[777] = "a long one " * 9
    plan = planned(run, texts).plan
    assert 4 < plan.tokenized <= 8
    assert plan.tokens == pytest.approx(sum(map(len, texts)), rel=0.5)
    with pytest.raises(InvalidInput, match=r"Sample s777 \(row 777 of the train samples\)"):
        planned(RunDir.at(f"{run.url}-2"), texts, FakeForward(refused="long"))


def test_load_plan__what_was_saved_is_loaded_and_damage_is_found(run: RunDir) -> None:
    made = planned(run, [*words(9), *words(3)]).plan
    loaded = load_plan(run)
    assert loaded == made
    assert loaded is not None
    assert [shard.rows.tolist() for shard in loaded.shards] == [[0, 1, 2, 3], [4, 5, 6, 7], [8]]
    key = next(key for key, _ in run.keys("plan"))
    run.write(key, run.read(key)[:-1])
    with pytest.raises(CorruptionError, match=r"plan/.*\.parquet is damaged"):
        load_plan(run)


def test_load_plan__of_an_earlier_version(run: RunDir) -> None:
    made = planned(run, words(6)).plan
    value = load_checksummed(run.read(PLAN), PLAN)
    del value["rows"], value["tokens"], value["tokenized"]
    value["shards"] = [
        {"digest": shard.digest, "rows": [ends], "tokens": 50, "batches": [[0, 1], [2]]}
        for shard, ends in zip(made.shards, [[0, 4], [4, 6]], strict=True)
    ]
    run.write(PLAN, dump_checksummed(value))
    loaded = load_plan(run)
    assert loaded is not None
    assert [shard.rows.tolist() for shard in loaded.shards] == [[0, 1, 2, 3], [4, 5]]
    assert (loaded.shards, loaded.tokens, loaded.inputs) == (made.shards, 100, made.inputs)


def test_fingerprint_digests__is_that_of_the_list_of_names() -> None:
    digests = prompts_of(words(70_000)).digests()
    for part in (digests, digests[:1], digests[:0]):
        assert fingerprint_digests(np.array(part)) == fingerprint(to_hex(part))
