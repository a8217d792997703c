"""The searches of a run at their start: given labels, balanced k-means, largest means."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.iterd.checkpoint import Checkpoint
from ulcmod_dist.iterd.matrix import ActivationMatrix
from ulcmod_dist.iterd.objective import validate_labels
from ulcmod_dist.iterd.search import Search, search_from_state
from ulcmod_dist.iterd.settings import Settings
from ulcmod_dist.iterd.start import assign_to_largest_mean, principal_components, start_samples
from ulcmod_dist.passes.standardised import AnyArray, FloatArray, LabelArray, Standardised


def init_searches(
    matrix: ActivationMatrix, modules: Sequence[int], settings: Settings
) -> list[Search]:
    """Searches with labels for every K and restart; their tables are still missing."""
    given_samples = _parse_initial_labels(
        settings.initial_sample_labels, matrix.activations.n_samples, modules
    )
    given_units = _parse_initial_labels(
        settings.initial_unit_labels, matrix.activations.n_units, modules
    )
    places = [(k, restart) for k in modules for restart in range(settings.restarts)]
    if given_samples is None and given_units is None:
        points = principal_components(matrix.activations, settings.seed, matrix.executor)
        starts = [
            start_samples(points, k, np.random.default_rng([settings.seed, 2, k, restart]))
            for k, restart in places
        ]
        units_started = _assign_units(matrix, starts, [k for k, _ in places])
    else:
        k = modules[0]
        one = _complete_labels(matrix, k, given_samples, given_units)
        starts = [one[0].copy() for _ in places]
        units_started = [one[1].copy() for _ in places]
    return [
        Search(restart, k, settings.seed, samples, units, tolerance=settings.tolerance)
        for (k, restart), samples, units in zip(places, starts, units_started, strict=True)
    ]


def resume_searches(
    checkpoint: Checkpoint, modules: Sequence[int], settings: Settings
) -> list[Search]:
    """Searches that go on from a checkpoint; their tables are still missing.

    Raises:
        InvalidInput: The checkpoint is of another search.
    """
    wanted = [(k, restart) for k in modules for restart in range(settings.restarts)]
    found = [(state.num_modules, state.restart) for state in checkpoint.states]
    if found != wanted or checkpoint.seed != settings.seed:
        raise InvalidInput(
            f"The checkpoint is of a search with seed {checkpoint.seed} for K = "
            f"{sorted({k for k, _ in found})}, {len(found)} starts in all; this one has seed "
            f"{settings.seed}, K = {list(modules)} and {len(wanted)} starts.",
            "Resume with the settings of the earlier search, or start anew.",
        )
    return [
        search_from_state(state, settings.seed, settings.tolerance) for state in checkpoint.states
    ]


def build_tables(matrix: ActivationMatrix, searches: Sequence[Search]) -> None:
    """Build both tables of every search, and give each empty module an item."""
    pending = list(searches)
    while pending:
        by_sample, by_unit = matrix.both_tables(
            [search.sample_labels for search in pending],
            [search.unit_labels for search in pending],
            [search.num_modules for search in pending],
        )
        for search, sample_table, unit_table in zip(pending, by_sample, by_unit, strict=True):
            search.sample_table, search.unit_table = sample_table, unit_table
        pending = [search for search in pending if search.fill_empty_modules()]


def validate_sweep_orders(
    orders: Sequence[tuple[AnyArray, AnyArray]], activations: Standardised
) -> list[tuple[LabelArray, LabelArray]]:
    """Sweep orders that visit everything once.

    Raises:
        InvalidInput: An order that does not.
    """
    lengths = activations.n_units, activations.n_samples
    for pair in orders:
        for order, length in zip(pair, lengths, strict=True):
            if not np.array_equal(np.sort(np.asarray(order)), np.arange(length)):
                raise InvalidInput(
                    f"A sweep order holds each number from 0 to {length - 1} once.",
                    "Give pairs (order of units, order of samples).",
                )
    return [
        (np.asarray(units, np.int32), np.asarray(samples, np.int32)) for units, samples in orders
    ]


def _parse_initial_labels(
    labels: AnyArray | None, length: int, modules: Sequence[int]
) -> LabelArray | None:
    if labels is None:
        return None
    if len(modules) > 1:
        raise InvalidInput(
            f"Initial labels belong to one K, not to {list(modules)}.",
            "Search for one K at a time.",
        )
    return validate_labels(labels, length, modules[0], lowest=-1)


def _complete_labels(
    matrix: ActivationMatrix, k: int, samples: LabelArray | None, units: LabelArray | None
) -> tuple[LabelArray, LabelArray]:
    """Given labels, with every -1 replaced by the module of the largest mean z."""
    samples = np.full(matrix.activations.n_samples, -1, np.int32) if samples is None else samples
    units = np.full(matrix.activations.n_units, -1, np.int32) if units is None else units
    if (samples < 0).all() and (units < 0).all():
        raise InvalidInput("None of the initial labels names a module.", "Leave them out.")
    if (samples < 0).all():
        samples = _fill_missing(samples, _labels_from_other_side(matrix.sample_tables, units, k))
    if (units < 0).any():
        units = _fill_missing(units, _labels_from_other_side(matrix.unit_tables, samples, k))
    if (samples < 0).any():
        samples = _fill_missing(samples, _labels_from_other_side(matrix.sample_tables, units, k))
    return samples, units


def _labels_from_other_side(tables: AnyArray, labels: LabelArray, k: int) -> LabelArray:
    """Module of the largest mean z over the other side's items with a label."""
    # Items without a label are summed into a module of their own, which nobody may choose.
    with_rest = np.where(labels < 0, k, labels)
    (table,) = tables([with_rest], [k + 1])
    known: FloatArray = table[:, :k]
    return assign_to_largest_mean(known, labels[labels >= 0])


def _fill_missing(labels: LabelArray, others: LabelArray) -> LabelArray:
    return np.where(labels < 0, others, labels).astype(np.int32)


def _assign_units(
    matrix: ActivationMatrix, starts: list[LabelArray], num_modules: list[int]
) -> list[LabelArray]:
    tables = matrix.unit_tables(starts, num_modules)
    return [
        assign_to_largest_mean(table, labels) for table, labels in zip(tables, starts, strict=True)
    ]
