"""Spread, similarity, hierarchy, matching and confounds, each against its definition."""

import numpy as np
import pytest
from scipy.cluster.hierarchy import fcluster
from sklearn.metrics.pairwise import cosine_similarity

from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.evaluate import structure
from ulcmod_dist.evaluate.confounds import count_characters, measure_confounds
from ulcmod_dist.evaluate.matching import find_shared, match_modules
from ulcmod_dist.evaluate.structure import (
    average_by_module,
    count_overlap,
    describe_categories,
    describe_layers,
    link_modules,
)
from ulcmod_dist.results.discovery import Categories, ConfoundMeasure, PromptProperty
from ulcmod_dist.results.types import Absent


def test_describe_categories__counts_and_effective_number() -> None:
    labels, features = np.array([0, 0, 0, 0, 1, 1]), np.ones((6, 3))
    found = describe_categories(features, labels, ["b", "a", "b", "a", "a", None], 3)
    assert isinstance(found, Categories)
    assert found.names == ("a", "b")
    assert found.counts.tolist() == [[2, 2], [1, 0], [0, 0]]
    np.testing.assert_allclose(found.breadth, [2.0, 1.0, 0.0])
    assert isinstance(describe_categories(features, labels, [None] * 6, 3), Absent)


def test_describe_layers__counts_and_distance_from_the_model() -> None:
    found = describe_layers(np.array([0, 0, 1, 1]), np.array([0, 0, 0, 2]), 3)
    assert found.names == ("0", "1", "2")
    assert found.units.tolist() == [[2, 0, 0], [1, 0, 1], [0, 0, 0]]
    np.testing.assert_allclose(found.concentration, [0.25, 0.25, np.nan])


def test_average_by_module__is_the_mean_of_each_block() -> None:
    rng = np.random.default_rng(0)
    z, samples, units = rng.normal(size=(9, 12)), np.arange(9) % 2, np.arange(12) % 3
    features = np.stack([z[:, units == k].mean(axis=1) for k in range(3)], axis=1)
    found = average_by_module(features, samples, 3)
    for k in range(2):
        for m in range(3):
            block = z[np.ix_(samples == k, units == m)]
            assert found[k, m] == pytest.approx(block.mean())
    assert np.isnan(found[2]).all()


def test_describe_categories__similarity_is_the_mean_cosine_over_distinct_pairs() -> None:
    features = np.random.default_rng(0).normal(size=(9, 4))
    features[7] = 0.0
    names = ["a", "b", "a", "b", "a", "c", None, "a", "d"]
    found = describe_categories(features, np.zeros(9, np.int64), names, 1)
    assert not isinstance(found, Absent)
    means = found.similarity
    cosines = cosine_similarity(features)
    assert found.names == ("a", "b", "c", "d")
    assert means.shape == (4, 4)
    assert means[0, 1] == pytest.approx(cosines[np.ix_([0, 2, 4], [1, 3])].mean())
    within = cosines[np.ix_([0, 2, 4], [0, 2, 4])][~np.eye(3, dtype=bool)]
    assert means[0, 0] == pytest.approx(within.mean())
    assert np.isnan(means[2, 2])


def test_describe_categories__of_very_many_the_most_frequent_are_listed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(structure, "MAX_LISTED", 3)
    monkeypatch.setattr(structure, "MAX_COMPARED", 2)
    labels = np.array([0, 0, 0, 1, 1, 1, 1, 1, 1])
    names = ["b", "b", "c", "c", "a", "a", "a", "e", "d"]
    found = describe_categories(np.eye(9), labels, names, 2)
    assert isinstance(found, Categories)
    assert found.names == ("a", "b", "c")
    assert found.counts.tolist() == [[0, 2, 1], [3, 0, 1]]
    assert (found.num_others, found.others) == (2, (0, 2))
    assert found.compared == (0, 1)
    assert found.similarity.shape == (2, 2)
    # Those without a name count too: shares 1/6, 1/2, 1/6 and 1/6.
    assert found.breadth[1] == pytest.approx(6**0.5 * 2**0.5)


