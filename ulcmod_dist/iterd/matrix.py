"""The activations of a search, kept in memory or read anew by every pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import dask.array as da
import numpy as np

from ulcmod_dist.iterd.plan import SearchPlan, unit_blocks
from ulcmod_dist.passes.executors import Executor
from ulcmod_dist.passes.linalg import check_finite
from ulcmod_dist.passes.local import select_block_columns
from ulcmod_dist.passes.map_reduce import block_slices
from ulcmod_dist.passes.standardised import AnyArray, FloatArray, LabelArray, Standardised
from ulcmod_dist.passes.tables import (
    both_tables,
    sample_tables,
    unit_tables,
    update_sample_tables,
    update_unit_tables,
)


@dataclass(frozen=True, eq=False)
class ActivationMatrix:
    """Standardised activations and where their passes run.

    Attributes:
        activations: The activations.
        executor: Where passes run.
        resident: All chunks are in memory.
    """

    activations: Standardised
    executor: Executor
    resident: bool

    def unit_tables(
        self, sample_labels: Sequence[LabelArray], num_modules: Sequence[int]
    ) -> list[FloatArray]:
        """T_u [units, K] of every search, by one pass."""
        tables = unit_tables(self.activations, sample_labels, num_modules, self.executor)
        return self._finite(tables)

    def sample_tables(
        self, unit_labels: Sequence[LabelArray], num_modules: Sequence[int]
    ) -> list[FloatArray]:
        """T_s [samples, K] of every search, by one pass."""
        tables = sample_tables(self.activations, unit_labels, num_modules, self.executor)
        return self._finite(tables)

    def both_tables(
        self,
        sample_labels: Sequence[LabelArray],
        unit_labels: Sequence[LabelArray],
        num_modules: Sequence[int],
    ) -> tuple[list[FloatArray], list[FloatArray]]:
        """T_s and T_u of every search, by one pass."""
        by_sample, by_unit = both_tables(
            self.activations, sample_labels, unit_labels, num_modules, self.executor
        )
        return self._finite(by_sample), self._finite(by_unit)

    def update_sample_tables(
        self,
        tables: Sequence[FloatArray],
        before: Sequence[LabelArray],
        after: Sequence[LabelArray],
    ) -> list[FloatArray]:
        """T_s of every search after units moved."""
        return update_sample_tables(
            self.activations, tables, before, after, self.executor, resident=self.resident
        )

    def update_unit_tables(
        self,
        tables: Sequence[FloatArray],
        before: Sequence[LabelArray],
        after: Sequence[LabelArray],
    ) -> list[FloatArray]:
        """T_u of every search after samples moved."""
        return update_unit_tables(
            self.activations, tables, before, after, self.executor, resident=self.resident
        )

    def blocks(self, blocks: Sequence[slice]) -> Iterator[ActivationMatrix]:
        """Blocks of units in memory, one after the other, the next one loading meanwhile.

        Args:
            blocks: Units of each block, made of whole chunks, in the order wanted.
        """
        if self.resident:
            yield from (self._block(block) for block in blocks)
            return
        with ThreadPoolExecutor(1, "next-block") as loader:
            coming = loader.submit(self._block, blocks[0])
            for following in [*blocks[1:], None]:
                block = coming.result()
                if following is not None:
                    coming = loader.submit(self._block, following)
                yield block

    def _block(self, units: slice) -> ActivationMatrix:
        raw = self.activations.raw
        if isinstance(raw, da.Array):
            starts = [part.start for part in block_slices(raw)[1]]
            first, end = np.searchsorted(starts, [units.start, units.stop])
            raw = select_block_columns(raw, int(first), int(end))
            raw = raw if self.resident else self.executor.persist(raw)
        else:
            raw = raw[:, units]
        part = Standardised(raw, self.activations.mean[units], self.activations.std[units])
        return ActivationMatrix(part, self.executor, True)

    def _finite(self, tables: list[FloatArray]) -> list[FloatArray]:
        # A number that is not finite shows in the sums it is part of; only then is it looked for.
        if not all(np.isfinite(table.sum()) for table in tables):
            check_finite(self.activations, self.executor)
        return tables


def open_matrix(
    activations: Standardised, plan: SearchPlan, executor: Executor
) -> ActivationMatrix:
    """The matrix as the plan says: decoded and kept, or read anew by every pass."""
    raw: AnyArray = activations.raw
    if not isinstance(raw, da.Array):
        if executor.in_process:
            return ActivationMatrix(activations, executor, True)
        rows, columns = block_slices(raw)
        if plan.mode == "blockwise":
            columns = unit_blocks(activations, plan.block_units)
        chunks = [[part.stop - part.start for part in parts] for parts in (rows, columns)]
        from_array = getattr(da, "from_array")  # noqa: B009 - untyped in Dask
        raw = from_array(raw, chunks=chunks)
        activations = Standardised(raw, activations.mean, activations.std)
    if not plan.resident:
        return ActivationMatrix(activations, executor, False)
    if plan.keep == "float16" and raw.dtype != np.float16:
        z = ((raw - activations.mean) / activations.std).astype(np.float16)
        units = activations.n_units
        kept = Standardised(executor.persist(z), np.zeros(units), np.ones(units))
        return ActivationMatrix(kept, executor, True)
    kept = Standardised(executor.persist(raw), activations.mean, activations.std)
    return ActivationMatrix(kept, executor, True)
