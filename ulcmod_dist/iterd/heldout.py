"""Modules judged on samples that took no part in finding them."""

from __future__ import annotations

import numpy as np

from ulcmod_dist.iterd.objective import objective_from_table
from ulcmod_dist.iterd.start import assign_to_largest_mean
from ulcmod_dist.passes.executors import Executor
from ulcmod_dist.passes.standardised import LabelArray, Standardised
from ulcmod_dist.passes.tables import sample_tables
from ulcmod_dist.results.types import Objective


def assign_held_out(
    activations: Standardised, unit_labels: LabelArray, num_modules: int, executor: Executor
) -> tuple[LabelArray, Objective]:
    """Held-out samples to the module of their largest mean z, and L(F) of the modules on them.

    Args:
        activations: Held-out samples, standardised by the train statistics.
        unit_labels: Module of each unit [units].
        num_modules: K.
        executor: Where the pass runs.

    Returns:
        Module of each held-out sample, and the objective on these samples alone. L grows with the
        number of samples: compare values over the same samples.
    """
    (table,) = sample_tables(activations, [unit_labels], [num_modules], executor)
    labels = assign_to_largest_mean(table, unit_labels)
    sizes = np.bincount(unit_labels, minlength=num_modules)
    return labels, objective_from_table(table, labels, sizes)
