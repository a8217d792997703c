"""Ablation: every prompt's loss with each of many masks, and the means that masks may hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ulcmod_dist.forward.values import Encoded
from ulcmod_dist.intervene.loss import LossEngine
from ulcmod_dist.intervene.masks import Mask


@dataclass(frozen=True)
class Ablation:
    """What silencing costs.

    Attributes:
        intact: float64 [samples], nats a token of the model as it is; NaN for a sample without a
            predicted token.
        masked: float64 [masks, samples], the same with each mask.
    """

    intact: NDArray[np.float64]
    masked: NDArray[np.float64]

    @property
    def rise(self) -> NDArray[np.float64]:
        """By how much each mask raises each sample's loss, float64 [masks, samples]."""
        return self.masked - self.intact


def ablate(
    engine: LossEngine,
    encoded: Sequence[Encoded],
    batches: Sequence[Sequence[int]],
    masks: Sequence[Mask],
    advance: Callable[[int], None] = lambda samples: None,
) -> Ablation:
    """Measure every sample's loss intact and with each mask.

    Args:
        engine: The model.
        encoded: The samples.
        batches: Indices of samples run together, such as ``plan_batches`` gives.
        masks: What to silence, one at a time.
        advance: Told the number of samples after each batch is done with all masks.
    """
    losses = np.full((1 + len(masks), len(encoded)), np.nan)
    for batch in batches:
        prompts = [encoded[index] for index in batch]
        for row, mask in enumerate([None, *masks]):
            losses[row, list(batch)] = engine.losses(prompts, mask).mean
        advance(len(batch))
    return Ablation(losses[0], losses[1:])


def unit_means(
    engine: LossEngine, encoded: Sequence[Encoded], batches: Sequence[Sequence[int]]
) -> NDArray[np.float64]:
    """Mean of each unit over all counted tokens that it sees, signs kept, float64 [units].

    These are the values for ``Mask.held_at``: a unit held at its mean carries no news of the
    prompt, but leaves the average intact, which zero does not. A unit that sees no token has 0.
    """
    totals = [engine.unit_sums([encoded[index] for index in batch]) for batch in batches]
    sums = np.stack([total for total, _ in totals]).sum(axis=0)
    tokens = np.stack([seen for _, seen in totals]).sum(axis=0)
    means: NDArray[np.float64] = sums / np.maximum(tokens, 1)
    return means
