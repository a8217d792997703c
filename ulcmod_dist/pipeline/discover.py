"""``ulcmod discover``: the modules in an activation store."""

from __future__ import annotations

import io
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from ulcmod_dist.api import Run
from ulcmod_dist.errors import UlcmodError
from ulcmod_dist.iterd.driver import discover_all
from ulcmod_dist.iterd.modules import Iteration, Modules
from ulcmod_dist.iterd.objective import assign_held_out
from ulcmod_dist.iterd.plan import plan_search
from ulcmod_dist.iterd.search import Checkpoint
from ulcmod_dist.passes.executors import Executor
from ulcmod_dist.pipeline.context import Context, save_job, select_num_modules, writes
from ulcmod_dist.pipeline.search_plan import facts_of
from ulcmod_dist.pipeline.searching import executor_of
from ulcmod_dist.pipeline.start import Start
from ulcmod_dist.pipeline.summary import Summary
from ulcmod_dist.runtime.progress import Step, track
from ulcmod_dist.runtime.rundir import CHECKPOINTS, RunDir, fingerprint
from ulcmod_dist.store.modules import StoredModules, list_modules, read_metrics, write_modules

logger = logging.getLogger(__name__)

# Raised whenever the same activations and settings would lead to other modules than before.
SEARCH_VERSION = 1

COLUMNS = {
    "num_modules": "K",
    "objective": "L",
    "held_out_objective": "held-out L",
    "xi": "xi",
    "balance": "B",
    "spread": "Spread",
    "unit_agreement": "Agreement",
    "stability": "Stability",
    "iterations": "Iterations",
    "state": "State",
}


@writes
def discover(context: Context, *, num_modules: tuple[int, ...] | None = None) -> Summary:
    """Find the modules for each K of the job; those found already from the same rows stay.

    All K and restarts share passes over the matrix. After each iteration the search is saved; one
    that was killed goes on from there and ends with the same labels.

    Args:
        context: The job and its run directory.
        num_modules: Work on these K only; None for all of the job.

    Raises:
        InvalidInput: There are no activations yet, K does not fit them, or memory is too small.
    """
    return find_modules(context, {}, num_modules)


def find_modules(
    context: Context, starts: Mapping[int, Start], num_modules: tuple[int, ...] | None = None
) -> Summary:
    """As `discover`, under a lease that is held, from the given start for each K that has one."""
    run = Run(context.run)
    numbers = select_num_modules(context.job, num_modules)
    marks = {k: search_mark(context, run, k) for k in numbers}
    known = {k: found_metrics(context.run, k) for k in numbers}
    pending = [k for k in numbers if (known[k] or {}).get("fingerprint") != marks[k]]
    data: dict[str, Any] = {}
    if not pending:
        save_job(context)
    else:
        with executor_of(context.job) as executor:
            data["plan"] = _planned(context, run, pending, executor)
            # Only now: a search that is refused leaves the run's job as it was.
            save_job(context)
            search = _Search(context, run, marks, executor)
            for group in _together(pending, starts):
                known |= search.find(group, starts.get(group[0]))
    rows = [
        {**(known[k] or {}), "state": "found" if k in pending else "as before"} for k in numbers
    ]
    closing = []
    if len(numbers) > 1:
        closing = [
            "To choose K: spread is how far the worst restart's L is below the best's; agreement "
            "is the mean adjusted Rand index between restarts (1: every start finds the same) and "
            "stability the share of restarts in which a unit or sample has the best one's module. "
            "L and held-out L fall with K by nature, compare them with the null model of each K "
            "in the report."
        ]
    return Summary(title="Modules", columns=COLUMNS, rows=rows, data=data, closing=closing)


def _together(pending: Sequence[int], starts: Mapping[int, Start]) -> list[list[int]]:
    """Which K share a search: all that start anew; each that goes on from labels is alone."""
    anew = [k for k in pending if k not in starts]
    return [*([anew] if anew else []), *([k] for k in pending if k in starts)]


def search_mark(context: Context, run: Run, num_modules: int) -> str:
    """Fingerprint of what the modules for one K are to be found in, and with which settings."""
    return mark_in(context, run.snapshot.digest, num_modules)


def mark_in(context: Context, view: str, num_modules: int) -> str:
    """The same for a view of a given digest."""
    settings = context.job.discover.model_dump(mode="json", exclude={"modules", "executor"})
    return fingerprint({"view": view, "K": num_modules, "search": SEARCH_VERSION, **settings})


