"""The search for modules: restarts and moves, iterated over shared passes, and the best of them."""

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Literal

import numpy as np
from numba.core.event import Event, Listener, install_listener

from ulcmod_dist.config.schema import SearchConfig
from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.iterd.init import (
    build_tables,
    check_scale,
    init_searches,
    next_restarts,
    resume_searches,
    sample_points,
    validate_sweep_orders,
)
from ulcmod_dist.iterd.iterations import SweepOrders, blockwise_iteration, exact_iteration
from ulcmod_dist.iterd.modules import Iteration, Modules, mean_rand_index, stability
from ulcmod_dist.iterd.moves import (
    end_round,
    is_running,
    propose_moves,
    select_best,
    wants_moves,
)
from ulcmod_dist.iterd.plan import SearchPlan, check_modules, open_matrix, plan_search, unit_blocks
from ulcmod_dist.iterd.search import Checkpoint, Role, Search
from ulcmod_dist.passes import moments
from ulcmod_dist.passes.executors import Executor, open_executor
from ulcmod_dist.passes.matrix import ActivationMatrix
from ulcmod_dist.passes.standardised import AnyArray, as_standardised
from ulcmod_dist.runtime.memory import release_freed_memory, reuse_freed_memory

# The defaults of a job's search, so that no default is written twice.
_DEFAULTS = SearchConfig(modules=(1,))

logger = logging.getLogger(__name__)


