"""``ulcmod evaluate``: what the modules mean, how good they are and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ulcmod_dist.api import Run
from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.evaluate.baselines import (
    Candidate,
    build_unit_space,
    find_baselines,
)
from ulcmod_dist.evaluate.features import ModuleFeatures, compute_module_features
from ulcmod_dist.evaluate.methods import ITERD, score_methods, tabulate_methods
from ulcmod_dist.evaluate.null import permutation_bytes, permute_columns, search_null_model
from ulcmod_dist.evaluate.structure import count_overlap
from ulcmod_dist.evaluate.topics import Samples
from ulcmod_dist.iterd.driver import discover_all
from ulcmod_dist.iterd.modules import Modules
from ulcmod_dist.iterd.plan import memory_limit, plan_search
from ulcmod_dist.passes.executors import Executor, ProgressExecutor
from ulcmod_dist.passes.linalg import COMPONENT_PASSES, principal_components
from ulcmod_dist.passes.standardised import Standardised
from ulcmod_dist.pipeline.context import Context, save_job, select_num_modules, writes
from ulcmod_dist.pipeline.discovery import Found, describe, read_samples
from ulcmod_dist.pipeline.evaluation_files import read_evaluation, write_evaluation
from ulcmod_dist.pipeline.searching import executor_of
from ulcmod_dist.pipeline.summary import Summary, format_bytes
from ulcmod_dist.pipeline.texts import texts_of
from ulcmod_dist.results.discovery import Discovery, MethodRow
from ulcmod_dist.results.types import Absent, Objective
from ulcmod_dist.runtime.progress import Step, track
from ulcmod_dist.runtime.rundir import fingerprint
from ulcmod_dist.store.modules import StoredModules

# Raised whenever the same modules and settings would lead to other answers than before.
EVALUATION_VERSION = 8

OVERLAPS = "overlaps"

COLUMNS = {
    "num_modules": "K",
    "objective": "L",
    "null": "L of null",
    "best_baseline": "Best baseline",
    "baseline_objective": "its L",
    "accuracy": "Accuracy",
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
    def splits(self) -> int:
        """Splits with samples: so many passes build features of both."""
        return 1 if self.test is None else 2


@writes
def evaluate(context: Context, *, num_modules: tuple[int, ...] | None = None) -> Summary:
    """Evaluate the modules for each K of the job; what was evaluated before stays.

    Args:
        context: The job and its run directory.
        num_modules: Work on these K only; None for all of the job.

    Raises:
        InvalidInput: There are no modules yet for a K of the job.
    """
    run = Run(context.run)
    numbers = select_num_modules(context.job, num_modules)
    modules = {num_modules: run.modules(num_modules) for num_modules in numbers}
    save_job(context)
    marks = {k: evaluation_mark(context, stored) for k, stored in modules.items()}
    known = {k: read_evaluation(context.run, name_of(k), Discovery, marks[k]) for k in numbers}
    pending = [k for k in numbers if known[k] is None]
    if pending:
        with executor_of(context.job) as executor:
            inputs = _inputs(context, run, executor)
            for k, discovery in _evaluate(inputs, {k: modules[k] for k in pending}).items():
                write_evaluation(context.run, name_of(k), discovery, marks[k])
                known[k] = discovery
    _write_overlaps(context, run)
    rows = [
        {**_row(discovery), "state": "evaluated" if k in pending else "as before"}
        for k, discovery in known.items()
        if discovery is not None
    ]
    return Summary(title="Evaluation", columns=COLUMNS, rows=rows)


def name_of(num_modules: int) -> str:
    """Name of the evaluation file of one K."""
    return f"K={num_modules:03d}"


def evaluation_mark(context: Context, stored: StoredModules) -> str:
    """Fingerprint of what the evaluation of one K follows from."""
    return fingerprint(
        {
            "modules": stored.metrics["identity"],
            "evaluate": context.job.evaluate.model_dump(mode="json"),
            "report": context.job.report.model_dump(mode="json"),
            "version": EVALUATION_VERSION,
        }
    )


def _inputs(context: Context, run: Run, executor: Executor) -> _Inputs:
    texts = texts_of(context, run)
    table = run.snapshot.samples
    split = table["split"].to_numpy()
    samples = {}
    for name in ("train", "test"):
        chosen = table.filter(split == name)
        samples[name] = read_samples(chosen, texts)
    test = run.activations("test") if samples["test"].ids else None
    return _Inputs(context, run.activations("train"), test, samples, executor)


def _evaluate(inputs: _Inputs, modules: dict[int, StoredModules]) -> dict[int, Discovery]:
    on_progress = inputs.context.on_progress
    numbers = list(modules)
    labels = [stored.unit_labels for stored in modules.values()]
    with track(on_progress, "Module features", inputs.splits, "passes") as shown:
        executor = ProgressExecutor(inputs.executor, shown.update)
        train = compute_module_features(inputs.train, labels, numbers, executor)
        test: list[ModuleFeatures | None] = [None] * len(numbers)
        if inputs.test is not None:
            test = [*compute_module_features(inputs.test, labels, numbers, executor)]
    null = {k: _null(inputs, k, stored) for k, stored in modules.items()}
    methods = _kept_methods(inputs, modules)
    described: dict[int, Discovery] = {}
    with track(on_progress, "Topics, classifiers, places", len(numbers), "K") as shown:
        for k, stored, mine, held_out in zip(numbers, modules.values(), train, test, strict=True):
            found = Found(stored, mine, held_out)
            described[k] = describe(
                inputs.context.job, found, inputs.samples, null=null[k], methods=methods[k]
            )
            shown.update(len(described))
    return described


def _search(
    inputs: _Inputs, activations: Standardised, num_modules: int, step: Step, **changes: int
) -> Modules:
    """The job's own search with another seed or number of restarts."""
    found = discover_all(
        activations,
        [num_modules],
        inputs.context.job.discover.model_copy(update=changes),
        executor=inputs.executor,
        progress=lambda iteration: step.update(step.done, f"iteration {iteration.iteration}"),
    )
    return found[num_modules]


