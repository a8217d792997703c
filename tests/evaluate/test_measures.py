"""Measures that favour no method: what they say of modules that are known."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from sklearn.svm import SVC

from tests.evaluate.problem import Planted
from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.evaluate.baselines import Candidate
from ulcmod_dist.evaluate.downstream import SelectedCategories, select_categories
from ulcmod_dist.evaluate.measures import (
    RANDOM_DRAWS,
    compare_halves,
    compute_areas,
    count_standing_out,
    draw_random_groups,
    measure_separation,
)
from ulcmod_dist.evaluate.methods import MethodScore, score_methods, tabulate_methods
from ulcmod_dist.iterd.driver import discover
from ulcmod_dist.passes.executors import ThreadExecutor
from ulcmod_dist.passes.standardised import Standardised
from ulcmod_dist.results.discovery import ITERD, RANDOM_GROUPS, MethodRow
from ulcmod_dist.results.types import Repeats

TWO_A_MODULE = [f"{side} {label}" for label in range(3) for side in ("left", "right")]


def score(
    planted: Planted, candidates: Sequence[Candidate], threads: ThreadExecutor
) -> tuple[MethodScore, ...]:
    return score_methods(
        candidates,
        planted.train,
        planted.test,
        planted.categories,
        planted.test_categories,
        threads,
    )


def find_row(rows: Sequence[MethodRow], method: str) -> MethodRow:
    return next(row for row in rows if row.method == method)


def test_random_groups__are_as_large_as_the_modules_and_differ(planted: Planted) -> None:
    groups = draw_random_groups(planted.unit_labels, 3, seed=4)
    assert len(groups) == RANDOM_DRAWS
    for group in groups:
        assert np.bincount(group.unit_labels).tolist() == np.bincount(planted.unit_labels).tolist()
    assert len({group.unit_labels.tobytes() for group in groups}) == RANDOM_DRAWS
    again = draw_random_groups(planted.unit_labels, 3, seed=4)
    assert all((a.unit_labels == b.unit_labels).all() for a, b in zip(groups, again, strict=True))


def test_random_groups__level_is_what_a_plain_loop_gives(
    planted: Planted, threads: ThreadExecutor
) -> None:
    groups = draw_random_groups(planted.unit_labels, 3, seed=0)
    (row,) = tabulate_methods(score(planted, groups, threads), 3)
    z = [(part.raw - part.mean) / part.std for part in (planted.train, planted.test)]
    accuracies, modularities = [], []
    for group in groups:
        train, test = (
            np.stack([part[:, group.unit_labels == k].mean(axis=1) for k in range(3)], axis=1)
            for part in z
        )
        assert group.sample_labels is None
        inside = [(s, k) for s, k in enumerate(train.argmax(axis=1))]
        sizes = np.bincount(group.unit_labels)
        total = sum(train[s, k] * sizes[k] for s, k in inside)
        modularities.append(total / sum(sizes[k] for _, k in inside))
        scale = train.mean(axis=0), train.std(axis=0)
        model = SVC().fit((train - scale[0]) / scale[1], planted.categories)
        right = model.predict((test - scale[0]) / scale[1]) == np.array(planted.test_categories)
        accuracies.append(right.mean())
    assert row.accuracy is not None
    assert row.accuracy.values == pytest.approx(accuracies)
    assert row.xi.values == pytest.approx(modularities)
    assert row.stand_out is None


def test_methods__modules_stand_out_and_random_ones_come_last(
    planted: Planted, threads: ThreadExecutor
) -> None:
    noise = np.random.default_rng(1).permutation(planted.unit_labels)
    candidates = [
        *draw_random_groups(planted.unit_labels, 3, seed=0),
        Candidate("noise", 3, 0, noise),
        Candidate(ITERD, 3, 0, planted.unit_labels, planted.sample_labels),
        Candidate(ITERD, 3, 1, planted.unit_labels, planted.sample_labels),
    ]
    rows = tabulate_methods(score(planted, candidates, threads), 3, {(ITERD, 3): 0.8})
    assert [row.method for row in rows] == [ITERD, "noise", RANDOM_GROUPS]
    iterd, other, random = rows
    assert iterd.stand_out == Repeats((3, 3))
    assert other.stand_out is not None
    assert other.stand_out.mean <= 1
    assert iterd.adjusted_rand == Repeats((1.0, 1.0))
    assert iterd.mutual_information is not None
    assert iterd.mutual_information.mean == pytest.approx(1.0)
    assert iterd.seeds_agreement == (1.0, 1.0)
    assert (iterd.halves_agreement, other.halves_agreement, other.seeds_agreement) == (
        0.8,
        None,
        None,
    )
    assert random.seeds_agreement is not None
    assert abs(random.seeds_agreement[0]) < 0.1


def test_methods__without_categories_only_what_needs_none_is_measured(
    planted: Planted, threads: ThreadExecutor
) -> None:
    groups = draw_random_groups(planted.unit_labels, 3, seed=0)
    scores = score_methods(groups, planted.train, None, [None] * 120, [], threads)
    (row,) = tabulate_methods(scores, 3)
    assert row.value.mean > 0
    assert (row.accuracy, row.adjusted_rand, row.mutual_information) == (None, None, None)
    assert row.seeds_agreement is not None


def test_seeds_agreement__is_the_mean_over_all_pairs(threads: ThreadExecutor) -> None:
    one, other = np.array([0, 0, 1, 1]), np.array([0, 1, 0, 1])
    z = Standardised(np.eye(4), np.zeros(4), np.ones(4))
    found = [Candidate("any", 2, seed, u, one) for seed, u in enumerate((one, 1 - one, other))]
    scores = score_methods(found, z, None, [None] * 4, [], threads)
    assert tabulate_methods(scores[:1], 2)[0].seeds_agreement is None
    units, samples = tabulate_methods(scores, 2)[0].seeds_agreement or (0, 0)
    # Two partitions of four that share no pair: (0 - 2/3) / (2 - 2/3).
    assert units == pytest.approx((1 - 0.5 - 0.5) / 3)
    assert samples == 1.0


def test_halves__a_planted_structure_is_found_in_either(
    planted: Planted, threads: ThreadExecutor
) -> None:
    shapes = []

    def search(half: Standardised, rows: NDArray[np.int64]) -> list[Candidate]:
        shapes.append(half.shape)
        np.testing.assert_array_equal(half.raw, np.asarray(planted.train.raw)[rows])
        np.testing.assert_allclose(half.mean, np.asarray(half.raw).mean(axis=0), rtol=1e-5)
        labels = discover(half, 3, restarts=5, seed=0).unit_labels
        once = [Candidate("in one half", 3, 0, labels)] if len(shapes) % 2 else []
        return [Candidate(ITERD, 3, 0, labels), *once]

    for activations in (planted.train, planted.lazy((50, 40))):
        found = compare_halves(activations, search, threads, seed=0)
        assert found.keys() == {(ITERD, 3)}
        assert found[ITERD, 3] > 0.8
    assert shapes == [(60, 100)] * 4


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1), st.integers(2, 5))
def test_areas__are_those_of_a_reference(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    categories = rng.integers(0, count, 40)
    features = rng.integers(0, 6, (40, 3)).astype(float)  # with ties
    found = compute_areas(features, categories, count)
    for k in range(3):
        for c in range(count):
            own = categories == c
            if own.all() or not own.any():
                assert np.isnan(found[k, c])
            else:
                assert found[k, c] == pytest.approx(roc_auc_score(own, features[:, k]))


def test_separation__interval_of_the_area_is_that_of_drawing_samples_again() -> None:
    rng = np.random.default_rng(0)
    truth = np.repeat([0, 1], 200)
    names: list[str | None] = ["a" if code else "b" for code in truth]
    known = select_categories(names, ())
    assert isinstance(known, SelectedCategories)
    feature = rng.normal(size=400) + known.train
    areas, low = measure_separation(feature[:, None], None, known)
    assert known.names[low.argmax()] == "b"
    draws = [rng.integers(0, 200, 200) for _ in range(400)]
    drawn = [roc_auc_score(truth, -feature[np.concatenate([draw, draw + 200])]) for draw in draws]
    error = (areas[0, 1] - low[0, 1]) / 1.959964
    assert error == pytest.approx(np.std(drawn), rel=0.15)
    assert count_standing_out(low, [areas]) == 0
    assert count_standing_out(low, [low.max() - np.full((5, 2), 0.01)]) == 1


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_repeats__range_never_leaves_what_was_measured(values: list[float]) -> None:
    found = Repeats(tuple(values))
    if len(values) == 1:
        assert (found.low, found.high) == (None, None)
    else:
        assert found.low is not None
        assert found.high is not None
        assert 0 <= found.low <= found.high <= 1
        assert found.low - 1e-12 <= found.mean <= found.high + 1e-12


def test_halves__too_few_samples_are_refused(planted: Planted, threads: ThreadExecutor) -> None:
    few = Standardised(planted.train.raw[:4], planted.train.mean, planted.train.std)

    def search(half: Standardised, rows: NDArray[np.int64]) -> list[Candidate]:
        return [Candidate(ITERD, 3, 0, discover(half, 3, restarts=1).unit_labels)]

    with pytest.raises(InvalidInput, match="2 samples"):
        compare_halves(few, search, threads, seed=0)
