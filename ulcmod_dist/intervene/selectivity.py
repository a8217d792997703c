"""Whether ablating a module costs its own samples more than others: losses to results."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ulcmod_dist.config.schema import AblateConfig
from ulcmod_dist.results.ablation import AblatedModule, Ablation, LossIncrease
from ulcmod_dist.results.types import Absent, Floats, Interval

Groups = NDArray[np.integer[Any]]

INTERVAL = ((1 - 0.95) / 2, (1 + 0.95) / 2)
"""Quantiles of the bootstrap draws that bound a 95% interval."""


@dataclass(frozen=True)
class Selectivity:
    """How much more masks increase the loss of their own samples than that of the others.

    Intervals are percentile bootstraps over the samples, drawn within each module's samples.
    """

    masks: tuple[LossIncrease, ...]  # NaN on the side where there are no samples
    mean: Interval  # mean selectivity of the masks, over those where it is known


def summarize_ablation(
    increase: Floats,
    random_increase: Floats,
    modules: Groups,
    categories: Sequence[str | None],
    config: AblateConfig,
    generator: np.random.Generator,
) -> Ablation:
    """Sum up the loss increases of all modules of one K beside those of their random sets.

    ``increase`` is [K, samples], ``random_increase`` [K * random_sets, samples]: the sets of a
    module are beside each other and averaged. A sample without a loss is NaN and left out.
    ``modules`` and ``categories`` (None where there is none) are those of each sample.
    """
    num_modules, num_samples = increase.shape
    owners = np.arange(num_modules)
    random_mean = random_increase.reshape(num_modules, config.random_sets, -1).mean(axis=1)
    real = compute_selectivity(increase, modules, owners, generator)
    random = compute_selectivity(random_mean, modules, owners, generator)
    advantage = compute_selectivity(increase - random_mean, modules, owners, generator)
    names = sorted({name for name in categories if name is not None})
    positions = {name: position for position, name in enumerate(names)}
    groups = np.array([positions.get(str(name), -1) for name in categories])
    return Ablation(
        method=config.method,
        num_samples=num_samples,
        num_random_sets=config.random_sets,
        seed=config.seed,
        by_module=average_by_group(increase, modules, num_modules),
        random_by_module=average_by_group(random_mean, modules, num_modules),
        by_category=average_by_group(increase, groups, len(names))
        if names
        else Absent("The corpus has no categories."),
        categories=tuple(names),
        modules=tuple(map(AblatedModule, range(num_modules), real.masks, random.masks)),
        selectivity=real.mean,
        random_selectivity=random.mean,
        advantage=advantage.mean,
    )


def average_by_group(increase: Floats, groups: Groups, num_groups: int) -> Floats:
    """Mean loss increase [masks, groups] by group of samples; NaN for a group without samples.

    The increase [masks, samples] is NaN for samples without a loss, which are left out, as are
    those of group -1.
    """
    nothing = np.full(len(increase), np.nan)
    parts = _split_by_group(increase, groups, num_groups)
    return np.stack([part.mean(axis=1) if part.size else nothing for part in parts], axis=1)


def compute_selectivity(
    increase: Floats,
    groups: Groups,
    owners: Groups,
    generator: np.random.Generator,
    *,
    resamples: int = 1000,
) -> Selectivity:
    """Selectivity of masks, each of which belongs to one group of samples, such as a module.

    A module's mask is owned by the module; so is a random set drawn in its likeness, which makes
    the two comparable.

    Samples are left out where the increase [masks, samples] is NaN or the group is -1; ``owners``
    [masks] are the groups that masks belong to. The generator draws the bootstrap resamples.
    """
    num_groups = int(max(groups.max(initial=0), owners.max(initial=0))) + 1
    parts = _split_by_group(increase, groups, num_groups)
    counts = np.array([part.shape[1] for part in parts])
    sums = np.stack([part.sum(axis=1) for part in parts], axis=1)
    measured = _own_other_selectivity(sums, counts, owners)
    draws = np.empty((resamples, *measured.shape))
    for draw in draws:
        sums = np.stack([_resampled_sum(part, generator) for part in parts], axis=1)
        draw[:] = _own_other_selectivity(sums, counts, owners)
    low, high = np.quantile(draws, INTERVAL, axis=0)
    masks = [
        LossIncrease(*(Interval(*map(float, side)) for side in mask))
        for mask in np.stack([measured, low, high], axis=-1).swapaxes(0, 1)
    ]
    known = np.isfinite(measured[2])
    mean = Interval(np.nan, np.nan, np.nan)
    if known.any():
        bounds = np.quantile(draws[:, 2, known].mean(axis=1), INTERVAL)
        mean = Interval(float(measured[2, known].mean()), *map(float, bounds))
    return Selectivity(tuple(masks), mean)


def _split_by_group(increase: Floats, groups: Groups, num_groups: int) -> list[Floats]:
    """The columns of each group, without samples that have no loss."""
    measured = np.isfinite(increase).all(axis=0)
    return [increase[:, measured & (groups == group)] for group in range(num_groups)]


def _resampled_sum(part: Floats, generator: np.random.Generator) -> Floats:
    """Sum over as many samples of a group, drawn from it with replacement; float64 [masks]."""
    size = part.shape[1]
    drawn = generator.integers(size, size=size) if size else np.zeros(0, np.int64)
    sums: Floats = part @ np.bincount(drawn, minlength=size).astype(np.float64)
    return sums


def _own_other_selectivity(sums: Floats, counts: NDArray[np.int64], owners: Groups) -> Floats:
    """Mean over the owner's samples, over all others, and their difference; [3, masks].

    ``sums`` [masks, groups] are over the samples of each group, whose numbers are ``counts``.
    """
    mine = sums[np.arange(len(owners)), owners]
    with np.errstate(invalid="ignore"):
        own = mine / counts[owners]
        others = (sums.sum(axis=1) - mine) / (counts.sum() - counts[owners])
    return np.stack([own, others, own - others])
