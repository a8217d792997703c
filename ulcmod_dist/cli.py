"""The command line: ``ulcmod``. Parses words, calls one stage, prints its answer.

Results go to standard output, progress and errors to standard error, so that ``--json`` can be
piped. Exit codes: 0 done, 1 failed, 2 wrong usage or invalid job, 3 finished with quarantined
samples, 4 a rerun after which the modules have drifted, 143 stopped by SIGTERM.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.live import Live

from ulcmod_dist.errors import UlcmodError
from ulcmod_dist.progress import Events, Printed, Silent
from ulcmod_dist.stages.context import Context, open_target
from ulcmod_dist.stages.summary import Summary
from ulcmod_dist.stopping import Stopped, ended_by_sigterm

app = typer.Typer(
    name="ulcmod",
    help="Find the modules of a large language model: neurons and prompts, split together.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
corpus_app = typer.Typer(help="Make a corpus.", no_args_is_help=True)
app.add_typer(corpus_app, name="corpus")

Target = Annotated[str, typer.Argument(help="A job file (YAML) or a run directory.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the job; repeatable."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print results as JSON.")]

LogFormat = Literal["text", "json"]
_log_format: ContextVar[LogFormat] = ContextVar("log format", default="text")


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")] = False,
    log_format: Annotated[
        LogFormat,
        typer.Option(envvar="ULCMOD_LOG_FORMAT", help="Progress and errors as JSON lines."),
    ] = "text",
) -> None:
    """Options before the command."""
    _log_format.set(log_format)


def _progress() -> Silent:
    return Events(sys.stderr) if _log_format.get() == "json" else Printed(Console(stderr=True))


def _answer(summary: Summary, as_json: bool) -> None:
    if as_json:
        print(json.dumps(summary.as_json(), indent=1, ensure_ascii=False))
    else:
        summary.print(Console())
    if summary.exit_code:
        raise typer.Exit(summary.exit_code)


def _stage(
    stage: Callable[[Context], Summary], target: str, overrides: list[str] | None, as_json: bool
) -> None:
    _answer(stage(open_target(target, overrides or [], _progress())), as_json)


@app.command()
def demo(
    run: Annotated[str, typer.Option("--run", help="Run directory to write.")] = "runs/demo",
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Run the whole pipeline on the demo's own small model and corpus."""
    from ulcmod_dist.stages.demo import demo_context
    from ulcmod_dist.stages.run import run_all

    _answer(run_all(demo_context(run, overrides or [], _progress())), as_json)


