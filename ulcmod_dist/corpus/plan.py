"""Which prompts have to be computed and how they are cut into shards. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from ulcmod_dist.errors import InvalidInput


@dataclass(frozen=True)
class ShardPlan:
    """The samples that one task processes and commits.

    Attributes:
        index: Position of the shard in its plan, from 0.
        rows: Rows of the corpus in corpus order.
    """

    index: int
    rows: tuple[int, ...]


def new_rows(digests: Sequence[str], known: AbstractSet[str]) -> list[int]:
    """Rows whose prompt is not known yet, in corpus order; of equal prompts only the first."""
    seen = set(known)
    rows = []
    for row, digest in enumerate(digests):
        if digest not in seen:
            seen.add(digest)
            rows.append(row)
    return rows


def plan_shards(
    digests: Sequence[str], known: AbstractSet[str], shard_samples: int
) -> tuple[ShardPlan, ...]:
    """Cut the prompts that have no rows yet into shards, in corpus order.

    A prompt with a known digest is reused and never planned again, so prompts added to a corpus
    form new shards and leave the old ones as they are. Samples with equal prompts share one row.

    Args:
        digests: One digest a sample, in corpus order.
        known: Digests of the prompts whose rows are committed.
        shard_samples: Samples of every shard but the last, which takes the rest.

    Raises:
        InvalidInput: ``shard_samples`` is not positive.
    """
    if shard_samples < 1:
        raise InvalidInput(f"A shard holds at least 1 sample, not {shard_samples}.")
    rows = new_rows(digests, known)
    return tuple(
        ShardPlan(index, tuple(rows[start : start + shard_samples]))
        for index, start in enumerate(range(0, len(rows), shard_samples))
    )
