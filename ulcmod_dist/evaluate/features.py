"""Module features x_s[k] = mean z[s,u] over the units of module k: all that most measures need.

A pass over the matrix builds the features of any number of sets of modules at once; what follows
from them (objective, assignment, heatmap, classifiers) reads the matrix no more.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ulcmod_dist.iterd.objective import objective_from_table, table_means
from ulcmod_dist.passes.executors import Executor
from ulcmod_dist.passes.matrix import ActivationMatrix
from ulcmod_dist.passes.standardised import LabelArray, Standardised
from ulcmod_dist.results.types import Floats, Objective

# The sums of all sets, the table of one, and its means, in float64.
_FEATURE_BYTES = 3 * 8


@dataclass(frozen=True, eq=False)
class ModuleFeatures:
    """Mean z of each sample over the units of each module."""

    values: Floats  # x_s[k], shape (samples, K); zero for a module without units
    sizes: NDArray[np.int64]  # units of each module, shape (K,)

    @classmethod
    def from_table(cls, table: Floats, unit_labels: LabelArray) -> Self:
        """From the sums T_s [samples, K] and the modules of the units."""
        sizes = np.bincount(unit_labels, minlength=table.shape[1])
        return cls(table_means(table, unit_labels), sizes)

    def assign(self) -> LabelArray:
        """Module of largest mean of each sample, among those with units; the lowest of equals."""
        means = np.where(self.sizes > 0, self.values, -np.inf)
        return np.asarray(np.argmax(means, axis=1), dtype=np.int32)

    def objective(self, labels: LabelArray) -> Objective:
        """Objective L of the modules with these labels of the samples."""
        return objective_from_table(self.values * self.sizes, labels, self.sizes)


def group_by_memory(num_modules: Sequence[int], samples: int, memory: int | None) -> list[slice]:
    """Consecutive sets of modules whose features are built together, by one pass each.

    Half of the memory (bytes; None for any) is for them, but at least one set is built at a time.
    """
    if memory is None:
        return [slice(0, len(num_modules))] if num_modules else []
    groups: list[slice] = []
    held = 0
    for position, number in enumerate(num_modules):
        needed = samples * number * _FEATURE_BYTES
        if groups and held + needed <= memory // 2:
            groups[-1] = slice(groups[-1].start, position + 1)
            held += needed
        else:
            groups.append(slice(position, position + 1))
            held = needed
    return groups


def compute_module_features(
    activations: Standardised,
    unit_labels: Sequence[LabelArray],
    num_modules: Sequence[int],
    executor: Executor,
) -> list[ModuleFeatures]:
    """Module features of the samples for several sets of modules, by one pass."""
    tables = ActivationMatrix(activations, executor).sample_tables(unit_labels, num_modules)
    return list(map(ModuleFeatures.from_table, tables, unit_labels))
