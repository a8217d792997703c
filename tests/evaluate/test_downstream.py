"""Classifiers on module features, and agreement of modules with categories."""

from collections.abc import Sequence

import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    adjusted_rand_score,
    confusion_matrix,
    f1_score,
    normalized_mutual_info_score,
)
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from ulcmod_dist.evaluate import downstream
from ulcmod_dist.evaluate.downstream import (
    measure_agreement,
    score_downstream,
    select_categories,
)
from ulcmod_dist.results.discovery import Agreement, Downstream
from ulcmod_dist.results.types import Absent

NAMES = np.array(["Coding", "Math", "Writing"])


def cloud(seed: int, size: int, noise: float) -> tuple[np.ndarray, list[str | None]]:
    rng = np.random.default_rng(seed)
    truth = np.arange(size) % 3
    features = 50 * np.eye(3)[truth] + rng.normal(scale=50 * noise, size=(size, 3))
    return features, NAMES[truth].tolist()


def score(
    train: np.ndarray,
    categories: list[str | None],
    test: np.ndarray | None = None,
    test_categories: Sequence[str | None] = (),
    seed: int = 0,
) -> Downstream | Absent:
    return score_downstream(train, test, select_categories(categories, test_categories), seed=seed)


def test_score_downstream__equals_scikit_learn_step_by_step() -> None:
    train, train_truth = cloud(0, 90, 0.6)
    test, test_truth = cloud(1, 60, 0.6)
    found = score(train, train_truth, test, test_truth)
    assert isinstance(found, Downstream)
    scaler = StandardScaler().fit(train)
    predicted = SVC().fit(scaler.transform(train), train_truth).predict(scaler.transform(test))
    svc = found.classifiers[0]
    assert svc.accuracy.mean == pytest.approx(accuracy_score(test_truth, predicted))
    assert svc.macro_f1.mean == pytest.approx(f1_score(test_truth, predicted, average="macro"))
    np.testing.assert_array_equal(svc.confusion, confusion_matrix(test_truth, predicted))
    assert svc.f1 is not None
    np.testing.assert_allclose(svc.f1, f1_score(test_truth, predicted, average=None))
    assert found.categories == tuple(NAMES)
    assert (found.folds, found.num_train, found.num_scored) == (None, 90, 60)


def test_score_downstream__both_classifiers_read_clear_categories() -> None:
    found = score(*cloud(0, 90, 0.05), *cloud(1, 60, 0.05))
    assert isinstance(found, Downstream)
    assert [classifier.accuracy.mean for classifier in found.classifiers] == [1.0, 1.0]


def test_score_downstream__intervals_hold_the_value_and_shrink_with_samples() -> None:
    widths = []
    for size in (30, 3000):
        found = score(*cloud(0, 60, 0.6), *cloud(1, size, 0.6))
        assert isinstance(found, Downstream)
        accuracy = found.classifiers[0].accuracy
        assert accuracy.low is not None
        assert accuracy.high is not None
        assert accuracy.low < accuracy.mean < accuracy.high
        widths.append(accuracy.high - accuracy.low)
    assert widths[1] < widths[0] / 4


def test_score_downstream__without_held_out_samples_train_is_cross_validated() -> None:
    features, truth = cloud(0, 90, 0.05)
    truth[:10] = [None] * 10
    found = score(features, truth)
    assert isinstance(found, Downstream)
    assert found.folds == 5
    assert found.num_scored == 80
    assert found.classifiers[0].accuracy.mean == 1.0


def test_score_downstream__held_out_category_unknown_to_train_counts_as_wrong() -> None:
    test, truth = cloud(1, 60, 0.05)
    truth[0] = "Unseen"
    found = score(*cloud(0, 90, 0.05), test, truth)
    assert isinstance(found, Downstream)
    assert found.categories == ("Coding", "Math", "Unseen", "Writing")
    assert found.classifiers[0].accuracy.mean == pytest.approx(59 / 60)