def discover(
    activations: AnyArray,
    num_modules: int,
    *,
    standardize: bool = False,
    restarts: int = 1,
    moves: bool = _DEFAULTS.moves,
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
    ``max_iterations``, or when given orders are used up. Restarts, and candidates of a move, share
    passes over the matrix.

    L compares deviations of units, so raw activations have to be standardised, as a run does; an
    array is taken as it is unless ``standardize`` says so.

    Args:
        activations: NumPy or Dask array of floats [samples, units], or a `Standardised`.
        num_modules: Number of modules K.
        standardize: Whether to standardise an array first: each unit less its mean over the
            samples, divided by its standard deviation (with n - 1; below 1e-8 it counts as 1). The
            modules are then those that a run finds in the same matrix. One more pass.
        restarts: Starts of the search at most; the best L wins. One by default, for a quick look; a
            job has up to ten. No more are made once two of them ended at the best L.
        moves: Whether moves that merge two modules and split a third go on from the best restart
            while they raise L. Never with given orders.
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
        progress: Called with each `Iteration` as it is done, those of candidates of moves included.
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
        moves=moves,
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
        changes = {"mode": "exact", "max_iterations": last, "moves": False}
        config = config.model_copy(update=changes)
    with (
        open_executor(executor or config.executor) as tasks,
        install_listener("numba:compile", _CompilationNotice()),
    ):
        reuse_freed_memory()
        plan = plan or plan_search(standardised, modules, config, tasks, block_units=block_units)
        matrix = open_matrix(standardised, plan, tasks)
        searches = resume_searches(resume, modules, config) if resume else []
        run = _Run(matrix, plan, config, orders, progress, checkpoint, searches)
        run.run_restarts(modules, initial_sample_labels, initial_unit_labels)
        run.improve(modules)
        found = run.finish(modules)
    del matrix, run
    release_freed_memory()
    return found


class _CompilationNotice(Listener):
    """Says that the search compiles, where its kernels are not in numba's cache yet."""

    def __init__(self) -> None:
        self._is_told = False

    def on_start(self, event: Event) -> None:
        """Log the notice before the first compilation."""
        if not self._is_told:
            self._is_told = True
            logger.info("Compiling the search, once after an installation; this takes seconds.")

    def on_end(self, event: Event) -> None:
        """Say nothing when a kernel is ready."""


@dataclass(eq=False)
class _Run:
    """A search under way: all of its restarts, answers and candidates, of every K."""

    matrix: ActivationMatrix
    plan: SearchPlan
    config: SearchConfig
    orders: SweepOrders | None
    progress: Callable[[Iteration], None] | None
    checkpoint: Callable[[Checkpoint], None] | None
    searches: list[Search]

    def run_restarts(
        self, modules: Sequence[int], sample_labels: AnyArray | None, unit_labels: AnyArray | None
    ) -> None:
        """Iterate restarts to their end, and start more where `next_restarts` asks for them."""
        points = cache(partial(sample_points, self.matrix, self.config.seed))
        limit = self.config.max_iterations
        while True:
            self._iterate(lambda: [s for s in self._select(Role.RESTART) if is_running(s, limit)])
            added = [(k, restart) for k in modules for restart in self._next_restarts(k)]
            if not added:
                return
            labels = sample_labels, unit_labels
            self._begin(init_searches(self.matrix, added, self.config, points, *labels))

    def improve(self, modules: Sequence[int]) -> None:
        """Make the best restart of each K the answer, and try moves until none raises its L."""
        if not self._select(Role.ANSWER):
            best = [select_best(self._select(Role.RESTART, k)) for k in modules]
            self.searches += [replace(search.copy_state(), role=Role.ANSWER) for search in best]
        part, limit = self.plan.part, self.config.max_iterations
        if not part:
            return
        # The next round sees another part, unless the part is the whole matrix.
        in_vain = 1 if part >= math.prod(self.matrix.activations.shape) else 2
        while answers := [s for s in self._select(Role.ANSWER) if wants_moves(s, limit, in_vain)]:
            started = time.perf_counter()
            if not self._select(Role.CANDIDATE):
                self._begin(propose_moves(self.matrix, answers, part, limit))
            seconds = (time.perf_counter() - started) / len(answers)
            self._iterate(lambda: [s for s in self._select(Role.CANDIDATE) if is_running(s, limit)])
            candidates = [self._select(Role.CANDIDATE, s.num_modules) for s in answers]
            rows = [end_round(*pair, seconds) for pair in zip(answers, candidates, strict=True)]
            self.searches = [s for s in self.searches if s.role is not Role.CANDIDATE]
            self._end_iteration(rows)

    def finish(self, modules: Sequence[int]) -> dict[int, Modules]:
        """The answer of each K with what its restarts say of it."""
        answers = {search.num_modules: search for search in self._select(Role.ANSWER)}
        # From tables built anew: an update rounds otherwise, and a resumed search updates less.
        build_tables(self.matrix, list(answers.values()))
        return {k: _as_modules(answers[k], self._select(Role.RESTART, k)) for k in modules}

    @property
    def blocks(self) -> list[slice]:
        """Blocks of units of the blockwise mode; none in the exact mode."""
        size = self.plan.block_units
        return unit_blocks(self.matrix.activations, size) if size else []

    def _select(self, role: Role, num_modules: int | None = None) -> list[Search]:
        chosen = [search for search in self.searches if search.role is role]
        return [s for s in chosen if num_modules in (None, s.num_modules)]

    def _next_restarts(self, num_modules: int) -> range:
        ended = [s.history[-1].objective for s in self._select(Role.RESTART, num_modules)]
        if self.orders is not None:
            return range(len(ended), self.config.restarts)
        return next_restarts(ended, self.config.restarts)

    def _begin(self, new: list[Search]) -> None:
        """Add searches with labels: build their tables and record where they start."""
        self.searches += new
        self._build_tables(new)
        if self.searches == new:
            check_scale(new)
        self._end_iteration([search.record(0, 0, 0.0) for search in new])

    def _build_tables(self, searches: Sequence[Search]) -> None:
        if searches:
            build_tables(self.matrix, searches)
        if self.plan.mode == "blockwise":
            # T_u is built block by block in each iteration; whole, it would count against memory.
            for search in searches:
                search.unit_table = np.empty((0, 0))

    def _iterate(self, select: Callable[[], list[Search]]) -> None:
        """Iterate the selected searches until none is left; the others drop their tables."""
        while active := select():
            for search in self.searches:
                if search not in active:
                    search.drop_tables()
            # Those of a checkpoint.
            self._build_tables([search for search in active if not search.sample_table.size])
            started = time.perf_counter()
            if self.plan.mode == "exact":
                moved = exact_iteration(self.matrix, active, self.orders)
            else:
                how = self.blocks, self.config.seed, self.plan.together
                moved = blockwise_iteration(self.matrix, active, *how)
            seconds = (time.perf_counter() - started) / len(active)
            counts = zip(active, moved, strict=True)
            self._end_iteration([search.record(*count, seconds) for search, count in counts])
        for search in self.searches:
            search.drop_tables()

    def _end_iteration(self, done: Sequence[Iteration]) -> None:
        for iteration in done:
            if self.progress is not None:
                self.progress(iteration)
        if self.checkpoint is not None:
            copies = tuple(search.copy_state() for search in self.searches)
            plan = self.plan
            self.checkpoint(Checkpoint(self.config.seed, plan.mode, plan.block_units, copies))


def _as_modules(answer: Search, restarts: list[Search]) -> Modules:
    others = [(s.sample_labels, s.unit_labels) for s in restarts if s.restart != answer.restart]
    by_sample, by_unit = stability(
        answer.sample_labels, answer.unit_labels, others, answer.num_modules
    )
    unit_margins, sample_margins = answer.margins()
    rounds = answer.history[len(answer.history) - answer.rounds :]
    lines = [answer if s.restart == answer.restart else s for s in restarts]
    return Modules(
        sample_labels=answer.sample_labels,
        unit_labels=answer.unit_labels,
        objective=answer.objective(),
        history=[record for search in lines for record in search.history],
        unit_margins=unit_margins,
        sample_margins=sample_margins,
        unit_stability=by_unit,
        sample_stability=by_sample,
        unit_agreement=mean_rand_index([search.unit_labels for search in restarts]),
        sample_agreement=mean_rand_index([search.sample_labels for search in restarts]),
        restarts=[search.history[-1].objective for search in restarts],
        best_restart=answer.restart,
        rounds=answer.rounds,
        moves=sum(row.moved > 0 for row in rounds),
        repaired=answer.repaired,
    )
