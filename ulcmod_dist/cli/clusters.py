"""Commands on a job that is sent to a cluster."""

from __future__ import annotations

import sys
from typing import Annotated, Literal

import typer

from ulcmod_dist.cli.app import Address, AsJson, Overrides, app, print_summary

Destination = Annotated[
    Literal["ray", "kuberay", "slurm"], typer.Option("--to", help="What runs the cluster.")
]
JobFile = Annotated[str, typer.Argument(metavar="JOB", help="A job file (YAML).")]


@app.command(rich_help_panel="Jobs on a cluster")
def submit(
    job: JobFile,
    to: Destination,
    address: Address = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be sent, and send nothing.")
    ] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Run it another time although it has succeeded.")
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Ray: show what the job prints until it ends.")
    ] = False,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Send a job to a cluster; submission it again meets the one that is there."""
    from ulcmod_dist.pipeline.submit import Submission, preview
    from ulcmod_dist.pipeline.submit import submit as stage

    submission = Submission(job, overrides or [], to, address)
    if dry_run:
        sys.stdout.write(preview(submission))
        return
    # With --json, standard output is the answer alone.
    output = sys.stderr if as_json else sys.stdout
    print_summary(stage(submission, again=again, wait=output.write if wait else None), as_json)


@app.command(rich_help_panel="Jobs on a cluster")
def logs(
    job: JobFile,
    to: Destination,
    address: Address = None,
    follow: Annotated[bool, typer.Option("--follow", help="Go on until the job ends.")] = False,
    overrides: Overrides = None,
) -> None:
    """Show what a job that was sent to a cluster has printed."""
    from ulcmod_dist.pipeline.submit import Submission
    from ulcmod_dist.pipeline.submit import read_logs as stage

    for text in stage(Submission(job, overrides or [], to, address), follow=follow):
        sys.stdout.write(text)
        sys.stdout.flush()


@app.command(rich_help_panel="Jobs on a cluster")
def cancel(
    job: JobFile,
    to: Destination,
    address: Address = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Take back a job that was sent to a cluster."""
    from ulcmod_dist.pipeline.submit import Submission
    from ulcmod_dist.pipeline.submit import cancel as stage

    print_summary(stage(Submission(job, overrides or [], to, address)), as_json)
