"""The shard plan: what is computed, what is reused, in which order."""

import hashlib
from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ulcmod_dist.corpus.digests import join_digests
from ulcmod_dist.corpus.prompts import plan_shards
from ulcmod_dist.errors import InvalidInput

PROMPTS = st.lists(st.sampled_from("abcdefghijkl"), max_size=40)
KNOWN = st.sets(st.sampled_from("abcdefghijklmn"))
SIZES = st.integers(1, 7)


def cut(prompts: str, known: Iterable[str], size: int, num_train: int = 10**6) -> list[list[int]]:
    digests = [
        join_digests(hashlib.sha256(prompt.encode()).digest() for prompt in each)
        for each in (prompts, known)
    ]
    splits = (np.arange(len(prompts)) >= num_train).astype(np.int32)
    return [[*map(int, rows)] for rows in plan_shards(digests[0], digests[1], splits, size)]


@given(PROMPTS, KNOWN, SIZES)
def test_plan_shards__computes_each_unknown_prompt_once_in_corpus_order(
    prompts: list[str], known: set[str], size: int
) -> None:
    rows = [row for shard in cut("".join(prompts), known, size) for row in shard]
    assert rows == sorted(rows)
    planned = [prompts[row] for row in rows]
    assert len(planned) == len(set(planned))
    assert set(planned) == set(prompts) - known


@given(PROMPTS, KNOWN, SIZES, st.integers(0, 40))
def test_plan_shards__fills_every_shard_but_the_last_of_a_split(
    prompts: list[str], known: set[str], size: int, num_train: int
) -> None:
    shards = cut("".join(prompts), known, size, num_train)
    train = [shard for shard in shards if shard[0] < num_train]
    assert all(max(shard) < num_train for shard in train)
    for part in (train, shards[len(train) :]):
        assert all(len(shard) == size for shard in part[:-1])
        assert all(0 < len(shard) <= size for shard in part)


@given(PROMPTS, PROMPTS, SIZES)
def test_plan_shards__added_prompts_leave_computed_ones_alone(
    before: list[str], added: list[str], size: int
) -> None:
    corpus = "".join(before + added)
    planned = cut(corpus, before, size)
    assert {corpus[row] for shard in planned for row in shard} == set(added) - set(before)
    assert cut(corpus, corpus, size) == []


def test_plan_shards__refuses_empty_shards() -> None:
    with pytest.raises(InvalidInput, match="at least 1 sample, not 0"):
        cut("a", "", 0)
