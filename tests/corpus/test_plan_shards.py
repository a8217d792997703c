"""The shard plan: what is computed, what is reused, in which order."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ulcmod_dist.corpus.prompts import plan_shards
from ulcmod_dist.errors import InvalidInput

DIGESTS = st.lists(st.sampled_from("abcdefghijkl"), max_size=40)
KNOWN = st.sets(st.sampled_from("abcdefghijklmn"))
SIZES = st.integers(1, 7)


@given(DIGESTS, KNOWN, SIZES)
def test_plan_shards__computes_each_unknown_prompt_once_in_corpus_order(
    digests: list[str], known: set[str], size: int
) -> None:
    rows = [row for shard in plan_shards(digests, known, size) for row in shard]
    assert rows == sorted(rows)
    planned = [digests[row] for row in rows]
    assert len(planned) == len(set(planned))
    assert set(planned) == set(digests) - known


@given(DIGESTS, KNOWN, SIZES)
def test_plan_shards__fills_every_shard_but_the_last(
    digests: list[str], known: set[str], size: int
) -> None:
    shards = plan_shards(digests, known, size)
    assert all(len(shard) == size for shard in shards[:-1])
    assert all(0 < len(shard) <= size for shard in shards)


@given(DIGESTS, DIGESTS, SIZES)
def test_plan_shards__added_prompts_leave_computed_ones_alone(
    before: list[str], added: list[str], size: int
) -> None:
    corpus = before + added
    planned = plan_shards(corpus, set(before), size)
    assert {corpus[row] for shard in planned for row in shard} == set(added) - set(before)
    assert plan_shards(corpus, set(corpus), size) == []


def test_plan_shards__refuses_empty_shards() -> None:
    with pytest.raises(InvalidInput, match="at least 1 sample, not 0"):
        plan_shards(["a"], set(), 0)
