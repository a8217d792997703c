"""Classifiers on module features, and agreement of modules with categories."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from ulcmod_dist.evaluate import downstream
from ulcmod_dist.evaluate.downstream import measure_agreement, score_downstream
from ulcmod_dist.results.discovery import Agreement, Downstream
from ulcmod_dist.results.types import Absent

NAMES = np.array(["Coding", "Math", "Writing"])


def cloud(seed: int, size: int, noise: float) -> tuple[np.ndarray, list[str | None]]:
    rng = np.random.default_rng(seed)
    truth = np.arange(size) % 3
    features = 50 * np.eye(3)[truth] + rng.normal(scale=50 * noise, size=(size, 3))
    return features, NAMES[truth].tolist()


def test_score_downstream__equals_scikit_learn_step_by_step() -> None:
    train, train_truth = cloud(0, 90, 0.6)
    test, test_truth = cloud(1, 60, 0.6)
    found = score_downstream(train, train_truth, test, test_truth)
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
    found = score_downstream(*cloud(0, 90, 0.05), *cloud(1, 60, 0.05))
    assert isinstance(found, Downstream)
    assert [classifier.accuracy.mean for classifier in found.classifiers] == [1.0, 1.0]


def test_score_downstream__intervals_hold_the_value_and_shrink_with_samples() -> None:
    widths = []
    for size in (30, 3000):
        found = score_downstream(*cloud(0, 60, 0.6), *cloud(1, size, 0.6))
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
    found = score_downstream(features, truth)
    assert isinstance(found, Downstream)
    assert found.folds == 5
    assert found.num_scored == 80
    assert found.classifiers[0].accuracy.mean == 1.0


def test_score_downstream__held_out_category_unknown_to_train_counts_as_wrong() -> None:
    test, truth = cloud(1, 60, 0.05)
    truth[0] = "Unseen"
    found = score_downstream(*cloud(0, 90, 0.05), test, truth)
    assert isinstance(found, Downstream)
    assert found.categories == ("Coding", "Math", "Unseen", "Writing")
    assert found.classifiers[0].accuracy.mean == pytest.approx(59 / 60)


def test_score_downstream__large_train_sets_are_drawn_by_category(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(downstream, "MAX_TRAIN", 30)
    features, truth = cloud(0, 300, 0.05)
    order = np.argsort(np.array(truth, dtype=str))
    found = score_downstream(
        features[order], [truth[i] for i in order], *cloud(1, 60, 0.05), seed=3
    )
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
    found = score_downstream(np.zeros((4, 2)), categories)
    assert isinstance(found, Absent)
    assert reason in found.reason


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
