"""``ulcmod evaluate``: what the modules mean, how good they are and how sure that is."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from ulcmod_dist.api import Run
from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.evaluate.baselines import UNSEEDED, Candidate, build_unit_space, find_baseline
from ulcmod_dist.evaluate.features import (
    ModuleFeatures,
    compute_module_features,
    group_by_memory,
)
from ulcmod_dist.evaluate.measures import compare_halves, draw_random_groups
from ulcmod_dist.evaluate.methods import ITERD, score_methods, tabulate_methods
from ulcmod_dist.evaluate.null import permutation_bytes, permute_columns, search_null_model
from ulcmod_dist.evaluate.topics import Samples
from ulcmod_dist.iterd.driver import discover_all
from ulcmod_dist.iterd.modules import Modules
from ulcmod_dist.iterd.plan import memory_limit, plan_search
from ulcmod_dist.passes.executors import Executor, ProgressExecutor
from ulcmod_dist.passes.linalg import COMPONENT_PASSES, principal_components
from ulcmod_dist.passes.standardised import Standardised
from ulcmod_dist.pipeline.context import Context, save_job, writes
from ulcmod_dist.pipeline.discovery import Found, describe, read_samples
from ulcmod_dist.pipeline.inputs import read_texts
from ulcmod_dist.pipeline.ledger import Updated, replacing, require_modules, stale_sentences, update
from ulcmod_dist.pipeline.result_files import read_result, write_result
from ulcmod_dist.pipeline.search import job_executor
from ulcmod_dist.pipeline.summary import Summary, format_bytes
from ulcmod_dist.results.discovery import Discovery, MethodComparison
from ulcmod_dist.results.types import Absent, Fact, Objective
from ulcmod_dist.runtime.progress import Step, track
from ulcmod_dist.store.modules import StoredModules


@dataclass(frozen=True)
class NullModel:
    """Objectives of searches on permuted columns, or why there are none."""

    objectives: tuple[Objective, ...] | Absent


COLUMNS = {
    "num_modules": "K",
    "objective": "L",
    "xi": "xi",
    "null": "L of null",
    "best_baseline": "Best baseline",
    "baseline_objective": "its L",
    "baseline_xi": "its xi",
    "accuracy": "Accuracy",
    "random_accuracy": "by random groups",
    "adjusted_rand": "Adjusted Rand",
    "state": "State",
}


@dataclass(frozen=True)
class _Inputs:
    """What the evaluation of several K shares."""

    context: Context
    train: Standardised
    test: Standardised | None
    samples: dict[str, Samples]
    executor: Executor

    @property
    def memory(self) -> int:
        """Bytes that the evaluation may use, as the search."""
        return memory_limit(self.context.job.discover.memory, self.executor)

    @property
    def splits(self) -> int:
        """Splits with samples: so many passes build features of both."""
        return 1 if self.test is None else 2


@writes
def evaluate(context: Context, num_modules: Sequence[int] | None = None) -> Summary:
    """Evaluate the modules for each K, by default of the job; what was evaluated before stays.

    Raises:
        InvalidInput: There are no modules for a K, or only those of an earlier snapshot.
    """
    numbers = require_modules(context, num_modules)
    save_job(context)
    updated = update(context, ["null", "methods", "evaluation"], numbers)
    rows, closing = evaluation_rows(context, updated), stale_sentences(context)
    return Summary(title="Evaluation", columns=COLUMNS, rows=rows, closing=closing)


def evaluation_rows(context: Context, updated: Updated) -> list[dict[str, Any]]:
    """The figures of the evaluation of each K, and whether it was made now."""
    return [
        {
            **_row(read_result(context.run, "evaluation", k, Discovery)),
            "state": updated.state("evaluation", k, "evaluated"),
        }
        for k in updated.numbers
    ]


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
            for k, methods in _methods(inputs, {k: modules[k] for k in numbers}).items():
                _store(context, "methods", k, methods)
        if numbers := wanted.get("evaluation"):
            for k, discovery in _evaluate(inputs, {k: modules[k] for k in numbers}).items():
                _store(context, "evaluation", k, discovery, left_out=discovery.left_out)


def _store(context: Context, name: str, num_modules: int, value: Any, **facts: Any) -> None:
    with replacing(context, name, num_modules) as record:
        record.facts = facts
        write_result(context.run, name, num_modules, value)


def _inputs(context: Context, run: Run, executor: Executor) -> _Inputs:
    texts = read_texts(context.job, run)
    table = run.snapshot.samples
    split = table["split"].to_numpy()
    samples = {}
    for name in ("train", "test"):
        chosen = table.filter(split == name)
        samples[name] = read_samples(chosen, texts)
    test = run.activations("test") if samples["test"].ids else None
    return _Inputs(context, run.activations("train"), test, samples, executor)


def _evaluate(inputs: _Inputs, modules: dict[int, StoredModules]) -> dict[int, Discovery]:
    numbers = list(modules)
    samples = sum(len(split.ids) for split in inputs.samples.values())
    described: dict[int, Discovery] = {}
    for group in group_by_memory(numbers, samples, inputs.memory):
        described |= _describe(inputs, {k: modules[k] for k in numbers[group]})
    return described


def _describe(inputs: _Inputs, modules: dict[int, StoredModules]) -> dict[int, Discovery]:
    on_progress = inputs.context.on_progress
    numbers = list(modules)
    labels = [stored.unit_labels for stored in modules.values()]
    with track(on_progress, "Module features", inputs.splits, "passes") as shown:
        executor = ProgressExecutor(inputs.executor, shown.update)
        train = compute_module_features(inputs.train, labels, numbers, executor)
        test: list[ModuleFeatures | None] = [None] * len(numbers)
        if inputs.test is not None:
            test = [*compute_module_features(inputs.test, labels, numbers, executor)]
    run = inputs.context.run
    described: dict[int, Discovery] = {}
    with track(on_progress, "Topics, classifiers, places", len(numbers), "K") as shown:
        for k, stored, mine, held_out in zip(numbers, modules.values(), train, test, strict=True):
            found = Found(stored, mine, held_out)
            described[k] = describe(
                inputs.context.job,
                found,
                inputs.samples,
                null=read_result(run, "null", k, NullModel).objectives,
                methods=read_result(run, "methods", k, MethodComparison),
            )
            shown.update(len(described))
    return described


def _search(
    inputs: _Inputs, activations: Standardised, numbers: Sequence[int], step: Step, **changes: int
) -> dict[int, Modules]:
    """The job's own search with another seed or number of restarts; all K share the passes."""
    return discover_all(
        activations,
        numbers,
        inputs.context.job.discover.model_copy(update=changes),
        executor=inputs.executor,
        progress=lambda iteration: step.update(step.done, f"iteration {iteration.iteration}"),
    )