def test_link_modules__modules_that_answer_alike_meet_first() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 50))
    noise = rng.normal(scale=0.1, size=(50, 4))
    tree = link_modules(np.stack([first, second, first, second], axis=1) + noise)
    assert not isinstance(tree, Absent)
    a, b, c, d = fcluster(tree, 2, "maxclust")
    assert a == c != b == d
    assert isinstance(link_modules(np.ones((5, 1))), Absent)
    assert isinstance(link_modules(np.ones((5, 2))), Absent)


def test_count_overlap__modules_that_split_are_nested() -> None:
    units = np.array([0, 0, 1, 1, 1, 1]), np.array([0, 0, 1, 1, 2, 0])
    samples = np.array([0, 1]), np.array([3, 3])
    found = count_overlap(units, samples, (2, 4))
    assert (found.num_modules, found.next_num_modules) == (2, 4)
    assert found.units.tolist() == [[2, 0, 0, 0], [1, 2, 1, 0]]
    assert found.samples.tolist() == [[0, 0, 0, 1], [0, 0, 0, 1]]
    assert found.nestedness == pytest.approx(5 / 6)
    assert found.expected == pytest.approx(4 / 6)


def test_match_modules__renamed_modules_are_found_and_movers_marked() -> None:
    units = np.array([0, 0, 1, 1, 2, 2])
    renamed = np.array([2, 2, 0, 0, 1, 0])
    samples = np.array([0, 1, 2])
    found = match_modules(units, renamed, samples, np.array([2, 0, 1]), 3, 3)
    assert [(match.module, match.other) for match in found.pairs] == [(0, 2), (1, 0), (2, 1)]
    assert (found.units_moved, found.samples_moved) == (1, 0)
    assert found.samples_adjusted_rand == 1.0
    assert found.pairs[1].units == 2
    assert found.pairs[1].units_overlap == pytest.approx(2 / 3)


def test_match_modules__other_number_of_modules_leaves_some_alone() -> None:
    units = np.array([0, 0, 1, 1])
    found = match_modules(
        units, np.zeros(4, dtype=np.int64), np.array([], dtype=int), np.array([], dtype=int), 2, 1
    )
    assert len(found.pairs) == 1
    assert len(found.unmatched) == 1
    assert found.other_unmatched == ()
    assert found.samples_adjusted_rand is None
    with pytest.raises(InvalidInput, match="share no unit"):
        match_modules(*(np.array([], dtype=int),) * 4, 2, 2)


def test_find_shared__pairs_ids_of_both() -> None:
    mine, other = find_shared(["a", "b", "c"], ["c", "x", "a"])
    assert (mine.tolist(), other.tolist()) == ([0, 2], [2, 0])


def test_measure_confounds__length_that_makes_modules_is_found() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], 60)
    length = 10 ** (1 + labels) * rng.uniform(0.8, 1.2, 180)
    features = np.stack([np.log(length), rng.normal(size=180), rng.normal(size=180)], axis=1)
    properties = {
        PromptProperty.LENGTH: length,
        PromptProperty.DIGITS: rng.normal(size=180),
        PromptProperty.PUNCTUATION: np.ones(180),
    }
    found = measure_confounds(properties, labels, features, 3)
    assert not isinstance(found, Absent)
    assert {part.property for part in found} == {PromptProperty.LENGTH, PromptProperty.DIGITS}
    by_module, by_feature, *by_component = found[:5]
    assert by_module.measure is ConfoundMeasure.EXPLAINED_VARIANCE
    assert by_module.value > 0.85
    assert by_feature.measure is ConfoundMeasure.MODULE_CORRELATION
    assert by_feature.index == 0
    assert by_feature.value == pytest.approx(1.0)
    assert max(abs(component.value) for component in by_component) > 0.8
    assert [part.index for part in by_component] == [1, 2, 3]
    assert found[5].value < 0.05


def test_count_characters__shares_of_characters() -> None:
    found = count_characters(["ab1!", "日本", ""])
    np.testing.assert_allclose(found[PromptProperty.DIGITS], [0.25, 0, 0])
    np.testing.assert_allclose(found[PromptProperty.PUNCTUATION], [0.25, 0, 0])
    np.testing.assert_allclose(found[PromptProperty.NON_ASCII], [0, 1, 0])
