"""The objective L(F) = xi(F) * B(F): how clear and how even a set of modules is."""

from __future__ import annotations

import numpy as np

from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.passes.executors import ThreadExecutor
from ulcmod_dist.passes.standardised import AnyArray, FloatArray, LabelArray, as_standardised
from ulcmod_dist.passes.tables import unit_tables
from ulcmod_dist.results.types import Objective

# The published implementation adds this to denominators; kept, so that figures are comparable.
EPSILON = 1e-8


def objective(
    activations: AnyArray, sample_labels: AnyArray, unit_labels: AnyArray, num_modules: int
) -> Objective:
    """Objective of given modules.

    `xi(F) = sum_k sum_{s in S_k, u in U_k} z[s,u] / (sum_k |S_k||U_k| + 1e-8)` and
    `B(F) = K / sum_k 1 / (|S_k||U_k| + 1e-8)`, over all K modules, empty ones included.

    Args:
        activations: NumPy or Dask array of floats [samples, units], used as given, or a
            `Standardised`.
        sample_labels: Module of each sample [samples], 0 to K-1.
        unit_labels: Module of each unit [units], 0 to K-1.
        num_modules: Number of modules K.

    Raises:
        InvalidInput: Labels that do not fit the activations or K.
    """
    standardised = as_standardised(activations)
    samples = validate_labels(sample_labels, standardised.n_samples, num_modules)
    units = validate_labels(unit_labels, standardised.n_units, num_modules)
    (table,) = unit_tables(standardised, [samples], [num_modules], ThreadExecutor())
    return objective_from_table(table, units, np.bincount(samples, minlength=num_modules))


def objective_from_table(table: FloatArray, labels: LabelArray, other_sizes: AnyArray) -> Objective:
    """Objective from one complete table.

    Args:
        table: T_u [units, K] or T_s [samples, K].
        labels: Module of each unit or sample, as the table's rows.
        other_sizes: |S_k| for T_u, |U_k| for T_s [K].
    """
    inside = float(np.sum(table[np.arange(len(labels)), labels]))
    areas = np.bincount(labels, minlength=table.shape[1]) * np.asarray(other_sizes, np.float64)
    xi = inside / (float(areas.sum()) + EPSILON)
    balance = table.shape[1] / float(np.sum(1.0 / (areas + EPSILON)))
    return Objective(xi, balance)


def validate_labels(
    labels: AnyArray, length: int, num_modules: int, *, lowest: int = 0
) -> LabelArray:
    """A copy of labels that fit.

    Args:
        labels: Module of each item.
        length: Number of items.
        num_modules: Number of modules K.
        lowest: Smallest label that is allowed: -1 where an item may lack a module.

    Raises:
        InvalidInput: Another number of labels, or labels beyond the lowest to K-1.
    """
    array = np.asarray(labels)
    if array.shape != (length,) or array.dtype.kind not in "iu":
        raise InvalidInput(
            f"{length} samples or units need as many whole numbers as labels, not {array.dtype} of "
            f"shape {array.shape}."
        )
    if length and not lowest <= array.min() <= array.max() < num_modules:
        raise InvalidInput(
            f"The labels range from {array.min()} to {array.max()}; with {num_modules} "
            f"modules they range from {lowest} to {num_modules - 1}."
        )
    return array.astype(np.int32)
