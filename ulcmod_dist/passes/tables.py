"""The two tables that a sweep reads, T_u and T_s, built or brought up to date by one pass.

z = (a - mean) / std is never formed; its sums follow from sums over a:

    T_u[u,k] = sum_{s in S_k} z[s,u] = (sum_{s in S_k} a[s,u] - |S_k| mean_u) / std_u
    T_s[s,k] = sum_{u in U_k} z[s,u] = sum_{u in U_k} a[s,u] / std_u - sum_{u in U_k} mean_u / std_u

Several searches, each with its own labels and number of modules, share a pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from ulcmod_dist.passes.executors import Executor
from ulcmod_dist.passes.kernels import (
    both_sums,
    sample_changes,
    sample_sums,
    unit_changes,
    unit_sums,
)
from ulcmod_dist.passes.map_reduce import block_slices, map_reduce
from ulcmod_dist.passes.standardised import AnyArray, FloatArray, LabelArray, Standardised

# An update reads less than a full pass but adds and subtracts one by one what it reads; measured in
# memory, it wins while it reads less than this share.
_MAX_UPDATE_SHARE = 0.75


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
    _, sums = map_reduce(
        activations.raw,
        partial(unit_sums, num_modules=sum(num_modules)),
        by_sample=[stack_labels(sample_labels, num_modules)],
        executor=executor,
    )
    return list(_unit_tables(activations, sums, _sizes(sample_labels, num_modules)))


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
    sums, _ = map_reduce(
        activations.raw,
        partial(sample_sums, num_modules=sum(num_modules)),
        by_unit=[stack_labels(unit_labels, num_modules), activations.weights],
        executor=executor,
    )
    return list(_sample_tables(sums, _mean_sums(activations, unit_labels, num_modules)))


def both_tables(
    activations: Standardised,
    sample_labels: Sequence[LabelArray],
    unit_labels: Sequence[LabelArray],
    num_modules: Sequence[int],
    executor: Executor,
) -> tuple[list[FloatArray], list[FloatArray]]:
    """`sample_tables` and `unit_tables` by one pass."""
    by_sample, by_unit = map_reduce(
        activations.raw,
        partial(both_sums, num_modules=sum(num_modules)),
        by_sample=[stack_labels(sample_labels, num_modules)],
        by_unit=[stack_labels(unit_labels, num_modules), activations.weights],
        executor=executor,
    )
    return (
        list(_sample_tables(by_sample, _mean_sums(activations, unit_labels, num_modules))),
        list(_unit_tables(activations, by_unit, _sizes(sample_labels, num_modules))),
    )


def update_sample_tables(
    activations: Standardised,
    tables: Sequence[FloatArray],
    before: Sequence[LabelArray],
    after: Sequence[LabelArray],
    executor: Executor,
    *,
    resident: bool,
) -> list[FloatArray]:
    """T_s of every search after units moved, from the old tables or by a full pass.

    Which of the two is decided by the bytes either would read: whole chunks where the matrix is
    read from elsewhere, the moved columns of each search where it is in memory.

    Args:
        activations: Standardised activations.
        tables: T_s of each search [samples, K], belonging to ``before``; may be changed in place.
        before: Module of each unit in each search.
        after: The same, later.
        executor: Where the pass runs.
        resident: The matrix is in memory, so that parts of chunks can be read.
    """
    num_modules = [table.shape[1] for table in tables]
    moved = _moved_items(before, after)
    if not moved.size:
        return list(tables)
    if _update_share(activations.raw, before, after, axis=1, resident=resident) > _MAX_UPDATE_SHARE:
        return sample_tables(activations, after, num_modules, executor)
    changes, _ = map_reduce(
        activations.raw,
        partial(sample_changes, num_modules=sum(num_modules)),
        by_unit=[
            *(stack_labels(side, num_modules) for side in (before, after)),
            activations.weights,
        ],
        executor=executor,
        only_units=moved,
    )
    old, new = (_mean_sums(activations, labels, num_modules) for labels in (before, after))
    shifts = [now - then for then, now in zip(old, new, strict=True)]
    for table, change in zip(tables, _sample_tables(changes, shifts), strict=True):
        table += change
    return list(tables)


def update_unit_tables(
    activations: Standardised,
    tables: Sequence[FloatArray],
    before: Sequence[LabelArray],
    after: Sequence[LabelArray],
    executor: Executor,
    *,
    resident: bool,
) -> list[FloatArray]:
    """T_u of every search after samples moved, as `update_sample_tables`.

    Args:
        activations: Standardised activations.
        tables: T_u of each search [units, K], belonging to ``before``; may be changed in place.
        before: Module of each sample in each search.
        after: The same, later.
        executor: Where the pass runs.
        resident: The matrix is in memory, so that parts of chunks can be read.
    """
    num_modules = [table.shape[1] for table in tables]
    moved = _moved_items(before, after)
    if not moved.size:
        return list(tables)
    if _update_share(activations.raw, before, after, axis=0, resident=resident) > _MAX_UPDATE_SHARE:
        return unit_tables(activations, after, num_modules, executor)
    _, changes = map_reduce(
        activations.raw,
        partial(unit_changes, num_modules=sum(num_modules)),
        by_sample=[stack_labels(side, num_modules) for side in (before, after)],
        executor=executor,
        only_samples=moved,
    )
    old, new = (_sizes(labels, num_modules) for labels in (before, after))
    grown = [now - then for then, now in zip(old, new, strict=True)]
    for table, change in zip(tables, _unit_tables(activations, changes, grown), strict=True):
        table += change
    return list(tables)


def stack_labels(labels: Sequence[LabelArray], num_modules: Sequence[int]) -> LabelArray:
    """Labels [searches, items], each search's modules numbered after those of the one before."""
    offsets = [part.start for part in _module_slices(num_modules)]
    shifted = [label + offset for label, offset in zip(labels, offsets, strict=True)]
    return np.stack(shifted).astype(np.int32)