def _null(
    inputs: _Inputs, num_modules: int, stored: StoredModules
) -> tuple[Objective, ...] | Absent:
    """The null model of one K; kept, since neither prompts nor methods change it."""
    settings = inputs.context.job.evaluate
    if settings.null_permutations == 0:
        return Absent("The job asks for no null model (evaluate.null_permutations is 0).")
    run, name = inputs.context.run, f"null-{name_of(num_modules)}"
    shaping = {"seed": settings.seed, "permutations": settings.null_permutations}
    mark = fingerprint(
        {"modules": stored.metrics["fingerprint"], "version": EVALUATION_VERSION, **shaping}
    )
    scores = read_evaluation(run, name, tuple[Objective, ...], mark)
    if scores is None:
        memory = _null_memory(inputs, num_modules)
        if isinstance(memory, Absent):
            return memory
        scores = _searched_null(inputs, num_modules, memory)
        write_evaluation(run, name, scores, mark)
    return scores


def _null_memory(inputs: _Inputs, num_modules: int) -> int | Absent:
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
        plan_search(matrix, [num_modules], config, inputs.executor)
    except InvalidInput as error:
        return Absent(
            f"The null model holds {format_bytes(held)} of chunks at a time, of "
            f"{format_bytes(allowed)} that discover.memory allows. {error}"
        )
    return memory


def _searched_null(inputs: _Inputs, num_modules: int, memory: int) -> tuple[Objective, ...]:
    settings = inputs.context.job.evaluate
    name = f"Null model, K = {num_modules}"
    with track(inputs.context.on_progress, name, settings.null_permutations, "searches") as step:

        def searched(matrix: Standardised, seed: int) -> Objective:
            found = _search(inputs, matrix, num_modules, step, seed=seed, restarts=1, memory=memory)
            objective = found.objective
            step.update(step.done + 1)
            return objective

        return search_null_model(inputs.train, searched, settings.null_permutations, settings.seed)


def _kept_methods(
    inputs: _Inputs, modules: dict[int, StoredModules]
) -> dict[int, tuple[MethodRow, ...]]:
    """The comparison of methods for each K; kept, since what the page shows does not change it."""
    run, settings = inputs.context.run, inputs.context.job.evaluate.model_dump(mode="json")
    names = {k: f"methods-{name_of(k)}" for k in modules}
    marks = {
        k: fingerprint(
            {"modules": stored.metrics["identity"], "version": EVALUATION_VERSION, **settings}
        )
        for k, stored in modules.items()
    }
    kept = {k: read_evaluation(run, names[k], tuple[MethodRow, ...], marks[k]) for k in modules}
    known = {k: rows for k, rows in kept.items() if rows is not None}
    pending = {k: stored for k, stored in modules.items() if k not in known}
    if pending:
        for k, rows in _methods(inputs, pending).items():
            write_evaluation(run, names[k], rows, marks[k])
            known[k] = rows
    return known


