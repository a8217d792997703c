import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ulcmod_dist.forward.batches import pad_rows, plan_batches

lengths = st.lists(st.integers(1, 300), max_size=60)


@settings(deadline=None)
@given(lengths, st.integers(1, 600))
def test_plan_batches__every_prompt_once_within_the_budget(
    lengths: list[int], batch_tokens: int
) -> None:
    batches = plan_batches(lengths, batch_tokens)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        padded = len(batch) * max(lengths[index] for index in batch)
        assert padded <= batch_tokens or len(batch) == 1


@settings(deadline=None)
@given(lengths, st.integers(1, 600))
def test_plan_batches__lengths_fall_from_batch_to_batch(
    lengths: list[int], batch_tokens: int
) -> None:
    ordered = [lengths[index] for batch in plan_batches(lengths, batch_tokens) for index in batch]
    assert ordered == sorted(lengths, reverse=True)


def test_plan_batches__equal_lengths_keep_their_order() -> None:
    assert plan_batches([4, 9, 4, 4], 9) == ((1,), (0, 2), (3,))


@given(st.lists(st.lists(st.integers(1, 9), max_size=5), min_size=1, max_size=6))
def test_pad_rows__holds_every_row_and_zeros_after_it(rows: list[list[int]]) -> None:
    padded, inside = pad_rows(rows, np.int64)
    assert padded.shape == inside.shape == (len(rows), max(map(len, rows)))
    assert [padded[n][inside[n]].tolist() for n in range(len(rows))] == rows
    assert not padded[~inside].any()
    assert all((np.diff(each.astype(int)) <= 0).all() for each in inside)
