"""``ulcmod ablate``: the loss increase when a module is ablated in the forward pass."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ulcmod_dist.api import Run
from ulcmod_dist.config.job import Job
from ulcmod_dist.corpus.prompts import Corpus
from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.forward.architectures import get_length_classes
from ulcmod_dist.forward.batches import plan_batches
from ulcmod_dist.forward.loading import load_config
from ulcmod_dist.forward.tokens import PromptTokenizer
from ulcmod_dist.intervene.ablation import AblationPool
from ulcmod_dist.intervene.masks import Mask, read_layer_units
from ulcmod_dist.intervene.selectivity import summarize_ablation
from ulcmod_dist.intervene.trials import AblationSamples, measure_trials, plan_trials
from ulcmod_dist.pipeline.artifacts import METHOD_ABLATIONS
from ulcmod_dist.pipeline.context import Context, save_job, writes
from ulcmod_dist.pipeline.inputs import explain_no_ablation, observe_answers, read_run_corpus
from ulcmod_dist.pipeline.ledger import replacing, require_modules, stale_sentences, update
from ulcmod_dist.pipeline.result_files import Labels, read_groupings, read_result, write_result
from ulcmod_dist.pipeline.steering import check_model
from ulcmod_dist.pipeline.summary import Summary
from ulcmod_dist.results.ablation import AblatedMethod, Ablation, MethodAblations
from ulcmod_dist.results.discovery import ITERD, RANDOM_GROUPS
from ulcmod_dist.runtime.progress import track
from ulcmod_dist.runtime.ray_session import ray_session

# Batches of extraction can be too large here: the logits of a whole batch take memory as well.
MAX_BATCH_TOKENS = 4096

# An actor keeps the units of every token that a batch resamples.
MAX_SOURCE_BYTES = 2**29

COLUMNS = {
    "num_modules": "K",
    "method": "Method",
    "selective": "Selective",
    "least": "Least",
    "median": "Median",
    "answers": "On answers",
    "controls": "Controls",
    "general": "General machinery",
    "state": "State",
}

_EXPLANATION = (
    "Selective: modules whose selectivity (loss increase on their own samples less that on others, "
    "in nats a token of the prompt's own text) lies above zero and all control sets. Least and "
    "median: of the modules' selectivities. On answers: the median over the tokens of the expected "
    "answers that corpus.answer names. Controls: the mean of sets of as many other units in each "
    "layer. General machinery: modules that cost the other samples more than all control sets do, "
    "and more than half as much as their own; they do not count as selective."
)


@writes
def ablate(context: Context, num_modules: Sequence[int] | None = None) -> Summary:
    """Ablate each module of each K, by default of the job's, beside random sets.

    Raises:
        InvalidInput: The model is no decoder or has changed, the corpus has changed, or there are
            no modules.
    """
    snapshot = Run(context.run).snapshot
    if (reason := explain_no_ablation(snapshot.provenance)) is not None:
        raise InvalidInput(reason, "Ablation needs a run whose model is a decoder.")
    numbers = require_modules(context, num_modules)
    save_job(context)
    others = ["methods", METHOD_ABLATIONS] if context.job.ablate.baselines else []
    updated = update(context, ["ablation", *others], numbers)
    rows = []
    for k in numbers:
        own, state = read_result(context.run, "ablation", k, Ablation), updated.state
        rows.append(_describe(k, ITERD, own, state("ablation", k, "measured")))
        if others:
            found = read_result(context.run, METHOD_ABLATIONS, k, MethodAblations)
            named = state(METHOD_ABLATIONS, k, "measured")
            rows += [_describe(k, each.method, each.ablation, named) for each in found.methods]
    columns = COLUMNS if others else {k: v for k, v in COLUMNS.items() if k != "method"}
    closing = [_EXPLANATION, *stale_sentences(context)]
    # Of activation, as nearly always, nothing is said.
    facts = {} if snapshot.statistic == "activation" else {"statistic": snapshot.statistic}
    return Summary(
        title="Ablation",
        columns=columns,
        rows=rows,
        facts=facts,
        closing=closing,
        num_keys=2 if others else 1,
    )


def _describe(num_modules: int, method: str, result: Ablation, state: str) -> dict[str, Any]:
    """One row: the ablation of the modules that a method found."""
    least, median = result.selectivity_quantiles
    answers = result.answers
    return {
        "num_modules": num_modules,
        "method": method,
        "selective": result.num_selective,
        "least": least,
        "median": median,
        "selectivity": result.selectivity.mean,
        "low": result.selectivity.low,
        "high": result.selectivity.high,
        "controls": result.control_selectivity.mean,
        "advantage": result.advantage.mean,
        "advantage_low": result.advantage.low,
        "advantage_high": result.advantage.high,
        "general": list(result.general),
        "answers": answers and answers.selectivity_quantiles[1],
        "samples": result.num_samples,
        "answer_samples": answers.num_samples if answers else 0,
        "random_sets": result.num_random_sets,
        "state": state,
    }


def make_ablation(context: Context, wanted: Mapping[str, Sequence[int]]) -> None:
    """Ablate the modules of each K wanted, and those of other methods, with one pool of actors."""
    run, config = Run(context.run), context.job.extract
    corpus = read_run_corpus(context.job, run)
    model = context.job.require_model()
    check_model(model.id, model.revision, run.snapshot.provenance, "Restore the run's model.")
    with ray_session(config.address), AblationPool(model, config) as pool:
        measure = partial(_measure, context, pool, corpus)
        for k in wanted.get("ablation", ()):
            stored = run.modules(k)
            own = stored.unit_labels, stored.sample_labels("train")
            _store(context, "ablation", k, measure(k, own), corpus)
        for k in wanted.get(METHOD_ABLATIONS, ()):
            found = read_groupings(context.run, k)
            # Methods without modules for this K are named by the comparison, with the reason.
            named = [*context.job.ablate.baselines, RANDOM_GROUPS]
            ablated = [AblatedMethod(x, measure(k, found[x], x)) for x in named if x in found]
            _store(context, METHOD_ABLATIONS, k, MethodAblations(tuple(ablated)), corpus)


def _store(context: Context, name: str, num_modules: int, value: Any, corpus: Corpus) -> None:
    with replacing(context, name, num_modules, observed=observe_answers(corpus)):
        write_result(context.run, name, num_modules, value)


def _measure(
    context: Context,
    pool: AblationPool,
    corpus: Corpus,
    num_modules: int,
    found: tuple[Labels, Labels],
    method: str = "",
) -> Ablation:
    """Ablate the modules that the units and train samples were ``found`` to be in."""
    settings, run = context.job.ablate, Run(context.run)
    generator = np.random.default_rng([settings.seed, num_modules])
    table = run.snapshot.samples
    train = table.filter(table["split"].to_numpy() == "train")
    unit_labels, sample_labels = found
    samples = draw_samples(
        context.job, train, sample_labels.astype(np.int64), len(unit_labels), corpus, generator
    )
    units = read_layer_units(run.snapshot.units)
    modules = [Mask.from_modules(units, unit_labels, (k,)) for k in range(num_modules)]
    activation = np.asarray(run.activations().mean, np.float64)
    trials = plan_trials(modules, activation, settings, generator)
    name = f"Ablating {method}, K = {num_modules}" if method else f"Ablating, K = {num_modules}"
    passes = len(samples.batches) * (1 + len(trials))
    with track(context.on_progress, name, passes, "passes") as step:
        losses = measure_trials(
            pool, trials, samples, settings, generator,
            lambda: step.update(step.done + 1),
        )  # fmt: skip
    return summarize_ablation(losses, trials, samples, settings, generator)


def draw_samples(
    job: Job,
    train: pa.Table,
    labels: NDArray[np.integer[Any]],
    num_units: int,
    corpus: Corpus,
    generator: np.random.Generator,
) -> AblationSamples:
    """Draw as many samples of each module as the job says, and tokenize them.

    ``train`` are the train samples of the store, ``labels`` their modules.
    """
    members = [np.flatnonzero(labels == module) for module in np.unique(labels)]
    drawn = np.concatenate(
        [
            np.sort(generator.choice(rows, min(len(rows), job.ablate.samples), replace=False))
            for rows in members
        ]
    )
    chosen = train.take(drawn)
    row_of_id = {name: row for row, name in enumerate(corpus.table["sample_id"].to_pylist())}
    # Template and system message are the same for all prompts: measure the prompt's own text.
    tokenization = job.prompt.model_copy(update={"tokens": "prompt"})
    tokenizer = PromptTokenizer.load(job.require_model(), tokenization)
    prompts = tokenizer.encode(
        corpus.prompts(rows := [row_of_id[name] for name in chosen["sample_id"].to_pylist()])
    )
    prompts = tokenizer.append_answers(prompts, corpus.table["answer"].take(rows).to_pylist())
    lengths = get_length_classes(load_config(job.require_model()))
    batch_tokens = min(MAX_BATCH_TOKENS, job.extract.batch_tokens or MAX_BATCH_TOKENS)
    if job.ablate.method == "resample":
        batch_tokens = min(batch_tokens, MAX_SOURCE_BYTES // (4 * num_units) + 1)
    return AblationSamples(
        prompts=prompts,
        batches=plan_batches([len(prompt.ids) for prompt in prompts], batch_tokens, lengths),
        modules=labels[drawn],
        categories=chosen["category"].to_pylist(),
    )
