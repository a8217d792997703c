"""Whether ablating a module costs its own samples more than others: losses to results."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ulcmod_dist.config.schema import AblateConfig
from ulcmod_dist.intervene.ablation import AblationLosses
from ulcmod_dist.intervene.masks import name_units
from ulcmod_dist.intervene.trials import AblationSamples, Trial
from ulcmod_dist.results.ablation import (
    CONTROLS,
    AblatedModule,
    Ablation,
    AnswerEffects,
    Control,
    Effect,
    ExtremeUnits,
)
from ulcmod_dist.results.types import Absent, Floats, Interval

NO_CATEGORIES = "The corpus has no categories."

Groups = NDArray[np.integer[Any]]
Compare = Callable[[dict[int, Floats]], tuple[dict[int, Effect], Interval]]

INTERVAL = ((1 - 0.95) / 2, (1 + 0.95) / 2)
"""Quantiles of the bootstrap draws that bound a 95% interval."""


@dataclass(frozen=True)
class Selectivity:
    """How much more masks increase the loss of their own samples than that of the others.

    Intervals are percentile bootstraps over the samples, drawn within each module's samples.
    """

    masks: tuple[Effect, ...]  # NaN on the side where there are no samples
    mean: Interval  # mean selectivity of the masks, over those where it is known


def summarize_ablation(
    losses: AblationLosses,
    trials: Sequence[Trial],
    samples: AblationSamples,
    config: AblateConfig,
    generator: np.random.Generator,
) -> Ablation:
    """Sum up what the trials of all modules of one K cost.

    The control sets of a module are averaged. A sample without a loss is NaN and left out.
    """
    groups = samples.modules

    def compare(rows: dict[int, Floats]) -> tuple[dict[int, Effect], Interval]:
        stacked, owners = np.stack(list(rows.values())), np.array(list(rows))
        found = compute_selectivity(stacked, groups, owners, generator)
        return dict(zip(rows, found.masks, strict=True)), found.mean

    increase = losses.loss_increase
    average = partial(_average_trials, trials)
    real, control = average(increase, "module"), average(increase, *CONTROLS)
    loss, selectivity = compare(real)
    accuracy, _ = compare(average(losses.accuracy_loss, "module"))
    controls = {kind: compare(average(increase, kind))[0] for kind in CONTROLS}
    extreme = {t.module: name_units(t.mask) for t in trials if t.kind == "extreme"}
    parts = [compare(average(increase, kind))[0] for kind in ("extreme", "rest") if extreme]
    modules = tuple(
        AblatedModule(
            module,
            loss[module],
            accuracy[module],
            tuple(Control(kind, effects[module]) for kind, effects in controls.items()),
            ExtremeUnits(extreme[module], *(part[module] for part in parts))
            if module in extreme
            else None,
        )
        for module in real
    )
    names = sorted({name for name in samples.categories if name is not None})
    matrices = [np.stack(list(rows.values())) for rows in (real, control)]
    by_module = [average_by_group(each, groups, len(real)) for each in matrices]
    by_category = [_average_by_category(each, samples.categories, names) for each in matrices]
    return Ablation(
        method=config.method,
        num_samples=len(groups),
        num_random_sets=config.random_sets,
        seed=config.seed,
        intact_loss=_mean_known(losses.loss[0]),
        intact_accuracy=_mean_known(losses.accuracy[0]),
        by_module=by_module[0],
        control_by_module=by_module[1],
        by_category=by_category[0],
        control_by_category=by_category[1],
        categories=tuple(names),
        modules=modules,
        selectivity=selectivity,
        control_selectivity=compare(control)[1],
        advantage=compare({module: real[module] - control[module] for module in real})[1],
        answers=_summarize_answers(losses.answer, trials, compare) if losses.answer else None,
    )


def _summarize_answers(
    losses: AblationLosses, trials: Sequence[Trial], compare: Compare
) -> AnswerEffects:
    """Sum up the losses of the expected answers."""
    increase, average = losses.loss_increase, partial(_average_trials, trials)
    effects = (
        tuple(compare(rows)[0].values())
        for rows in (
            average(increase, "module"),
            average(losses.accuracy_loss, "module"),
            average(increase, *CONTROLS),
        )
    )
    return AnswerEffects(
        int(np.isfinite(losses.loss[0]).sum()),
        _mean_known(losses.loss[0]),
        _mean_known(losses.accuracy[0]),
        *effects,
    )


def _average_trials(trials: Sequence[Trial], measured: Floats, *kinds: str) -> dict[int, Floats]:
    """Mean over the trials of some kinds for each module that has any, values [samples]."""
    rows: dict[int, list[Floats]] = {}
    for row, trial in zip(measured, trials, strict=True):
        if trial.kind in kinds:
            rows.setdefault(trial.module, []).append(row)
    return {module: np.mean(each, axis=0) for module, each in rows.items()}


def _average_by_category(
    increase: Floats, categories: Sequence[str | None], names: list[str]
) -> Floats | Absent:
    if not names:
        return Absent(NO_CATEGORIES)
    labels = np.array([-1 if name is None else names.index(name) for name in categories])
    return average_by_group(increase, labels, len(names))


def _mean_known(values: Floats) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else np.nan


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
        Effect(*(Interval(*map(float, side)) for side in mask))
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
