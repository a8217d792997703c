"""Commands on a run: the whole of it, a stage each, and what looks after it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.live import Live

from ulcmod_dist.cli.app import (
    Address,
    AsJson,
    Overrides,
    Target,
    app,
    corpus_app,
    print_summary,
    run_command,
    show_progress,
)
from ulcmod_dist.pipeline.context import open_target
from ulcmod_dist.pipeline.summary import Summary

NumModules = Annotated[
    list[int] | None,
    typer.Option("--num-modules", metavar="K", help="Only this K of the job; repeatable."),
]


def _as_tuple(num_modules: list[int] | None) -> tuple[int, ...] | None:
    return tuple(num_modules) if num_modules else None


@app.command()
def demo(
    run: Annotated[str, typer.Option("--run", help="Run directory to write.")] = "runs/demo",
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Run the whole pipeline on the demo's own small model and corpus."""
    from ulcmod_dist.pipeline.demo import demo_context
    from ulcmod_dist.pipeline.run import run_all

    print_summary(run_all(demo_context(run, overrides or [], show_progress())), as_json)


@app.command()
def run(target: Target, overrides: Overrides = None, as_json: AsJson = False) -> None:
    """Run a job from prompts to report; continue where an earlier run stopped."""
    from ulcmod_dist.pipeline.run import run_all

    run_command(run_all, target, overrides, as_json)


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
    from ulcmod_dist.pipeline.rerun import rerun as stage

    run_command(partial(stage, accept=accept), target, overrides, as_json)


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
    from ulcmod_dist.pipeline.plan import plan as stage

    run_command(partial(stage, measure=probe), target, overrides, as_json)


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
    from ulcmod_dist.pipeline.extract import extract as stage

    run_command(partial(stage, retry_quarantined=retry), target, overrides, as_json)


@app.command()
def discover(
    target: Target,
    num_modules: NumModules = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Search the modules in an activation store."""
    from ulcmod_dist.pipeline.discover import discover as stage

    run_command(partial(stage, num_modules=_as_tuple(num_modules)), target, overrides, as_json)


@app.command()
def evaluate(
    target: Target,
    num_modules: NumModules = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Measure the modules: null model, baselines, classification, topics."""
    from ulcmod_dist.pipeline.evaluate import evaluate as stage

    run_command(partial(stage, num_modules=_as_tuple(num_modules)), target, overrides, as_json)


@app.command()
def ablate(
    target: Target,
    num_modules: NumModules = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Silence each module in the real forward pass and measure what it costs."""
    from ulcmod_dist.pipeline.ablate import ablate as stage

    run_command(partial(stage, num_modules=_as_tuple(num_modules)), target, overrides, as_json)


@app.command()
def report(
    target: Target,
    num_modules: NumModules = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Write the page, the figures and the tables."""
    from ulcmod_dist.pipeline.report import report as stage

    run_command(partial(stage, num_modules=_as_tuple(num_modules)), target, overrides, as_json)


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
    from ulcmod_dist.pipeline.masking import export as stage

    exporting = partial(stage, num_modules=num_modules, modules=modules or [], out=out)
    run_command(exporting, target, None, as_json)


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
    from ulcmod_dist.pipeline.compare import compare as stage

    print_summary(stage(one, other, num_modules, other_num_modules, out), as_json)


@app.command()
def verify(target: Target, as_json: AsJson = False) -> None:
    """Read everything that was committed again and compare its checksums."""
    from ulcmod_dist.pipeline.verify import verify as stage

    run_command(stage, target, None, as_json)


@app.command()
def gc(
    target: Target,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only list what would be removed.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Remove what killed attempts left behind; never what is committed."""
    from ulcmod_dist.pipeline.verify import gc as stage

    run_command(partial(stage, dry_run=dry_run), target, None, as_json)


@app.command()
def status(
    target: Target,
    to: Annotated[
        Literal["ray", "kuberay", "slurm"] | None,
        typer.Option("--to", help="Ask a cluster for a job that was sent there."),
    ] = None,
    address: Address = None,
    watch: Annotated[
        bool,
        typer.Option("--watch", help="Look again until work, under way or yet to begin, ends."),
    ] = False,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Show how far a run is, or with --to what became of a job on a cluster."""
    from ulcmod_dist.pipeline.status import looks
    from ulcmod_dist.pipeline.status import status as stage
    from ulcmod_dist.pipeline.submit import Submission, get_state

    if to is not None:
        print_summary(get_state(Submission(target, overrides or [], to, address)), as_json)
    elif watch:
        _live(looks(open_target(target, overrides or [], show_progress())), as_json)
    else:
        run_command(stage, target, overrides, as_json)


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


@app.command("import")
def import_(
    matrix: Annotated[
        Path, typer.Argument(help="Activations of samples x units: .npy .npz .zarr.")
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
    """Make a run of a matrix that someone extracted elsewhere."""
    from ulcmod_dist.pipeline.import_matrix import import_context, import_matrix

    files = {"path": str(matrix), "samples": samples, "units": units}
    context = import_context(files, out, overrides or [], show_progress())
    print_summary(import_matrix(context), as_json)


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
    from ulcmod_dist.pipeline.corpus import infinity as stage

    print_summary(
        stage(files, out, train=train, test=test, seed=seed, categories=category), as_json
    )
