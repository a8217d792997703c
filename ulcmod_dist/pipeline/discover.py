"""``ulcmod discover``: the modules in an activation store."""

import io
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from ulcmod_dist.api import Run
from ulcmod_dist.config.schema import SearchConfig
from ulcmod_dist.errors import UlcmodError
from ulcmod_dist.iterd.driver import discover_all
from ulcmod_dist.iterd.modules import Iteration, Modules
from ulcmod_dist.iterd.objective import assign_held_out
from ulcmod_dist.iterd.plan import SearchPlan, plan_search
from ulcmod_dist.iterd.search import Checkpoint
from ulcmod_dist.passes.executors import Executor
from ulcmod_dist.passes.moments import require_variation
from ulcmod_dist.pipeline.context import Context, save_job, writes
from ulcmod_dist.pipeline.ledger import Ledger, replacing, stale_sentences, update
from ulcmod_dist.pipeline.rerun import WarmStart
from ulcmod_dist.pipeline.result_files import read_module_rows
from ulcmod_dist.pipeline.search import describe_plan, job_executor
from ulcmod_dist.pipeline.summary import Summary
from ulcmod_dist.results.types import Objective
from ulcmod_dist.runtime.progress import Step, track
from ulcmod_dist.runtime.rundir import CHECKPOINTS, RunDir, fingerprint
from ulcmod_dist.store.modules import StoredModules, write_modules

logger = logging.getLogger(__name__)

COLUMNS = {
    "num_modules": "K",
    "objective": "L",
    "xi": "xi",
    "held_out_xi": "held-out xi",
    "balance": "B",
    "spread": "Spread",
    "unit_agreement": "Agreement",
    "stability": "Stability",
    "iterations": "Iterations",
    "moves": "Moves",
    "state": "State",
}

# A search goes on at least so many times as long as its last checkpoint took to write: those after
# every short iteration took 15% of a search, and on a bucket a request each.
_SEARCHING_PER_SAVING = 20

CHOOSING_K = (
    "To choose K: spread is how far the worst restart's L is below the best's; agreement is the "
    "mean adjusted Rand index between restarts (1: every start finds the same), both before any "
    "moves, and stability the share of the other restarts in which a unit or sample has the "
    "answer's module. L falls with K by nature, compare it with the null model of each K in the "
    "report."
)


@writes
def discover(context: Context, num_modules: Sequence[int] | None = None) -> Summary:
    """Find the modules for each K, by default of the job; those found from the same rows stay.

    All K and restarts share passes over the matrix. The search is saved between iterations; one
    that was killed continues from there and ends with the same labels.

    Raises:
        InvalidInput: There are no activations yet, K does not fit them, or memory is too small.
    """
    updated = update(context, ["modules"], num_modules)
    save_job(context)
    closing = [CHOOSING_K] if len(updated.numbers) > 1 else []
    return Summary(
        title="Modules",
        columns=COLUMNS,
        rows=read_module_rows(context, updated),
        data=updated.answers.get("discover", {}),
        closing=[*closing, *stale_sentences(context)],
    )


def make_modules(
    context: Context,
    wanted: Mapping[str, Sequence[int]],
    starts: Mapping[int, WarmStart] | None = None,
) -> dict[str, Any]:
    """Search for the modules of several K together, from given labels for those K that have some.

    Returns how the search used its memory, for programs.
    """
    run, starts = Run(context.run), starts or {}
    groups = _group_by_start(wanted["modules"], starts)
    with job_executor(context.job) as executor:
        searches = [
            _Search(context, run, executor, group, starts.get(group[0])) for group in groups
        ]
        plans = [search.plan() for search in searches]
        # Only now: a search that is refused leaves the run's job as it was.
        save_job(context)
        for search, plan in zip(searches, plans, strict=True):
            search.find(plan)
    return {"plan": asdict(plans[0])}


def _group_by_start(numbers: Sequence[int], starts: Mapping[int, WarmStart]) -> list[list[int]]:
    """Which K share a search: all with new initial modules; each with a warm start is alone."""
    anew = [k for k in numbers if k not in starts]
    return [*([anew] if anew else []), *([k] for k in numbers if k in starts)]


