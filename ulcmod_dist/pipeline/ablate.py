"""``ulcmod ablate``: the loss increase when a module is ablated in the forward pass."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ulcmod_dist.api import Run
from ulcmod_dist.corpus.prompts import Corpus, read_corpus
from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.forward.architectures import get_length_classes
from ulcmod_dist.forward.batches import TokenizedPrompt, plan_batches
from ulcmod_dist.forward.loading import load_config
from ulcmod_dist.forward.tokens import PromptTokenizer
from ulcmod_dist.intervene.ablation import AblationPool
from ulcmod_dist.intervene.masks import Mask, read_layer_units
from ulcmod_dist.intervene.selectivity import summarize_ablation
from ulcmod_dist.pipeline.context import Context, save_job, writes
from ulcmod_dist.pipeline.inputs import explain_no_ablation
from ulcmod_dist.pipeline.ledger import replacing, require_modules, stale_sentences, update
from ulcmod_dist.pipeline.result_files import read_result, write_result
from ulcmod_dist.pipeline.summary import Summary
from ulcmod_dist.results.ablation import Ablation
from ulcmod_dist.runtime.progress import track
from ulcmod_dist.runtime.ray_session import ray_session
from ulcmod_dist.store.modules import StoredModules

# Batches of extraction can be too large here: the logits of a whole batch take memory as well.
MAX_BATCH_TOKENS = 4096

COLUMNS = {
    "num_modules": "K",
    "selectivity": "Selectivity",
    "low": "low",
    "high": "high",
    "random": "of random sets",
    "advantage": "Advantage",
    "state": "State",
}


@dataclass(frozen=True, eq=False)
class _Samples:
    """The samples that are measured, the batches that they run in, and their groups."""

    prompts: list[TokenizedPrompt]
    batches: tuple[tuple[int, ...], ...]
    modules: NDArray[np.int64]
    categories: list[str | None]


@writes
def ablate(context: Context, num_modules: Sequence[int] | None = None) -> Summary:
    """Ablate each module of each K, by default of the job's, beside random sets.

    Raises:
        InvalidInput: The model is no decoder, the corpus has changed, or there are no modules.
    """
    if (reason := explain_no_ablation(Run(context.run).snapshot.provenance)) is not None:
        raise InvalidInput(reason, "Ablation needs a run whose model is a decoder.")
    numbers = require_modules(context, num_modules)
    save_job(context)
    updated = update(context, ["ablation"], numbers)
    rows = []
    for k in numbers:
        result = read_result(context.run, "ablation", k, Ablation)
        row = {
            "num_modules": k,
            "selectivity": result.selectivity.mean,
            "low": result.selectivity.low,
            "high": result.selectivity.high,
            "random": result.random_selectivity.mean,
            "advantage": result.advantage.mean,
            "advantage_low": result.advantage.low,
            "advantage_high": result.advantage.high,
            "samples": result.num_samples,
            "random_sets": result.num_random_sets,
            "state": updated.state("ablation", k, "measured"),
        }
        rows.append(row)
    closing = [
        "Selectivity: loss increase on a module's own samples less that on others, in nats a token "
        "of the prompt's own text. Low and high bound its 95% interval; the advantage is over "
        "random sets of as many units in each layer.",
        *stale_sentences(context),
    ]
    return Summary(title="Ablation", columns=COLUMNS, rows=rows, closing=closing)


def make_ablation(context: Context, wanted: Mapping[str, Sequence[int]]) -> None:
    """Measure the ablation of the modules for each K wanted with one pool of actors."""
    run, config = Run(context.run), context.job.extract
    corpus = _corpus(context, run)
    model = context.job.require_model()
    with ray_session(config.address), AblationPool(model, config) as pool:
        for k in wanted["ablation"]:
            result = _measure(context, pool, run.modules(k), corpus)
            with replacing(context, "ablation", k):
                write_result(context.run, "ablation", k, result)


def _corpus(context: Context, run: Run) -> Corpus:
    assert context.job.corpus is not None
    prompts = read_corpus(context.job.corpus)
    known = set(prompts.table["sample_id"].to_pylist())
    missing = [sample_id for sample_id in run.sample_ids() if sample_id not in known]
    if missing:
        raise InvalidInput(
            f"The corpus has changed since extraction: it lacks {len(missing)} samples, the first "
            f"is {missing[0]}.",
            "Restore the corpus, or extract it again.",
        )
    return prompts


def _measure(
    context: Context, pool: AblationPool, stored: StoredModules, corpus: Corpus
) -> Ablation:
    settings = context.job.ablate
    num_modules = int(stored.metrics["num_modules"])
    generator = np.random.default_rng([settings.seed, num_modules])
    samples = _draw_samples(context, stored, corpus, generator)
    units = read_layer_units(Run(context.run).snapshot.units)
    masks = [Mask.from_modules(units, stored.unit_labels, (k,)) for k in range(num_modules)]
    random = [
        mask.draw_random_like(generator) for mask in masks for _ in range(settings.random_sets)
    ]
    if settings.method == "mean":
        means = pool.compute_unit_means(samples.prompts, samples.batches)
        masks, random = ([mask.with_means(means) for mask in each] for each in (masks, random))
    name = f"Ablating, K = {num_modules}"
    with track(context.on_progress, name, len(samples.prompts), "samples") as step:
        measured = pool.measure(
            samples.prompts,
            samples.batches,
            [*masks, *random],
            lambda count: step.update(step.done + count),
        )
    increase = measured.loss_increase
    return summarize_ablation(
        increase[:num_modules],
        increase[num_modules:],
        samples.modules,
        samples.categories,
        settings,
        generator,
    )


def _draw_samples(
    context: Context, stored: StoredModules, corpus: Corpus, generator: np.random.Generator
) -> _Samples:
    """Draw as many train samples of each module as the job says, and tokenize them."""
    job = context.job
    train = stored.samples.filter(stored.samples["split"].to_numpy() == "train")
    labels = stored.sample_labels("train").astype(np.int64)
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
        corpus.prompts([row_of_id[name] for name in chosen["sample_id"].to_pylist()])
    )
    lengths = get_length_classes(load_config(job.require_model()))
    batch_tokens = min(MAX_BATCH_TOKENS, job.extract.batch_tokens or MAX_BATCH_TOKENS)
    return _Samples(
        prompts=prompts,
        batches=plan_batches([len(prompt.ids) for prompt in prompts], batch_tokens, lengths),
        modules=labels[drawn],
        categories=chosen["category"].to_pylist(),
    )
