"""Tables brought up to date from the rows and columns of what moved, in place of a full pass.

Whether that pays is decided by the bytes either would read: whole chunks where the matrix is read
from elsewhere, the moved rows or columns of each search where it is in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from ulcmod_dist.passes.executors import Executor
from ulcmod_dist.passes.kernels import sample_changes, unit_changes
from ulcmod_dist.passes.map_reduce import block_slices, map_reduce
from ulcmod_dist.passes.standardised import AnyArray, FloatArray, LabelArray, Standardised
from ulcmod_dist.passes.tables import module_offsets, sample_tables, stack_labels, unit_tables

# An update reads less than a full pass but adds and subtracts one by one what it reads; measured in
# memory, it wins while it reads less than this share.
_WORTH = 0.75


def update_sample_tables(
    activations: Standardised,
    tables: Sequence[FloatArray],
    before: Sequence[LabelArray],
    after: Sequence[LabelArray],
    executor: Executor,
    *,
    resident: bool,
) -> list[FloatArray]:
    """T_s of every search after units moved, from the old tables or anew.

    Args:
        activations: Standardised activations.
        tables: T_s of each search [samples, K], belonging to ``before``; may be changed in place.
        before: Module of each unit in each search.
        after: The same, later.
        executor: Where the pass runs.
        resident: The matrix is in memory, so that parts of chunks can be read.
    """
    num_modules = [table.shape[1] for table in tables]
    moved = _moved(before, after)
    if not moved.size:
        return list(tables)
    if _share(activations.raw, before, after, axis=1, resident=resident) > _WORTH:
        return sample_tables(activations, after, num_modules, executor)
    kernel = partial(_for_samples, num_modules=sum(num_modules))
    changes, _ = map_reduce(
        activations.raw,
        kernel,
        by_unit=[
            stack_labels(before, num_modules),
            stack_labels(after, num_modules),
            activations.weights,
        ],
        executor=executor,
        only_units=moved,
    )
    assert changes is not None
    scaled = activations.mean / activations.std
    for table, first, old, new in zip(
        tables, module_offsets(num_modules), before, after, strict=True
    ):
        k = table.shape[1]
        shifts = np.bincount(new, scaled, k) - np.bincount(old, scaled, k)
        table += changes[:, first : first + k] - shifts
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
    """T_u of every search after samples moved, from the old tables or anew.

    Args:
        activations: Standardised activations.
        tables: T_u of each search [units, K], belonging to ``before``; may be changed in place.
        before: Module of each sample in each search.
        after: The same, later.
        executor: Where the pass runs.
        resident: The matrix is in memory, so that parts of chunks can be read.
    """
    num_modules = [table.shape[1] for table in tables]
    moved = _moved(before, after)
    if not moved.size:
        return list(tables)
    if _share(activations.raw, before, after, axis=0, resident=resident) > _WORTH:
        return unit_tables(activations, after, num_modules, executor)
    kernel = partial(_for_units, num_modules=sum(num_modules))
    _, changes = map_reduce(
        activations.raw,
        kernel,
        by_sample=[stack_labels(before, num_modules), stack_labels(after, num_modules)],
        executor=executor,
        only_samples=moved,
    )
    assert changes is not None
    for table, first, old, new in zip(
        tables, module_offsets(num_modules), before, after, strict=True
    ):
        k = table.shape[1]
        sizes = np.bincount(new, minlength=k) - np.bincount(old, minlength=k)
        centred = changes[first : first + k].T - activations.mean[:, None] * sizes
        table += centred / activations.std[:, None]
    return list(tables)


def _moved(before: Sequence[LabelArray], after: Sequence[LabelArray]) -> LabelArray:
    """Items that moved in any search, ascending."""
    changed = np.zeros(len(before[0]), bool)
    for old, new in zip(before, after, strict=True):
        changed |= old != new
    return np.flatnonzero(changed)


def _share(
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
    touched = np.unique(np.searchsorted(ends, _moved(before, after), side="right"))
    return float(sum(slices[i].stop - slices[i].start for i in touched)) / float(raw.shape[axis])


def _for_samples(
    block: AnyArray,
    before: LabelArray,
    after: LabelArray,
    weights: FloatArray,
    *,
    num_modules: int,
) -> tuple[FloatArray, None]:
    return sample_changes(block, before, after, weights, num_modules), None


def _for_units(
    block: AnyArray, before: LabelArray, after: LabelArray, *, num_modules: int
) -> tuple[None, FloatArray]:
    return None, unit_changes(block, before, after, num_modules)
