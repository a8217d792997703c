"""The activation matrix, and the two tables that a sweep reads, T_u and T_s, by one pass each.

z = (a - mean) / std is never formed; its sums follow from sums over a:

    T_u[u,k] = sum_{s in S_k} z[s,u] = (sum_{s in S_k} a[s,u] - |S_k| mean_u) / std_u
    T_s[s,k] = sum_{u in U_k} z[s,u] = sum_{u in U_k} a[s,u] / std_u - sum_{u in U_k} mean_u / std_u

Several searches, each with its own labels and number of modules, share a pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from ulcmod_dist.passes import kernels
from ulcmod_dist.passes.executors import Executor
from ulcmod_dist.passes.linalg import raise_not_finite
from ulcmod_dist.passes.map_reduce import Pass, map_reduce, map_reduce_all
from ulcmod_dist.passes.shares import KeptMatrix, block_slices, consecutive_slices, keep_matrix
from ulcmod_dist.passes.standardised import AnyArray, FloatArray, LabelArray, Standardised

# An update reads less than a full pass, but adds and subtracts one by one what it reads: it wins
# while it reads less than this share of the chunks.
_MAX_UPDATE_SHARE = 0.75
# In memory, while less than this share of the samples or of the units moved, as measured.
_MAX_MOVED_SHARE = 0.4


@dataclass(frozen=True, eq=False)
class ActivationMatrix:
    """Standardised activations and where their passes run.

    Labels are one array a search: the module of each sample [samples] or unit [units]. Every table
    is float64, and every method raises `InvalidInput` where activations are not finite. If
    ``resident``, all chunks are in memory, so that parts of chunks can be read.
    """

    activations: Standardised
    executor: Executor
    resident: bool = False

    def unit_tables(
        self, sample_labels: Sequence[LabelArray], num_modules: Sequence[int]
    ) -> list[FloatArray]:
        """T_u [units, K] of every search: sums of z over the samples of each module."""
        (tables,) = build_unit_tables([self], sample_labels, num_modules)
        return tables

    def sample_tables(
        self, unit_labels: Sequence[LabelArray], num_modules: Sequence[int]
    ) -> list[FloatArray]:
        """T_s [samples, K] of every search: sums of z over the units of each module."""
        (tables,) = build_sample_tables([self], [unit_labels], num_modules)
        return tables

    def both_tables(
        self,
        sample_labels: Sequence[LabelArray],
        unit_labels: Sequence[LabelArray],
        num_modules: Sequence[int],
    ) -> tuple[list[FloatArray], list[FloatArray]]:
        """T_s and T_u of every search, by one pass."""
        by_sample, by_unit = map_reduce(
            self.activations.raw,
            partial(kernels.both_sums, num_modules=sum(num_modules)),
            by_sample=[_stack_labels(sample_labels, num_modules)],
            by_unit=[_stack_labels(unit_labels, num_modules), self.activations.weights],
            executor=self.executor,
        )
        return (
            self._finite(_sample_tables(by_sample, self._mean_sums(unit_labels, num_modules))),
            self._finite(self._unit_tables(by_unit, _sizes(sample_labels, num_modules))),
        )

    def update_sample_tables(
        self,
        tables: Sequence[FloatArray],
        before: Sequence[LabelArray],
        after: Sequence[LabelArray],
    ) -> list[FloatArray]:
        """T_s of every search after units moved, from the old tables or by a full pass.

        Which of the two is decided by the bytes either would read: whole chunks where the matrix
        is read from elsewhere, the moved columns of each search where it is in memory. The tables
        belong to the labels ``before`` and may be changed in place.
        """
        num_modules = [table.shape[1] for table in tables]
        moved = _moved_items(before, after)
        if not moved.size:
            return list(tables)
        if self._prefers_full_pass(before, after, axis=1):
            return self.sample_tables(after, num_modules)
        changes, _ = map_reduce(
            self.activations.raw,
            partial(kernels.sample_changes, num_modules=sum(num_modules)),
            by_unit=[
                _stack_labels([labels[moved] for labels in before], num_modules),
                _stack_labels([labels[moved] for labels in after], num_modules),
                1.0 / self.activations.std[moved],
            ],
            executor=self.executor,
            only_units=moved,
        )
        old, new = (self._mean_sums(labels, num_modules) for labels in (before, after))
        shifts = [now - then for then, now in zip(old, new, strict=True)]
        for table, change in zip(tables, _sample_tables(changes, shifts), strict=True):
            table += change
        return list(tables)

    def update_unit_tables(
        self,
        tables: Sequence[FloatArray],
        before: Sequence[LabelArray],
        after: Sequence[LabelArray],
    ) -> list[FloatArray]:
        """T_u of every search after samples moved, as `update_sample_tables`."""
        num_modules = [table.shape[1] for table in tables]
        moved = _moved_items(before, after)
        if not moved.size:
            return list(tables)
        if self._prefers_full_pass(before, after, axis=0):
            return self.unit_tables(after, num_modules)
        old, new = (
            _stack_labels([labels[moved] for labels in side], num_modules)
            for side in (before, after)
        )
        # Few samples move, and sums of the modules that none of them left or joined stay: they
        # would be most of what a worker sends back.
        changed = np.unique([old[old != new], new[old != new]])
        stacks = [np.searchsorted(changed, labels).astype(np.int32) for labels in (old, new)]
        _, changes = map_reduce(
            self.activations.raw,
            partial(kernels.unit_changes, num_modules=len(changed)),
            by_sample=stacks,
            executor=self.executor,
            only_samples=moved,
        )
        assert changes is not None
        then, now = (np.concatenate(_sizes(side, num_modules)) for side in (before, after))
        columns = [column for table in tables for column in table.T]
        for module, change in zip(changed, changes, strict=True):
            shifted = change - (now - then)[module] * self.activations.mean
            columns[module] += shifted / self.activations.std
        return list(tables)

    def load_block(self, units: slice) -> ActivationMatrix:
        """A block of units, made of whole chunks, in memory once a pass has read it."""
        raw = self.activations.raw
        if isinstance(raw, KeptMatrix):
            raw = raw.select_units(units)
        else:
            raw = keep_matrix(raw, self.executor, units=units)
        part = Standardised(raw, self.activations.mean[units], self.activations.std[units])
        return ActivationMatrix(part, self.executor, resident=True)

    def _finite(self, tables: Iterator[FloatArray]) -> list[FloatArray]:
        # A number that is not finite shows in the sums; only then does a pass look for it.
        built = list(tables)
        if not all(np.isfinite(table.sum()) for table in built):
            raise_not_finite(self.activations, self.executor)
        return built

    def _unit_tables(
        self, sums: FloatArray | None, sizes: Sequence[AnyArray]
    ) -> Iterator[FloatArray]:
        """T_u, or its change, from sums of a [modules, units] (or theirs) and module sizes."""
        assert sums is not None
        slices = consecutive_slices([len(size) for size in sizes])
        for part, size in zip(slices, sizes, strict=True):
            table = np.empty((self.activations.n_units, len(size)))
            # Module by module: temporaries stay in the cache.
            for k, sums_of_module in enumerate(sums[part]):
                shifted = sums_of_module - size[k] * self.activations.mean
                np.divide(shifted, self.activations.std, out=table[:, k])
            yield table

    def _mean_sums(
        self, unit_labels: Sequence[LabelArray], num_modules: Sequence[int]
    ) -> list[FloatArray]:
        """Sum of mean / std over the units of each module [K], by search."""
        weights = self.activations.mean / self.activations.std
        pairs = zip(unit_labels, num_modules, strict=True)
        return [np.asarray(np.bincount(labels, weights, k), np.float64) for labels, k in pairs]

    def _prefers_full_pass(
        self, before: Sequence[LabelArray], after: Sequence[LabelArray], *, axis: int
    ) -> bool:
        """Whether an update from the moved items would take longer than a full pass."""
        if self.resident:
            pairs = zip(before, after, strict=True)
            moved = np.mean([np.mean(old != new) for old, new in pairs])
            return bool(moved > _MAX_MOVED_SHARE)
        slices = block_slices(self.activations.raw)[axis]
        ends = np.array([part.stop for part in slices])
        touched = np.unique(np.searchsorted(ends, _moved_items(before, after), side="right"))
        read = sum(slices[i].stop - slices[i].start for i in touched)
        return bool(read > _MAX_UPDATE_SHARE * self.activations.shape[axis])


def build_unit_tables(
    parts: Sequence[ActivationMatrix],
    sample_labels: Sequence[LabelArray],
    num_modules: Sequence[int],
) -> list[list[FloatArray]]:
    """T_u of every search for each of some parts of a matrix, by one pass."""
    stacked, sizes = _stack_labels(sample_labels, num_modules), _sizes(sample_labels, num_modules)
    kernel = partial(kernels.unit_sums, num_modules=sum(num_modules))
    passes = [Pass(part.activations.raw, kernel, by_sample=[stacked]) for part in parts]
    done = map_reduce_all(passes, parts[0].executor)
    return [
        part._finite(part._unit_tables(sums, sizes))
        for part, (_, sums) in zip(parts, done, strict=True)
    ]


def build_sample_tables(
    parts: Sequence[ActivationMatrix],
    unit_labels: Sequence[Sequence[LabelArray]],
    num_modules: Sequence[int],
) -> Iterator[list[FloatArray]]:
    """T_s of every search for each of some parts, which have labels of their own, by one pass."""
    kernel = partial(kernels.sample_sums, num_modules=sum(num_modules))
    passes = [
        Pass(
            part.activations.raw,
            kernel,
            by_unit=[_stack_labels(labels, num_modules), part.activations.weights],
        )
        for part, labels in zip(parts, unit_labels, strict=True)
    ]
    done = map_reduce_all(passes, parts[0].executor)
    for part, labels, (sums, _) in zip(parts, unit_labels, done, strict=True):
        yield part._finite(_sample_tables(sums, part._mean_sums(labels, num_modules)))


def _stack_labels(labels: Sequence[LabelArray], num_modules: Sequence[int]) -> LabelArray:
    """Labels [searches, items], each search's modules numbered after those of the one before."""
    slices = consecutive_slices(num_modules)
    shifted = [label + part.start for label, part in zip(labels, slices, strict=True)]
    return np.stack(shifted).astype(np.int32)


def _sizes(labels: Sequence[LabelArray], num_modules: Sequence[int]) -> list[AnyArray]:
    """Items in each module [K], by search."""
    return [np.bincount(one, minlength=k) for one, k in zip(labels, num_modules, strict=True)]


def _sample_tables(sums: FloatArray | None, shifts: Sequence[FloatArray]) -> Iterator[FloatArray]:
    """T_s, or its change, from weighted sums of a [samples, modules] and those of the means."""
    assert sums is not None
    slices = consecutive_slices([len(shift) for shift in shifts])
    for part, shift in zip(slices, shifts, strict=True):
        yield np.ascontiguousarray(sums[:, part] - shift)


def _moved_items(before: Sequence[LabelArray], after: Sequence[LabelArray]) -> LabelArray:
    """Items that moved in any search, ascending."""
    changed = np.zeros(len(before[0]), bool)
    for old, new in zip(before, after, strict=True):
        changed |= old != new
    return np.flatnonzero(changed)
