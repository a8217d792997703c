"""Groups of units as other fields find them: functional networks, experts, selective units."""

import warnings

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from sklearn.decomposition import FastICA
from sklearn.exceptions import ConvergenceWarning

from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.iterd.balanced_kmeans import balanced_kmeans
from ulcmod_dist.passes.executors import Executor
from ulcmod_dist.passes.matrix import ActivationMatrix
from ulcmod_dist.passes.standardised import LabelArray, Standardised
from ulcmod_dist.results.types import Floats

# On SmolLM2 and its halves, K = 5 to 15, starts that converged took 17 to 139.
_MAX_ICA_ITERATIONS = 200
# Share of the largest component's deviation below which a component is rounding alone.
_MIN_DEVIATION = 1e-7
_MATCHING_ROUNDS = 100


def find_networks(
    points: Floats, num_modules: int, seed: int, fitted: NDArray[np.int64]
) -> LabelArray:
    """Functional networks: units by the independent component of their largest absolute weight.

    As in functional imaging, where a unit is a place in the brain (McKeown et al. 1998) and, with
    neurons in its place, in language models: the K leading principal components of the activations
    are rotated to weights [units, K] that are as independent as can be (FastICA). It learns the
    rotation from the units ``fitted``. The contrast is kurtosis, as in imaging (Varoquaux et al.
    2010, CanICA): scikit-learn's default, logcosh, often runs in a circle on real activations
    (on SmolLM2 with K = 15 for every seed). Where kurtosis does, too, another start seldom helps:
    in at most one of seven fits on SmolLM2 and its halves.

    Raises:
        InvalidInput: There are fewer principal components than K.
        ConvergenceWarning: It did not converge.
    """
    deviations = points.std(axis=0)
    present = int((deviations > _MIN_DEVIATION * deviations.max(initial=0.0)).sum())
    if present < num_modules:
        raise InvalidInput(
            f"The activations have {present:,} principal components, too few for {num_modules:,} "
            "independent ones."
        )
    leading = points[:, :num_modules]
    model = FastICA(
        num_modules,
        whiten="unit-variance",
        fun=_differentiate_kurtosis,
        max_iter=_MAX_ICA_ITERATIONS,
        random_state=seed,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            weights = model.fit(leading[fitted]).transform(leading)
        except ConvergenceWarning:
            # Its own message asks for what a job does not set.
            text = f"FastICA did not converge in {_MAX_ICA_ITERATIONS} iterations"
            raise ConvergenceWarning(text) from None
    return np.asarray(np.abs(weights).argmax(axis=1), np.int32)


def _differentiate_kurtosis(values: Floats) -> tuple[Floats, Floats]:
    """As ``fun="cube"``, whose general power takes eight times as long."""
    squares = values * values
    return squares * values, 3 * squares.mean(axis=-1)


def find_experts(points: Floats, layers: LabelArray, num_modules: int, seed: int) -> LabelArray:
    """Per-layer experts: equal groups of each layer's units, then matched between layers.

    The units of each layer are split by balanced k-means, as MoEfication does (Zhang et al. 2022),
    by their activations. A module then takes one expert of each layer: those whose centres lie
    nearest to the module's own, by the Hungarian algorithm, until nothing changes.

    Raises:
        InvalidInput: A layer has fewer units than K.
    """
    rng = np.random.default_rng([seed, 5])
    labels = np.zeros(len(points), np.int32)
    rows = [np.flatnonzero(layers == layer) for layer in np.unique(layers)]
    if (narrowest := min(map(len, rows))) < num_modules:
        raise InvalidInput(f"A layer has {narrowest:,} units, too few for {num_modules:,} experts.")
    for part in rows:
        labels[part] = balanced_kmeans(points[part], num_modules, rng, initialisations=1)
    experts = range(num_modules)
    centres = np.stack(
        [[points[part][labels[part] == k].mean(axis=0) for k in experts] for part in rows]
    )
    for part, modules in zip(rows, _match_experts(centres), strict=True):
        labels[part] = modules[labels[part]]
    return labels


def _match_experts(centres: Floats) -> NDArray[np.int64]:
    """Module of each expert, shape (layers, K), by centres of shape (layers, K, dimensions)."""
    # From the middle of the model, which has something in common with both of its ends.
    means = centres[len(centres) // 2]
    modules = np.zeros(centres.shape[:2], np.int64)
    for _ in range(_MATCHING_ROUNDS):
        # Of equally many experts and modules, the largest products have the smallest distances.
        found = np.stack([linear_sum_assignment(-layer @ means.T)[1] for layer in centres])
        if (found == modules).all():
            break
        modules = found
        ordered = np.take_along_axis(centres, modules.argsort(axis=1)[:, :, None], axis=1)
        means = ordered.mean(axis=0)
    return modules


def measure_selectivity(
    activations: Standardised, categories: NDArray[np.int64], count: int, executor: Executor
) -> Floats:
    """Correlation of every unit with belonging to each category, shape (units, C); one pass.

    It grows with the standardised difference between the mean activation of the category's samples
    and of the others. ``categories`` [samples] are below ``count``, -1 for a sample without one.
    """
    labels = np.where(categories < 0, count, categories).astype(np.int32)
    (table,) = ActivationMatrix(activations, executor).unit_tables([labels], [count + 1])
    sizes = np.bincount(labels, minlength=count + 1)[:count]
    share = sizes / sizes.sum()
    sums = table[:, :count]
    difference = sums / sizes - sums.sum(axis=1, keepdims=True) / sizes.sum()
    return np.asarray(difference * np.sqrt(share / (1 - share)))
