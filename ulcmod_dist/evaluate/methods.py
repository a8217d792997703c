"""Compare methods: L, xi, B and the measures that favour none of them, over seeds."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from ulcmod_dist.evaluate.baselines import Candidate
from ulcmod_dist.evaluate.downstream import (
    SelectedCategories,
    measure_agreement,
    score_downstream,
    select_categories,
)
from ulcmod_dist.evaluate.features import (
    ModuleFeatures,
    compute_module_features,
    group_by_memory,
)
from ulcmod_dist.evaluate.measures import count_standing_out, measure_separation
from ulcmod_dist.iterd.modules import mean_rand_index
from ulcmod_dist.passes.executors import Executor
from ulcmod_dist.passes.standardised import LabelArray, Standardised
from ulcmod_dist.results.discovery import ITERD, RANDOM_GROUPS, MethodRow
from ulcmod_dist.results.types import Absent, Floats, Objective, Repeats


@dataclass(frozen=True, eq=False)
class MethodScore:
    """How good the modules of one method are, for one K and seed."""

    found: Candidate  # the modules
    sample_labels: LabelArray  # module of each train sample, also where the method left it open
    objective: Objective  # objective L with xi and B
    measures: dict[str, float]  # by their names in `MethodRow`; of categories if there are any
    separation: tuple[Floats, Floats] | None  # as of `measure_separation`, likewise


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
    labels = fill_sample_labels(candidate, features)
    objective = features.objective(labels)
    measures = {"value": objective.value, "xi": objective.xi, "balance": objective.balance}
    values, held_out = features.values, None if test is None else test.values
    downstream = score_downstream(
        values, held_out, known, seed=candidate.seed, main_only=True, memory=memory
    )
    if not isinstance(downstream, Absent):
        (best,) = downstream.classifiers
        measures |= {"accuracy": best.accuracy.mean, "macro_f1": best.macro_f1.mean}
    agreement = measure_agreement("train", labels.astype(np.int64), categories)
    if not isinstance(agreement, Absent):
        measures["adjusted_rand"] = agreement.adjusted_rand
        measures["mutual_information"] = agreement.mutual_information
    separation = None if isinstance(known, Absent) else measure_separation(values, held_out, known)
    return MethodScore(candidate, labels, objective, measures, separation)


def fill_sample_labels(candidate: Candidate, features: ModuleFeatures) -> LabelArray:
    """Module of each sample; those left open go to the module with the largest mean activation."""
    assigned = features.assign()
    if candidate.sample_labels is None:
        return assigned
    return np.where(candidate.sample_labels >= 0, candidate.sample_labels, assigned)


def select_first_seeds(
    scores: Sequence[MethodScore], num_modules: int
) -> dict[str, tuple[LabelArray, LabelArray]]:
    """Modules of the units and of the train samples for one K, by each method but IterD.

    They are those of the method's first seed, or of the first draw of random groups.
    """
    found: dict[str, tuple[LabelArray, LabelArray]] = {}
    for score in scores:
        if score.found.num_modules == num_modules and score.found.method != ITERD:
            found.setdefault(score.found.method, (score.found.unit_labels, score.sample_labels))
    return found


def tabulate_methods(
    scores: Sequence[MethodScore],
    num_modules: int,
    halves: Mapping[tuple[str, int], float] = MappingProxyType({}),
) -> tuple[MethodRow, ...]:
    """Rows of the table for one K: IterD first, then by falling L, random groups last.

    ``halves`` is the agreement of each method's units over two halves, see `compare_halves`.
    """
    chosen = [score for score in scores if score.found.num_modules == num_modules]
    by_method: dict[str, list[MethodScore]] = {}
    for score in chosen:
        by_method.setdefault(score.found.method, []).append(score)
    random = [s.separation[0] for s in by_method.get(RANDOM_GROUPS, ()) if s.separation]
    rows = []
    for method, mine in by_method.items():
        values = {key: [s.measures[key] for s in mine] for key in mine[0].measures}
        if random and method != RANDOM_GROUPS:
            values["stand_out"] = [
                float(count_standing_out(s.separation[1], random)) for s in mine if s.separation
            ]
        units = mean_rand_index([s.found.unit_labels for s in mine])
        samples = mean_rand_index([s.sample_labels for s in mine])
        row = MethodRow(
            method=method,
            **{key: Repeats(tuple(found)) for key, found in values.items()},
            seeds_agreement=(units, samples) if len(mine) > 1 else None,
            halves_agreement=halves.get((method, num_modules)),
        )
        rows.append(row)
    places = {ITERD: 0, RANDOM_GROUPS: 2}
    return tuple(sorted(rows, key=lambda row: (places.get(row.method, 1), -row.value.mean)))
