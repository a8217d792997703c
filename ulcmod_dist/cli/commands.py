"""The commands: each parses its words, calls one function of the pipeline and prints the summary.

The pipeline is imported inside the commands, so that ``--help`` and bad usage answer without
loading torch and Ray.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.live import Live

from ulcmod_dist.cli.app import app, corpus_app, print_summary, run_command, show_progress
from ulcmod_dist.pipeline.context import open_target
from ulcmod_dist.pipeline.summary import Summary

Target = Annotated[str, typer.Argument(help="A job file (YAML) or a run directory.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the job; repeatable."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
NumModules = Annotated[
    list[int] | None,
    typer.Option("--num-modules", metavar="K", help="Work on this K alone; repeatable."),
]
JobFile = Annotated[str, typer.Argument(metavar="JOB", help="A job file (YAML).")]
ClusterOption = Annotated[
    Literal["ray", "kuberay", "slurm"], typer.Option("--to", help="Kind of cluster.")
]
Address = Annotated[str | None, typer.Option(help="Ray: HTTP address of the job server.")]
CLUSTERS = "Jobs on a cluster"


@app.command()
def demo(
    run: Annotated[str, typer.Option("--run", help="Run directory to write.")] = "runs/demo",
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Run the whole pipeline on a small model and corpus that come with the package."""
    from ulcmod_dist.pipeline.demo import demo_context
    from ulcmod_dist.pipeline.run import run_all

    print_summary(run_all(demo_context(run, overrides or [], show_progress())), as_json)