def found_metrics(run: RunDir, num_modules: int) -> dict[str, Any] | None:
    """Metrics of the modules found for one K, or None where there are none."""
    if num_modules not in list_modules(run):
        return None
    return read_metrics(run, num_modules)


def _planned(
    context: Context, run: Run, pending: Sequence[int], executor: Executor
) -> dict[str, Any]:
    """Show how the search will use its memory, before anything is read."""
    activations = run.activations()
    held_out = run.snapshot.samples.num_rows - activations.n_samples
    plan = plan_search(activations, pending, context.job.discover, executor, held_out=held_out)
    for name, fact in facts_of(plan).items():
        logger.info("%s: %s", name, fact)
    return asdict(plan)


@dataclass(frozen=True)
class _Search:
    """The searches of one call: for which job, in which run, and where their passes run."""

    context: Context
    run: Run
    marks: Mapping[int, str]
    executor: Executor

    def find(self, modules: Sequence[int], start: Start | None) -> dict[int, dict[str, Any]]:
        """Search for several K together and store their modules; returns the metrics of each."""
        found = self._found(modules, start)
        return {k: self._write(k, found[k], start) for k in modules}

    def _found(self, modules: Sequence[int], start: Start | None) -> dict[int, Modules]:
        context = self.context
        search = [*(self.marks[k] for k in modules), start and start.modules]
        key = f"{CHECKPOINTS}/{fingerprint(search)}.npz"
        shown = ", ".join(str(k) for k in modules)
        config = context.job.discover
        if start is not None:
            # Restarts from the same labels would end nearly alike and say nothing of how sure the
            # modules are.
            config = config.model_copy(update={"restarts": 1})
        with track(context.on_progress, f"Searching K = {shown}", None, "iterations") as step:
            found = discover_all(
                self.run.activations(),
                modules,
                config,
                executor=self.executor,
                initial_sample_labels=start and start.sample_labels,
                initial_unit_labels=start and start.unit_labels,
                progress=lambda iteration: _show(step, iteration),
                checkpoint=lambda checkpoint: _save(context, key, checkpoint),
                resume=_saved(context.run, key),
            )
        for old, _ in list(context.run.keys(CHECKPOINTS)):
            context.run.delete(old)
        return found

    def _write(self, num_modules: int, found: Modules, start: Start | None) -> dict[str, Any]:
        samples, held_out_objective = _samples(self.run, num_modules, found, self.executor)
        units = self.run.snapshot.units.append_column(
            "module", pa.array(found.unit_labels, pa.int32())
        )
        for name, values in (("margin", found.unit_margins), ("stability", found.unit_stability)):
            units = units.append_column(name, pa.array(values, from_pandas=True))
        mark = self.marks[num_modules]
        metrics = {
            **_metrics(self.context, found, self.run),
            "num_modules": num_modules,
            "held_out_objective": held_out_objective,
            "fingerprint": mark,
            "identity": fingerprint([mark, start and start.modules]),
            "start": None if start is None else f"version {start.version}",
        }
        history = pa.Table.from_pylist([asdict(record) for record in found.history])
        stored = StoredModules(units, samples, history, metrics)
        self.context.fence.check()
        write_modules(self.context.run, num_modules, stored)
        return metrics


def _show(step: Step, iteration: Iteration) -> None:
    step.update(
        step.done + (iteration.iteration > 0),
        f"iteration {iteration.iteration}, {iteration.moved:,} moved",
    )


def _save(context: Context, key: str, checkpoint: Checkpoint) -> None:
    context.fence.check()
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **checkpoint.to_arrays())
    context.run.write(key, buffer.getvalue())


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
        "view": run.snapshot.version,
        "view_digest": run.snapshot.digest,
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
) -> tuple[pa.Table, float | None]:
    """Samples of both splits, and L of the modules on the held-out ones.

    Those held out go to the module of their largest mean activation. A margin is a loss of L, which
    they are no part of: theirs is null, as is their stability.
    """
    table = run.snapshot.samples.select(["sample_id", "category", "split"])
    train = table["split"].to_numpy() == "train"
    labels = np.zeros(table.num_rows, np.int32)
    labels[train] = found.sample_labels
    objective = None
    if not train.all():
        labels[~train], measured = assign_held_out(
            run.activations("test"), found.unit_labels, num_modules, executor
        )
        objective = measured.value
    table = table.append_column("module", pa.array(labels))
    for name, values in (("margin", found.sample_margins), ("stability", found.sample_stability)):
        column = np.full(table.num_rows, np.nan)
        column[train] = values
        table = table.append_column(name, pa.array(column, from_pandas=True))
    return table, objective
