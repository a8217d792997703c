"""The search for modules: starts, iterations over shared passes, and the best of the restarts."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.iterd.objective import checked_labels
from ulcmod_dist.iterd.search import Search
from ulcmod_dist.iterd.start import largest_mean, principal_components, start_samples
from ulcmod_dist.iterd.values import Iteration, Modules
from ulcmod_dist.passes.executors import Executor, executor_named
from ulcmod_dist.passes.finite import check_finite
from ulcmod_dist.passes.standardised import AnyArray, LabelArray, Standardised, from_array
from ulcmod_dist.passes.tables import both_tables, sample_tables, unit_tables

SweepOrders = Sequence[tuple[AnyArray, AnyArray]]
Progress = Callable[[Iteration], None]


def discover(
    activations: AnyArray,
    num_modules: int,
    *,
    restarts: int = 1,
    seed: int = 0,
    max_iterations: int = 100,
    executor: str | Executor = "threads",
    initial_sample_labels: AnyArray | None = None,
    initial_unit_labels: AnyArray | None = None,
    sweep_orders: SweepOrders | None = None,
    progress: Progress | None = None,
) -> Modules:
    """Find the modules that maximise L(F) by IterD.

    An iteration visits all units in random order and moves each to the module where L is highest,
    then all samples likewise. It ends when nothing moved, at ``max_iterations``, or when given
    orders are used up. The restarts share passes over the matrix.

    Args:
        activations: NumPy or Dask array of floats [samples, units], used as given, or a
            `Standardised`.
        num_modules: Number of modules K.
        restarts: Starts of the search; the best L wins.
        seed: Seed of starts and sweep orders.
        max_iterations: Iterations at most.
        executor: Where passes run: ``threads``, or an executor.
        initial_sample_labels: Module of each sample at the start; balanced k-means by default, or
            the largest mean z where only units have labels.
        initial_unit_labels: Module of each unit at the start; by default the one with the largest
            mean z over its samples.
        sweep_orders: Pairs (order of units, order of samples), one an iteration; random by default.
        progress: Called with each `Iteration` as it is done.

    Raises:
        InvalidInput: K beyond samples or units, labels or orders that do not fit, or activations
            that are not finite.
    """
    standardised = from_array(activations)
    _check(standardised, num_modules, restarts, max_iterations)
    orders = None if sweep_orders is None else _checked_orders(sweep_orders, standardised)
    run = executor_named(executor)
    samples = _given(initial_sample_labels, standardised.n_samples, num_modules, "sample")
    units = _given(initial_unit_labels, standardised.n_units, num_modules, "unit")
    searches = _started(standardised, num_modules, restarts, seed, samples, units, run)
    _complete(standardised, searches, run)
    limit = max_iterations if orders is None else min(max_iterations, len(orders))
    for search in searches:
        _report(search.record(0, 0, 0.0), progress)
    for _ in range(limit):
        active = [search for search in searches if not search.converged]
        if not active:
            break
        _iterate(standardised, active, orders, run, progress)
    return _best(searches)


def _check(activations: Standardised, num_modules: int, restarts: int, max_iterations: int) -> None:
    most = min(activations.shape)
    if not 1 <= num_modules <= most:
        raise InvalidInput(
            f"K = {num_modules} modules do not fit {activations.n_samples} samples and "
            f"{activations.n_units} units.",
            f"Choose K from 1 to {most}.",
        )
    if restarts < 1 or max_iterations < 0:
        raise InvalidInput(
            f"A search needs a restart and no negative number of iterations, not {restarts} and "
            f"{max_iterations}."
        )


def _checked_orders(
    orders: SweepOrders, activations: Standardised
) -> list[tuple[LabelArray, LabelArray]]:
    checked = [tuple(np.asarray(order) for order in pair) for pair in orders]
    for pair in checked:
        for order, length in zip(pair, (activations.n_units, activations.n_samples), strict=True):
            if not np.array_equal(np.sort(order), np.arange(length)):
                raise InvalidInput(
                    f"A sweep order holds each number from 0 to {length - 1} once.",
                    "Give pairs (order of units, order of samples).",
                )
    return [(units.astype(np.int32), samples.astype(np.int32)) for units, samples in checked]


def _given(labels: AnyArray | None, length: int, num_modules: int, kind: str) -> LabelArray | None:
    return None if labels is None else checked_labels(labels, length, num_modules, kind)


def _started(
    activations: Standardised,
    num_modules: int,
    restarts: int,
    seed: int,
    samples: LabelArray | None,
    units: LabelArray | None,
    executor: Executor,
) -> list[Search]:
    """Searches with labels of samples and units, their tables still missing."""
    if samples is None and units is not None:
        (table,) = sample_tables(activations, [units], [num_modules], executor)
        _check_sums(activations, [table], executor)
        samples = largest_mean(table, units)
    if samples is not None:
        starts = [samples.copy() for _ in range(restarts)]
    else:
        points = principal_components(activations, seed, executor)
        starts = [
            start_samples(points, num_modules, np.random.default_rng([seed, 2, num_modules, r]))
            for r in range(restarts)
        ]
    if units is not None:
        unit_starts = [units.copy() for _ in range(restarts)]
    else:
        tables = unit_tables(activations, starts, [num_modules] * restarts, executor)
        _check_sums(activations, tables, executor)
        unit_starts = [
            largest_mean(table, labels) for table, labels in zip(tables, starts, strict=True)
        ]
    return [
        Search(restart, num_modules, seed, *labels)
        for restart, labels in enumerate(zip(starts, unit_starts, strict=True))
    ]


def _complete(activations: Standardised, searches: list[Search], executor: Executor) -> None:
    """Both tables of every search, and no module empty."""
    pending = searches
    while pending:
        sample_side, unit_side = both_tables(
            activations,
            [search.sample_labels for search in pending],
            [search.unit_labels for search in pending],
            [search.num_modules for search in pending],
            executor,
        )
        _check_sums(activations, [*sample_side, *unit_side], executor)
        for search, by_sample, by_unit in zip(pending, sample_side, unit_side, strict=True):
            search.sample_table, search.unit_table = by_sample, by_unit
        pending = [search for search in pending if search.repair()]


def _check_sums(activations: Standardised, tables: Sequence[AnyArray], executor: Executor) -> None:
    # A number that is not finite shows in the sums it is part of; only then is it looked for.
    if not all(np.isfinite(table.sum()) for table in tables):
        check_finite(activations, executor)


def _iterate(
    activations: Standardised,
    searches: list[Search],
    orders: list[tuple[LabelArray, LabelArray]] | None,
    executor: Executor,
    progress: Progress | None,
) -> None:
    """One iteration of every search; they read the matrix together."""
    started = time.perf_counter()
    ks = [search.num_modules for search in searches]
    units_moved = [
        search.sweep_units(_order(search, orders, 0, activations.n_units)) for search in searches
    ]
    labels = [search.unit_labels for search in searches]
    for search, table in zip(
        searches, sample_tables(activations, labels, ks, executor), strict=True
    ):
        search.sample_table = table
    samples_moved = [
        search.sweep_samples(_order(search, orders, 1, activations.n_samples))
        for search in searches
    ]
    labels = [search.sample_labels for search in searches]
    for search, table in zip(searches, unit_tables(activations, labels, ks, executor), strict=True):
        search.unit_table = table
    seconds = (time.perf_counter() - started) / len(searches)
    for search, units, samples in zip(searches, units_moved, samples_moved, strict=True):
        _report(search.record(units, samples, seconds), progress)


def _order(
    search: Search, orders: list[tuple[LabelArray, LabelArray]] | None, side: int, items: int
) -> LabelArray:
    iteration = search.iteration + 1
    return search.order(items, iteration, side) if orders is None else orders[iteration - 1][side]


def _report(iteration: Iteration, progress: Progress | None) -> None:
    if progress is not None:
        progress(iteration)


def _best(searches: list[Search]) -> Modules:
    values = [search.history[-1].objective for search in searches]
    best = searches[int(np.argmax(values))]
    unit_margins, sample_margins = best.margins()
    return Modules(
        sample_labels=best.sample_labels,
        unit_labels=best.unit_labels,
        objective=best.objective(),
        history=[record for search in searches for record in search.history],
        unit_margins=unit_margins,
        sample_margins=sample_margins,
        restarts=values,
        best_restart=best.restart,
        repaired=best.repaired,
    )
