"""``ulcmod run``: every step of a job, each continuing where it stopped."""

import time
from collections.abc import Mapping
from typing import Any

from ulcmod_dist.api import Run
from ulcmod_dist.config.job import Job
from ulcmod_dist.pipeline.context import Context, save_job, writes
from ulcmod_dist.pipeline.evaluate import COLUMNS, evaluation_rows
from ulcmod_dist.pipeline.inputs import explain_no_ablation
from ulcmod_dist.pipeline.ledger import Updated, update
from ulcmod_dist.pipeline.summary import Summary
from ulcmod_dist.runtime.progress import ProgressCallback, ignore_progress
from ulcmod_dist.runtime.rundir import REPORT, RunDir

RESULTS = (
    "modules", "null", "methods", "evaluation", "ablation", "explanation", "figures", "tables",
    "page",
)  # fmt: skip


@writes
def run_all(context: Context) -> Summary:
    """From prompts (or an imported matrix) to the report; what is done already is not repeated."""
    started = time.monotonic()
    extracted = make_snapshot(context)
    updated = update_results(context)
    return Summary(
        title="Modules",
        columns={key: heading for key, heading in COLUMNS.items() if key != "state"},
        rows=evaluation_rows(context, updated),
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


def make_snapshot(context: Context) -> Summary:
    """Make the snapshot of the store from the job's corpus or from its matrix."""
    # Ray and torch are imported only where prompts are run, not for an imported matrix.
    if context.job.matrix is None:
        from ulcmod_dist.pipeline.extract import extract

        return extract(context)
    from ulcmod_dist.pipeline.import_matrix import import_matrix

    return import_matrix(context)


def update_results(context: Context, **options: Mapping[str, Any]) -> Updated:
    """Update everything that is made from the snapshot; options as of `update`."""
    save_job(context)
    job, snapshot = context.job, Run(context.run).snapshot
    ablates = job.ablate.with_run and explain_no_ablation(snapshot.provenance) is None
    explains = job.explain.with_run and not snapshot.imported
    left_out = {"ablation": not ablates, "explanation": not explains}
    names = [name for name in RESULTS if not left_out.get(name, False)]
    return update(context, names, None, **options)
