"""``ulcmod run``: every step of a job, each continuing where it stopped."""

import time
from collections.abc import Mapping
from typing import Any

from ulcmod_dist.api import Run
from ulcmod_dist.config.job import Job
from ulcmod_dist.corpus.prompts import fingerprint_files, read_corpus
from ulcmod_dist.pipeline.artifacts import METHOD_ABLATIONS
from ulcmod_dist.pipeline.context import Context, save_job, writes
from ulcmod_dist.pipeline.inputs import CORPUS_FILES, explain_no_ablation, observe_inputs
from ulcmod_dist.pipeline.ledger import Ledger, Updated, update
from ulcmod_dist.pipeline.result_files import EVALUATION_COLUMNS, read_evaluation_rows
from ulcmod_dist.pipeline.summary import Summary
from ulcmod_dist.runtime.progress import ProgressCallback, ignore_progress
from ulcmod_dist.runtime.rundir import REPORT, RunDir
from ulcmod_dist.store.records import (
    QuarantineEntry,
    describe_quarantine,
    latest_provenance,
    read_quarantine,
)

RESULTS = (
    "modules", "null", "methods", "evaluation", "ablation", METHOD_ABLATIONS, "explanation",
    "figures", "tables", "page",
)  # fmt: skip


@writes
def run_all(context: Context) -> Summary:
    """From prompts (or an imported matrix) to the report; what is done already is not repeated."""
    started = time.monotonic()
    extracted = make_snapshot(context)
    updated = update_results(context)
    return Summary(
        title="Modules",
        columns={key: heading for key, heading in EVALUATION_COLUMNS.items() if key != "state"},
        rows=read_evaluation_rows(context, updated),
        facts={**extracted.facts, "seconds": round(time.monotonic() - started, 1)},
        closing=[*extracted.closing, f"Report: {context.run.show(REPORT)}"],
        exit_code=extracted.exit_code,
    )


def run(job: Job, on_progress: ProgressCallback = ignore_progress) -> Summary:
    """Run a job from prompts (or an imported matrix) to the report, and print nothing.

    Warnings go to the loggers below ``ulcmod_dist``.

    Args:
        job: The job, such as ``um.Job.from_yaml("job.yaml")``.
        on_progress: Called with every update of every long step.

    Raises:
        UlcmodError: The job cannot be used, or a step failed.
    """
    return run_all(Context(job, RunDir.at(job.run), on_progress))


def make_snapshot(context: Context, *, update: bool = False) -> Summary:
    """Make the snapshot of the store from the job's corpus or from its matrix.

    Ray and torch are imported only where prompts are run: neither for an imported matrix, nor where
    nothing has changed. With ``update``, corpus and model may have changed since.
    """
    job = context.job
    if job.corpus is None:
        from ulcmod_dist.pipeline.import_matrix import import_matrix

        return import_matrix(context)
    if not _is_snapshot_current(context, update):
        from ulcmod_dist.pipeline.extract import extract

        return extract(context, update=update)
    record = Ledger(context.run, job).record("snapshot")
    assert record is not None
    held_back = _list_held_back(context)
    samples, units = record.facts["samples"], record.facts["units"]
    return Summary(
        title="Extraction",
        facts={"samples": samples, "reused": samples, "computed": 0, "units": units},
        closing=describe_quarantine(held_back),
        exit_code=3 if held_back else 0,
    )


def _is_snapshot_current(context: Context, update: bool) -> bool:
    """Whether corpus and model are as they were; files that have not changed are not parsed."""
    job, ledger = context.job, Ledger(context.run, context.job)
    plan, record = ledger.record("plan"), ledger.record("snapshot")
    if plan is None or record is None:
        return False
    sizes = {name: getattr(job.extract, name) for name in ("shard_samples", "batch_tokens")}
    planned = {name: plan.observed.get(f"extract.{name}") for name in sizes}
    differs = any(size not in (None, planned[name]) for name, size in sizes.items())
    if differs and not update:
        # The plan says why it cannot be followed.
        return False
    assert job.corpus is not None
    if record.facts.get(CORPUS_FILES) == fingerprint_files(job.corpus):
        corpus = str(record.observed["corpus"])
    else:
        corpus = read_corpus(job.corpus).fingerprint()
    observed = {"snapshot": observe_inputs(job, corpus)}
    return Ledger(context.run, job, observed=observed).is_current("snapshot")


def _list_held_back(context: Context) -> list[QuarantineEntry]:
    """The prompts in quarantine that samples of the corpus lack."""
    entries = read_quarantine(context.run)
    if not entries:
        return []
    assert context.job.corpus is not None
    missing = set(read_corpus(context.job.corpus).table["sample_id"].to_pylist())
    missing -= set(Run(context.run).snapshot.samples["sample_id"].to_pylist())
    return [entries[name] for name in sorted(entries) if missing & set(entries[name].sample_ids)]


def update_results(context: Context, **options: Mapping[str, Any]) -> Updated:
    """Update everything that is made from the snapshot; options as of `update`."""
    save_job(context)
    # The snapshot is not opened: that takes seconds, and where all is fresh nothing else needs it.
    job, provenance = context.job, latest_provenance(context.run)
    assert provenance is not None
    ablates = job.ablate.with_run and explain_no_ablation(provenance) is None
    explains = job.explain.with_run and job.matrix is None
    left_out = {
        "ablation": not ablates,
        METHOD_ABLATIONS: not (ablates and job.ablate.baselines),
        "explanation": not explains,
    }
    names = [name for name in RESULTS if not left_out.get(name, False)]
    return update(context, names, None, **options)