@app.command()
def run(target: Target, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Run a job from prompts to report; continue where an earlier run stopped."""
    from ulcmod_dist.stages.run import run_all

    _stage(run_all, target, overrides, as_json)


@app.command()
def rerun(
    target: Target,
    accept: Annotated[
        bool, typer.Option("--accept", help="Take the last version's drift as it is: no alarm.")
    ] = False,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Read the corpus again and do what has changed; keep the version before, and compare."""
    from ulcmod_dist.stages.rerun import rerun as stage

    _stage(partial(stage, accept=accept), target, overrides, as_json)


@app.command()
def plan(
    target: Target,
    probe: Annotated[
        bool, typer.Option(help="Load the model and measure a few batches, to project the time.")
    ] = True,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Show what extraction would do: shards, batches, bytes, memory, time."""
    from ulcmod_dist.stages.plan import plan as stage

    _stage(partial(stage, measure=probe), target, overrides, as_json)


@app.command()
def extract(
    target: Target,
    retry: Annotated[
        bool, typer.Option("--retry-quarantined", help="Try quarantined prompts again.")
    ] = False,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Run the forward passes and write the activation store."""
    from ulcmod_dist.stages.extract import extract as stage

    _stage(partial(stage, retry_quarantined=retry), target, overrides, as_json)


@app.command()
def discover(target: Target, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Search the modules in an activation store."""
    from ulcmod_dist.stages.discover import discover as stage

    _stage(stage, target, overrides, as_json)


@app.command()
def evaluate(target: Target, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Measure the modules: null model, baselines, classification, topics."""
    from ulcmod_dist.stages.evaluate import evaluate as stage

    _stage(stage, target, overrides, as_json)


@app.command()
def ablate(target: Target, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Silence each module in the real forward pass and measure what it costs."""
    from ulcmod_dist.stages.ablate import ablate as stage

    _stage(stage, target, overrides, as_json)


@app.command()
def report(target: Target, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Write the page, the figures and the tables."""
    from ulcmod_dist.stages.report import report as stage

    _stage(stage, target, overrides, as_json)


@app.command()
def export(
    target: Target,
    num_modules: Annotated[int, typer.Option("--num-modules", help="Number of modules K.")],
    out: Annotated[Path, typer.Option("--out", help="Folder to write.")],
    modules: Annotated[
        list[int] | None,
        typer.Option("--module", help="Silence this module; repeatable, for one mask together."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write modules as unit masks, to silence them in a model elsewhere."""
    from ulcmod_dist.stages.masking import export as stage

    exporting = partial(stage, num_modules=num_modules, modules=modules or [], out=out)
    _stage(exporting, target, None, as_json)


@app.command()
def compare(
    one: Annotated[str, typer.Argument(help="A run directory.")],
    other: Annotated[str, typer.Argument(help="Another run directory, or the same.")],
    num_modules: Annotated[
        int | None, typer.Option("--num-modules", help="K of the first run.")
    ] = None,
    other_num_modules: Annotated[
        int | None, typer.Option("--other-num-modules", help="K of the other run.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Page to write, as HTML.")] = None,
    as_json: AsJson = False,
) -> None:
    """Match the modules of two runs and say what moved."""
    from ulcmod_dist.stages.compare import compare as stage

    _answer(stage(one, other, num_modules, other_num_modules, out), as_json)


@app.command()
def verify(target: Target, as_json: AsJson = False) -> None:
    """Read everything that was committed again and compare its checksums."""
    from ulcmod_dist.stages.verify import verify as stage

    _stage(stage, target, None, as_json)


@app.command()
def gc(
    target: Target,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only list what would be removed.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Remove what killed attempts left behind; never what is committed."""
    from ulcmod_dist.stages.verify import gc as stage

    _stage(partial(stage, dry_run=dry_run), target, None, as_json)


@app.command("import")
def import_(
    matrix: Annotated[Path, typer.Argument(help="Activations [samples, units]: .npy .npz .zarr.")],
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
    """Make a run of a matrix that someone extracted elsewhere."""
    from ulcmod_dist.stages.import_matrix import import_context, import_matrix

    files = {"path": str(matrix), "samples": samples, "units": units}
    context = import_context(files, out, overrides or [], _progress())
    _answer(import_matrix(context), as_json)


@corpus_app.command("infinity")
def infinity(
    files: Annotated[list[str], typer.Argument(help="The published data set's files.")],
    out: Annotated[Path, typer.Option("--out", help="Folder of train.parquet and test.parquet.")],
    train: Annotated[int, typer.Option(help="Train prompts of each category.")] = 1000,
    test: Annotated[int, typer.Option(help="Test prompts of each category.")] = 200,
    seed: Annotated[int, typer.Option(help="Seed of the shuffle.")] = 0,
    category: Annotated[
        list[str] | None, typer.Option(help="Only this category; repeatable.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make the paper's corpus of seven categories from Infinity-Instruct."""
    from ulcmod_dist.stages.corpus import infinity as stage

    _answer(stage(files, out, train=train, test=test, seed=seed, categories=category), as_json)


Destination = Annotated[
    Literal["ray", "kuberay", "slurm"], typer.Option("--to", help="What runs the cluster.")
]
JobFile = Annotated[str, typer.Argument(metavar="JOB", help="A job file (YAML).")]
Address = Annotated[
    str | None, typer.Option(help="Ray: HTTP address of the job server, as of the dashboard.")
]


@app.command()
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
    """Send a job to a cluster; sending it again meets the one that is there."""
    from ulcmod_dist.stages.submit import Sending, preview
    from ulcmod_dist.stages.submit import submit as stage

    sending = Sending(job, overrides or [], to, address)
    if dry_run:
        sys.stdout.write(preview(sending))
        return
    # With --json, standard output is the answer alone.
    output = sys.stderr if as_json else sys.stdout
    _answer(stage(sending, again=again, wait=output.write if wait else None), as_json)


@app.command()
def status(
    target: Target,
    to: Annotated[
        Literal["ray", "kuberay", "slurm"] | None,
        typer.Option("--to", help="Ask a cluster for a job that was sent there."),
    ] = None,
    address: Address = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Look again until nobody works on the run.")
    ] = False,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Show how far a run is, or with --to what became of a job on a cluster."""
    from ulcmod_dist.stages.status import looks
    from ulcmod_dist.stages.status import status as stage
    from ulcmod_dist.stages.submit import Sending, state

    if to is not None:
        _answer(state(Sending(target, overrides or [], to, address)), as_json)
    elif watch:
        _live(looks(open_target(target, overrides or [], _progress())), as_json)
    else:
        _stage(stage, target, overrides, as_json)


def _live(summaries: Iterator[Summary], as_json: bool) -> None:
    """Show each summary in place of the one before, until Ctrl-C; as JSON, one a line."""
    with contextlib.suppress(KeyboardInterrupt):
        if as_json:
            for summary in summaries:
                print(json.dumps(summary.as_json(), ensure_ascii=False), flush=True)
            return
        with Live(console=Console(), auto_refresh=False) as screen:
            for summary in summaries:
                screen.update(summary, refresh=True)


@app.command()
def logs(
    job: JobFile,
    to: Destination,
    address: Address = None,
    follow: Annotated[bool, typer.Option("--follow", help="Go on until the job ends.")] = False,
    overrides: Overrides = None,
) -> None:
    """Show what a job that was sent to a cluster has printed."""
    from ulcmod_dist.stages.submit import Sending
    from ulcmod_dist.stages.submit import logs as stage

    for text in stage(Sending(job, overrides or [], to, address), follow=follow):
        sys.stdout.write(text)
        sys.stdout.flush()


@app.command()
def cancel(
    job: JobFile,
    to: Destination,
    address: Address = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Take back a job that was sent to a cluster."""
    from ulcmod_dist.stages.submit import Sending
    from ulcmod_dist.stages.submit import cancel as stage

    _answer(stage(Sending(job, overrides or [], to, address)), as_json)


def main() -> None:
    """Entry point: errors become one clear line, unless ``--debug`` stands anywhere."""
    words = sys.argv[1:]
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    try:
        with ended_by_sigterm():
            app(args=words, prog_name="ulcmod")
    except Stopped:
        _progress().fail(
            "Stopped by SIGTERM. What was committed stays; the same command continues from there."
        )
        raise
    except UlcmodError as error:
        if debug:
            raise
        _progress().fail(str(error))
        sys.exit(error.exit_code)
    except Exception as error:
        if debug:
            raise
        _progress().fail(f"{type(error).__name__}: {error}. Repeat with --debug for the traceback.")
        sys.exit(1)
