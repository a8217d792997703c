"""One iteration of IterD, for all searches that share the matrix, in either mode.

Both modes move one unit or sample at a time and judge each move by sums that are up to date, so
every accepted move raises L.
"""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

from ulcmod_dist.iterd.search import Search
from ulcmod_dist.iterd.sweep import sweep_part
from ulcmod_dist.passes.matrix import ActivationMatrix
from ulcmod_dist.passes.standardised import LabelArray

SweepOrders: TypeAlias = Sequence[tuple[LabelArray, LabelArray]]


def exact_iteration(
    matrix: ActivationMatrix, searches: Sequence[Search], orders: SweepOrders | None
) -> list[tuple[int, int]]:
    """All units in one random order, then all samples; whole tables, updated after each sweep.

    Given sweep orders hold one pair an iteration. Returns units and samples moved, by search.
    """
    pairs = [orders[s.iteration] if orders else (None, None) for s in searches]
    before = [search.unit_labels.copy() for search in searches]
    units_moved = [s.sweep_units(units) for s, (units, _) in zip(searches, pairs, strict=True)]
    sample_side = matrix.update_sample_tables(
        [search.sample_table for search in searches],
        before,
        [search.unit_labels for search in searches],
    )
    for search, table in zip(searches, sample_side, strict=True):
        search.sample_table = table
    before = [search.sample_labels.copy() for search in searches]
    samples_moved = [s.sweep_samples(order) for s, (_, order) in zip(searches, pairs, strict=True)]
    unit_side = matrix.update_unit_tables(
        [search.unit_table for search in searches],
        before,
        [search.sample_labels for search in searches],
    )
    for search, table in zip(searches, unit_side, strict=True):
        search.unit_table = table
    return list(zip(units_moved, samples_moved, strict=True))


def blockwise_iteration(
    matrix: ActivationMatrix, searches: Sequence[Search], blocks: Sequence[slice], seed: int
) -> list[tuple[int, int]]:
    """Blocks of units in random order, a random order inside each; then all samples.

    While a block is in memory, its part of T_u is built, its units are swept, and its part of T_s
    is built from their new labels: one read of the matrix. Returns units and samples moved, by
    search.
    """
    # Searches that share the reads share the order of the blocks: all are in the same iteration.
    key = [seed, 3, *searches[0].step]
    order = np.random.default_rng(key).permutation(len(blocks))
    ks = [search.num_modules for search in searches]
    sizes = [search.unit_sizes for search in searches]
    samples = np.arange(matrix.activations.n_samples)
    inside = [float(np.sum(s.sample_table[samples, s.sample_labels])) for s in searches]
    tables = [np.zeros_like(search.sample_table) for search in searches]
    moved = [0] * len(searches)
    chosen = [blocks[i] for i in order]
    for units, block in zip(chosen, matrix.load_blocks(chosen), strict=True):
        by_unit = block.unit_tables([search.sample_labels for search in searches], ks)
        for i, search in enumerate(searches):
            inner = search.random_order(units.stop - units.start, 2 + units.start)
            labels = search.unit_labels[units]
            count, inside[i] = sweep_part(
                by_unit[i], labels, inner, sizes[i], search.sample_sizes, inside[i]
            )
            moved[i] += count
        parts = block.sample_tables([search.unit_labels[units] for search in searches], ks)
        for table, part in zip(tables, parts, strict=True):
            table += part
    for search, table in zip(searches, tables, strict=True):
        search.sample_table = table
    samples_moved = [search.sweep_samples() for search in searches]
    return list(zip(moved, samples_moved, strict=True))
