"""The two tables that a sweep reads, T_u and T_s, by one pass over the raw matrix.

z = (a - mean) / std is never formed; its sums follow from sums over a:

    T_u[u,k] = sum_{s in S_k} z[s,u] = (sum_{s in S_k} a[s,u] - |S_k| mean_u) / std_u
    T_s[s,k] = sum_{u in U_k} z[s,u] = sum_{u in U_k} a[s,u] / std_u - sum_{u in U_k} mean_u / std_u

Several searches, each with its own labels and number of modules, share a pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from ulcmod_dist.passes.executors import Executor
from ulcmod_dist.passes.kernels import both_sums, sample_sums, unit_sums
from ulcmod_dist.passes.map_reduce import map_reduce
from ulcmod_dist.passes.standardised import FloatArray, LabelArray, Standardised


def unit_tables(
    activations: Standardised,
    sample_labels: Sequence[LabelArray],
    num_modules: Sequence[int],
    executor: Executor,
) -> list[FloatArray]:
    """T_u of every search: sums of z over the samples of each module, [units, K] each.

    Args:
        activations: Standardised activations.
        sample_labels: Module of each sample, one array [samples] a search.
        num_modules: K of each search.
        executor: Where the pass runs.
    """
    kernel = partial(_for_units, num_modules=sum(num_modules))
    labels = stack_labels(sample_labels, num_modules)
    _, sums = map_reduce(activations.raw, kernel, by_sample=[labels], executor=executor)
    assert sums is not None
    return _unit_tables(activations, sums, sample_labels, num_modules)


def sample_tables(
    activations: Standardised,
    unit_labels: Sequence[LabelArray],
    num_modules: Sequence[int],
    executor: Executor,
) -> list[FloatArray]:
    """T_s of every search: sums of z over the units of each module, [samples, K] each.

    Args:
        activations: Standardised activations.
        unit_labels: Module of each unit, one array [units] a search.
        num_modules: K of each search.
        executor: Where the pass runs.
    """
    kernel = partial(_for_samples, num_modules=sum(num_modules))
    by_unit = [stack_labels(unit_labels, num_modules), activations.weights]
    sums, _ = map_reduce(activations.raw, kernel, by_unit=by_unit, executor=executor)
    assert sums is not None
    return _sample_tables(activations, sums, unit_labels, num_modules)


def both_tables(
    activations: Standardised,
    sample_labels: Sequence[LabelArray],
    unit_labels: Sequence[LabelArray],
    num_modules: Sequence[int],
    executor: Executor,
) -> tuple[list[FloatArray], list[FloatArray]]:
    """`sample_tables` and `unit_tables` by one pass."""
    kernel = partial(both_sums, num_modules=sum(num_modules))
    by_sample, by_unit = map_reduce(
        activations.raw,
        kernel,
        by_sample=[stack_labels(sample_labels, num_modules)],
        by_unit=[stack_labels(unit_labels, num_modules), activations.weights],
        executor=executor,
    )
    assert by_sample is not None
    assert by_unit is not None
    return (
        _sample_tables(activations, by_sample, unit_labels, num_modules),
        _unit_tables(activations, by_unit, sample_labels, num_modules),
    )


def _for_units(
    block: FloatArray, sample_labels: LabelArray, *, num_modules: int
) -> tuple[None, FloatArray]:
    return None, unit_sums(block, sample_labels, num_modules)


def _for_samples(
    block: FloatArray, unit_labels: LabelArray, weights: FloatArray, *, num_modules: int
) -> tuple[FloatArray, None]:
    return sample_sums(block, unit_labels, weights, num_modules), None


def stack_labels(labels: Sequence[LabelArray], num_modules: Sequence[int]) -> LabelArray:
    """Labels [searches, items], each search's modules numbered after those of the one before."""
    pairs = zip(labels, module_offsets(num_modules), strict=True)
    shifted = [label + first for label, first in pairs]
    return np.stack(shifted).astype(np.int32)


def module_offsets(num_modules: Sequence[int]) -> list[int]:
    """Number of each search's first module among the modules of all."""
    return [sum(num_modules[:i]) for i in range(len(num_modules))]


def _unit_tables(
    activations: Standardised,
    sums: FloatArray,
    sample_labels: Sequence[LabelArray],
    num_modules: Sequence[int],
) -> list[FloatArray]:
    tables = []
    for first, k, labels in zip(
        module_offsets(num_modules), num_modules, sample_labels, strict=True
    ):
        sizes = np.bincount(labels, minlength=k)
        centred = sums[first : first + k].T - activations.mean[:, None] * sizes
        tables.append(np.ascontiguousarray(centred / activations.std[:, None]))
    return tables


def _sample_tables(
    activations: Standardised,
    sums: FloatArray,
    unit_labels: Sequence[LabelArray],
    num_modules: Sequence[int],
) -> list[FloatArray]:
    tables = []
    scaled_means = activations.mean / activations.std
    for first, k, labels in zip(module_offsets(num_modules), num_modules, unit_labels, strict=True):
        shifts = np.bincount(labels, weights=scaled_means, minlength=k)
        tables.append(np.ascontiguousarray(sums[:, first : first + k] - shifts))
    return tables
