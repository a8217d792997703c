"""Which prompts of a shard are run together: a plan from lengths alone, made before any pass."""

from __future__ import annotations

from collections.abc import Sequence


def plan_batches(lengths: Sequence[int], batch_tokens: int) -> tuple[tuple[int, ...], ...]:
    """Cut a shard into batches of prompts of similar length.

    Prompts are sorted by falling length, so that little is padded and the batch that needs most
    memory comes first; equal lengths keep their order. A batch padded to its longest prompt holds
    at most ``batch_tokens`` tokens, except that a prompt longer than that has a batch of its own.

    Args:
        lengths: Tokens of each prompt.
        batch_tokens: Tokens of a batch, padding included.

    Returns:
        For each batch the indices of its prompts; each index occurs exactly once.
    """
    batches: list[list[int]] = []
    room = 0
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        if room == 0:
            batches.append([])
            room = max(1, batch_tokens // max(1, lengths[index]))
        batches[-1].append(index)
        room -= 1
    return tuple(map(tuple, batches))