def _null(inputs: _Inputs, numbers: Sequence[int]) -> Mapping[int, tuple[Objective, ...] | Absent]:
    """Objectives of the null model of each K, or why there are none."""
    if inputs.context.job.evaluate.null_permutations == 0:
        reason = Absent("The job asks for no null model (evaluate.null_permutations is 0).")
        return dict.fromkeys(numbers, reason)
    split = [k for k in numbers if k > 1]
    reason = Absent("With K = 1 there is no null model: all units and samples are one module.")
    absent = {k: reason for k in numbers if k == 1}
    if not split:
        return absent
    memory = _null_memory(inputs, split)
    if isinstance(memory, Absent):
        return {**absent, **dict.fromkeys(split, memory)}
    return {**absent, **_search_null(inputs, split, memory)}


def _null_memory(inputs: _Inputs, numbers: Sequence[int]) -> int | Absent:
    """Bytes that a search on permuted columns may use, or why there is no room for one.

    Beside the search each task holds the column of chunks whose entries it permutes.
    """
    discover = inputs.context.job.discover
    held = inputs.executor.workers * permutation_bytes(inputs.train)
    allowed = memory_limit(discover.memory, inputs.executor)
    memory = max(1, allowed - held)
    matrix = permute_columns(inputs.train, inputs.context.job.evaluate.seed)
    config = discover.model_copy(update={"restarts": 1, "memory": memory})
    try:
        plan_search(matrix, numbers, config, inputs.executor)
    except InvalidInput as error:
        return Absent(
            f"The null model holds {format_bytes(held)} of chunks at a time, of "
            f"{format_bytes(allowed)} that discover.memory allows. {error}"
        )
    return memory


def _search_null(
    inputs: _Inputs, numbers: Sequence[int], memory: int
) -> dict[int, tuple[Objective, ...]]:
    settings = inputs.context.job.evaluate
    count = settings.null_permutations
    with track(inputs.context.on_progress, "Null model", count, "searches") as step:

        def searched(matrix: Standardised, seed: int) -> dict[int, Objective]:
            changes = {"seed": seed, "restarts": 1, "memory": memory}
            found = _search(inputs, matrix, numbers, step, **changes)
            step.update(step.done + 1)
            return {k: modules.objective for k, modules in found.items()}

        return search_null_model(inputs.train, searched, count, settings.seed)


