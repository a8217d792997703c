"""Where the search starts: balanced groups of samples, and each unit to its most active group."""

from __future__ import annotations

import numpy as np

from ulcmod_dist.iterd.balanced import balanced_kmeans
from ulcmod_dist.passes.executors import Executor
from ulcmod_dist.passes.finite import check_finite
from ulcmod_dist.passes.products import matmat, rmatmat, sum_over_samples
from ulcmod_dist.passes.standardised import FloatArray, LabelArray, Standardised

# Dimensions in which samples are grouped.
DIMENSIONS = 16
# Further dimensions of the sketch and extra rounds, which make its leading dimensions exact enough.
_OVERSAMPLING = 16
SKETCH_WIDTH = DIMENSIONS + _OVERSAMPLING
_POWER_ROUNDS = 2


def principal_components(
    activations: Standardised, seed: int, executor: Executor, dimensions: int = DIMENSIONS
) -> FloatArray:
    """Principal components of the samples, by a streaming randomized range finder.

    Each round is a pass for z W and one for z' Q (Halko, Martinsson and Tropp 2011, algorithm 4.4);
    neither z nor a centred copy of it is ever formed.

    Args:
        activations: Standardised activations; columns are centred here, whatever their mean.
        seed: Seed of the sketch.
        executor: Where the passes run.
        dimensions: Components wanted; fewer come back from a matrix with fewer rows or columns.

    Returns:
        Scores float64 [samples, dimensions], by falling variance; the largest entry of each
        component is positive.
    """
    width = min(dimensions + _OVERSAMPLING, *activations.shape)
    rng = np.random.default_rng([seed, 0])
    sums = sum_over_samples(activations, executor)
    if not np.isfinite(sums).all():
        check_finite(activations, executor)
    centre = sums / activations.n_samples
    right = rng.standard_normal((activations.n_units, width))
    for _ in range(_POWER_ROUNDS):
        left = _orthonormal(matmat(activations, right, executor) - centre @ right)
        right = _orthonormal(_centred_transposed(activations, left, centre, executor))
    left, values, _ = np.linalg.svd(
        matmat(activations, right, executor) - centre @ right, full_matrices=False
    )
    scores = (left * values)[:, :dimensions]
    signs = np.sign(scores[np.argmax(np.abs(scores), axis=0), np.arange(scores.shape[1])])
    return np.asarray(scores * np.where(signs == 0, 1.0, signs))


def start_samples(components: FloatArray, num_modules: int, rng: np.random.Generator) -> LabelArray:
    """Groups of equal size (floor or ceil of samples / K) by balanced k-means.

    Args:
        components: Principal components of the samples [samples, dimensions].
        num_modules: K.
        rng: Source of the initial centres.

    Returns:
        Module of each sample [samples].
    """
    return balanced_kmeans(components, num_modules, rng)


def assign_to_largest_mean(table: FloatArray, other_labels: LabelArray) -> LabelArray:
    """Each item to the module with the largest mean z over the other side's items of that module.

    Args:
        table: T_u [units, K], or T_s [samples, K].
        other_labels: Module of each sample, or of each unit.

    Returns:
        Module of each item; the lowest of equals.
    """
    labels: LabelArray = np.argmax(table_means(table, other_labels), axis=1).astype(np.int32)
    return labels


def table_means(table: FloatArray, other_labels: LabelArray) -> FloatArray:
    """The table as means: 0 where the other side of a module is empty."""
    sizes = np.bincount(other_labels, minlength=table.shape[1])
    return np.asarray(table / np.maximum(sizes, 1))


def fill_empty_modules(labels: LabelArray, means: FloatArray) -> int:
    """Give each empty module the item that prefers it most (or minds least), in place.

    Args:
        labels: Module of each item [items]; changed in place.
        means: Mean z of each item in each module [items, K].

    Returns:
        How many modules were empty.
    """
    sizes = np.bincount(labels, minlength=means.shape[1])
    empty = np.flatnonzero(sizes == 0)
    for k in empty:
        gains = means[:, k] - means[np.arange(len(labels)), labels]
        gains[sizes[labels] < 2] = -np.inf
        item = int(np.argmax(gains))
        sizes[labels[item]] -= 1
        sizes[k] += 1
        labels[item] = k
    return len(empty)


def _centred_transposed(
    activations: Standardised, left: FloatArray, centre: FloatArray, executor: Executor
) -> FloatArray:
    product = rmatmat(activations, left, executor)
    return product - np.outer(centre, left.sum(axis=0))


def _orthonormal(matrix: FloatArray) -> FloatArray:
    return np.linalg.qr(matrix)[0]
