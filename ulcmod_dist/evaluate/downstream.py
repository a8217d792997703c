"""How well a sample's category can be predicted from its K module features."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.multiclass import OneVsOneClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from ulcmod_dist.evaluate.structure import MAX_COMPARED, CodedCategories
from ulcmod_dist.iterd.modules import adjusted_rand_index, count_pairs, count_shared
from ulcmod_dist.results.discovery import Agreement, Classifier, Downstream
from ulcmod_dist.results.types import Absent, Floats, Interval, divide

Labels = NDArray[np.int64]

MAX_TRAIN = 10_000
"""Train samples of a classifier at most: an RBF machine costs their square."""

INTERVAL_LEVEL = 0.95
"""Probability that every interval covers."""

_FOLDS = 5
_DRAWS = 1000
# MiB for the kernel of the support vector machine, as scikit-learn's default.
_MAX_CACHE = 200


@dataclass(frozen=True, eq=False)
class SelectedCategories:
    """What classifiers are to tell apart: categories numbered anew, -1 for what takes no part."""

    names: tuple[str, ...]
    train: Labels
    test: Labels
    held_out: bool  # whether held-out samples have categories, and so are the ones to score
    note: str


def score_downstream(
    train_features: Floats,
    test_features: Floats | None,
    problem: SelectedCategories | Absent,
    *,
    seed: int = 0,
    main_only: bool = False,
    memory: int | None = None,
) -> Downstream | Absent:
    """Fit classifiers on the module features of train samples and score them on held-out ones.

    Features are scaled to mean 0 and deviation 1 over the train samples. Classifiers are those of
    the paper: an RBF support vector machine and a one-vs-one logistic regression (liblinear); with
    ``main_only`` the first alone. Without held-out samples each train sample is predicted by
    stratified 5-fold cross-validation. Features have the shape (samples, K); samples without a
    category are left out. The support vector machine comes first; intervals come from bootstrap
    draws of the scored samples. The kernel's cache takes a quarter of ``memory`` (bytes), at most
    200 MiB.
    """
    if isinstance(problem, Absent):
        return problem
    train_rows = draw_subsample(problem.train, seed)
    train, train_truth = train_features[train_rows], problem.train[train_rows]
    truth, folds = train_truth, None
    if problem.held_out:
        assert test_features is not None
        test, truth = test_features[problem.test >= 0], problem.test[problem.test >= 0]
    else:
        folds = min(_FOLDS, int(np.unique(train_truth, return_counts=True)[1].min()))
    if (reason := _find_shortage(train_truth, folds)) is not None:
        return reason

    def predict(model: Pipeline) -> Labels:
        if folds is None:
            return np.asarray(model.fit(train, train_truth).predict(test))
        cut = StratifiedKFold(folds, shuffle=True, random_state=seed)
        return np.asarray(cross_val_predict(model, train, train_truth, cv=cut))

    classifiers = []
    for name, model in list(_build_classifiers(seed, memory).items())[: 1 if main_only else None]:
        predicted, has_converged = _watch_convergence(partial(predict, model))
        shown = name if has_converged else f"{name}, not converged"
        classifiers.append(_score(shown, truth, predicted, len(problem.names), seed))
    return Downstream(
        categories=problem.names,
        classifiers=tuple(classifiers),
        folds=folds,
        num_train=len(train_truth),
        num_scored=len(truth),
        note=problem.note,
    )


def _find_shortage(truth: Labels, folds: int | None) -> Absent | None:
    """Why there are too few samples of each category to learn from; None where there are not."""
    fitted = len(truth) - (0 if folds is None else -(-len(truth) // folds))
    present = len(np.unique(truth))
    if present <= max(2, fitted // 2):
        return None
    return Absent(
        f"Classifiers were skipped: they would learn {present:,} categories from {fitted:,} "
        "samples, fewer than two each."
    )


def _watch_convergence(predict: Callable[[], Labels]) -> tuple[Labels, bool]:
    """Predictions, and whether the classifiers behind them have converged."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        predicted = predict()
    return predicted, not any(issubclass(each.category, ConvergenceWarning) for each in caught)


def explain_left_out(
    train_categories: Sequence[str | None], test_categories: Sequence[str | None]
) -> str:
    """Why classifiers will be skipped, or which categories take no part; empty if all do."""
    problem = select_categories(train_categories, test_categories)
    return problem.reason if isinstance(problem, Absent) else problem.note


