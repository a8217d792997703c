"""Whether ablating a module hurts its own samples more than others: arrays in, figures out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class BootstrapIntervals:
    """Values with the ends of their intervals, each float64 [masks] or a single number."""

    value: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


@dataclass(frozen=True)
class Selectivity:
    """How much more a mask raises the loss of its own samples than that of the others.

    Intervals are percentile bootstraps over the samples, drawn within each module's samples.

    Attributes:
        own: Mean loss increase on the owner's samples [masks]; NaN where there are none.
        others: Mean loss increase on all other samples [masks].
        difference: ``own - others`` [masks].
        mean: Mean of the difference over the masks, a single number.
    """

    own: BootstrapIntervals
    others: BootstrapIntervals
    difference: BootstrapIntervals
    mean: BootstrapIntervals


def compute_effects(
    loss_increase: NDArray[np.float64], groups: NDArray[np.integer[Any]], num_groups: int
) -> NDArray[np.float64]:
    """Mean loss increase of each group of samples: masks against modules or categories.

    Args:
        loss_increase: [masks, samples]; samples without a loss are NaN and left out.
        groups: [samples], from 0; -1 for a sample that belongs to none.
        num_groups: Number of groups.

    Returns:
        float64 [masks, groups]; NaN for a group without samples.
    """
    parts = _parts(loss_increase, groups, num_groups)
    means = np.full((len(loss_increase), num_groups), np.nan)
    for group, part in enumerate(parts):
        if part.shape[1]:
            means[:, group] = part.mean(axis=1)
    return means


def compute_selectivity(
    loss_increase: NDArray[np.float64],
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
        loss_increase: [masks, samples]; samples without a loss are NaN and left out.
        groups: [samples], the module of each sample, from 0; -1 for one that is left out.
        owners: [masks], the group that each mask belongs to.
        generator: Draws the resamples.
        resamples: Number of bootstrap resamples.
        level: Share of them within the interval.
    """
    num_groups = int(max(groups.max(initial=0), owners.max(initial=0))) + 1
    parts = _parts(loss_increase, groups, num_groups)
    counts = np.array([part.shape[1] for part in parts])
    sums = np.stack([part.sum(axis=1) for part in parts], axis=1)
    measured = _own_and_others(sums, counts, owners)
    drawn = np.empty((resamples, 2, len(owners)))
    for row in drawn:
        sums = np.stack([_resampled_sum(part, generator) for part in parts], axis=1)
        row[:] = _own_and_others(sums, counts, owners)
    own, others = (_interval(measured[side], drawn[:, side], level) for side in (0, 1))
    difference = measured[0] - measured[1]
    draws = drawn[:, 0] - drawn[:, 1]
    known = np.isfinite(difference)
    mean = _interval(_mean(difference[known]), _mean(draws[:, known]), level)
    return Selectivity(own, others, _interval(difference, draws, level), mean)


def _interval(
    value: NDArray[np.float64], draws: NDArray[np.float64], level: float
) -> BootstrapIntervals:
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return BootstrapIntervals(value, np.asarray(low), np.asarray(high))


def _mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over the last axis; NaN over nothing."""
    if values.shape[-1] == 0:
        return np.full(values.shape[:-1], np.nan)
    return np.asarray(values.mean(axis=-1))


def _parts(
    loss_increase: NDArray[np.float64], groups: NDArray[np.integer[Any]], num_groups: int
) -> list[NDArray[np.float64]]:
    """The columns of each group, without samples that have no loss."""
    measured = np.isfinite(loss_increase).all(axis=0)
    return [loss_increase[:, measured & (groups == group)] for group in range(num_groups)]


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
