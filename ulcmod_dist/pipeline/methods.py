"""The modules of the job's search beside those of other seeds, other methods and random groups."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.evaluate.baselines import (
    UNSEEDED,
    Candidate,
    build_unit_space,
    count_preclusters,
    find_baseline,
)
from ulcmod_dist.evaluate.measures import compare_halves, draw_random_groups
from ulcmod_dist.evaluate.methods import score_methods, select_first_seeds, tabulate_methods
from ulcmod_dist.evaluate.structure import CodedCategories
from ulcmod_dist.evaluate.topics import Samples
from ulcmod_dist.evaluate.unit_groups import measure_selectivity
from ulcmod_dist.iterd.driver import discover_all
from ulcmod_dist.iterd.modules import Modules
from ulcmod_dist.iterd.plan import memory_limit, plan_search
from ulcmod_dist.passes.executors import Executor, ProgressExecutor
from ulcmod_dist.passes.linalg import COMPONENT_PASSES, COMPONENTS, principal_components
from ulcmod_dist.passes.shares import read_matrix
from ulcmod_dist.passes.standardised import LabelArray, Standardised
from ulcmod_dist.pipeline.context import Context
from ulcmod_dist.results.discovery import ITERD, SUPERVISED, MethodComparison
from ulcmod_dist.results.types import Fact, Floats
from ulcmod_dist.runtime.progress import Step, track
from ulcmod_dist.store.modules import StoredModules

# Moves take as long on a half as on the whole, and halves agree about as well without them.
_OF_A_HALF = {"moves": False}


@dataclass(frozen=True)
class EvaluationInputs:
    """What the evaluation of several K shares."""

    context: Context
    train: Standardised
    test: Standardised | None
    samples: dict[str, Samples]
    executor: Executor
    layers: NDArray[np.int64] | None  # layer of each unit; None where it is not known
    held: int = 0  # bytes that are in use already

    @property
    def memory(self) -> int:
        """Bytes that the evaluation may use, as the search."""
        return max(1, memory_limit(self.context.job.discover.memory, self.executor) - self.held)

    @property
    def splits(self) -> int:
        """Splits with samples: so many passes build features of both."""
        return 1 if self.test is None else 2


def search_again(
    inputs: EvaluationInputs,
    activations: Standardised,
    numbers: Sequence[int],
    step: Step,
    **changes: float,
) -> dict[int, Modules]:
    """The job's own search with another seed or other settings; all K share the passes."""
    return discover_all(
        activations,
        numbers,
        inputs.context.job.discover.model_copy(update=changes),
        executor=inputs.executor,
        progress=lambda iteration: step.update(step.done, f"iteration {iteration.iteration}"),
    )


@dataclass(frozen=True)
class ComparedMethods:
    """The methods compared for one K, and the modules of the units and train samples by each."""

    comparison: MethodComparison
    found: dict[str, tuple[LabelArray, LabelArray]]  # without IterD, see `select_first_seeds`


def compare_methods(
    inputs: EvaluationInputs, modules: dict[int, StoredModules]
) -> dict[int, ComparedMethods]:
    """Score the modules of all methods, seeds and K, and say which method found none and why."""
    baselines, left_out = _baselines(inputs, list(modules), _seeds(inputs))
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
        k: ComparedMethods(
            MethodComparison(tabulate_methods(scores, k, halves), (*left_out[k], *halves_left_out)),
            select_first_seeds(scores, k),
        )
        for k in modules
    }


