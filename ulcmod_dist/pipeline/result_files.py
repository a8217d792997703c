"""Results as files of a run, and the rows in which commands show them.

A command that finds nothing to do shows them without importing what made them.
"""

from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ulcmod_dist.pipeline.artifacts import GRAPH
from ulcmod_dist.pipeline.context import Context
from ulcmod_dist.pipeline.ledger import Updated
from ulcmod_dist.results.discovery import Discovery
from ulcmod_dist.results.serialize import from_json, to_json
from ulcmod_dist.results.types import Absent
from ulcmod_dist.runtime.rundir import SIDES, RunDir, grouping_key
from ulcmod_dist.store.modules import StoredModules, read_metrics

T = TypeVar("T")

Labels = NDArray[np.integer[Any]]

EVALUATION_COLUMNS = {
    "num_modules": "K",
    "objective": "L",
    "xi": "xi",
    "null": "L of null",
    "best_baseline": "Best baseline",
    "baseline_objective": "its L",
    "baseline_xi": "its xi",
    "accuracy": "Category accuracy",
    "random_accuracy": "of random groups",
    "adjusted_rand": "Adjusted Rand",
    "state": "State",
}


def write_result(run: RunDir, name: str, num_modules: int, value: Any) -> None:
    """Write the value of an artifact for one K."""
    run.write_json(_key(name, num_modules), to_json(value))


def read_result(run: RunDir, name: str, num_modules: int, kind: type[T]) -> T:
    """Read the value of an artifact for one K (FileNotFoundError if it is not stored)."""
    return from_json(run.read_json(_key(name, num_modules)), kind)


def write_groupings(
    run: RunDir, modules: StoredModules, found: Mapping[str, tuple[Labels, Labels]]
) -> None:
    """Write the modules of units and train samples that other methods found, a column a method."""
    train = modules.samples.filter(modules.samples["split"].to_numpy() == "train")
    ids = {"units": modules.units.select(["unit"]), "samples": train.select(["sample_id"])}
    for place, side in enumerate(SIDES):
        table = ids[side]
        for method, labels in found.items():
            table = table.append_column(method, pa.array(labels[place], pa.int32()))
        run.write_parquet(grouping_key(side, modules.metrics["num_modules"]), table)


def read_groupings(run: RunDir, num_modules: int) -> dict[str, tuple[Labels, Labels]]:
    """The modules of units and train samples by each method that was compared with IterD."""
    units, samples = (run.read_parquet(grouping_key(side, num_modules)) for side in SIDES)
    return {
        method: (units[method].to_numpy(), samples[method].to_numpy())
        for method in units.column_names[1:]
    }


def read_module_rows(context: Context, updated: Updated) -> list[dict[str, Any]]:
    """The metrics of the modules for each K, and whether they were found now."""
    return [
        {**read_metrics(context.run, k), "state": updated.state("modules", k, "found")}
        for k in updated.numbers
    ]


def read_evaluation_rows(context: Context, updated: Updated) -> list[dict[str, Any]]:
    """The figures of the evaluation of each K, and whether it was made now."""
    return [
        {
            **_describe(read_result(context.run, "evaluation", k, Discovery)),
            "state": updated.state("evaluation", k, "evaluated"),
        }
        for k in updated.numbers
    ]


def _key(name: str, num_modules: int) -> str:
    return GRAPH[name].files[0].format(k=num_modules)


def _describe(discovery: Discovery) -> dict[str, object]:
    null, best, random = discovery.null, discovery.best_baseline, discovery.random_groups
    downstream, agreement = discovery.downstream, discovery.agreement
    main = None if isinstance(downstream, Absent) else downstream.classifiers[0]
    return {
        "num_modules": discovery.num_modules,
        "objective": discovery.objective.value,
        "xi": discovery.objective.xi,
        "balance": discovery.objective.balance,
        "null": None if isinstance(null, Absent) else float(np.mean([s.value for s in null])),
        "best_baseline": best and best.method,
        "baseline_objective": best and best.value.mean,
        "baseline_xi": best and best.xi.mean,
        "accuracy": main and main.accuracy.mean,
        "random_accuracy": random and random.accuracy and random.accuracy.mean,
        "macro_f1": main and main.macro_f1.mean,
        "adjusted_rand": None if isinstance(agreement, Absent) else agreement[0].adjusted_rand,
        "left_out": discovery.left_out,
    }