def _methods(inputs: _Inputs, modules: dict[int, StoredModules]) -> dict[int, MethodComparison]:
    baselines, left_out = _baselines(inputs, list(modules))
    halves, halves_left_out = _compare_halves(inputs, list(modules))
    seed = inputs.context.job.evaluate.seed
    random = [
        groups
        for k, stored in modules.items()
        if k > 1
        for groups in draw_random_groups(stored.unit_labels, k, seed)
    ]
    candidates = [*_searched(inputs, modules), *baselines, *random]
    total = inputs.splits + len(candidates)
    with track(inputs.context.on_progress, "Comparing methods", total, "parts") as step:
        scores = score_methods(
            candidates,
            inputs.train,
            inputs.test,
            inputs.samples["train"].categories,
            inputs.samples["test"].categories,
            ProgressExecutor(inputs.executor, step.update),
            lambda done: step.update(inputs.splits + done),
            inputs.memory,
        )
    return {
        k: MethodComparison(
            tabulate_methods(scores, k, halves.get(k)), (*left_out[k], *halves_left_out)
        )
        for k in modules
    }


def _compare_halves(
    inputs: _Inputs, numbers: Sequence[int]
) -> tuple[dict[int, float], tuple[Fact, ...]]:
    """How alike the modules of two halves of the samples are, for each K > 1; or why not known.

    Asked where other seeds are searched: it is the same question about the choice of samples.
    """
    numbers = [k for k in numbers if k > 1]
    if not numbers or len(_seeds(inputs)) < 2:
        return {}, ()
    context, raw = inputs.context, inputs.train.raw
    # Beside the search, each task holds the whole chunk of which it takes rows, and its bytes.
    held = 2 * inputs.executor.workers * math.prod(raw.chunksize) * raw.dtype.itemsize
    with track(context.on_progress, "Searching in halves", 2, "searches") as step:

        def search(half: Standardised) -> dict[int, Modules]:
            memory = max(1, inputs.memory - held)
            found = _search(inputs, half, numbers, step, memory=memory)
            step.update(step.done + 1)
            return found

        try:
            seed = context.job.evaluate.seed
            return compare_halves(inputs.train, search, inputs.executor, seed), ()
        except InvalidInput as error:
            return {}, (Fact("stability over halves of the samples", error.fact),)


def _searched(inputs: _Inputs, modules: dict[int, StoredModules]) -> list[Candidate]:
    """The modules found, and those of the same search with further seeds."""
    seed, *other_seeds = _seeds(inputs)
    candidates = [
        Candidate(ITERD, k, seed, stored.unit_labels, stored.sample_labels("train"))
        for k, stored in modules.items()
    ]
    total, name = len(other_seeds), "Searching with other seeds"
    with track(inputs.context.on_progress, name, total, "searches") as step:
        for other_seed in other_seeds:
            found = _search(inputs, inputs.train, list(modules), step, seed=other_seed)
            candidates += [
                Candidate(ITERD, k, other_seed, other.unit_labels, other.sample_labels)
                for k, other in found.items()
            ]
            step.update(step.done + 1)
    return candidates


def _seeds(inputs: _Inputs) -> range:
    """Seeds of every method: those of the search, so that no method has others to choose from."""
    first = inputs.context.job.discover.seed
    return range(first, first + inputs.context.job.evaluate.seeds)


def _baselines(
    inputs: _Inputs, numbers: Sequence[int]
) -> tuple[list[Candidate], dict[int, tuple[Fact, ...]]]:
    """Modules of the other methods; for each K, why a method found none with some seed."""
    settings = inputs.context.job.evaluate
    candidates: list[Candidate] = []
    left_out: dict[int, dict[str, Fact]] = {k: {} for k in numbers}
    if not settings.baselines:
        return candidates, dict.fromkeys(numbers, ())
    seeds = _seeds(inputs)
    on_progress = inputs.context.on_progress
    with track(on_progress, "Components of the units", COMPONENT_PASSES, "passes") as step:
        followed = ProgressExecutor(inputs.executor, step.update)
        points = principal_components(inputs.train, followed, side="units", seed=seeds[0])
    rounds = [
        (seed, k, method)
        # The largest K first: what is computed for it serves the others.
        for k, method, seed in product(sorted(numbers, reverse=True), settings.baselines, seeds)
        if seed == seeds[0] or method not in UNSEEDED
    ]
    with track(on_progress, "Baselines", len(rounds), "clusterings") as step:
        space = build_unit_space(
            inputs.train, inputs.executor, seed=seeds[0], points=points, memory=inputs.memory
        )
        for done, (seed, k, method) in enumerate(rounds, 1):
            try:
                found = find_baseline(method, space, inputs.train.n_samples, k, seed=seed)
                candidates.append(found)
            except InvalidInput as error:
                left_out[k].setdefault(method, Fact(method, error.fact))
            step.update(done)
    return candidates, {k: tuple(facts.values()) for k, facts in left_out.items()}


def _row(discovery: Discovery) -> dict[str, object]:
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