def test_score_downstream__large_train_sets_are_drawn_by_category(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(downstream, "MAX_TRAIN", 30)
    features, truth = cloud(0, 300, 0.05)
    order = np.argsort(np.array(truth, dtype=str))
    found = score(features[order], [truth[i] for i in order], *cloud(1, 60, 0.05), seed=3)
    assert isinstance(found, Downstream)
    assert found.num_train == 30
    assert found.classifiers[0].accuracy.mean == 1.0


@pytest.mark.parametrize(
    ("categories", "reason"),
    [
        ([None] * 4, "the corpus has no categories"),
        (["Math"] * 4, "all samples are of the category Math"),
        (["Math", "Math", "Math", "Coding"], "the category Coding has a single train sample"),
    ],
)
def test_score_downstream__is_skipped_by_name(categories: list[str | None], reason: str) -> None:
    found = score(np.zeros((4, 2)), categories)
    assert isinstance(found, Absent)
    assert reason in found.reason


@pytest.mark.parametrize(
    ("train", "test", "reason"),
    [
        ([f"c{row}" for row in range(30)], [], "30 categories, such as c0, have a single train"),
        ([f"c{row}" for row in range(30)], ["x", "y"], "no held-out sample has a category that"),
        ([f"c{row % 15}" for row in range(30)], [], "15 categories from 15 samples"),
        ([f"c{row % 19}" for row in range(30)], ["c1"], "19 categories from 30 samples"),
    ],
)
def test_score_downstream__is_skipped_where_a_category_has_too_few_samples(
    train: list[str | None], test: list[str | None], reason: str
) -> None:
    found = score(np.ones((30, 2)), train, np.ones((len(test), 2)), test)
    assert isinstance(found, Absent)
    assert reason in found.reason


def test_score_downstream__single_samples_are_left_out_of_the_cross_validation() -> None:
    features, truth = cloud(0, 90, 0.05)
    truth[4] = "Rare"
    found = score(features, truth)
    assert isinstance(found, Downstream)
    assert found.categories == tuple(NAMES)
    assert (found.num_scored, found.classifiers[0].accuracy.mean) == (89, 1.0)
    assert "the category Rare has a single train sample" in found.note


def test_score_downstream__of_many_categories_the_most_frequent_take_part(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(downstream, "MAX_COMPARED", 3)
    features, truth = cloud(0, 90, 0.05)
    rare = [f"user-{row // 2}" for row in range(60)]
    found = score(np.vstack([features, np.zeros((60, 3))]), [*truth, *rare])
    assert isinstance(found, Downstream)
    assert found.categories == tuple(NAMES)
    assert (found.num_scored, found.classifiers[1].accuracy.mean) == (90, 1.0)
    assert "Of 33 categories only the 3 with the most samples take part" in found.note


@pytest.mark.parametrize("size", [23, 300])
def test_score_downstream__a_drawn_part_keeps_two_samples_of_each_category(
    monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(downstream, "MAX_TRAIN", 20)
    features, truth = cloud(0, size, 0.05)
    truth[0], truth[1] = "Rare", "Rare"
    found = score(features, truth)
    assert isinstance(found, Downstream)
    assert (found.num_train, found.folds, len(found.categories)) == (20, 2, 4)


def test_measure_agreement__equals_scikit_learn() -> None:
    rng = np.random.default_rng(2)
    for _ in range(20):
        labels, truth = rng.integers(0, 4, 30), rng.integers(0, 3, 30)
        found = measure_agreement("train", labels, [f"c{code}" for code in truth])
        assert isinstance(found, Agreement)
        assert found.adjusted_rand == adjusted_rand_score(truth, labels)
        information = normalized_mutual_info_score(truth, labels)
        assert found.mutual_information == pytest.approx(information, abs=1e-12)


def test_measure_agreement__a_category_for_every_sample() -> None:
    found = measure_agreement("train", np.arange(40) % 3, [f"c{row}" for row in range(40)])
    assert isinstance(found, Agreement)
    assert found.adjusted_rand == pytest.approx(0.0, abs=1e-12)
    assert found.purity == 3 / 40


def test_measure_agreement__same_partition_under_other_names_is_perfect() -> None:
    labels = np.array([2, 2, 0, 0, 5])
    found = measure_agreement("train", labels, ["a", "a", "b", "b", None])
    assert isinstance(found, Agreement)
    assert (found.split, found.adjusted_rand, found.purity) == ("train", 1.0, 1.0)
    assert found.mutual_information == pytest.approx(1.0)


def test_measure_agreement__purity_counts_the_commonest_category() -> None:
    found = measure_agreement("test", np.array([0, 0, 0, 1]), ["a", "a", "b", "b"])
    assert isinstance(found, Agreement)
    assert found.purity == 0.75
    assert measure_agreement("test", np.array([0]), ["a"]) == Absent(
        "The test samples have fewer than two categories."
    )
