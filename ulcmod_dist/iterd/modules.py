"""What a search returns, and how far its restarts agree on it."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from ulcmod_dist.passes.standardised import FloatArray, LabelArray
from ulcmod_dist.results.types import Objective
from ulcmod_dist.runtime.notebook import render_table


@dataclass(frozen=True)
class Iteration:
    """One iteration of one restart, or a round of moves; iteration 0 is the start.

    ``objective``, ``xi`` and ``balance`` are those after it. Restarts that share passes bear equal
    parts of their ``seconds``.
    """

    restart: int
    iteration: int
    objective: float
    xi: float
    balance: float
    units_moved: int
    samples_moved: int
    seconds: float

    @property
    def moved(self) -> int:
        """Units and samples that changed their module."""
        return self.units_moved + self.samples_moved


@dataclass(frozen=True, eq=False)
class Modules:
    """The best modules of a search.

    Attributes:
        sample_labels: Module of each sample, int32 [samples].
        unit_labels: Module of each unit, int32 [units].
        objective: L(F) and its parts.
        history: Every iteration of every restart, restart by restart; those of the best restart end
            with the ``rounds`` of moves.
        unit_margins: L lost by moving a unit to the best other module, float64 [units]; all of L
            for the last unit of a module, NaN for K = 1.
        sample_margins: The same for samples [samples].
        unit_stability: Share of the other restarts in which a unit lies in the same module,
            float64 [units]; NaN without other restarts. No moves are made in these.
        sample_stability: The same for samples [samples].
        unit_agreement: Mean adjusted Rand index of the units' modules over all pairs of restarts;
            NaN for a single one. All as they were before any moves.
        sample_agreement: The same for samples.
        restarts: L(F) of each restart, before any moves.
        best_restart: Number of the restart with the best L, from which moves went on.
        rounds: Rounds of moves after it, the last ones in vain.
        moves: Rounds that raised L; with 0 these are the modules of the best restart.
        repaired: Modules without a sample or without a unit at the best restart's start, each of
            which was given one.
    """

    sample_labels: LabelArray
    unit_labels: LabelArray
    objective: Objective
    history: list[Iteration]
    unit_margins: FloatArray
    sample_margins: FloatArray
    unit_stability: FloatArray
    sample_stability: FloatArray
    unit_agreement: float
    sample_agreement: float
    restarts: list[float]
    best_restart: int
    rounds: int
    moves: int
    repaired: int

    def __repr__(self) -> str:
        return (
            f"Modules(K = {1 + int(self.unit_labels.max())}, L = {self.objective.value:,.6g}, "
            f"{len(self.unit_labels):,} units, {len(self.sample_labels):,} samples)"
        )

    def _repr_html_(self) -> str:
        columns = ("Module", "Units", "Samples", "Stability of units", "of samples")
        rows = []
        for k in range(1 + int(self.unit_labels.max())):
            units = self.unit_stability[self.unit_labels == k]
            samples = self.sample_stability[self.sample_labels == k]
            rows.append((k, len(units), len(samples), float(units.mean()), float(samples.mean())))
        return render_table(repr(self), columns, rows, shaded=2)


def mean_rand_index(labels: Sequence[LabelArray]) -> float:
    """Mean adjusted Rand index of labels over all pairs of restarts; NaN for a single one."""
    pairs = list(combinations(labels, 2))
    return float(np.mean([adjusted_rand_index(a, b) for a, b in pairs])) if pairs else float("nan")


def stability(
    best_samples: LabelArray,
    best_units: LabelArray,
    others: Sequence[tuple[LabelArray, LabelArray]],
    num_modules: int,
) -> tuple[FloatArray, FloatArray]:
    """Share of the other restarts in which an item lies in the same module as in the best.

    Modules of two restarts are the same if the matching that agrees on most samples and units,
    either side counted by its share, pairs them (Hungarian method). Returns float64 [samples] and
    [units]; NaN without other restarts.
    """
    if not others:
        return np.full(len(best_samples), np.nan), np.full(len(best_units), np.nan)
    samples, units = np.zeros(len(best_samples)), np.zeros(len(best_units))
    shape = (num_modules, num_modules)
    for other_samples, other_units in others:
        overlap = count_pairs(best_samples, other_samples, shape) / len(samples)
        overlap += count_pairs(best_units, other_units, shape) / len(units)
        ours, theirs = linear_sum_assignment(overlap, maximize=True)
        as_ours = np.empty(num_modules, np.int64)
        as_ours[theirs] = ours
        samples += as_ours[other_samples] == best_samples
        units += as_ours[other_units] == best_units
    return samples / len(others), units / len(others)


def adjusted_rand_index(labels: LabelArray, other_labels: LabelArray) -> float:
    """Adjusted Rand index of two partitions: 1 for the same one, 0 on average for random ones.

    scikit-learn's takes labels that are nearly all different for numbers and warns.
    """
    together, first, second = (
        int(np.sum(np.square(counts))) for counts in count_shared(labels, other_labels)
    )
    items = len(labels)
    both, only_first, only_second = together - items, first - together, second - together
    neither = items * items - together - only_first - only_second
    if only_first == only_second == 0:
        return 1.0
    excess = 2 * (both * neither - only_first * only_second)
    return excess / (
        (both + only_second) * (only_second + neither)
        + (both + only_first) * (only_first + neither)
    )


def count_shared(
    labels: LabelArray, other_labels: LabelArray
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Items of each pair of labels that occurs, of each label, and of each other label.

    At most as many numbers as items, where a table has the product of the numbers of labels.
    """
    number_of_labels = int(np.max(other_labels, initial=0)) + 1
    pairs = np.asarray(labels, np.int64) * number_of_labels + np.asarray(other_labels, np.int64)
    values = pairs, np.asarray(labels), np.asarray(other_labels)
    together, first, second = (np.unique(value, return_counts=True)[1] for value in values)
    return together.astype(np.int64), first.astype(np.int64), second.astype(np.int64)


def count_pairs(rows: LabelArray, columns: LabelArray, shape: tuple[int, int]) -> NDArray[np.int64]:
    """How often each pair of labels occurs, int64 of shape ``shape``."""
    flat = np.asarray(rows, np.int64) * shape[1] + np.asarray(columns, np.int64)
    return np.bincount(flat, minlength=shape[0] * shape[1]).reshape(shape).astype(np.int64)
