"""What a plan projects."""

import pytest

from tests.extract.fakes import RECORD, UNITS, FakeForward, prompts_of
from ulcmod_dist.extract.driver import prepare
from ulcmod_dist.runtime.rundir import RunDir


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
