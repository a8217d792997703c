"""The search for modules: starts, iterations over shared passes, and the best of the restarts."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from ulcmod_dist.iterd.agreement import agreement, stability
from ulcmod_dist.iterd.begin import (
    build_tables,
    init_searches,
    resume_searches,
    validate_sweep_orders,
)
from ulcmod_dist.iterd.checkpoint import Checkpoint
from ulcmod_dist.iterd.iterations import SweepOrders, blockwise_iteration, exact_iteration
from ulcmod_dist.iterd.matrix import ActivationMatrix, open_matrix
from ulcmod_dist.iterd.plan import SearchPlan, plan_search, unit_blocks
from ulcmod_dist.iterd.search import Search
from ulcmod_dist.iterd.settings import Mode, Precision, Settings
from ulcmod_dist.iterd.values import Iteration, Modules
from ulcmod_dist.passes.executors import Executor, open_executor
from ulcmod_dist.passes.standardised import AnyArray, as_standardised

# Relative difference of two L that may be the same modules, summed in another order.
_ROUNDING = 1e-12


def discover(
    activations: AnyArray,
    num_modules: int,
    *,
    restarts: int = 1,
    seed: int = 0,
    max_iterations: int = 100,
    tolerance: float = 0.0,
    mode: Mode = "auto",
    memory: int | None = None,
    keep: Precision = "float32",
    block_units: int | None = None,
    executor: str | Executor = "threads",
    initial_sample_labels: AnyArray | None = None,
    initial_unit_labels: AnyArray | None = None,
    sweep_orders: Sequence[tuple[AnyArray, AnyArray]] | None = None,
    progress: Callable[[Iteration], None] | None = None,
    checkpoint: Callable[[Checkpoint], None] | None = None,
    resume: Checkpoint | None = None,
) -> Modules:
    """Find the modules that maximise L(F) by IterD.

    An iteration visits all units in random order and moves each to the module where L is highest,
    then all samples likewise. It ends when nothing moved or L hardly rose (``tolerance``), at
    ``max_iterations``, or when given orders are used up. The restarts share passes over the matrix.

    Args:
        activations: NumPy or Dask array of floats [samples, units], used as given, or a
            `Standardised`.
        num_modules: Number of modules K.
        restarts: Starts of the search; the best L wins.
        seed: Seed of starts and sweep orders.
        max_iterations: Iterations at most.
        tolerance: An iteration that raises L by no more than this share of it is the last; with 0
            the search ends when nothing moves.
        mode: ``exact``, ``blockwise``, or ``auto``: as memory allows.
        memory: Bytes the search may use; 70% of what the executor's machines have by default.
        keep: Precision of blocks kept in memory, ``float32`` or ``float16``.
        block_units: Units in a block of the blockwise mode.
        executor: Where passes run: ``threads``, ``distributed``, an address, ``ray``, or an
            executor.
        initial_sample_labels: Module of each sample at the start, -1 for the largest mean z;
            balanced k-means by default.
        initial_unit_labels: Module of each unit at the start, -1 (and the default) for the largest
            mean z.
        sweep_orders: Pairs (order of units, order of samples), one an iteration; random by default.
        progress: Called with each `Iteration` as it is done.
        checkpoint: Called with a `Checkpoint` after the start and after each iteration.
        resume: A checkpoint of the same search, to go on from.

    Raises:
        InvalidInput: K beyond samples or units, labels or orders that do not fit, too little
            memory, or activations that are not finite.
    """
    settings = Settings(
        restarts=restarts,
        seed=seed,
        max_iterations=max_iterations,
        tolerance=tolerance,
        mode=mode,
        memory=memory,
        keep=keep,
        block_units=block_units,
        executor=executor,
        initial_sample_labels=initial_sample_labels,
        initial_unit_labels=initial_unit_labels,
        sweep_orders=sweep_orders,
        progress=progress,
        checkpoint=checkpoint,
        resume=resume,
    )
    return discover_all(activations, [num_modules], settings)[num_modules]


def discover_all(
    activations: AnyArray, modules: Sequence[int], settings: Settings
) -> dict[int, Modules]:
    """Find modules for several K at once; all K and restarts share passes over the matrix.

    Args:
        activations: NumPy or Dask array of floats [samples, units], used as given, or a
            `Standardised`.
        modules: Every K, distinct.
        settings: Options, for every K.

    Returns:
        The best modules for each K.

    Raises:
        InvalidInput: As `discover`.
    """
    standardised = as_standardised(activations)
    orders = None
    if settings.sweep_orders is not None:
        orders = validate_sweep_orders(settings.sweep_orders, standardised)
    with open_executor(settings.executor) as executor:
        plan = plan_search(standardised, modules, settings, executor)
        matrix = open_matrix(standardised, plan, executor)
        searches = _searches(matrix, modules, plan, settings)
        if settings.resume is None:
            for search in searches:
                _report(search.record(0, 0, 0.0), settings)
            _save(searches, plan, settings)
        _iterate(matrix, searches, plan, orders, settings)
        return _answers(matrix, searches, modules, plan)


def _searches(
    matrix: ActivationMatrix, modules: Sequence[int], plan: SearchPlan, settings: Settings
) -> list[Search]:
    if settings.resume is None:
        searches = init_searches(matrix, modules, settings)
    else:
        searches = resume_searches(settings.resume, modules, settings)
    build_tables(matrix, searches)
    if plan.mode == "blockwise":
        for search in searches:
            search.unit_table = np.empty((0, 0))
    return searches


def _iterate(
    matrix: ActivationMatrix,
    searches: list[Search],
    plan: SearchPlan,
    orders: SweepOrders | None,
    settings: Settings,
) -> None:
    """Iterate every search until it has converged or used up its iterations."""
    limit = settings.max_iterations
    limit = limit if orders is None else min(limit, len(orders))
    blocks = unit_blocks(matrix.activations, plan.block_units) if plan.block_units else []
    while active := [s for s in searches if not s.converged and s.iteration < limit]:
        started = time.perf_counter()
        if plan.mode == "exact":
            moved = exact_iteration(matrix, active, orders)
        else:
            moved = blockwise_iteration(matrix, active, blocks, settings.seed)
        seconds = (time.perf_counter() - started) / len(active)
        for search, (units, samples) in zip(active, moved, strict=True):
            _report(search.record(units, samples, seconds), settings)
        _save(searches, plan, settings)


def _report(iteration: Iteration, settings: Settings) -> None:
    if settings.progress is not None:
        settings.progress(iteration)


def _save(searches: list[Search], plan: SearchPlan, settings: Settings) -> None:
    if settings.checkpoint is not None:
        states = tuple(search.state() for search in searches)
        settings.checkpoint(Checkpoint(settings.seed, plan.mode, plan.block_units, states))


def _answers(
    matrix: ActivationMatrix, searches: list[Search], modules: Sequence[int], plan: SearchPlan
) -> dict[int, Modules]:
    groups = {k: [s for s in searches if s.num_modules == k] for k in modules}
    best = {k: _best(group) for k, group in groups.items()}
    # From tables built anew: an update rounds otherwise, and an interrupted search updates less.
    build_tables(matrix, list(best.values()))
    return {k: _answer(best[k], groups[k]) for k in modules}


def _best(group: list[Search]) -> Search:
    """The first restart whose L none beats by more than rounding."""
    values = np.array([search.history[-1].objective for search in group])
    return group[int(np.argmax(values >= values.max() - _ROUNDING * abs(values.max())))]


def _answer(best: Search, group: list[Search]) -> Modules:
    others = [(s.sample_labels, s.unit_labels) for s in group if s is not best]
    by_sample, by_unit = stability(best.sample_labels, best.unit_labels, others, best.num_modules)
    unit_margins, sample_margins = best.margins()
    return Modules(
        sample_labels=best.sample_labels,
        unit_labels=best.unit_labels,
        objective=best.objective(),
        history=[record for search in group for record in search.history],
        unit_margins=unit_margins,
        sample_margins=sample_margins,
        unit_stability=by_unit,
        sample_stability=by_sample,
        unit_agreement=agreement([search.unit_labels for search in group]),
        sample_agreement=agreement([search.sample_labels for search in group]),
        restarts=[search.history[-1].objective for search in group],
        best_restart=best.restart,
        repaired=best.repaired,
    )
