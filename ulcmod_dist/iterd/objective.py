"""The objective L(F) = xi(F) * B(F), and labels that follow from tables of sums."""

import numpy as np

from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.passes.executors import Executor, ThreadExecutor
from ulcmod_dist.passes.matrix import ActivationMatrix
from ulcmod_dist.passes.standardised import (
    AnyArray,
    FloatArray,
    LabelArray,
    Standardised,
    as_standardised,
)
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
        InvalidInput: Labels that do not fit the activations or K, or activations that are not
            finite.
    """
    standardised = as_standardised(activations)
    samples = validate_labels(sample_labels, standardised.n_samples, num_modules)
    units = validate_labels(unit_labels, standardised.n_units, num_modules)
    matrix = ActivationMatrix(standardised, ThreadExecutor())
    (table,) = matrix.unit_tables([samples], [num_modules])
    return objective_from_table(table, units, np.bincount(samples, minlength=num_modules))


def objective_from_table(table: FloatArray, labels: LabelArray, other_sizes: AnyArray) -> Objective:
    """Objective from one complete table: T_u [units, K] or T_s [samples, K].

    ``labels`` belong to its rows; ``other_sizes`` [K] are |S_k| for T_u, |U_k| for T_s.
    """
    inside = float(np.sum(table[np.arange(len(labels)), labels]))
    areas = np.bincount(labels, minlength=table.shape[1]) * np.asarray(other_sizes, np.float64)
    xi = inside / (float(areas.sum()) + EPSILON)
    balance = table.shape[1] / float(np.sum(1.0 / (areas + EPSILON)))
    return Objective(xi, balance)


def validate_labels(
    labels: AnyArray, length: int, num_modules: int, *, lowest: int = 0
) -> LabelArray:
    """Labels as an int32 copy, each from ``lowest`` (-1 where an item may lack a module) to K-1.

    Raises:
        InvalidInput: Another number of labels, or labels beyond this range.
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


def assign_held_out(
    activations: Standardised, unit_labels: LabelArray, num_modules: int, executor: Executor
) -> tuple[LabelArray, Objective]:
    """Assign held-out samples to the module of their largest mean z; L(F) of the modules on them.

    The samples are standardised by the train statistics. L grows with the number of samples:
    compare values over the same samples.
    """
    matrix = ActivationMatrix(activations, executor)
    (table,) = matrix.sample_tables([unit_labels], [num_modules])
    labels = assign_to_largest_mean(table, unit_labels)
    sizes = np.bincount(unit_labels, minlength=num_modules)
    return labels, objective_from_table(table, labels, sizes)


def assign_to_largest_mean(table: FloatArray, other_labels: LabelArray) -> LabelArray:
    """Assign each item to the module with the largest mean z over that module's other side.

    Int32 [items], of T_u [units, K] or T_s [samples, K]; the lowest module of equals.
    """
    labels: LabelArray = np.argmax(table_means(table, other_labels), axis=1).astype(np.int32)
    return labels


def table_means(table: FloatArray, other_labels: LabelArray) -> FloatArray:
    """Means of z from sums of z; 0 where the other side of a module is empty."""
    sizes = np.bincount(other_labels, minlength=table.shape[1])
    return np.asarray(table / np.maximum(sizes, 1))


def fill_empty_modules(labels: LabelArray, means: FloatArray) -> int:
    """Move to each empty module the item whose mean z gains most (or loses least) by it.

    Means [items, K]; labels change in place. Returns how many modules were empty.
    """
    sizes = np.bincount(labels, minlength=means.shape[1])
    empty = np.flatnonzero(sizes == 0)
    for k in empty:
        gains = means[:, k] - means[np.arange(len(labels)), labels]
        gains[sizes[labels] < 2] = -np.inf
        item = int(np.argmax(gains))
        sizes[labels[item]] -= 1
        sizes[k] += 1
        labels[item] = k
    return len(empty)
