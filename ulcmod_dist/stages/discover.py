"""``ulcmod discover``: the modules in an activation store."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa

from ulcmod_dist.iterd.driver import discover as search
from ulcmod_dist.iterd.start import largest_mean
from ulcmod_dist.iterd.values import Iteration, Modules
from ulcmod_dist.passes.executors import Threads
from ulcmod_dist.passes.standardised import LabelArray, Standardised
from ulcmod_dist.passes.tables import sample_tables
from ulcmod_dist.rundir import fingerprint
from ulcmod_dist.stages.context import Context, save_job, writes
from ulcmod_dist.stages.open_run import Run
from ulcmod_dist.stages.summary import Summary
from ulcmod_dist.store.modules import StoredModules, modules_found, read_modules, write_modules

# Raised whenever the same activations and settings would lead to other modules than before.
SEARCH_VERSION = 1

COLUMNS = {
    "num_modules": "K",
    "objective": "L",
    "xi": "xi",
    "balance": "B",
    "iterations": "Iterations",
    "restarts": "Restarts",
    "state": "State",
}


@writes
def discover(context: Context) -> Summary:
    """Find the modules for each K of the job; those found already from the same rows stay.

    Raises:
        InvalidInput: There are no activations yet, or K does not fit them.
    """
    run = Run(context.run)
    activations = run.activations()
    save_job(context)
    rows = []
    for num_modules in context.job.discover.modules:
        mark = search_mark(context, run, num_modules)
        earlier = found_metrics(context, num_modules)
        if earlier is not None and earlier["fingerprint"] == mark:
            rows.append({**earlier, "state": "as before"})
            continue
        found = _search(context, activations, num_modules)
        stored = _stored(run, num_modules, found, _metrics(context, found, run, mark))
        write_modules(context.run, num_modules, stored)
        rows.append({**stored.metrics, "state": "found"})
    return Summary(title="Modules", columns=COLUMNS, rows=rows)


def search_mark(context: Context, run: Run, num_modules: int) -> str:
    """Fingerprint of what the modules for one K follow from."""
    settings = context.job.discover.model_dump(mode="json", exclude={"modules"})
    return fingerprint(
        {"view": run.view.digest, "K": num_modules, "search": SEARCH_VERSION, **settings}
    )


def found_metrics(context: Context, num_modules: int) -> dict[str, Any] | None:
    """Metrics of the modules found for one K, or None where there are none."""
    if num_modules not in modules_found(context.run):
        return None
    return dict(read_modules(context.run, num_modules).metrics)


def _search(context: Context, activations: Standardised, num_modules: int) -> Modules:
    settings = context.job.discover
    # How many iterations it takes is not known before; the bar counts against the most.
    most = settings.restarts * settings.max_iterations
    done: dict[int, float] = {}
    with context.progress.step(f"Searching K = {num_modules}", None, "iterations") as step:

        def show(iteration: Iteration) -> None:
            done[iteration.restart] = iteration.objective
            count = step.done + (iteration.iteration > 0)
            step.update(min(count, most), f"best L {max(done.values()):,.6g}")

        return search(
            activations,
            num_modules,
            restarts=settings.restarts,
            seed=settings.seed,
            max_iterations=settings.max_iterations,
            progress=show,
        )


def _metrics(context: Context, found: Modules, run: Run, mark: str) -> dict[str, Any]:
    last = [record for record in found.history if record.restart == found.best_restart][-1]
    return {
        "objective": found.objective.value,
        "xi": found.objective.xi,
        "balance": found.objective.balance,
        "num_modules": len(np.bincount(found.unit_labels)),
        "seed": context.job.discover.seed,
        "restarts": len(found.restarts),
        "best_restart": found.best_restart,
        "restart_objectives": found.restarts,
        "iterations": last.iteration,
        "converged": last.units_moved + last.samples_moved == 0,
        "repaired": found.repaired,
        "samples": len(found.sample_labels),
        "units": len(found.unit_labels),
        "view": run.view.version,
        "view_digest": run.view.digest,
        "fingerprint": mark,
    }


def _stored(run: Run, num_modules: int, found: Modules, metrics: dict[str, Any]) -> StoredModules:
    units = run.view.units.append_column("module", pa.array(found.unit_labels, pa.int32()))
    units = units.append_column("margin", pa.array(found.unit_margins, from_pandas=True))
    history = pa.Table.from_pylist([asdict(record) for record in found.history])
    return StoredModules(units, _samples(run, num_modules, found), history, metrics)


def _samples(run: Run, num_modules: int, found: Modules) -> pa.Table:
    """Samples of all splits; those held out go to the module of their largest mean activation.

    A margin is a loss of L, which held-out samples are no part of: theirs is null.
    """
    table = run.view.samples.select(["sample_id", "category", "split"])
    split = table["split"].to_numpy()
    labels = np.zeros(table.num_rows, np.int32)
    margins = np.full(table.num_rows, np.nan)
    labels[split == "train"] = found.sample_labels
    margins[split == "train"] = found.sample_margins
    for held_out in set(split) - {"train"}:
        labels[split == held_out] = placed(
            run.activations(held_out), found.unit_labels, num_modules
        )
    return table.append_column("module", pa.array(labels)).append_column(
        "margin", pa.array(margins, from_pandas=True)
    )


def placed(activations: Standardised, unit_labels: LabelArray, num_modules: int) -> LabelArray:
    """Module of the largest mean z of each sample, int32 [samples]."""
    (table,) = sample_tables(activations, [unit_labels], [num_modules], Threads())
    return largest_mean(table, unit_labels)
