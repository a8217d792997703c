"""How modules relate: a tree of the modules of one K, and how those of two K share members."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import linkage

from ulcmod_dist.evaluate.spread import count_pairs
from ulcmod_dist.results.discovery import Overlap
from ulcmod_dist.results.types import Absent

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]


def link_modules(features: Floats) -> Floats | Absent:
    """Tree of the modules by how alike the samples drive them (average linkage of 1 - r).

    Args:
        features: Module features x_s[k], shape (samples, K); r is the correlation of two columns.

    Returns:
        SciPy's linkage matrix, shape (K - 1, 4), or why there is none.
    """
    if features.shape[1] < 2:
        return Absent("One module alone has no hierarchy.")
    if (features.std(axis=0) == 0).any():
        return Absent("A module responds equally to all samples, so it has no place in a tree.")
    return np.asarray(linkage(features.T, method="average", metric="correlation"))


def count_overlap(
    units: tuple[Labels, Labels], samples: tuple[Labels, Labels], num_modules: tuple[int, int]
) -> Overlap:
    """How the modules of two searches, the one with the smaller K first, share their members.

    Args:
        units: Module of each unit in either search.
        samples: Module of each sample in either search.
        num_modules: K of each search.
    """
    of_units, of_samples = (count_pairs(*labels, num_modules) for labels in (units, samples))
    members = max(int(of_units.sum()), 1)
    return Overlap(
        *num_modules,
        units=of_units,
        samples=of_samples,
        nestedness=float(of_units.max(axis=0).sum() / members),
        # Every module of the larger K would then have the largest of the smaller for its parent.
        expected=float(of_units.sum(axis=1).max() / members),
    )
