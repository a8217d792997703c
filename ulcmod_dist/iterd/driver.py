"""The search for modules: starts, iterations over shared passes, and the best of the restarts."""

import time
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from ulcmod_dist.config.schema import SearchConfig
from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.iterd.init import (
    build_tables,
    check_scale,
    init_searches,
    resume_searches,
    validate_sweep_orders,
)
from ulcmod_dist.iterd.iterations import SweepOrders, blockwise_iteration, exact_iteration
from ulcmod_dist.iterd.modules import Iteration, Modules, mean_rand_index, stability
from ulcmod_dist.iterd.plan import SearchPlan, check_modules, open_matrix, plan_search, unit_blocks
from ulcmod_dist.iterd.search import Checkpoint, Search
from ulcmod_dist.passes import moments
from ulcmod_dist.passes.executors import Executor, open_executor
from ulcmod_dist.passes.matrix import ActivationMatrix
from ulcmod_dist.passes.standardised import AnyArray, as_standardised

# Relative difference of two L that may be the same modules, summed in another order.
_ROUNDING = 1e-12
# The defaults of a job's search, so that no default is written twice.
_DEFAULTS = SearchConfig(modules=(1,))


def discover(
    activations: AnyArray,
    num_modules: int,
    *,
    standardize: bool = False,
    restarts: int = 1,
    seed: int = _DEFAULTS.seed,
    max_iterations: int = _DEFAULTS.max_iterations,
    tolerance: float = _DEFAULTS.tolerance,
    mode: Literal["auto", "exact", "blockwise"] = _DEFAULTS.mode,
    memory: int | None = _DEFAULTS.memory,
    keep: Literal["float32", "float16"] = _DEFAULTS.keep,
    block_units: int | None = None,
    executor: str | Executor = _DEFAULTS.executor,
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

    L compares deviations of units, so raw activations have to be standardised, as a run does; an
    array is taken as it is unless ``standardize`` says so.

    Args:
        activations: NumPy or Dask array of floats [samples, units], or a `Standardised`.
        num_modules: Number of modules K.
        standardize: Whether to standardise an array first: each unit less its mean over the
            samples, divided by its standard deviation (with n - 1; below 1e-8 it counts as 1). The
            modules are then those that a run finds in the same matrix. One more pass.
        restarts: Starts of the search; the best L wins. One by default, for a quick look; a job
            has ten, because the L of single starts spreads by about 0.5%.
        seed: Seed of starts and sweep orders.
        max_iterations: Iterations at most; 0 for the start alone.
        tolerance: An iteration that raises L by no more than this share of it is the last; with 0
            the search ends when nothing moves.
        mode: ``exact``: whole tables, every item visited in one random order. ``blockwise``: units
            are visited block by block, with one read of the matrix an iteration. ``auto``: exact
            where the matrix can be kept in memory, else blockwise.
        memory: Bytes the whole search may use on the machines of its executor, beside the
            interpreter itself; by default 70% of what they have.
        keep: How decoded blocks are kept in memory: ``float32`` keeps them as they are, ``float16``
            keeps z in half the space of float32 (its error is a quarter of that of float16 raw
            activations).
        block_units: Units in a block of the blockwise mode; by default as many as memory allows,
            at most an eighth of all.
        executor: Where passes run: ``threads``, ``distributed``, the address of a Dask scheduler,
            ``ray``, or an executor.
        initial_sample_labels: Module of each sample at the start, -1 for the largest mean z;
            balanced k-means by default.
        initial_unit_labels: Module of each unit at the start, -1 (and the default) for the largest
            mean z.
        sweep_orders: Pairs (order of units, order of samples), one an iteration, for the exact
            mode; random by default. The search ends after the last.
        progress: Called with each `Iteration` as it is done.
        checkpoint: Called with a `Checkpoint` after the start and after each iteration.
        resume: A checkpoint of the same search, to go on from.

    Raises:
        InvalidInput: K beyond samples or units, options, labels or orders that do not fit, too
            little memory, activations that are not finite, too large or too small to search, or
            none that vary where they are to be standardised.
    """
    # Before the options: a K that does not fit is to be named with the shape of the activations.
    check_modules(as_standardised(activations), [num_modules])
    config = SearchConfig.from_options(
        modules=(num_modules,),
        restarts=restarts,
        seed=seed,
        max_iterations=max_iterations,
        tolerance=tolerance,
        mode=mode,
        memory=memory,
        keep=keep,
    )
    with open_executor(executor) as tasks:
        return discover_all(
            moments.standardize(activations, tasks) if standardize else activations,
            [num_modules],
            config,
            executor=tasks,
            block_units=block_units,
            initial_sample_labels=initial_sample_labels,
            initial_unit_labels=initial_unit_labels,
            sweep_orders=sweep_orders,
            progress=progress,
            checkpoint=checkpoint,
            resume=resume,
        )[num_modules]


def discover_all(
    activations: AnyArray,
    modules: Sequence[int],
    config: SearchConfig,
    *,
    executor: str | Executor | None = None,
    block_units: int | None = None,
    initial_sample_labels: AnyArray | None = None,
    initial_unit_labels: AnyArray | None = None,
    sweep_orders: Sequence[tuple[AnyArray, AnyArray]] | None = None,
    progress: Callable[[Iteration], None] | None = None,
    checkpoint: Callable[[Checkpoint], None] | None = None,
    resume: Checkpoint | None = None,
    plan: SearchPlan | None = None,
) -> dict[int, Modules]:
    """Find modules for several K at once; all K and restarts share passes over the matrix.

    ``modules`` holds every K to search for, in place of those of ``config``; initial labels need a
    single K. The executor is by default the one that ``config`` names, and the plan is that of
    `plan_search`. All else is as in `discover`. Returns the best modules for each K.
    """
    standardised = as_standardised(activations)
    if block_units is not None and block_units < 1:
        raise InvalidInput(f"A block holds at least one unit, not {block_units}.")
    orders = None
    if sweep_orders is not None:
        if config.mode == "blockwise":
            raise InvalidInput(
                "Sweep orders over all units belong to the exact mode.", "Set mode to exact."
            )
        orders = validate_sweep_orders(sweep_orders, standardised)
        last = min(config.max_iterations, len(orders))
        config = config.model_copy(update={"mode": "exact", "max_iterations": last})
    with open_executor(executor or config.executor) as tasks:
        plan = plan or plan_search(standardised, modules, config, tasks, block_units=block_units)
        matrix = open_matrix(standardised, plan, tasks)
        if resume is None:
            labels = initial_sample_labels, initial_unit_labels
            searches = init_searches(matrix, modules, config, *labels)
        else:
            searches = resume_searches(resume, modules, config)
        build_tables(matrix, searches)
        if resume is None:
            check_scale(searches)
        if plan.mode == "blockwise":
            # T_u is built block by block in each iteration; whole, it would count against memory.
            for search in searches:
                search.unit_table = np.empty((0, 0))

        def end_iteration(done: Sequence[Iteration]) -> None:
            for iteration in done:
                if progress is not None:
                    progress(iteration)
            if checkpoint is not None:
                copies = tuple(search.copy_state() for search in searches)
                checkpoint(Checkpoint(config.seed, plan.mode, plan.block_units, copies))

        if resume is None:
            end_iteration([search.record(0, 0, 0.0) for search in searches])
        _iterate(matrix, searches, plan, config, orders, end_iteration)
        return _select_best(matrix, searches, modules)


def _iterate(
    matrix: ActivationMatrix,
    searches: Sequence[Search],
    plan: SearchPlan,
    config: SearchConfig,
    orders: SweepOrders | None,
    end_iteration: Callable[[Sequence[Iteration]], None],
) -> None:
    """Iterate every search until it has converged or used up its iterations."""
    limit = config.max_iterations
    blocks = unit_blocks(matrix.activations, plan.block_units) if plan.block_units else []
    while active := [s for s in searches if not s.converged and s.iteration < limit]:
        started = time.perf_counter()
        if plan.mode == "exact":
            moved = exact_iteration(matrix, active, orders)
        else:
            moved = blockwise_iteration(matrix, active, blocks, config.seed)
        seconds = (time.perf_counter() - started) / len(active)
        counts = zip(active, moved, strict=True)
        end_iteration([search.record(*count, seconds) for search, count in counts])


def _select_best(
    matrix: ActivationMatrix, searches: Sequence[Search], modules: Sequence[int]
) -> dict[int, Modules]:
    groups = {k: [s for s in searches if s.num_modules == k] for k in modules}
    best = {k: _best(group) for k, group in groups.items()}
    # From tables built anew: an update rounds otherwise, and an interrupted search updates less.
    build_tables(matrix, list(best.values()))
    return {k: _as_modules(best[k], groups[k]) for k in modules}


def _best(group: list[Search]) -> Search:
    """The first restart whose L none beats by more than rounding."""
    values = np.array([search.history[-1].objective for search in group])
    return group[int(np.argmax(values >= values.max() - _ROUNDING * abs(values.max())))]


def _as_modules(best: Search, group: list[Search]) -> Modules:
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
        unit_agreement=mean_rand_index([search.unit_labels for search in group]),
        sample_agreement=mean_rand_index([search.sample_labels for search in group]),
        restarts=[search.history[-1].objective for search in group],
        best_restart=best.restart,
        repaired=best.repaired,
    )
