"""The commands: each parses its words, calls one function of the pipeline and prints the summary.

The pipeline is imported inside the commands, so that ``--help`` and bad usage answer without
loading torch and Ray.
"""

import contextlib
import json
import sys
from collections.abc import Iterator
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

from rich.console import Console
from rich.live import Live
from typer import Argument, Option

from ulcmod_dist.cli.app import app, corpus_app, print_summary, run_command, show_progress
from ulcmod_dist.pipeline.context import demo_context, open_target
from ulcmod_dist.pipeline.summary import Summary
from ulcmod_dist.submit.bundle import ClusterKind


def repeatable(name: str, metavar: str | None, summary: str) -> Any:
    """An option that may be given several times: a list, empty if it is not given."""
    note = f"{summary}; repeatable."
    return Option(name, metavar=metavar, help=note, default_factory=list, show_default=False)


Target = Annotated[str, Argument(help="A job file (YAML) or a run directory.")]
Overrides = Annotated[list[str], repeatable("--set", "KEY=VALUE", "Override a key of the job")]
AsJson = Annotated[bool, Option("--json", help="Print the result as JSON.")]
NumModules = Annotated[list[int], repeatable("--num-modules", "K", "Work on this K alone")]
JobFile = Annotated[str, Argument(metavar="JOB", help="A job file (YAML).")]
ClusterOption = Annotated[ClusterKind, Option("--to", help="Kind of cluster.")]
Address = Annotated[str | None, Option(help="Ray: HTTP address of the job server.")]
CLUSTERS = "Jobs on a cluster"


@app.command()
def demo(
    overrides: Overrides,
    run: Annotated[str, Option("--run", help="Run directory to write.")] = "runs/demo",
    as_json: AsJson = False,
) -> None:
    """Run the whole pipeline on a small model and corpus that come with the package."""
    from ulcmod_dist.pipeline.run import run_all

    print_summary(run_all(demo_context(run, overrides, show_progress())), as_json)


@app.command()
def run(target: Target, overrides: Overrides, as_json: AsJson = False) -> None:
    """Run a job from prompts to report; resumes an interrupted run."""
    from ulcmod_dist.pipeline.run import run_all

    run_command(run_all, target, overrides, as_json)


