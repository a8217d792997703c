"""Whether silencing a module hurts its own samples more than others: arrays in, figures out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Selectivity:
    """How much more a mask raises the loss of its own samples than that of the others.

    The interval is a percentile bootstrap over the samples, drawn within each module's samples.

    Attributes:
        own: Mean rise on the owner's samples, float64 [masks]; NaN where there are none.
        others: Mean rise on all other samples, float64 [masks].
        low: Lower end of the interval of ``own - others``, float64 [masks].
        high: Upper end.
        mean: Mean of ``own - others`` over the masks.
        mean_low: Lower end of its interval.
        mean_high: Upper end.
    """

    own: NDArray[np.float64]
    others: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    mean: float
    mean_low: float
    mean_high: float

    @property
    def difference(self) -> NDArray[np.float64]:
        """``own - others``, float64 [masks]."""
        return self.own - self.others


def effects(
    rise: NDArray[np.float64], groups: NDArray[np.integer[Any]], num_groups: int
) -> NDArray[np.float64]:
    """Mean rise of the loss by group of samples: the matrix of masks against modules or categories.

    Args:
        rise: [masks, samples]; samples without a loss are NaN and left out.
        groups: [samples], from 0; -1 for a sample that belongs to none.
        num_groups: Number of groups.

    Returns:
        float64 [masks, groups]; NaN for a group without samples.
    """
    parts = _parts(rise, groups, num_groups)
    means = np.full((len(rise), num_groups), np.nan)
    for group, part in enumerate(parts):
        if part.shape[1]:
            means[:, group] = part.mean(axis=1)
    return means


def selectivity(
    rise: NDArray[np.float64],
    groups: NDArray[np.integer[Any]],
    owners: NDArray[np.integer[Any]],
    generator: np.random.Generator,
    *,
    resamples: int = 1000,
    level: float = 0.95,
) -> Selectivity:
    """Selectivity of masks, each of which belongs to one group of samples.

    A module's mask is owned by the module; so is a random set drawn in its likeness, which makes
    the two comparable.

    Args:
        rise: [masks, samples]; samples without a loss are NaN and left out.
        groups: [samples], the module of each sample, from 0; -1 for one that is left out.
        owners: [masks], the group that each mask belongs to.
        generator: Draws the resamples.
        resamples: Number of bootstrap resamples.
        level: Share of them within the interval.
    """
    num_groups = int(max(groups.max(initial=0), owners.max(initial=0))) + 1
    parts = _parts(rise, groups, num_groups)
    counts = np.array([part.shape[1] for part in parts])
    sums = np.stack([part.sum(axis=1) for part in parts], axis=1)
    own, others = _own_and_others(sums, counts, owners)
    drawn = np.empty((resamples, len(owners)))
    for row in drawn:
        sums = np.stack([_resampled_sum(part, generator) for part in parts], axis=1)
        row[:] = np.subtract(*_own_and_others(sums, counts, owners))
    ends = (1 - level) / 2, (1 + level) / 2
    low, high = np.quantile(drawn, ends, axis=0)
    measured = np.isfinite(own - others)
    if not measured.any():
        return Selectivity(own, others, low, high, np.nan, np.nan, np.nan)
    mean_low, mean_high = np.quantile(drawn[:, measured].mean(axis=1), ends)
    mean = float((own - others)[measured].mean())
    return Selectivity(own, others, low, high, mean, float(mean_low), float(mean_high))


def _parts(
    rise: NDArray[np.float64], groups: NDArray[np.integer[Any]], num_groups: int
) -> list[NDArray[np.float64]]:
    """The columns of each group, without samples that have no loss."""
    measured = np.isfinite(rise).all(axis=0)
    return [rise[:, measured & (groups == group)] for group in range(num_groups)]


def _resampled_sum(
    part: NDArray[np.float64], generator: np.random.Generator
) -> NDArray[np.float64]:
    """Sum over as many samples of a group, drawn from it with replacement; float64 [masks]."""
    size = part.shape[1]
    drawn = generator.integers(size, size=size) if size else np.zeros(0, np.int64)
    times: NDArray[np.float64] = np.bincount(drawn, minlength=size).astype(np.float64)
    sums: NDArray[np.float64] = part @ times
    return sums


def _own_and_others(
    sums: NDArray[np.float64], counts: NDArray[np.int64], owners: NDArray[np.integer[Any]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Means over the owner's samples and over all others, from sums [masks, groups]."""
    mine = sums[np.arange(len(owners)), owners]
    with np.errstate(invalid="ignore"):
        own = mine / counts[owners]
        others = (sums.sum(axis=1) - mine) / (counts.sum() - counts[owners])
    return own, others