@app.command()
def run(target: Target, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Run a job from prompts to report; resumes an interrupted run."""
    from ulcmod_dist.pipeline.run import run_all

    run_command(run_all, target, overrides, as_json)


@app.command()
def rerun(
    target: Target,
    accept: Annotated[
        bool, typer.Option("--accept", help="Accept the drift of the last version.")
    ] = False,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Update a run to its current corpus and compare with the previous version."""
    from ulcmod_dist.pipeline.rerun import rerun as command

    run_command(partial(command, accept=accept), target, overrides, as_json)


@app.command()
def plan(
    target: Target,
    probe: Annotated[
        bool, typer.Option(help="Load the model and time a few batches to estimate the duration.")
    ] = True,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Show shards, batches, memory and duration of the extraction; writes nothing."""
    from ulcmod_dist.pipeline.plan import plan as command

    run_command(partial(command, measure=probe), target, overrides, as_json)


@app.command()
def extract(
    target: Target,
    retry: Annotated[
        bool, typer.Option("--retry-quarantined", help="Also try quarantined prompts again.")
    ] = False,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Run the forward passes and write the activation store."""
    from ulcmod_dist.pipeline.extract import extract as command

    run_command(partial(command, retry_quarantined=retry), target, overrides, as_json)


@app.command()
def discover(
    target: Target,
    num_modules: NumModules = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Search the modules of an activation store."""
    from ulcmod_dist.pipeline.discover import discover as command

    chosen = _as_tuple(num_modules)
    run_command(partial(command, num_modules=chosen), target, overrides, as_json)


@app.command()
def evaluate(
    target: Target,
    num_modules: NumModules = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Compute null model, baselines, classifiers and topics of the modules."""
    from ulcmod_dist.pipeline.evaluate import evaluate as command

    chosen = _as_tuple(num_modules)
    run_command(partial(command, num_modules=chosen), target, overrides, as_json)


@app.command()
def ablate(
    target: Target,
    num_modules: NumModules = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Ablate each module in the forward pass and measure the increase of the loss."""
    from ulcmod_dist.pipeline.ablate import ablate as command

    chosen = _as_tuple(num_modules)
    run_command(partial(command, num_modules=chosen), target, overrides, as_json)


@app.command()
def report(
    target: Target,
    num_modules: NumModules = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Write report, figures and tables from the existing results."""
    from ulcmod_dist.pipeline.report import report as command

    chosen = _as_tuple(num_modules)
    run_command(partial(command, num_modules=chosen), target, overrides, as_json)


def _as_tuple(num_modules: list[int] | None) -> tuple[int, ...] | None:
    return tuple(num_modules) if num_modules else None


@app.command()
def export(
    target: Target,
    num_modules: Annotated[int, typer.Option("--num-modules", help="Number of modules K.")],
    out: Annotated[Path, typer.Option("--out", help="Folder to write.")],
    modules: Annotated[
        list[int] | None,
        typer.Option("--module", help="Write one mask of these modules; repeatable."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write modules as unit masks, to ablate them in a model elsewhere."""
    from ulcmod_dist.pipeline.masking import export as command

    export_masks = partial(command, num_modules=num_modules, modules=modules or [], out=out)
    run_command(export_masks, target, None, as_json)


@app.command()
def compare(
    one: Annotated[str, typer.Argument(help="A run directory.")],
    other: Annotated[str, typer.Argument(help="Another run directory, or the same.")],
    num_modules: Annotated[
        int | None, typer.Option("--num-modules", help="K of the first run.")
    ] = None,
    other_num_modules: Annotated[
        int | None, typer.Option("--other-num-modules", help="K of the second run.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="HTML page to write.")] = None,
    as_json: AsJson = False,
) -> None:
    """Match the modules of two runs and show what changed."""
    from ulcmod_dist.pipeline.compare import compare as command

    print_summary(command(one, other, num_modules, other_num_modules, out), as_json)


@app.command()
def verify(target: Target, as_json: AsJson = False) -> None:
    """Read all committed data and compare checksums."""
    from ulcmod_dist.pipeline.verify import verify as command

    run_command(command, target, None, as_json)


@app.command()
def gc(
    target: Target,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list the files.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete files of killed attempts; never deletes committed data."""
    from ulcmod_dist.pipeline.verify import gc as command

    run_command(partial(command, dry_run=dry_run), target, None, as_json)


@app.command()
def status(
    target: Target,
    to: Annotated[
        Literal["ray", "kuberay", "slurm"] | None,
        typer.Option("--to", help="Show the state of a submitted job on this kind of cluster."),
    ] = None,
    address: Address = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Refresh until no process writes the run any more.")
    ] = False,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Show the progress of a run, or with --to the state of a submitted job."""
    from ulcmod_dist.pipeline.status import status as command
    from ulcmod_dist.pipeline.status import watch as watch_status

    if to is not None:
        from ulcmod_dist.pipeline.submit import Submission, get_state

        print_summary(get_state(Submission(target, overrides or [], to, address)), as_json)
    elif watch:
        _print_live(watch_status(open_target(target, overrides or [], show_progress())), as_json)
    else:
        run_command(command, target, overrides, as_json)


def _print_live(summaries: Iterator[Summary], as_json: bool) -> None:
    """Show each summary in place of the one before, until Ctrl-C; as JSON, one per line."""
    with contextlib.suppress(KeyboardInterrupt):
        if as_json:
            for summary in summaries:
                print(json.dumps(summary.as_json(), ensure_ascii=False), flush=True)
            return
        with Live(console=Console(), auto_refresh=False) as screen:
            for summary in summaries:
                screen.update(summary, refresh=True)


@app.command("import")
def import_(
    matrix: Annotated[
        Path, typer.Argument(help="Activations of shape [samples, units]: .npy .npz .zarr.")
    ],
    out: Annotated[str, typer.Option("--out", help="Run directory to write.")],
    samples: Annotated[
        str | None, typer.Option(help="Table of the samples: sample_id, split, category.")
    ] = None,
    units: Annotated[
        str | None, typer.Option(help="Table of the units: layer, index, path, expert.")
    ] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Create a run from a matrix of activations that were extracted elsewhere."""
    from ulcmod_dist.pipeline.import_matrix import import_context, import_matrix

    files = {"path": str(matrix), "samples": samples, "units": units}
    context = import_context(files, out, overrides or [], show_progress())
    print_summary(import_matrix(context), as_json)


@corpus_app.command("infinity")
def infinity(
    files: Annotated[list[str], typer.Argument(help="The published data set's files.")],
    out: Annotated[Path, typer.Option("--out", help="Folder of train.parquet and test.parquet.")],
    train: Annotated[int, typer.Option(help="Train prompts per category.")] = 1000,
    test: Annotated[int, typer.Option(help="Test prompts per category.")] = 200,
    seed: Annotated[int, typer.Option(help="Seed of the shuffle.")] = 0,
    category: Annotated[
        list[str] | None, typer.Option(help="Only this category; repeatable.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Create the paper's corpus of seven categories from Infinity-Instruct."""
    from ulcmod_dist.pipeline.corpus import infinity as command

    summary = command(files, out, train=train, test=test, seed=seed, categories=category)
    print_summary(summary, as_json)


@app.command(rich_help_panel=CLUSTERS)
def submit(
    job: JobFile,
    to: ClusterOption,
    address: Address = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the submission without sending it.")
    ] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Run a job again that has succeeded.")
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Ray: show the job's output until it ends.")
    ] = False,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Submit a job to a cluster; resubmitting attaches to the running job."""
    from ulcmod_dist.pipeline.submit import Submission, preview
    from ulcmod_dist.pipeline.submit import submit as command

    submission = Submission(job, overrides or [], to, address)
    if dry_run:
        sys.stdout.write(preview(submission))
        return
    # With --json, standard output is the result alone.
    output = sys.stderr if as_json else sys.stdout
    summary = command(submission, again=again, wait=output.write if wait else None)
    print_summary(summary, as_json)


@app.command(rich_help_panel=CLUSTERS)
def logs(
    job: JobFile,
    to: ClusterOption,
    address: Address = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Keep printing until the job ends.")
    ] = False,
    overrides: Overrides = None,
) -> None:
    """Show the output of a submitted job."""
    from ulcmod_dist.pipeline.submit import Submission, read_logs

    for text in read_logs(Submission(job, overrides or [], to, address), follow=follow):
        sys.stdout.write(text)
        sys.stdout.flush()


@app.command(rich_help_panel=CLUSTERS)
def cancel(
    job: JobFile,
    to: ClusterOption,
    address: Address = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Cancel a submitted job; committed results are kept."""
    from ulcmod_dist.pipeline.submit import Submission
    from ulcmod_dist.pipeline.submit import cancel as command

    print_summary(command(Submission(job, overrides or [], to, address)), as_json)
