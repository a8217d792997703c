"""How far restarts agree, and how stable the module of each unit and sample is among them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import adjusted_rand_score

from ulcmod_dist.passes.standardised import FloatArray, LabelArray


def agreement(labels: Sequence[LabelArray]) -> float:
    """Mean adjusted Rand index over all pairs of restarts; NaN for a single one.

    Args:
        labels: Module of each item, one array [items] a restart.
    """
    pairs = list(combinations(labels, 2))
    return float(np.mean([adjusted_rand_score(a, b) for a, b in pairs])) if pairs else float("nan")


def stability(
    best_samples: LabelArray,
    best_units: LabelArray,
    others: Sequence[tuple[LabelArray, LabelArray]],
    num_modules: int,
) -> tuple[FloatArray, FloatArray]:
    """Share of the other restarts in which an item lies in the same module as in the best.

    Modules of two restarts are the same if the matching that agrees on most samples and units,
    either side counted by its share, pairs them (Hungarian method).

    Args:
        best_samples: Module of each sample in the best restart [samples].
        best_units: Module of each unit in the best restart [units].
        others: (samples, units) of each other restart.
        num_modules: K.

    Returns:
        Stability of samples [samples] and of units [units]; NaN without other restarts.
    """
    if not others:
        return np.full(len(best_samples), np.nan), np.full(len(best_units), np.nan)
    samples, units = np.zeros(len(best_samples)), np.zeros(len(best_units))
    for other_samples, other_units in others:
        overlap = _overlap(best_samples, other_samples, num_modules) / len(samples)
        overlap += _overlap(best_units, other_units, num_modules) / len(units)
        ours, theirs = linear_sum_assignment(overlap, maximize=True)
        as_ours = np.empty(num_modules, np.int64)
        as_ours[theirs] = ours
        samples += as_ours[other_samples] == best_samples
        units += as_ours[other_units] == best_units
    return samples / len(others), units / len(others)


def _overlap(ours: LabelArray, theirs: LabelArray, num_modules: int) -> FloatArray:
    cells = np.bincount(
        ours.astype(np.int64) * num_modules + theirs, minlength=num_modules * num_modules
    )
    return cells.reshape(num_modules, num_modules).astype(np.float64)
