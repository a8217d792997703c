"""How much modules and categories have in common, from the module features alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ulcmod_dist.results.types import Absent

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]


def activation_heatmap(features: Floats, sample_labels: Labels, num_modules: int) -> Floats:
    """Mean z of the samples of module k on the units of module l, shape (K, K).

    A mean over samples of the module features, since each feature is already the mean over units.

    Args:
        features: Module features x_s[l], shape (samples, K).
        sample_labels: Module of each sample.
        num_modules: K. Rows of modules without samples are NaN.
    """
    sums = np.zeros((num_modules, features.shape[1]))
    np.add.at(sums, np.asarray(sample_labels), features)
    counts = np.bincount(sample_labels, minlength=num_modules)[:, None]
    return np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)


def category_similarity(
    features: Floats, categories: Sequence[str | None]
) -> tuple[tuple[str, ...], Floats] | Absent:
    """Mean cosine of the module-feature vectors of two samples, category by category.

    Pairs of a sample with itself do not count. The mean over all pairs follows from each
    category's mean direction, so the cost is linear in the samples.

    Returns:
        Names of the C categories, sorted, and the means, shape (C, C); NaN for the pairs within a
        category of one sample. Samples without a category or with a zero vector are left out.
    """
    norms = np.linalg.norm(features, axis=1)
    usable = np.array([name is not None for name in categories], dtype=bool) & (norms > 0)
    truth = np.array([str(name) for name in categories], dtype=str)[usable]
    if len(truth) == 0:
        return Absent("The corpus has no categories.")
    directions = features[usable] / norms[usable, None]
    names, classes, counts = np.unique(truth, return_inverse=True, return_counts=True)
    sums = np.zeros((len(names), features.shape[1]))
    np.add.at(sums, classes, directions)
    totals = sums @ sums.T - np.diag(counts)
    pairs = np.outer(counts, counts) - np.diag(counts)
    means = np.divide(totals, pairs, out=np.full(totals.shape, np.nan), where=pairs > 0)
    return tuple(str(name) for name in names), means
