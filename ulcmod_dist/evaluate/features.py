"""Module features x_s[k] = mean z[s,u] over the units of module k: all that most measures need.

A pass over the matrix builds the features of any number of sets of modules at once; what follows
from them (objective, placement, margins, heatmap, classifiers) touches the matrix no more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ulcmod_dist.iterd.objective import objective_from_table
from ulcmod_dist.passes.executors import Executor
from ulcmod_dist.passes.standardised import LabelArray, Standardised
from ulcmod_dist.passes.tables import sample_tables, unit_tables
from ulcmod_dist.results.types import Objective

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ModuleFeatures:
    """Mean z of every item in every module.

    Attributes:
        values: For samples x_s[k], the mean over the units of module k, shape (samples, K); for
            units the mean over the samples of module k, shape (units, K). Zero for a module with
            no member on the other side.
        sizes: Members of each module on the other side, shape (K,).
    """

    values: Floats
    sizes: NDArray[np.int64]

    def placed(self) -> LabelArray:
        """Each item's module of largest mean among those with members; the lowest of equals."""
        means = np.where(self.sizes > 0, self.values, -np.inf)
        return np.asarray(np.argmax(means, axis=1), dtype=np.int32)

    def margins(self, labels: LabelArray) -> Floats:
        """Mean in the item's own module minus the largest one elsewhere, shape (items,).

        With a single module the mean itself.
        """
        items = np.arange(len(labels))
        own = self.values[items, labels]
        if self.values.shape[1] == 1:
            return np.asarray(own)
        others = np.where(self.sizes > 0, self.values, -np.inf)
        others[items, labels] = -np.inf
        largest = others.max(axis=1)
        return np.asarray(own - np.where(np.isfinite(largest), largest, 0.0))

    def objective(self, labels: LabelArray) -> Objective:
        """Objective L of the modules whose other side made this table."""
        return objective_from_table(self.values * self.sizes, labels, self.sizes)


def compute_module_features(
    activations: Standardised,
    unit_labels: Sequence[LabelArray],
    num_modules: Sequence[int],
    executor: Executor,
) -> list[ModuleFeatures]:
    """Module features of the samples for several sets of modules, by one pass.

    Args:
        activations: Standardised activations of train or of held-out samples.
        unit_labels: Module of each unit, one array a set.
        num_modules: K of each set.
        executor: Where the pass runs.
    """
    tables = sample_tables(activations, unit_labels, num_modules, executor)
    return [_means(*parts) for parts in zip(tables, unit_labels, num_modules, strict=True)]


def unit_means(
    activations: Standardised,
    sample_labels: Sequence[LabelArray],
    num_modules: Sequence[int],
    executor: Executor,
) -> list[ModuleFeatures]:
    """Mean z of the units over the samples of each module, for several sets, by one pass."""
    tables = unit_tables(activations, sample_labels, num_modules, executor)
    return [_means(*parts) for parts in zip(tables, sample_labels, num_modules, strict=True)]


def _means(table: Floats, labels: LabelArray, num_modules: int) -> ModuleFeatures:
    sizes = np.bincount(labels, minlength=num_modules)
    return ModuleFeatures(table / np.maximum(sizes, 1), sizes)
