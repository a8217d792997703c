"""Compare methods: L, xi, B and the measures that favour none of them, over seeds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ulcmod_dist.evaluate.baselines import Candidate
from ulcmod_dist.evaluate.downstream import (
    SelectedCategories,
    fit_classifiers,
    measure_agreement,
    select_categories,
)
from ulcmod_dist.evaluate.features import (
    ModuleFeatures,
    compute_module_features,
    group_by_memory,
)
from ulcmod_dist.evaluate.measures import (
    Separation,
    count_standing_out,
    measure_seeds_agreement,
    measure_separation,
)
from ulcmod_dist.passes.executors import Executor
from ulcmod_dist.passes.standardised import LabelArray, Standardised
from ulcmod_dist.results.discovery import RANDOM_GROUPS, Agreement, MethodRow
from ulcmod_dist.results.types import Absent, Objective, Repeats

ITERD = "IterD"


@dataclass(frozen=True, eq=False)
class MethodScore:
    """How good the modules of one method are, for one K and seed."""

    method: str  # name of the method
    num_modules: int  # K
    seed: int  # seed they were found with
    unit_labels: LabelArray  # module of each unit
    sample_labels: LabelArray  # module of each train sample
    objective: Objective  # objective L with xi and B
    accuracy: float | None  # of the support vector machine on module features, if measured
    macro_f1: float | None  # its macro-F1, if measured
    agreement: Agreement | None  # of the samples' modules with their categories, if they have any
    separation: Separation | None  # how well each module tells categories apart, likewise


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
    known = select_categories(train_categories, () if test is None else test_categories)
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
            score = _score(candidate, mine, other, known, train_categories, memory)
            scores.append(score)
            advance(len(scores))
    return tuple(scores)


def _score(
    candidate: Candidate,
    features: ModuleFeatures,
    test: ModuleFeatures | None,
    known: SelectedCategories | Absent,
    categories: Sequence[str | None],
    memory: int | None,
) -> MethodScore:
    labels, seed = fill_sample_labels(candidate, features), candidate.seed
    values, held_out = features.values, None if test is None else test.values
    downstream = fit_classifiers(values, held_out, known, seed=seed, main_only=True, memory=memory)
    best = None if isinstance(downstream, Absent) else downstream.classifiers[0]
    agreement = measure_agreement("train", labels.astype(np.int64), categories)
    return MethodScore(
        method=candidate.method,
        num_modules=candidate.num_modules,
        seed=seed,
        unit_labels=candidate.unit_labels,
        sample_labels=labels,
        objective=features.objective(labels),
        accuracy=None if best is None else best.accuracy.mean,
        macro_f1=None if best is None else best.macro_f1.mean,
        agreement=None if isinstance(agreement, Absent) else agreement,
        separation=None
        if isinstance(known, Absent)
        else measure_separation(values, held_out, known),
    )


def fill_sample_labels(candidate: Candidate, features: ModuleFeatures) -> LabelArray:
    """Module of each sample; those left open go to the module with the largest mean activation."""
    assigned = features.assign()
    if candidate.sample_labels is None:
        return assigned
    return np.where(candidate.sample_labels >= 0, candidate.sample_labels, assigned)


def tabulate_methods(
    scores: Sequence[MethodScore], num_modules: int, halves: float | None = None
) -> tuple[MethodRow, ...]:
    """Rows of the table for one K: IterD first, then by falling L, random groups last.

    ``halves`` is the agreement of IterD's units over two halves of the samples, if measured.
    """
    chosen = [score for score in scores if score.num_modules == num_modules]
    random = [s.separation for s in chosen if s.method == RANDOM_GROUPS and s.separation]
    rows = [
        _tabulate(method, [s for s in chosen if s.method == method], random, halves)
        for method in dict.fromkeys(score.method for score in chosen)
    ]
    places = {ITERD: 0, RANDOM_GROUPS: 2}
    return tuple(sorted(rows, key=lambda row: (places.get(row.method, 1), -row.value.mean)))


def _tabulate(
    method: str, scores: Sequence[MethodScore], random: Sequence[Separation], halves: float | None
) -> MethodRow:
    agreement = [s.agreement for s in scores if s.agreement]
    level = [] if method == RANDOM_GROUPS else random
    return MethodRow(
        method=method,
        value=Repeats(tuple(s.objective.value for s in scores)),
        xi=Repeats(tuple(s.objective.xi for s in scores)),
        balance=Repeats(tuple(s.objective.balance for s in scores)),
        accuracy=_repeats([s.accuracy for s in scores if s.accuracy is not None]),
        macro_f1=_repeats([s.macro_f1 for s in scores if s.macro_f1 is not None]),
        adjusted_rand=_repeats([found.adjusted_rand for found in agreement]),
        mutual_information=_repeats([found.mutual_information for found in agreement]),
        stand_out=_repeats(
            [count_standing_out(s.separation, level) for s in scores if s.separation and level]
        ),
        seeds_agreement=measure_seeds_agreement([(s.unit_labels, s.sample_labels) for s in scores]),
        halves_agreement=halves if method == ITERD else None,
    )


def _repeats(values: Sequence[float]) -> Repeats | None:
    return Repeats(tuple(values)) if values else None
