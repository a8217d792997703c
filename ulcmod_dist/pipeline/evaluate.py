"""``ulcmod evaluate``: what the modules mean, how good they are and how sure that is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ulcmod_dist.api import Run
from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.evaluate.features import (
    ModuleFeatures,
    compute_module_features,
    group_by_memory,
)
from ulcmod_dist.evaluate.membership import compute_degrees
from ulcmod_dist.evaluate.null import (
    NULL_TOLERANCE,
    permutation_bytes,
    permute_columns,
    search_null_model,
)
from ulcmod_dist.iterd.plan import memory_limit, plan_search
from ulcmod_dist.passes.executors import Executor, ProgressExecutor
from ulcmod_dist.passes.standardised import Standardised
from ulcmod_dist.pipeline.context import Context, save_job, writes
from ulcmod_dist.pipeline.discovery import Found, describe, read_samples
from ulcmod_dist.pipeline.inputs import read_texts
from ulcmod_dist.pipeline.ledger import replacing, require_modules, stale_sentences, update
from ulcmod_dist.pipeline.membership import measure_membership
from ulcmod_dist.pipeline.methods import (
    ComparedMethods,
    EvaluationInputs,
    compare_methods,
    search_again,
)
from ulcmod_dist.pipeline.result_files import (
    EVALUATION_COLUMNS,
    read_evaluation_rows,
    read_result,
    write_groupings,
    write_result,
)
from ulcmod_dist.pipeline.search import job_executor
from ulcmod_dist.pipeline.summary import Summary, format_bytes
from ulcmod_dist.results.discovery import Discovery, MethodComparison
from ulcmod_dist.results.types import Absent, Objective
from ulcmod_dist.runtime.progress import track
from ulcmod_dist.runtime.rundir import membership_key
from ulcmod_dist.store.modules import StoredModules


@dataclass(frozen=True)
class NullModel:
    """Objectives of searches on permuted columns, or why there are none."""

    objectives: tuple[Objective, ...] | Absent


@writes
def evaluate(context: Context, num_modules: Sequence[int] | None = None) -> Summary:
    """Evaluate the modules for each K, by default of the job; what was evaluated before stays.

    Raises:
        InvalidInput: There are no modules for a K, or only those of an earlier snapshot.
    """
    numbers = require_modules(context, num_modules)
    save_job(context)
    updated = update(context, ["null", "methods", "evaluation"], numbers)
    rows, closing = read_evaluation_rows(context, updated), stale_sentences(context)
    return Summary(title="Evaluation", columns=EVALUATION_COLUMNS, rows=rows, closing=closing)


def make_evaluation(context: Context, wanted: Mapping[str, Sequence[int]]) -> None:
    """Make null models, comparisons of methods and evaluations, and store each when it is done.

    The three are artifacts of their own: neither prompts nor methods change a null model, and what
    the page shows of the prompts changes no comparison.
    """
    run = Run(context.run)
    modules = {k: run.modules(k) for numbers in wanted.values() for k in numbers}
    with job_executor(context.job) as executor:
        inputs = _inputs(context, run, executor)
        if numbers := wanted.get("null"):
            for k, objectives in _null(inputs, numbers).items():
                _store(context, "null", k, NullModel(objectives))
        if numbers := wanted.get("methods"):
            for k, methods in compare_methods(inputs, {k: modules[k] for k in numbers}).items():
                _store_methods(context, modules[k], methods)
        if numbers := wanted.get("evaluation"):
            for k, discovery in _evaluate(inputs, {k: modules[k] for k in numbers}).items():
                _store(context, "evaluation", k, discovery, left_out=discovery.left_out)


def _store(context: Context, name: str, num_modules: int, value: Any, **facts: Any) -> None:
    with replacing(context, name, num_modules) as record:
        record.facts = facts
        write_result(context.run, name, num_modules, value)


def _store_methods(context: Context, modules: StoredModules, methods: ComparedMethods) -> None:
    num_modules = modules.metrics["num_modules"]
    with replacing(context, "methods", num_modules):
        write_groupings(context.run, modules, methods.found)
        write_result(context.run, "methods", num_modules, methods.comparison)


def _inputs(context: Context, run: Run, executor: Executor) -> EvaluationInputs:
    texts = read_texts(context.job, run)
    table = run.snapshot.samples
    split = table["split"].to_numpy()
    samples = {}
    for name in ("train", "test"):
        chosen = table.filter(split == name)
        samples[name] = read_samples(chosen, texts)
    test = run.activations("test") if samples["test"].ids else None
    column = run.snapshot.units["layer"]
    layers = None if column.null_count else column.to_numpy().astype(np.int64)
    return EvaluationInputs(context, run.activations("train"), test, samples, executor, layers)


def _evaluate(inputs: EvaluationInputs, modules: dict[int, StoredModules]) -> dict[int, Discovery]:
    numbers = list(modules)
    rows = sum(len(split.ids) for split in inputs.samples.values()) + inputs.train.n_units
    described: dict[int, Discovery] = {}
    for group in group_by_memory(numbers, rows, inputs.memory):
        described |= _describe(inputs, {k: modules[k] for k in numbers[group]})
    return described


def _describe(inputs: EvaluationInputs, modules: dict[int, StoredModules]) -> dict[int, Discovery]:
    on_progress = inputs.context.on_progress
    numbers = list(modules)
    labels = [stored.unit_labels for stored in modules.values()]
    with track(on_progress, "Module features", inputs.splits, "passes") as shown:
        executor = ProgressExecutor(inputs.executor, shown.update)
        placed = [stored.sample_labels("train") for stored in modules.values()]
        train, degrees = compute_degrees(inputs.train, placed, labels, numbers, executor)
        test: list[ModuleFeatures | None] = [None] * len(numbers)
        if inputs.test is not None:
            test = [*compute_module_features(inputs.test, labels, numbers, executor)]
    run = inputs.context.run
    described: dict[int, Discovery] = {}
    with track(on_progress, "Topics, classifiers, places", len(numbers), "K") as shown:
        for k, stored, mine, held_out, of_units in zip(
            numbers, modules.values(), train, test, degrees, strict=True
        ):
            found = Found(stored, mine, held_out)
            discovery = describe(
                inputs.context.job,
                found,
                inputs.samples,
                null=read_result(run, "null", k, NullModel).objectives,
                methods=read_result(run, "methods", k, MethodComparison),
            )
            membership, tables = measure_membership(inputs, found, of_units, discovery.activation)
            for side, table in tables.items():
                run.write_parquet(membership_key(side, k), table)
            described[k] = replace(discovery, membership=membership)
            shown.update(len(described))
    return described


def _null(
    inputs: EvaluationInputs, numbers: Sequence[int]
) -> Mapping[int, tuple[Objective, ...] | Absent]:
    """Objectives of the null model of each K, or why there are none."""
    if inputs.context.job.evaluate.null_permutations == 0:
        reason = Absent("The job asks for no null model (evaluate.null_permutations is 0).")
        return dict.fromkeys(numbers, reason)
    split = [k for k in numbers if k > 1]
    reason = Absent("With K = 1 there is no null model: all units and samples are one module.")
    absent = {k: reason for k in numbers if k == 1}
    if not split:
        return absent
    allowed = memory_limit(inputs.context.job.discover.memory, inputs.executor)
    for in_memory in (True, False) if inputs.executor.in_process else (False,):
        workers = inputs.executor.workers
        held = permutation_bytes(inputs.train, workers, in_memory=in_memory)
        memory = max(1, allowed - held)
        try:
            _plan_null(inputs, split, memory, in_memory=in_memory)
        except InvalidInput as error:
            reason = Absent(
                f"The null model holds {format_bytes(held)} of chunks at a time, of "
                f"{format_bytes(allowed)} that discover.memory allows. {error}"
            )
        else:
            return {**absent, **_search_null(inputs, split, memory, in_memory=in_memory)}
    return {**absent, **dict.fromkeys(split, reason)}


def _plan_null(
    inputs: EvaluationInputs, numbers: Sequence[int], memory: int, *, in_memory: bool
) -> None:
    """Raise unless a search on permuted columns fits the memory beside what permuting holds."""
    matrix = inputs.train
    if in_memory:
        values = np.broadcast_to(np.zeros((), matrix.raw.dtype), matrix.shape)
        matrix = replace(matrix, raw=values)
    else:
        matrix = permute_columns(matrix, inputs.context.job.evaluate.seed)
    changes = {"restarts": 1, "moves": False, "memory": memory}
    config = inputs.context.job.discover.model_copy(update=changes)
    plan_search(matrix, numbers, config, inputs.executor)


def _search_null(
    inputs: EvaluationInputs, numbers: Sequence[int], memory: int, *, in_memory: bool
) -> dict[int, tuple[Objective, ...]]:
    settings = inputs.context.job.evaluate
    count = settings.null_permutations
    with track(inputs.context.on_progress, "Null model", count, "searches") as step:

        def searched(matrix: Standardised, seed: int) -> dict[int, Objective]:
            # On permuted columns of a real model moves took six times as long and raised L nowhere.
            changes = {"seed": seed, "restarts": 1, "moves": False, "memory": memory}
            tolerance = max(NULL_TOLERANCE, inputs.context.job.discover.tolerance)
            found = search_again(inputs, matrix, numbers, step, tolerance=tolerance, **changes)
            step.update(step.done + 1)
            return {k: modules.objective for k, modules in found.items()}

        executor = inputs.executor if in_memory else None
        return search_null_model(inputs.train, searched, count, settings.seed, executor)