def select_categories(
    train_categories: Sequence[str | None], test_categories: Sequence[str | None]
) -> SelectedCategories | Absent:
    """Choose the categories that take part, or say why no classifier can be fitted.

    Of more than 50 the most frequent, and in cross-validation those with two samples; the note says
    so. There must be two.
    """
    coded = CodedCategories.of([*train_categories, *test_categories])
    num_train = len(train_categories)
    held_out = bool((coded.codes[num_train:] >= 0).any())
    parts = coded.codes[:num_train], coded.codes[num_train:]
    train, test = (np.bincount(codes[codes >= 0], minlength=len(coded.names)) for codes in parts)
    present = int((train > 0).sum())
    if present == 0:
        return Absent("Classifiers were skipped: the corpus has no categories.")
    if present == 1:
        only = coded.names[int(train.argmax())]
        return Absent(f"Classifiers were skipped: all samples are of the category {only}.")
    single = train == 1
    takes_part = (train + test > 0) if held_out else train > 1
    notes = []
    if not held_out and single.any():
        first = coded.names[int(single.argmax())]
        alone = f"the category {first} has"
        if single.sum() > 1:
            alone = f"{single.sum():,} categories, such as {first}, have"
        reason = f"there are no held-out samples, and {alone} a single train sample"
        if takes_part.sum() < 2:
            return Absent(f"Classifiers were skipped: {reason}.")
        notes.append(f"Left out of the cross-validation: {reason}.")
    # By train samples, then by held-out ones, then by name.
    chosen = np.lexsort((-test, -train))[: min(MAX_COMPARED, int(takes_part.sum()))]
    chosen.sort()
    if takes_part.sum() > len(chosen):
        notes.append(
            f"Of {takes_part.sum():,} categories only the {len(chosen)} with the most samples take "
            "part: the classifiers compare every pair."
        )
    if held_out and test[chosen][train[chosen] > 0].sum() == 0:
        return Absent(
            "Classifiers were skipped: no held-out sample has a category that train samples have."
        )
    number = np.full(len(coded.names) + 1, -1)
    number[chosen] = np.arange(len(chosen))
    names = tuple(coded.names[code] for code in chosen)
    return SelectedCategories(names, number[parts[0]], number[parts[1]], held_out, " ".join(notes))


def measure_agreement(
    split: str, sample_labels: Labels, categories: Sequence[str | None]
) -> Agreement | Absent:
    """Agreement of the modules of samples with their categories, where they have one."""
    coded = CodedCategories.of(categories)
    known = coded.codes >= 0
    labels, truth = np.asarray(sample_labels)[known], coded.codes[known]
    if len(coded.names) < 2:
        return Absent(f"The {split} samples have fewer than two categories.")
    width = len(coded.names)
    pairs, together = np.unique(labels * width + truth, return_counts=True)
    commonest = np.zeros(int(labels.max()) + 1)
    np.maximum.at(commonest, pairs // width, together)
    return Agreement(
        split=split,
        adjusted_rand=adjusted_rand_index(labels, truth),
        mutual_information=_mutual_information(labels, truth),
        purity=float(commonest.sum() / len(labels)),
    )


def _mutual_information(labels: Labels, truth: Labels) -> float:
    """Mutual information over the mean of the two entropies, 0 to 1."""
    together, first, second = (count / len(labels) for count in count_shared(labels, truth))
    both, one, other = (float(-(p * np.log(p)).sum()) for p in (together, first, second))
    return min(1.0, max(0.0, (one + other - both) / ((one + other) / 2)))


def _build_classifiers(seed: int, memory: int | None) -> dict[str, Pipeline]:
    cache = _MAX_CACHE if memory is None else min(_MAX_CACHE, max(1, memory // 2**22))
    logistic = LogisticRegression(random_state=seed, solver="liblinear", max_iter=1000)
    return {
        "SVC (RBF)": make_pipeline(StandardScaler(), SVC(cache_size=cache, random_state=seed)),
        "logistic regression (one-vs-one)": make_pipeline(
            StandardScaler(), OneVsOneClassifier(logistic)
        ),
    }


def draw_subsample(truth: Labels, seed: int) -> Labels:
    """Rows of the samples to fit on: all that take part, else as many of each category's share."""
    rows = np.flatnonzero(truth >= 0)
    if len(rows) <= MAX_TRAIN:
        return rows
    rng = np.random.default_rng(seed)
    # The rank of a sample in its category, as a share of it, in random order; the first two of each
    # come first, which cross-validation needs.
    shuffled = rng.permutation(rows)
    shuffled = shuffled[np.argsort(truth[shuffled], kind="stable")]
    counts = np.bincount(truth[shuffled])
    starts = np.cumsum(counts) - counts
    rank = np.arange(len(shuffled)) - starts[truth[shuffled]]
    order = np.argsort(np.maximum(rank - 1, 0) / counts[truth[shuffled]], kind="stable")
    return np.sort(shuffled[order[:MAX_TRAIN]])


def _score(
    name: str, truth: Labels, predicted: Labels, num_categories: int, seed: int
) -> Classifier:
    confusion = count_pairs(truth, predicted, (num_categories, num_categories))
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
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    total = confusion.sum(axis=-1) + confusion.sum(axis=-2)
    return divide(2 * hits, total, missing=0.0)


def _bootstrap_interval(value: float, draws: Floats) -> Interval:
    """A measured value with the central interval of its bootstrap draws."""
    tail = (1 - INTERVAL_LEVEL) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return Interval(value, float(low), float(high))
