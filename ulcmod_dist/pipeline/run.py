"""``ulcmod run``: every stage of a job, each continuing where it stopped."""

from __future__ import annotations

import time

from ulcmod_dist.api import Run
from ulcmod_dist.config.job import Job
from ulcmod_dist.pipeline.ablatable import why_not_ablated
from ulcmod_dist.pipeline.context import Context, writes
from ulcmod_dist.pipeline.discover import discover
from ulcmod_dist.pipeline.evaluate import COLUMNS, evaluate
from ulcmod_dist.pipeline.report import report
from ulcmod_dist.pipeline.reported import is_reported
from ulcmod_dist.pipeline.summary import Summary
from ulcmod_dist.runtime.rundir import REPORT, RunDir


@writes
def run_all(context: Context) -> Summary:
    """From prompts (or an imported matrix) to the report; what is done already is not repeated."""
    # Ray and torch are loaded only where prompts are run, not for an imported matrix.
    started = time.monotonic()
    if context.job.matrix is None:
        from ulcmod_dist.pipeline.extract import extract

        extracted = extract(context)
    else:
        from ulcmod_dist.pipeline.import_matrix import import_matrix

        extracted = import_matrix(context)
    discover(context)
    evaluated = evaluate(context)
    if (
        context.job.ablate.with_run
        and why_not_ablated(Run(context.run).snapshot.provenance) is None
    ):
        from ulcmod_dist.pipeline.ablate import ablate

        ablate(context)
    if not is_reported(context):
        report(context)
    return Summary(
        title="Modules",
        columns={key: heading for key, heading in COLUMNS.items() if key != "state"},
        rows=evaluated.rows,
        facts={**extracted.facts, "seconds": round(time.monotonic() - started, 1)},
        closing=[*extracted.closing, f"Report: {context.run.show(REPORT)}"],
        exit_code=extracted.exit_code,
    )


def run(job: Job) -> Summary:
    """Run a job from Python, without printing: ``um.run(um.Job.from_yaml("job.yaml"))``."""
    return run_all(Context(job, RunDir.at(job.run)))