@dataclass(frozen=True)
class _Search:
    """One search for several K together: for which job, in which run, and where it is run."""

    context: Context
    run: Run
    executor: Executor
    numbers: Sequence[int]
    start: WarmStart | None

    @property
    def config(self) -> SearchConfig:
        """The search of the job; from given labels one restart, without moves.

        Restarts from the same labels would end nearly alike, and a move would put a module in
        another's place, which reads as drift.
        """
        config = self.context.job.discover
        changes = {} if self.start is None else {"restarts": 1, "moves": False}
        return config.model_copy(update=changes)

    def plan(self) -> SearchPlan:
        """Plan and log how the search will use its memory, before anything is read."""
        require_variation(self.run.snapshot.moments)
        activations = self.run.activations()
        held_out = self.run.snapshot.samples.num_rows - activations.n_samples
        plan = plan_search(activations, self.numbers, self.config, self.executor, held_out=held_out)
        for name, fact in describe_plan(plan).items():
            logger.info("%s: %s", name, fact)
        return plan

    def find(self, plan: SearchPlan) -> None:
        """Search and store the modules for each K."""
        context, start = self.context, self.start
        ledger = Ledger(context.run, context.job)
        inputs = [asdict(ledger.expected("modules", k)) for k in self.numbers]
        search = [self.numbers, inputs, start and start.modules]
        key = f"{CHECKPOINTS}/{fingerprint(search)}.npz"
        shown = ", ".join(map(str, self.numbers))
        with track(context.on_progress, f"Searching K = {shown}", None, "iterations") as step:
            found = discover_all(
                self.run.activations(),
                self.numbers,
                self.config,
                executor=self.executor,
                initial_sample_labels=start and start.sample_labels,
                initial_unit_labels=start and start.unit_labels,
                progress=lambda iteration: _show(step, iteration),
                checkpoint=_saving(context, key),
                resume=_saved(context.run, key),
                plan=plan,
            )
        for k in self.numbers:
            self._write(k, found[k])
        for checkpoint, _ in list(context.run.keys(CHECKPOINTS)):
            context.run.delete(checkpoint)

    def _write(self, num_modules: int, found: Modules) -> None:
        samples, held_out = _samples(self.run, num_modules, found, self.executor)
        units = self.run.snapshot.units.append_column(
            "module", pa.array(found.unit_labels, pa.int32())
        )
        for name, values in (("margin", found.unit_margins), ("stability", found.unit_stability)):
            units = units.append_column(name, pa.array(values, from_pandas=True))
        metrics = {
            **_metrics(self.context, found, self.run),
            "num_modules": num_modules,
            "held_out_objective": held_out and held_out.value,
            "held_out_xi": held_out and held_out.xi,
            "start": None if self.start is None else f"version {self.start.version}",
        }
        history = pa.Table.from_pylist([asdict(record) for record in found.history])
        with replacing(self.context, "modules", num_modules) as record:
            record.salt = None if self.start is None else self.start.modules
            record.facts = {"objective": found.objective.value}
            stored = StoredModules(units, samples, history, metrics)
            write_modules(self.context.run, num_modules, stored)


def _show(step: Step, iteration: Iteration) -> None:
    step.update(
        step.done + (iteration.iteration > 0),
        f"iteration {iteration.iteration}, {iteration.moved:,} moved",
    )


def _saving(context: Context, key: str) -> Callable[[Checkpoint], None]:
    """What writes a search's checkpoints, but for those that would come too soon after another."""
    due = -math.inf

    def save(checkpoint: Checkpoint) -> None:
        nonlocal due
        started = time.monotonic()
        if started < due:
            return
        context.fence.check()
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **checkpoint.to_arrays())
        context.run.write(key, buffer.getvalue())
        ended = time.monotonic()
        due = ended + _SEARCHING_PER_SAVING * (ended - started)

    return save


def _saved(run: RunDir, key: str) -> Checkpoint | None:
    try:
        data = run.read(key)
    except FileNotFoundError:
        return None
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            return Checkpoint.from_arrays(arrays)
    except (ValueError, KeyError, OSError) as error:
        raise UlcmodError(
            f"The checkpoint {run.show(key)} cannot be read: {error}.",
            "Remove it to search from the start.",
        ) from error


def _metrics(context: Context, found: Modules, run: Run) -> dict[str, Any]:
    last = [record for record in found.history if record.restart == found.best_restart][-1]
    several = len(found.restarts) > 1
    return {
        "objective": found.objective.value,
        "xi": found.objective.xi,
        "balance": found.objective.balance,
        "seed": context.job.discover.seed,
        "restarts": len(found.restarts),
        "best_restart": found.best_restart,
        "rounds": found.rounds,
        "moves": found.moves,
        "restart_objectives": found.restarts,
        "spread": _spread(found.restarts) if several else None,
        "unit_agreement": found.unit_agreement if several else None,
        "sample_agreement": found.sample_agreement if several else None,
        "stability": _stability(found) if several else None,
        "iterations": last.iteration,
        "converged": last.moved == 0,
        "repaired": found.repaired,
        "samples": len(found.sample_labels),
        "units": len(found.unit_labels),
        "snapshot": run.snapshot.version,
    }


def _spread(objectives: Sequence[float]) -> float:
    """How far the worst restart's L is below the best's, as a share of it."""
    best, worst = max(objectives), min(objectives)
    return (best - worst) / abs(best) if best > worst else 0.0


def _stability(found: Modules) -> float:
    """Mean stability of a unit and of a sample, either side counted by half."""
    return float((found.unit_stability.mean() + found.sample_stability.mean()) / 2)


def _samples(
    run: Run, num_modules: int, found: Modules, executor: Executor
) -> tuple[pa.Table, Objective | None]:
    """Samples of both splits, and the objective of the modules on the held-out ones.

    Those held out go to the module of their largest mean activation. A margin is a loss of L, which
    they are no part of: theirs is null, as is their stability.
    """
    table = run.snapshot.samples.select(["sample_id", "category", "split"])
    train = table["split"].to_numpy() == "train"
    labels = np.zeros(table.num_rows, np.int32)
    labels[train] = found.sample_labels
    objective = None
    if not train.all():
        labels[~train], objective = assign_held_out(
            run.activations("test"), found.unit_labels, num_modules, executor
        )
    table = table.append_column("module", pa.array(labels))
    for name, values in (("margin", found.sample_margins), ("stability", found.sample_stability)):
        column = np.full(table.num_rows, np.nan)
        column[train] = values
        table = table.append_column(name, pa.array(column, from_pandas=True))
    return table, objective
