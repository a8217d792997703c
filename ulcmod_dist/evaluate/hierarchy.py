"""How modules relate: a tree of the modules of one K, and how those of two K share members."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import linkage

from ulcmod_dist.evaluate.spread import count_pairs
from ulcmod_dist.report.values import Absent

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Overlap:
    """How the modules of a smaller K share members with those of a larger one.

    Attributes:
        counts: Members that two modules share, shape (smaller K, larger K).
        parent: For each module of the larger K, the module of the smaller that holds most of it.
        containment: Share of each module's members in its parent; NaN for an empty module.
        nestedness: Share of all members that lie in their module's parent.
        expected: What nestedness would be if membership were independent: the share of the
            largest module of the smaller K.
    """

    counts: NDArray[np.int64]
    parent: NDArray[np.int64]
    containment: Floats
    nestedness: float
    expected: float


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


def overlap(
    labels: Labels, num_modules: int, next_labels: Labels, next_num_modules: int
) -> Overlap:
    """How the modules of two searches share units or samples (one label a member in each)."""
    counts = count_pairs(labels, next_labels, (num_modules, next_num_modules))
    sizes = counts.sum(axis=0)
    largest = counts.max(axis=0)
    containment = np.divide(largest, sizes, out=np.full(next_num_modules, np.nan), where=sizes > 0)
    members = max(int(counts.sum()), 1)
    return Overlap(
        counts=counts,
        parent=counts.argmax(axis=0).astype(np.int64),
        containment=containment,
        nestedness=float(largest.sum() / members),
        expected=float(counts.sum(axis=1).max() / members),
    )
