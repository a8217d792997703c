"""How well a sample's category can be predicted from its K module features."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import adjusted_rand_score, confusion_matrix, normalized_mutual_info_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict, train_test_split
from sklearn.multiclass import OneVsOneClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from ulcmod_dist.iterd.modules import count_pairs
from ulcmod_dist.results.discovery import Agreement, Classifier, Downstream
from ulcmod_dist.results.types import Absent, Floats, Interval

Labels = NDArray[np.int64]

MAX_TRAIN = 10_000
"""Train samples of a classifier at most: an RBF machine costs their square."""

INTERVAL_LEVEL = 0.95
"""Probability that every interval covers."""

_FOLDS = 5
_DRAWS = 1000


def score_downstream(
    train_features: Floats,
    train_categories: Sequence[str | None],
    test_features: Floats | None = None,
    test_categories: Sequence[str | None] = (),
    *,
    seed: int = 0,
) -> Downstream | Absent:
    """Fit classifiers on the module features of train samples and score them on held-out ones.

    Features are scaled to mean 0 and deviation 1 over the train samples. Classifiers are those of
    the paper: an RBF support vector machine and a one-vs-one logistic regression (liblinear).
    Without held-out samples each train sample is predicted by stratified 5-fold cross-validation.
    Features have the shape (samples, K); samples without a category are left out. The support
    vector machine comes first; intervals come from bootstrap draws of the scored samples. There
    are no scores without categories, or with too few samples of one.
    """
    train, train_truth = _drop_unknown(train_features, train_categories)
    names, counts = np.unique(train_truth, return_counts=True)
    if len(names) < 2:
        return Absent(
            "Classifiers were skipped: the corpus has no categories."
            if len(names) == 0
            else f"Classifiers were skipped: all samples are of the category {names[0]}."
        )
    train, train_truth = _draw_subsample(train, train_truth, seed)
    empty = np.empty((0, train_features.shape[1]))
    test, test_truth = _drop_unknown(
        empty if test_features is None else test_features, test_categories
    )
    if len(test_truth) == 0 and counts.min() < 2:
        return Absent(
            f"Classifiers were skipped: there are no held-out samples, and the category "
            f"{names[counts.argmin()]} has a single train sample."
        )
    held_out = len(test_truth) > 0
    truth = test_truth if held_out else train_truth
    folds = min(_FOLDS, int(np.unique(train_truth, return_counts=True)[1].min()))
    categories = np.unique(np.concatenate([names, truth]))

    def predict(model: Pipeline) -> NDArray[np.str_]:
        if held_out:
            return np.asarray(model.fit(train, train_truth).predict(test))
        cut = StratifiedKFold(folds, shuffle=True, random_state=seed)
        return np.asarray(cross_val_predict(model, train, train_truth, cv=cut))

    return Downstream(
        categories=tuple(str(name) for name in categories),
        classifiers=tuple(
            _score(name, truth, predict(model), categories, seed)
            for name, model in _build_classifiers(seed).items()
        ),
        folds=None if held_out else folds,
        num_train=len(train_truth),
        num_scored=len(truth),
    )


def measure_agreement(
    split: str, sample_labels: Labels, categories: Sequence[str | None]
) -> Agreement | Absent:
    """Agreement of the modules of samples with their categories, where they have one."""
    labels, truth = _drop_unknown(sample_labels, categories)
    if len(np.unique(truth)) < 2:
        return Absent(f"The {split} samples have fewer than two categories.")
    _, members = np.unique(labels, return_inverse=True)
    _, classes = np.unique(truth, return_inverse=True)
    table = count_pairs(members, classes, (members.max() + 1, classes.max() + 1))
    return Agreement(
        split=split,
        adjusted_rand=float(adjusted_rand_score(truth, labels)),
        mutual_information=float(normalized_mutual_info_score(truth, labels)),
        purity=float(table.max(axis=1).sum() / len(labels)),
    )


def _build_classifiers(seed: int) -> dict[str, Pipeline]:
    logistic = LogisticRegression(random_state=seed, solver="liblinear", max_iter=1000)
    return {
        "SVC (RBF)": make_pipeline(StandardScaler(), SVC(random_state=seed)),
        "logistic regression (one-vs-one)": make_pipeline(
            StandardScaler(), OneVsOneClassifier(logistic)
        ),
    }


def _drop_unknown(
    values: NDArray[Any], categories: Sequence[str | None]
) -> tuple[NDArray[Any], NDArray[np.str_]]:
    known = np.array([name is not None for name in categories], dtype=bool)
    truth = np.array([name for name in categories if name is not None], dtype=str)
    return np.asarray(values)[: len(known)][known], truth


def _draw_subsample(
    features: Floats, truth: NDArray[np.str_], seed: int
) -> tuple[Floats, NDArray[np.str_]]:
    if len(truth) <= MAX_TRAIN:
        return features, truth
    _, counts = np.unique(truth, return_counts=True)
    rows, _ = train_test_split(
        np.arange(len(truth)),
        train_size=MAX_TRAIN,
        stratify=truth if counts.min() > 1 else None,
        random_state=seed,
    )
    rows.sort()
    return features[rows], truth[rows]


def _score(
    name: str,
    truth: NDArray[np.str_],
    predicted: NDArray[np.str_],
    categories: NDArray[np.str_],
    seed: int,
) -> Classifier:
    confusion = confusion_matrix(truth, predicted, labels=categories).astype(np.int64)
    # Drawing samples with replacement draws the cells of the confusion matrix as a multinomial.
    cells = confusion.ravel() / confusion.sum()
    drawn = np.random.default_rng(seed).multinomial(len(truth), cells, size=_DRAWS)
    draws = drawn.reshape(_DRAWS, *confusion.shape)
    return Classifier(
        name=name,
        accuracy=_bootstrap_interval(float(_accuracy(confusion)), _accuracy(draws)),
        macro_f1=_bootstrap_interval(float(_f1(confusion).mean()), _f1(draws).mean(axis=-1)),
        f1=tuple(_f1(confusion).tolist()),
        confusion=confusion,
    )


def _accuracy(confusion: NDArray[np.int64]) -> Any:
    return np.trace(confusion, axis1=-2, axis2=-1) / confusion.sum(axis=(-2, -1))


def _f1(confusion: NDArray[np.int64]) -> Floats:
    """F1 of each category, 0 where it neither occurs nor is predicted."""
    hits = np.diagonal(confusion, axis1=-2, axis2=-1).astype(np.float64)
    total = confusion.sum(axis=-1) + confusion.sum(axis=-2)
    return np.asarray(np.divide(2 * hits, total, out=np.zeros_like(hits), where=total > 0))


def _bootstrap_interval(value: float, draws: Floats) -> Interval:
    """A measured value with the central interval of its bootstrap draws."""
    tail = (1 - INTERVAL_LEVEL) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return Interval(value, float(low), float(high))
