"""A batch run in as many pieces as the device's memory demands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

Item = TypeVar("Item")
Answer = TypeVar("Answer")


def in_pieces(
    run: Callable[[Sequence[Item]], Answer], batch: Sequence[Item]
) -> list[tuple[int, Answer]]:
    """Run a batch, halving it as often as memory is short.

    Args:
        run: Computes a batch, at least one item.
        batch: The items.

    Returns:
        Size and answer of each piece; the pieces follow one another.

    Raises:
        torch.OutOfMemoryError: A single item does not fit.
    """
    try:
        return [(len(batch), run(batch))]
    except torch.OutOfMemoryError:
        if len(batch) == 1:
            raise
    # Out of the handler, so that the failed attempt's tensors are no longer held by its frames.
    torch.accelerator.empty_cache() if torch.accelerator.is_available() else None
    middle = len(batch) // 2
    return [*in_pieces(run, batch[:middle]), *in_pieces(run, batch[middle:])]
