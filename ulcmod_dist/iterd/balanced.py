"""Balanced k-means: groups of equal size around their means."""

from __future__ import annotations

import numpy as np
from k_means_constrained import KMeansConstrained

from ulcmod_dist.passes.standardised import FloatArray, LabelArray


def balanced_kmeans(
    points: FloatArray, num_groups: int, rng: np.random.Generator, initialisations: int = 10
) -> LabelArray:
    """Groups whose sizes are floor(N/K) or ceil(N/K).

    Args:
        points: Points [N, dimensions].
        num_groups: K, at most N.
        rng: Source of the initial centres.
        initialisations: Sets of initial centres that are tried; the tightest answer wins.

    Returns:
        Group of each point [N].
    """
    if num_groups == 1:
        return np.zeros(len(points), np.int32)
    least = len(points) // num_groups
    model = KMeansConstrained(
        num_groups,
        size_min=least,
        size_max=least + (len(points) % num_groups > 0),
        n_init=initialisations,
        random_state=int(rng.integers(2**31)),
    )
    return np.asarray(model.fit_predict(points), np.int32)
