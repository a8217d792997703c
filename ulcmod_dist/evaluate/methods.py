"""Compare methods: L, xi, B and downstream scores of each, over seeds."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from ulcmod_dist.evaluate.baselines import Candidate
from ulcmod_dist.evaluate.downstream import INTERVAL_LEVEL, score_downstream
from ulcmod_dist.evaluate.features import (
    ModuleFeatures,
    compute_module_features,
    group_by_memory,
)
from ulcmod_dist.passes.executors import Executor
from ulcmod_dist.passes.standardised import LabelArray, Standardised
from ulcmod_dist.results.discovery import Downstream, MethodRow
from ulcmod_dist.results.types import Absent, Interval, Objective

ITERD = "IterD"


@dataclass(frozen=True)
class MethodScore:
    """How good the modules of one method are, for one K and seed."""

    method: str  # name of the method
    num_modules: int  # K
    seed: int  # seed they were found with
    objective: Objective  # objective L with xi and B
    accuracy: float | None  # of the support vector machine on module features, if measured
    macro_f1: float | None  # its macro-F1, if measured


def score_methods(
    candidates: Sequence[Candidate],
    train: Standardised,
    test: Standardised | None,
    train_categories: Sequence[str | None],
    test_categories: Sequence[str | None],
    executor: Executor,
    advance: Callable[[int], None] = lambda scored: None,
    memory: int | None = None,
) -> tuple[MethodScore, ...]:
    """Score modules of any methods, K and seeds by one pass over train and one over held-out rows.

    ``advance`` is called with the number of candidates scored, after each. Where the features of
    all candidates do not fit in ``memory`` (bytes), there are several passes.
    """
    scores: list[MethodScore] = []
    numbers = [candidate.num_modules for candidate in candidates]
    samples = train.n_samples + (0 if test is None else test.n_samples)
    for group in group_by_memory(numbers, samples, memory):
        chosen = candidates[group]
        labels = [candidate.unit_labels for candidate in chosen]
        features = compute_module_features(train, labels, numbers[group], executor)
        held_out: list[ModuleFeatures | None] = [None] * len(chosen)
        if test is not None:
            held_out = [*compute_module_features(test, labels, numbers[group], executor)]
        for candidate, mine, other in zip(chosen, features, held_out, strict=True):
            downstream = score_downstream(
                mine.values,
                train_categories,
                None if other is None else other.values,
                test_categories,
                seed=candidate.seed,
                main_only=True,
                memory=memory,
            )
            scores.append(_score(candidate, mine, downstream))
            advance(len(scores))
    return tuple(scores)


def _score(
    candidate: Candidate, features: ModuleFeatures, downstream: Downstream | Absent
) -> MethodScore:
    best = None if isinstance(downstream, Absent) else downstream.classifiers[0]
    return MethodScore(
        method=candidate.method,
        num_modules=candidate.num_modules,
        seed=candidate.seed,
        objective=features.objective(fill_sample_labels(candidate, features)),
        accuracy=None if best is None else best.accuracy.mean,
        macro_f1=None if best is None else best.macro_f1.mean,
    )


def fill_sample_labels(candidate: Candidate, features: ModuleFeatures) -> LabelArray:
    """Module of each sample; those left open go to the module with the largest mean activation."""
    assigned = features.assign()
    if candidate.sample_labels is None:
        return assigned
    return np.where(candidate.sample_labels >= 0, candidate.sample_labels, assigned)


def tabulate_methods(scores: Sequence[MethodScore], num_modules: int) -> tuple[MethodRow, ...]:
    """Rows of the table for one K, with intervals over seeds: IterD first, then by falling L.

    Intervals end where values are no longer possible. For xi, and so for L, there is no such end at
    zero: samples may be less active than on average in modules that a method puts them into.
    """
    rows = []
    for method in dict.fromkeys(score.method for score in scores):
        mine = [s for s in scores if s.method == method and s.num_modules == num_modules]
        if not mine:
            continue
        accuracy = [s.accuracy for s in mine if s.accuracy is not None]
        macro_f1 = [s.macro_f1 for s in mine if s.macro_f1 is not None]
        rows.append(
            MethodRow(
                method=method,
                value=interval_over_seeds([s.objective.value for s in mine]),
                xi=interval_over_seeds([s.objective.xi for s in mine]),
                balance=interval_over_seeds([s.objective.balance for s in mine], least=0.0),
                accuracy=interval_over_seeds(accuracy, least=0.0, most=1.0) if accuracy else None,
                macro_f1=interval_over_seeds(macro_f1, least=0.0, most=1.0) if macro_f1 else None,
                num_seeds=len(mine),
            )
        )
    return tuple(sorted(rows, key=lambda row: (row.method != ITERD, -row.value.mean)))


def interval_over_seeds(
    values: Sequence[float], least: float = -math.inf, most: float = math.inf
) -> Interval:
    """Mean of independent runs with Student's interval of the mean; none for a single run.

    It is cut off at the possible values ``least`` to ``most``, which it passes on few runs.
    """
    mean = float(np.mean(values))
    if len(values) < 2:
        return Interval(mean)
    error = float(np.std(values, ddof=1) / np.sqrt(len(values)))
    reach = float(stats.t.ppf((1 + INTERVAL_LEVEL) / 2, len(values) - 1)) * error
    return Interval(mean, max(least, mean - reach), min(most, mean + reach))