def _methods(
    inputs: _Inputs, modules: dict[int, StoredModules]
) -> dict[int, tuple[MethodRow, ...]]:
    candidates = [*_searched(inputs, modules), *_baselines(inputs, list(modules))]
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
        )
    return {k: tabulate_methods(scores, k) for k in modules}


def _searched(inputs: _Inputs, modules: dict[int, StoredModules]) -> list[Candidate]:
    """The modules found, and those of the same search with further seeds."""
    candidates = []
    total = (len(_seeds(inputs)) - 1) * len(modules)
    with track(inputs.context.on_progress, "Searching with other seeds", total, "searches") as step:
        for k, stored in modules.items():
            seed, *other_seeds = _seeds(inputs)
            first = stored.unit_labels, stored.sample_labels("train")
            candidates.append(Candidate(ITERD, k, seed, *first))
            for other_seed in other_seeds:
                other = _search(inputs, inputs.train, k, step, seed=other_seed)
                labels = other.unit_labels, other.sample_labels
                candidates.append(Candidate(ITERD, k, other_seed, *labels))
                step.update(step.done + 1)
    return candidates


def _seeds(inputs: _Inputs) -> range:
    """Seeds of every method: those of the search, so that no method has others to choose from."""
    first = inputs.context.job.discover.seed
    return range(first, first + inputs.context.job.evaluate.seeds)


def _baselines(inputs: _Inputs, numbers: Sequence[int]) -> list[Candidate]:
    settings = inputs.context.job.evaluate
    candidates: list[Candidate] = []
    if not settings.baselines:
        return candidates
    seeds = _seeds(inputs)
    total = len(seeds) * len(numbers)
    with track(
        inputs.context.on_progress, "Components of the units", COMPONENT_PASSES, "passes"
    ) as step:
        followed = ProgressExecutor(inputs.executor, step.update)
        points = principal_components(inputs.train, followed, side="units", seed=seeds[0])
    with track(inputs.context.on_progress, "Baselines", total, "rounds") as step:
        for seed in seeds:
            space = build_unit_space(inputs.train, inputs.executor, seed=seed, points=points)
            for k in numbers:
                candidates += find_baselines(
                    space, inputs.train.n_samples, k, seed=seed, methods=settings.baselines
                )
                step.update(step.done + 1)
    return candidates


def _write_overlaps(context: Context, run: Run) -> None:
    """How the modules of each K found so far split into those of the next larger one."""
    numbers = sorted(set(context.job.discover.modules).intersection(run.num_modules()))
    modules = {k: run.modules(k) for k in numbers}
    found = []
    for smaller, larger in pairwise(numbers):
        one, two = modules[smaller], modules[larger]
        units = one.unit_labels.astype(np.int64), two.unit_labels.astype(np.int64)
        samples = (
            one.sample_labels("train").astype(np.int64),
            two.sample_labels("train").astype(np.int64),
        )
        found.append(count_overlap(units, samples, (smaller, larger)))
    mark = fingerprint([evaluation_mark(context, stored) for stored in modules.values()])
    write_evaluation(context.run, OVERLAPS, tuple(found), mark)


def _row(discovery: Discovery) -> dict[str, object]:
    null = discovery.null
    best = discovery.methods[1] if len(discovery.methods) > 1 else None
    downstream = discovery.downstream
    return {
        "num_modules": discovery.num_modules,
        "objective": discovery.objective.value,
        "xi": discovery.objective.xi,
        "balance": discovery.objective.balance,
        "null": None if isinstance(null, Absent) else float(np.mean([s.value for s in null])),
        "best_baseline": None if best is None else best.method,
        "baseline_objective": None if best is None else best.value.mean,
        "accuracy": None
        if isinstance(downstream, Absent)
        else downstream.classifiers[0].accuracy.mean,
        "macro_f1": None
        if isinstance(downstream, Absent)
        else downstream.classifiers[0].macro_f1.mean,
    }