def _compare_halves(
    inputs: EvaluationInputs, numbers: Sequence[int]
) -> tuple[dict[tuple[str, int], float], tuple[Fact, ...]]:
    """How alike the modules of two halves are, for each method and K > 1; or why not known.

    Asked where other seeds are searched: it is the same question about the choice of samples.
    """
    numbers = [k for k in numbers if k > 1]
    if not numbers or len(_seeds(inputs)) < 2:
        return {}, ()
    raw, seed = inputs.train.raw, inputs.context.job.evaluate.seed
    # Beside the search, each task holds the whole chunk of which it takes rows, and its bytes.
    held = 2 * inputs.executor.workers * math.prod(raw.chunksize) * raw.dtype.itemsize
    train = inputs.samples["train"]

    def find(half: Standardised, rows: NDArray[np.int64]) -> list[Candidate]:
        samples = replace(train, categories=[train.categories[row] for row in rows])
        part = replace(inputs, train=half, samples={"train": samples}, held=held)
        part = _read_where_it_fits(part, numbers)
        with track(inputs.context.on_progress, "Searching a half", None, "searches") as step:
            settings = {"memory": part.memory, **_OF_A_HALF}
            found = search_again(part, part.train, numbers, step, **settings)
        own = [Candidate(ITERD, k, 0, modules.unit_labels) for k, modules in found.items()]
        # Making them takes time by their number.
        preclusters = -(-count_preclusters(half.n_units) // 2)
        return own + _baselines(part, numbers, _seeds(inputs)[:1], " of a half", preclusters)[0]

    try:
        return compare_halves(inputs.train, find, inputs.executor, seed), ()
    except InvalidInput as error:
        return {}, (Fact("stability over halves of the samples", error.fact),)


def _read_where_it_fits(inputs: EvaluationInputs, numbers: Sequence[int]) -> EvaluationInputs:
    """The inputs with their activations in memory, if the search fits in there beside them.

    Rows from all over a store are gathered from whole chunks, and a dozen passes read them.
    """
    raw = inputs.train.raw
    if not inputs.executor.in_process:
        return inputs
    held = replace(inputs, held=math.prod(raw.shape) * raw.dtype.itemsize)
    values = np.broadcast_to(np.zeros((), raw.dtype), raw.shape)
    config = inputs.context.job.discover.model_copy(update={"memory": held.memory, **_OF_A_HALF})
    try:
        plan_search(replace(inputs.train, raw=values), numbers, config, inputs.executor)
    except InvalidInput:
        return inputs
    return replace(held, train=replace(inputs.train, raw=read_matrix(raw, inputs.executor)))


def _searched(inputs: EvaluationInputs, modules: dict[int, StoredModules]) -> list[Candidate]:
    """The modules found, and those of the same search with further seeds."""
    seed, *other_seeds = _seeds(inputs)
    candidates = [
        Candidate(ITERD, k, seed, stored.unit_labels, stored.sample_labels("train"))
        for k, stored in modules.items()
    ]
    total, name = len(other_seeds), "Searching with other seeds"
    with track(inputs.context.on_progress, name, total, "searches") as step:
        for other_seed in other_seeds:
            found = search_again(inputs, inputs.train, list(modules), step, seed=other_seed)
            candidates += [
                Candidate(ITERD, k, other_seed, other.unit_labels, other.sample_labels)
                for k, other in found.items()
            ]
            step.update(step.done + 1)
    return candidates


def _seeds(inputs: EvaluationInputs) -> range:
    """Seeds of every method: those of the search, so that no method has others to choose from."""
    first = inputs.context.job.discover.seed
    return range(first, first + inputs.context.job.evaluate.seeds)


def _baselines(
    inputs: EvaluationInputs,
    numbers: Sequence[int],
    seeds: Sequence[int],
    suffix: str = "",
    num_preclusters: int | None = None,
) -> tuple[list[Candidate], dict[int, tuple[Fact, ...]]]:
    """Modules of the other methods; for each K, why a method found none with some seed.

    ``suffix`` says in the names of the steps what the modules are of.
    """
    settings = inputs.context.job.evaluate
    candidates: list[Candidate] = []
    left_out: dict[int, dict[str, Fact]] = {k: {} for k in numbers}
    if not settings.baselines:
        return candidates, dict.fromkeys(numbers, ())
    on_progress, name = inputs.context.on_progress, f"Components of the units{suffix}"
    with track(on_progress, name, COMPONENT_PASSES, "passes") as step:
        followed = ProgressExecutor(inputs.executor, step.update)
        # Independent components are made of as many principal ones.
        points = principal_components(
            inputs.train, followed, side="units", seed=seeds[0], count=max(COMPONENTS, *numbers)
        )
    rounds = [
        (seed, k, method)
        # The largest K first: what is computed for it serves the others.
        for k, method, seed in product(sorted(numbers, reverse=True), settings.baselines, seeds)
        if seed == seeds[0] or method not in UNSEEDED
    ]
    with track(on_progress, f"Baselines{suffix}", len(rounds), "groupings") as step:
        space = build_unit_space(
            inputs.train,
            inputs.executor,
            seed=seeds[0],
            num_preclusters=num_preclusters,
            points=points,
            memory=inputs.memory,
            layers=inputs.layers,
            selectivity=_measure_selectivity(inputs, numbers),
        )
        for done, (seed, k, method) in enumerate(rounds, 1):
            try:
                found = find_baseline(method, space, inputs.train.n_samples, k, seed=seed)
                candidates.append(found)
            except InvalidInput as error:
                left_out[k].setdefault(method, Fact(method, error.fact))
            step.update(done)
    return candidates, {k: tuple(facts.values()) for k, facts in left_out.items()}


def _measure_selectivity(inputs: EvaluationInputs, numbers: Sequence[int]) -> Floats | None:
    """Selectivity of the units, where there are as many categories as modules of some K."""
    settings = inputs.context.job.evaluate
    coded = CodedCategories.of(inputs.samples["train"].categories)
    count = len(coded.names)
    if SUPERVISED not in settings.baselines or count not in numbers or count < 2:
        return None
    return measure_selectivity(inputs.train, coded.codes, count, inputs.executor)