def _module_slices(num_modules: Sequence[int]) -> Iterator[slice]:
    """The modules of each search among the modules of all."""
    first = 0
    for k in num_modules:
        yield slice(first, first + k)
        first += k


def _sizes(labels: Sequence[LabelArray], num_modules: Sequence[int]) -> list[AnyArray]:
    """Items in each module [K], by search."""
    return [np.bincount(one, minlength=k) for one, k in zip(labels, num_modules, strict=True)]


def _mean_sums(
    activations: Standardised, unit_labels: Sequence[LabelArray], num_modules: Sequence[int]
) -> list[FloatArray]:
    """Sum of mean / std over the units of each module [K], by search."""
    weights = activations.mean / activations.std
    pairs = zip(unit_labels, num_modules, strict=True)
    return [np.asarray(np.bincount(labels, weights, k), np.float64) for labels, k in pairs]


def _unit_tables(
    activations: Standardised, sums: FloatArray | None, sizes: Sequence[AnyArray]
) -> Iterator[FloatArray]:
    """T_u, or its change, from sums of a (or their change) [modules, units] and module sizes."""
    assert sums is not None
    for part, size in zip(_module_slices([len(size) for size in sizes]), sizes, strict=True):
        centred = sums[part].T - activations.mean[:, None] * size
        yield np.ascontiguousarray(centred / activations.std[:, None])


def _sample_tables(sums: FloatArray | None, shifts: Sequence[FloatArray]) -> Iterator[FloatArray]:
    """T_s, or its change, from weighted sums of a [samples, modules] and those of the means."""
    assert sums is not None
    for part, shift in zip(_module_slices([len(shift) for shift in shifts]), shifts, strict=True):
        yield np.ascontiguousarray(sums[:, part] - shift)


def _moved_items(before: Sequence[LabelArray], after: Sequence[LabelArray]) -> LabelArray:
    """Items that moved in any search, ascending."""
    changed = np.zeros(len(before[0]), bool)
    for old, new in zip(before, after, strict=True):
        changed |= old != new
    return np.flatnonzero(changed)


def _update_share(
    raw: AnyArray,
    before: Sequence[LabelArray],
    after: Sequence[LabelArray],
    *,
    axis: int,
    resident: bool,
) -> float:
    """Share of a full pass's bytes that an update from the moved items would read."""
    if resident:
        pairs = zip(before, after, strict=True)
        return float(np.mean([np.mean(old != new) for old, new in pairs]))
    slices = block_slices(raw)[axis]
    ends = np.array([part.stop for part in slices])
    touched = np.unique(np.searchsorted(ends, _moved_items(before, after), side="right"))
    return float(sum(slices[i].stop - slices[i].start for i in touched)) / float(raw.shape[axis])
