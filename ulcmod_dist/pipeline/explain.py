"""``ulcmod explain``: tokens and units that drive modules, and what the model says without them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain

import numpy as np

from ulcmod_dist.api import Run
from ulcmod_dist.config.job import Job
from ulcmod_dist.config.schema import TokenizationConfig
from ulcmod_dist.corpus.prompts import Corpus
from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.forward.tokens import PromptTokenizer
from ulcmod_dist.intervene.ablation import AblationPool
from ulcmod_dist.intervene.explain import (
    ModuleSamples,
    Sample,
    describe_modules,
    describe_units,
    explain_modules,
)
from ulcmod_dist.intervene.generate import TokenReading
from ulcmod_dist.intervene.masks import read_layer_units
from ulcmod_dist.pipeline.context import Context, save_job, writes
from ulcmod_dist.pipeline.inputs import explain_no_ablation, read_run_corpus
from ulcmod_dist.pipeline.ledger import replacing, require_modules, stale_sentences, update
from ulcmod_dist.pipeline.result_files import read_result, write_result
from ulcmod_dist.pipeline.steering import check_model
from ulcmod_dist.pipeline.summary import Summary
from ulcmod_dist.results.discovery import Discovery
from ulcmod_dist.results.explanation import ExplainedModule, Explanation
from ulcmod_dist.results.types import Absent
from ulcmod_dist.runtime.progress import track
from ulcmod_dist.runtime.ray_session import ray_session

COLUMNS = {
    "num_modules": "K", "module": "Module", "tokens": "Top tokens", "description": "Description",
    "auc": "Its score", "state": "State",
}  # fmt: skip

MAX_HELD_OUT = 40
"""Held-out prompts of a module that may be completed or asked about."""

_EXPLANATION = (
    "Top tokens: where the mean z of the module's units is largest, over its typical prompts. "
    "Score: area under the ROC curve of the describing model's answers about held-out prompts; "
    "0.5 by chance."
)


@writes
def explain(context: Context, num_modules: Sequence[int] | None = None) -> Summary:
    """Explain the modules for each K, by default of the job; they are evaluated before.

    Raises:
        InvalidInput: The run's model is no decoder, a model cannot be used, the corpus has changed,
            or there are no modules.
        UlcmodError: A model failed, or no machine can hold it.
    """
    if (reason := explain_no_ablation(Run(context.run).snapshot.provenance)) is not None:
        raise InvalidInput(reason, "Explaining needs a run whose model is a decoder.")
    numbers = require_modules(context, num_modules)
    updated = update(context, ["null", "methods", "evaluation", "explanation"], numbers)
    save_job(context)
    rows = []
    for k in numbers:
        state = updated.state("explanation", k, "explained")
        for each in read_result(context.run, "explanation", k, Explanation).modules:
            tokens, described = each.tokens, each.description
            row = {
                "num_modules": k,
                "module": each.module,
                "tokens": None if isinstance(tokens, Absent) else [t.text for t in tokens],
                "units": [unit.name for unit in each.units],
                "description": None if isinstance(described, Absent) else described.text,
                "auc": None if isinstance(described, Absent) else described.auc,
                "state": state,
            }
            rows.append(row)
    closing = [_EXPLANATION, *stale_sentences(context)]
    return Summary("Explanation", COLUMNS, rows, closing=closing, num_keys=2)


def make_explanation(context: Context, wanted: Mapping[str, Sequence[int]]) -> None:
    """Explain the modules for each K wanted with one pool of actors, and describe with another."""
    job, run, numbers = context.job, Run(context.run), wanted["explanation"]
    if job.report.prompts == "none":
        for k in numbers:
            _store(context, k, _explain_units(job, run, k))
        return
    corpus = read_run_corpus(job, run, None)
    samples = {k: _choose_samples(context, run, corpus, k) for k in numbers}
    model, describe = job.require_model(), job.explain.describe
    tokens = job.prompt.tokens if job.extract.needs_loss else "prompt"
    tokenizer = PromptTokenizer.load(model, job.prompt.model_copy(update={"tokens": tokens}))
    # Before the first pass, so that a model that cannot be used costs no time.
    check_model(model.id, model.revision, run.snapshot.provenance, "Restore the run's model.")
    other = None
    if describe is not None:
        try:
            other = PromptTokenizer.load(describe.as_model(), TokenizationConfig(system=None))
        except InvalidInput as error:
            raise InvalidInput(f"explain.describe.model: {error.fact}", "Correct it.") from error
    # Only now: a model that cannot be used leaves the run's job as it was.
    save_job(context)
    explained = {}
    with ray_session(job.extract.address):
        with AblationPool(model, job.extract) as pool:
            for k in numbers:
                with track(context.on_progress, f"Explaining, K = {k}", None, "modules"):
                    explained[k] = explain_modules(
                        pool, tokenizer, _read_units(job, run, k), samples[k], job.explain
                    )
        if describe is not None and other is not None:
            with AblationPool(describe.as_model(), job.extract) as pool:
                for k in numbers:
                    with track(context.on_progress, f"Describing, K = {k}", None, "modules"):
                        lines = describe_modules(pool, other, samples[k])
                    explained[k] = tuple(
                        replace(module, description=line)
                        for module, line in zip(explained[k], lines, strict=True)
                    )
    for k in numbers:
        _store(context, k, explained[k])


def _store(context: Context, num_modules: int, modules: tuple[ExplainedModule, ...]) -> None:
    with replacing(context, "explanation", num_modules):
        write_result(context.run, "explanation", num_modules, Explanation(num_modules, modules))


def _read_units(job: Job, run: Run, num_modules: int) -> TokenReading:
    """What is read at tokens."""
    stored, moments = run.modules(num_modules), run.snapshot.moments
    return TokenReading(
        read_layer_units(run.snapshot.units),
        stored.unit_labels,
        stored.units["margin"].to_numpy().astype(np.float64),
        moments.mean,
        moments.std(),
        job.extract.statistic,
    )


def _explain_units(job: Job, run: Run, num_modules: int) -> tuple[ExplainedModule, ...]:
    """The units of each module, and nothing that a prompt could be read from."""
    reason = Absent("The job leaves the prompts' texts out (report.prompts is none).")
    units = describe_units(_read_units(job, run, num_modules), reason)
    return tuple(
        ExplainedModule(module, reason, reason, own, reason, reason)
        for module, own in enumerate(units)
    )


def _choose_samples(
    context: Context, run: Run, corpus: Corpus, num_modules: int
) -> list[ModuleSamples]:
    """The typical prompts of each module, as evaluated, and held-out ones in corpus order.

    Held out are those of the test split, or where there is none, train samples not among these.
    """
    row_of_id = {name: row for row, name in enumerate(corpus.table["sample_id"].to_pylist())}
    texts = corpus.table["text"]

    def take(names: Sequence[str]) -> list[Sample]:
        rows = [row_of_id[name] for name in names]
        return [
            Sample(name, texts[row].as_py(), corpus.prompt(row))
            for name, row in zip(names, rows, strict=True)
        ]

    modules = read_result(context.run, "evaluation", num_modules, Discovery).modules
    prompts = [() if isinstance(each.prompts, Absent) else each.prompts for each in modules]
    typical = [[prompt.sample_id for prompt in own] for own in prompts]
    frame = run.samples(num_modules)
    test = frame[frame["split"] == "test"]
    rest = test if len(test) else frame[~frame["sample_id"].isin({*chain.from_iterable(typical)})]
    return [
        ModuleSamples(
            take(own), take(rest[rest["module"] == module]["sample_id"].head(MAX_HELD_OUT).tolist())
        )
        for module, own in enumerate(typical)
    ]
