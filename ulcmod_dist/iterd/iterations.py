"""One iteration of IterD, for all searches that share the matrix, in either mode.

Both modes move one unit or sample at a time and judge each move by sums that are up to date, so
every accepted move raises L.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import zip_longest
from typing import Any, TypeAlias

import numpy as np
from dask.system import CPU_COUNT

from ulcmod_dist.iterd.search import Search
from ulcmod_dist.iterd.sweep import sweep_part
from ulcmod_dist.passes.matrix import (
    ActivationMatrix,
    build_sample_tables,
    build_unit_tables,
)
from ulcmod_dist.passes.standardised import FloatArray, LabelArray

SweepOrders: TypeAlias = Sequence[tuple[LabelArray, LabelArray]]
Parts: TypeAlias = list[ActivationMatrix]
"""Blocks in memory; empty once nothing will read them any more."""


def exact_iteration(
    matrix: ActivationMatrix, searches: Sequence[Search], orders: SweepOrders | None
) -> list[tuple[int, int]]:
    """All units in one random order, then all samples; whole tables, updated before each sweep.

    Given sweep orders hold one pair an iteration. Returns units and samples moved, by search.
    """
    pairs = [orders[s.iteration] if orders else (None, None) for s in searches]
    # Only here, where it is read: after the last iteration it would be in vain.
    unit_side = matrix.update_unit_tables(
        [search.unit_table for search in searches],
        [search.summed_labels for search in searches],
        [search.sample_labels for search in searches],
    )
    for search, table in zip(searches, unit_side, strict=True):
        search.unit_table, search.summed_labels = table, search.sample_labels.copy()
    before = [search.unit_labels.copy() for search in searches]
    units_moved = sweep_together(Search.sweep_units, searches, [units for units, _ in pairs])
    sample_side = matrix.update_sample_tables(
        [search.sample_table for search in searches],
        before,
        [search.unit_labels for search in searches],
    )
    for search, table in zip(searches, sample_side, strict=True):
        search.sample_table = table
    samples_moved = sweep_together(Search.sweep_samples, searches, [order for _, order in pairs])
    return list(zip(units_moved, samples_moved, strict=True))


def blockwise_iteration(
    matrix: ActivationMatrix,
    searches: Sequence[Search],
    blocks: Sequence[slice],
    seed: int,
    together: int = 1,
) -> list[tuple[int, int]]:
    """Blocks of units in random order, a random order inside each; then all samples.

    While a block is in memory, its part of T_u is built, its units are swept, and its part of T_s
    is built from their new labels: one read of the matrix. Meanwhile the next block is read and its
    part of T_u built, since sample labels stay. So many blocks ``together`` share passes. Returns
    units and samples moved, by search.
    """
    # Searches that share the reads share the order of the blocks: all are in the same iteration.
    key = [seed, 3, *searches[0].step]
    order = np.random.default_rng(key).permutation(len(blocks))
    sizes = [search.unit_sizes for search in searches]
    samples = np.arange(matrix.activations.n_samples)
    inside = [float(np.sum(s.sample_table[samples, s.sample_labels])) for s in searches]
    moved = [0] * len(searches)

    def sweep_block(units: slice, by_unit: list[FloatArray]) -> list[LabelArray]:
        def sweep(i: int) -> int:
            search, labels = searches[i], searches[i].unit_labels[units]
            inner = search.random_order(units.stop - units.start, 2 + units.start)
            count, inside[i] = sweep_part(
                by_unit[i], labels, inner, sizes[i], search.sample_sizes, inside[i]
            )
            return count

        for i, count in enumerate(sweep_together(sweep, range(len(searches)))):
            moved[i] += count
        return [search.unit_labels[units] for search in searches]

    ks = [search.num_modules for search in searches]
    labels = [search.sample_labels for search in searches]
    chosen = [blocks[i] for i in order]
    tables = overlap_blocks(matrix, chosen, labels, ks, sweep_block, together=together)
    for search, table in zip(searches, tables, strict=True):
        search.sample_table = table
    samples_moved = sweep_together(Search.sweep_samples, searches)
    return list(zip(moved, samples_moved, strict=True))


def sweep_together(sweep: Callable[..., int], *arguments: Sequence[Any]) -> list[int]:
    """Sweeps of independent searches on the cores of this machine; how many items each moved."""
    if len(arguments[0]) == 1:  # starting threads takes half as long as a sweep
        return list(map(sweep, *arguments))
    with ThreadPoolExecutor(CPU_COUNT, "sweep") as pool:
        return list(pool.map(sweep, *arguments))


def overlap_blocks(
    matrix: ActivationMatrix,
    blocks: Sequence[slice],
    sample_labels: Sequence[LabelArray],
    num_modules: Sequence[int],
    sweep_block: Callable[[slice, list[FloatArray]], Sequence[LabelArray]],
    *,
    together: int = 1,
) -> list[FloatArray]:
    """Build the parts of T_u of all blocks, and T_s of the labels that ``sweep_block`` returns.

    ``sweep_block`` is called with the units and the part of T_u of each block in order, while
    passes over those before and after it are under way; so many blocks ``together`` share a pass.
    Returns T_s [samples, K] of every search; it is added up in the order of the blocks.
    """
    tables = [np.zeros((matrix.activations.n_samples, k)) for k in num_modules]
    groups = [blocks[first : first + together] for first in range(0, len(blocks), together)]

    def build(group: Sequence[slice], added: Future[None] | None) -> tuple[Parts, Any]:
        # No more than this group and the one that is swept are in memory.
        if added is not None:
            added.result()
        parts = [matrix.load_block(units) for units in group]
        return parts, build_unit_tables(parts, sample_labels, num_modules)

    def add(parts: Parts, labels: Sequence[Any], added: Future[None] | None) -> None:
        built = list(build_sample_tables(parts, labels, num_modules))
        # A block is freed once it has been read, though the future still has the list.
        parts.clear()
        if added is not None:
            added.result()
        for of_block in built:
            for table, part in zip(tables, of_block, strict=True):
                table += part

    added: Future[None] | None = None
    with ThreadPoolExecutor(2, "blocks") as passes:
        coming = passes.submit(build, groups[0], None)
        for group, following in zip_longest(groups, groups[1:]):
            parts, by_unit = coming.result()
            if following is not None:
                coming = passes.submit(build, following, added)
            labels = [sweep_block(*one) for one in zip(group, by_unit, strict=True)]
            added = passes.submit(add, parts, labels, added)
        assert added is not None
        added.result()
    return tables
