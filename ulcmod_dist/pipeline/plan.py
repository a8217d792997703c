"""``ulcmod plan``: what extraction and search would do; and the plan that extraction follows."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow.compute as pc

from ulcmod_dist.config.job import Job
from ulcmod_dist.corpus.digests import fingerprint_digests, to_arrow
from ulcmod_dist.corpus.prompts import read_corpus
from ulcmod_dist.errors import InvalidInput, UlcmodError
from ulcmod_dist.extract.driver import check_disk_space, check_remaining_space, prepare
from ulcmod_dist.extract.planner import (
    PreparedExtraction,
    drop_plan,
    list_plan_inputs,
    load_plan,
    merge_provenance,
)
from ulcmod_dist.extract.probe import probe
from ulcmod_dist.extract.replica import ModelLoader, ModelReplica
from ulcmod_dist.forward.architectures import count_units, get_length_classes, is_decoder
from ulcmod_dist.forward.checkpoints import check_weights
from ulcmod_dist.forward.loading import check_ranks, get_model_provenance, load_config
from ulcmod_dist.forward.provenance import ATTRIBUTION
from ulcmod_dist.forward.survey import survey_prompts
from ulcmod_dist.forward.tokens import PromptTokenizer
from ulcmod_dist.forward.units import find_units, list_units
from ulcmod_dist.iterd.plan import SearchPlan, check_modules, plan_search
from ulcmod_dist.passes.executors import check_executor
from ulcmod_dist.passes.standardised import Standardised
from ulcmod_dist.pipeline.artifacts import FOLDERS, record_key
from ulcmod_dist.pipeline.context import Context
from ulcmod_dist.pipeline.devices import choose_batch_tokens, estimate_model_bytes
from ulcmod_dist.pipeline.ledger import Ledger, replacing
from ulcmod_dist.pipeline.search import describe_plan, job_executor, placeholder_activations
from ulcmod_dist.pipeline.summary import Summary, format_bytes
from ulcmod_dist.runtime.progress import track
from ulcmod_dist.runtime.ray_session import check_cluster
from ulcmod_dist.runtime.rundir import (
    ACTIVATIONS,
    ARTIFACTS,
    FORMAT_FILE,
    JOB,
    PLAN,
    PLAN_ROWS,
    REPORT,
    RunDir,
)
from ulcmod_dist.store.records import committed_digests

MIN_SHARD_SAMPLES = 512
MAX_SHARDS = 2000
MAX_SHARD_BYTES = 64 * 2**20

logger = logging.getLogger(__name__)


def plan(context: Context, *, measure: bool = True) -> Summary:
    """Plan extraction and search; nothing is written into the run.

    To ``measure`` is to load the model and run a few batches, which project the time.

    Raises:
        InvalidInput: The job's model or corpus cannot be used, the run cannot be written or holds
            another job, or the search cannot do with the memory it may use.
        UlcmodError: The disk lacks space, or the cluster cannot give an actor what it asks for.
    """
    prepared = prepare_extraction(context, save=False)
    check_remaining_space(context.run, prepared)
    search = _search_plan(context.job, prepared)
    counts = prepared.plan.summary()
    survey = prepared.survey
    assert survey is not None
    figures = {
        **counts,
        "control_tokens": survey.control_tokens,
        "first_sample": survey.first,
        "warnings": list(survey.warnings),
        "search": asdict(search),
    }
    facts: dict[str, Any] = {
        **{name: counts[name] for name in counts if not name.endswith("bytes")},
        **_describe_layers(context.job),
        "first sample": survey.first,
        **_describe_control_tokens(context.job, survey.control_tokens),
        "to be written": format_bytes(figures["bytes"]),
        "memory of an actor, projected": format_bytes(figures["actor_bytes"]),
    }
    if measure and figures["prompts"]:
        loader = make_model_loader(context.job, prepared)
        with track(context.on_progress, "Measuring a few batches", None, "batches"):
            projection = probe(context.run, prepared, loader, context.job.extract)
        figures |= asdict(projection)
        facts |= {
            "memory of an actor, measured": format_bytes(projection.peak_bytes),
            "tokens a second and actor": round(projection.tokens_per_second),
            "actors": projection.actors,
            "time, projected": f"{projection.seconds / 3600:,.2f} h",
            "GPU hours, projected": round(projection.gpu_hours, 2),
        }
    figures["left_out"] = list_left_out(context.job, prepared)
    ledger = Ledger(context.run, context.job)
    figures["artifacts"] = [status.as_json() for status in ledger.statuses()]
    pending = ledger.describe_pending()
    closing = [f"`ulcmod run` would make: {pending}." if pending else "Everything is up to date."]
    closing += figures["left_out"]
    return Summary(
        title="Plan", facts={**facts, **describe_plan(search)}, data=figures, closing=closing
    )


def _describe_layers(job: Job) -> dict[str, str]:
    model = job.require_model()
    layers = find_units(load_config(model), model.units).layers_without_mlp
    return {"layers without an MLP": ", ".join(map(str, layers))} if layers else {}


def _describe_control_tokens(job: Job, prompts: int) -> dict[str, str]:
    if not prompts:
        return {}
    read_as = "text" if job.prompt.control_tokens == "text" else "control tokens"
    return {"prompts that spell control tokens": f"{prompts:,}, read as {read_as}"}


def _search_plan(job: Job, prepared: PreparedExtraction) -> SearchPlan:
    extracted = _placeholder(prepared)
    held_out = len(prepared.prompts) - extracted.n_samples
    with job_executor(job) as executor:
        return plan_search(
            extracted, job.discover.modules, job.discover, executor, held_out=held_out
        )


def _placeholder(prepared: PreparedExtraction) -> Standardised:
    train = pc.sum(pc.equal(prepared.prompts.table["split"], "train")).as_py()
    return placeholder_activations(train, prepared.plan.num_units, prepared.plan.chunk_shape)


def check_search(job: Job, prepared: PreparedExtraction) -> None:
    """Refuse K that the search could only refuse once the extraction is over."""
    check_modules(_placeholder(prepared), job.discover.modules)


def prepare_extraction(context: Context, *, save: bool, update: bool = False) -> PreparedExtraction:
    """The plan of a job, which ``save`` makes the run's, and the corpus it was made for.

    With ``update``, a job that has changed makes a new plan, which reuses rows that still hold.

    Raises:
        InvalidInput: The model, the corpus or the run directory cannot be used, or the run follows
            a plan that was made from other inputs.
        UlcmodError: The disk lacks space, or no cluster answers at an address of the job.
    """
    job = context.job
    model = job.require_model()
    assert job.corpus is not None
    config = _check_before_reading(context)
    with track(context.on_progress, "Planning", None, "samples") as step:
        corpus = read_corpus(job.corpus)
        tokenizer = PromptTokenizer.load(model, job.prompt)
        provenance = merge_provenance(get_model_provenance(model), tokenizer.provenance)
        provenance |= ATTRIBUTION if job.extract.needs_loss else {}
        survey = survey_prompts(tokenizer, corpus, quote=job.report.prompts == "all")
        units = list_units(config, model.units)
        if load_plan(context.run) is None:
            # Known before a cluster is asked for the memory of its devices.
            rows = pc.count_distinct(to_arrow(survey.digests)).as_py()
            check_disk_space(context.run, 4 * count_units(units) * rows)
        batch_tokens = choose_batch_tokens(context, tokenizer.max_tokens)
        shard_samples = _choose_shard_samples(context, len(corpus), count_units(units))
        inputs = list_plan_inputs(
            fingerprint_digests(survey.digests), provenance, shard_samples, batch_tokens
        )
        changes = Ledger(context.run, job, observed={"plan": inputs}).changes("plan")
        if changes and not update:
            raise InvalidInput(
                f"{context.run.url} was extracted with a different configuration: "
                f"{'; '.join(changes)}.",
                "Use another run directory, undo the change, or update the run with "
                "`ulcmod rerun`.",
            )
        prepared = prepare(
            context.run,
            corpus,
            tokenizer,
            units,
            provenance,
            shard_samples=shard_samples,
            batch_tokens=batch_tokens,
            digests=survey.digests,
            lengths=get_length_classes(config),
            vocabulary=config.get_text_config().vocab_size,
            model_bytes=partial(estimate_model_bytes, job),
            save=save,
        )
        step.update(len(corpus))
    if save:
        with replacing(context, "plan", observed=inputs) as record:
            record.facts = prepared.plan.summary()
    for warning in survey.warnings:
        logger.warning(warning)
    return replace(prepared, survey=survey)


def _choose_shard_samples(context: Context, samples: int, units: int) -> int:
    """Samples of a shard: as in the job, else as in the run's plan, else by the corpus.

    Every shard is some ten files and a commit, which every command that opens the run looks up.
    """
    if context.job.extract.shard_samples is not None:
        return context.job.extract.shard_samples
    if (planned := load_plan(context.run)) is not None:
        return planned.shard_samples
    return max(MIN_SHARD_SAMPLES, min(samples // MAX_SHARDS, MAX_SHARD_BYTES // (4 * units)))


def _check_before_reading(context: Context) -> Any:
    """Check what is known in seconds, before the corpus is read; returns the model's configuration.

    Raises as `prepare_extraction` does.
    """
    job, model = context.job, context.job.require_model()
    _check_outputs(context.run)
    if load_plan(context.run) is None:
        # A cluster that is not there is known at once, before hours of reading and computing. A
        # run that has been extracted may need none.
        check_cluster(job.extract.address)
        check_executor(job.discover.executor)
    config = load_config(model)
    check_ranks(model, config, job.extract.ranks)
    decodes = is_decoder(config.model_type)
    if job.extract.needs_loss and not decodes:
        raise InvalidInput(
            f"Models of type {config.model_type} are encoders without a head that predicts the "
            "next token, so a prompt has no loss to attribute to units.",
            "Set extract.statistic to activation, or use a decoder.",
        )
    # Ablation predicts tokens, for which it needs the head as well.
    head = decodes and (job.ablate.with_run or job.extract.needs_loss)
    check_weights(model, config, head=head)
    return config


@contextmanager
def dropping_unused_plan(context: Context) -> Iterator[None]:
    """Drop the run's plan if the block fails before any row is committed.

    A job that is corrected, or a model, then makes its own.
    """
    try:
        yield
    except UlcmodError:
        context.fence.check()
        if not committed_digests(context.run):
            context.run.delete(record_key("plan"))
            drop_plan(context.run)
        raise


def list_left_out(job: Job, prepared: PreparedExtraction) -> list[str]:
    """What the evaluation will leave out, as far as the plan tells; one sentence each."""
    # scikit-learn takes seconds to import, which an extraction does without.
    from ulcmod_dist.evaluate.baselines import count_preclusters
    from ulcmod_dist.evaluate.downstream import explain_left_out

    table = prepared.prompts.table
    coded = table["category"].combine_chunks().dictionary_encode()
    # One object a category, not one a sample.
    names = np.array([*coded.dictionary.to_pylist(), None], object)[coded.indices.fill_null(-1)]
    is_train = table["split"].to_numpy() == "train"
    sentences = [explain_left_out(names[is_train].tolist(), names[~is_train].tolist())]
    preclusters = count_preclusters(prepared.plan.num_units)
    numbers = [k for k in job.discover.modules if k == 1 or preclusters < k]
    if numbers and job.evaluate.baselines:
        sentences.append(
            f"Baselines will be left out for K = {', '.join(map(str, numbers))}: they find at "
            f"least 2 modules, and some at most {preclusters:,}, the pre-clusters of the units."
        )
    return [sentence for sentence in sentences if sentence]


def _check_outputs(run: RunDir) -> None:
    """Refuse a run directory in which a file lies where a folder is needed, or the reverse."""
    run.check_writable()
    if run.local is None:
        return
    folders = {ACTIVATIONS, ARTIFACTS, PLAN_ROWS, *FOLDERS}
    for name in sorted({*folders, FORMAT_FILE, JOB, PLAN, REPORT}):
        path, is_folder = run.local / name, name in folders
        if path.exists() and path.is_dir() != is_folder:
            kind = "a file, not a folder" if is_folder else "a folder, not a file"
            raise InvalidInput(
                f"The run directory {run.url} cannot be written: {path} is {kind}.",
                "Remove it, or name another run directory.",
            )


def make_model_loader(job: Job, prepared: PreparedExtraction) -> ModelLoader:
    """What loads the model in an actor."""
    return partial(ModelReplica, job.require_model(), job.prompt, job.extract, prepared.plan.units)