@app.command()
def rerun(
    target: Target,
    overrides: Overrides,
    accept: Annotated[
        bool, Option("--accept", help="Accept the drift of the last version.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Update a run to its current corpus and compare with the previous version."""
    from ulcmod_dist.pipeline.rerun import rerun as command

    run_command(command, target, overrides, as_json, accept=accept)


@app.command()
def plan(
    target: Target,
    overrides: Overrides,
    probe: Annotated[
        bool, Option(help="Load the model and time a few batches to estimate the duration.")
    ] = True,
    as_json: AsJson = False,
) -> None:
    """Show shards, memory and duration of the extraction; writes nothing."""
    from ulcmod_dist.pipeline.plan import plan as command

    run_command(command, target, overrides, as_json, measure=probe)


@app.command()
def extract(
    target: Target,
    overrides: Overrides,
    retry: Annotated[
        bool, Option("--retry-quarantined", help="Also try quarantined prompts again.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run the forward passes and write the activation store."""
    from ulcmod_dist.pipeline.extract import extract as command

    run_command(command, target, overrides, as_json, retry_quarantined=retry)


def _add_modules_command(name: str, summary: str) -> None:
    """Add the command of `ulcmod_dist.pipeline.<name>.<name>`, which takes ``--num-modules``."""

    def command(
        target: Target, num_modules: NumModules, overrides: Overrides, as_json: AsJson = False
    ) -> None:
        function = getattr(import_module(f"ulcmod_dist.pipeline.{name}"), name)
        run_command(function, target, overrides, as_json, num_modules=num_modules or None)

    app.command(name, help=summary)(command)


_add_modules_command("discover", "Search the modules of an activation store.")
_add_modules_command(
    "evaluate", "Compute null model, baselines, classifiers and topics of the modules."
)
_add_modules_command(
    "ablate", "Ablate each module in the forward pass and measure the increase of the loss."
)
_add_modules_command(
    "explain", "Show which tokens drive each module and what the model says without it."
)
_add_modules_command("report", "Write report, figures and tables from the existing results.")


@app.command()
def generate(
    target: Target,
    num_modules: Annotated[int, Option("--num-modules", help="Number of modules K.")],
    prompts: Annotated[list[str], repeatable("--prompt", "TEXT", "Complete this prompt")],
    scales: Annotated[
        list[str], repeatable("--scale", "MODULE=FACTOR", "Multiply the units of a module")
    ],
    file: Annotated[
        Path | None,
        Option("--prompts", help="Prompts as a file like the corpus: Parquet, JSONL, CSV."),
    ] = None,
    tokens: Annotated[int, Option(min=1, help="Maximum tokens of a completion.")] = 60,
    temperature: Annotated[float, Option(min=0, help="0 is greedy.")] = 0.0,
    seed: Annotated[int, Option(min=0, help="Seed of the draws at a temperature.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Complete prompts with the model as it is and with modules scaled, side by side."""
    from ulcmod_dist.intervene.generate import Sampling
    from ulcmod_dist.pipeline.generate import generate as command

    complete = partial(
        command,
        prompts=prompts,
        file=file,
        num_modules=num_modules,
        scales=scales,
        sampling=Sampling(tokens, temperature, seed),
    )
    run_command(complete, target, [], as_json)


@app.command()
def export(
    target: Target,
    num_modules: Annotated[int, Option("--num-modules", help="Number of modules K.")],
    out: Annotated[Path, Option("--out", help="Folder to write.")],
    modules: Annotated[list[int], repeatable("--module", None, "Write one mask of these modules")],
    as_json: AsJson = False,
) -> None:
    """Write modules as masks and lists, with the report, into a folder to publish."""
    from ulcmod_dist.pipeline.export import export as command

    export_modules = partial(command, num_modules=num_modules, modules=modules, out=out)
    run_command(export_modules, target, [], as_json)


@app.command()
def compare(
    runs: Annotated[list[str], Argument(help="Run directories, in order; the same may recur.")],
    num_modules: Annotated[int | None, Option("--num-modules", help="K of the first run.")] = None,
    other_num_modules: Annotated[
        int | None, Option("--other-num-modules", help="K of the other runs.")
    ] = None,
    samples_only: Annotated[
        bool, Option("--samples-only", help="Ignore units, which differ from model to model.")
    ] = False,
    out: Annotated[Path | None, Option("--out", help="HTML page to write.")] = None,
    as_json: AsJson = False,
) -> None:
    """Match the modules of two or more runs and show what changed."""
    from ulcmod_dist.pipeline.compare import compare as command

    summary = command(runs, num_modules, other_num_modules, samples_only=samples_only, out=out)
    print_summary(summary, as_json)


@app.command()
def verify(target: Target, as_json: AsJson = False) -> None:
    """Read all committed data and compare checksums."""
    from ulcmod_dist.pipeline.verify import verify as command

    run_command(command, target, [], as_json)


@app.command()
def gc(
    target: Target,
    dry_run: Annotated[bool, Option("--dry-run", help="Only list the files.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete files of killed attempts; never deletes committed data."""
    from ulcmod_dist.pipeline.verify import gc as command

    run_command(command, target, [], as_json, dry_run=dry_run)


@app.command()
def status(
    target: Target,
    overrides: Overrides,
    to: Annotated[
        ClusterKind | None,
        Option("--to", help="Show the state of a submitted job on this kind of cluster."),
    ] = None,
    address: Address = None,
    watch: Annotated[
        bool, Option("--watch", help="Refresh until no process writes the run any more.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show the progress of a run, or with --to the state of a submitted job."""
    from ulcmod_dist.pipeline.status import status as command
    from ulcmod_dist.pipeline.status import watch as watch_status

    if to is not None:
        from ulcmod_dist.pipeline.submit import Submission, get_state

        print_summary(get_state(Submission(target, overrides, to, address)), as_json)
    elif watch:
        _print_live(watch_status(open_target(target, overrides, show_progress())), as_json)
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
        Path, Argument(help="Activations [samples, units]: .npy .npz .safetensors .zarr.")
    ],
    out: Annotated[str, Option("--out", help="Run directory to write.")],
    overrides: Overrides,
    samples: Annotated[
        str | None, Option(help="Table of the samples: sample_id, split, category.")
    ] = None,
    units: Annotated[
        str | None, Option(help="Table of the units: layer, index, path, expert.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Create a run from a matrix of activations that were extracted elsewhere."""
    from ulcmod_dist.pipeline.import_matrix import import_context, import_matrix

    files = {"path": str(matrix), "samples": samples, "units": units}
    context = import_context(files, out, overrides, show_progress())
    print_summary(import_matrix(context), as_json)


@corpus_app.command("infinity")
def infinity(
    files: Annotated[list[str], Argument(help="The published data set's files.")],
    out: Annotated[Path, Option("--out", help="Folder of train.parquet and test.parquet.")],
    train: Annotated[int, Option(help="Train prompts per category.")] = 1000,
    test: Annotated[int, Option(help="Test prompts per category.")] = 200,
    seed: Annotated[int, Option(help="Seed of the shuffle.")] = 0,
    category: Annotated[list[str] | None, Option(help="Only this category; repeatable.")] = None,
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
    overrides: Overrides,
    address: Address = None,
    dry_run: Annotated[
        bool, Option("--dry-run", help="Print the submission without sending it.")
    ] = False,
    again: Annotated[bool, Option("--again", help="Run a job again that has succeeded.")] = False,
    wait: Annotated[
        bool, Option("--wait", help="Ray: show the job's output until it ends.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Submit a job to a cluster; resubmitting attaches to the running job."""
    from ulcmod_dist.pipeline.submit import Submission, preview
    from ulcmod_dist.pipeline.submit import submit as command

    submission = Submission(job, overrides, to, address)
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
    overrides: Overrides,
    address: Address = None,
    follow: Annotated[bool, Option("--follow", help="Keep printing until the job ends.")] = False,
) -> None:
    """Show the output of a submitted job."""
    from ulcmod_dist.pipeline.submit import Submission, read_logs

    for text in read_logs(Submission(job, overrides, to, address), follow=follow):
        print(text, end="", flush=True)


@app.command(rich_help_panel=CLUSTERS)
def cancel(
    job: JobFile,
    to: ClusterOption,
    overrides: Overrides,
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Cancel a submitted job; committed results are kept."""
    from ulcmod_dist.pipeline.submit import Submission
    from ulcmod_dist.pipeline.submit import cancel as command

    print_summary(command(Submission(job, overrides, to, address)), as_json)
