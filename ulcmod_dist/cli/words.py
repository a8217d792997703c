"""What the commands share: the program, its common words, and how an answer is shown."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console

from ulcmod_dist.pipeline.context import Context, open_target
from ulcmod_dist.pipeline.summary import Summary
from ulcmod_dist.runtime.progress import ConsoleProgress, JsonProgress, NullProgress

if TYPE_CHECKING:
    from ulcmod_dist.cli.metrics import Metrics

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
Address = Annotated[
    str | None, typer.Option(help="Ray: HTTP address of the job server, as of the dashboard.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print results as JSON.")]

LogFormat = Literal["text", "json"]
_log_format: ContextVar[LogFormat] = ContextVar("log format", default="text")
_metrics: ContextVar[Metrics | None] = ContextVar("metrics", default=None)


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")] = False,
    log_format: Annotated[
        LogFormat,
        typer.Option(
            envvar="ULCMOD_LOG_FORMAT", help="Progress, errors and results as JSON lines."
        ),
    ] = "text",
    metrics: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            envvar="ULCMOD_METRICS",
            help="Serve the command's progress to Prometheus while it runs.",
        ),
    ] = None,
) -> None:
    """Options before the command."""
    _log_format.set(log_format)
    _metrics.set(None)
    if metrics is not None:
        from ulcmod_dist.cli.metrics import Metrics

        _metrics.set(Metrics(metrics))


def progress() -> NullProgress:
    """Where progress and errors go, as the words before the command say."""
    log = _log_format.get() == "json"
    shown: NullProgress = JsonProgress(sys.stderr) if log else ConsoleProgress(Console(stderr=True))
    if (metrics := _metrics.get()) is None:
        return shown
    from ulcmod_dist.cli.metrics import Measured

    return Measured(shown, metrics)


def answer(summary: Summary, as_json: bool) -> None:
    """Print a stage's answer and end with its exit code."""
    if as_json:
        print(json.dumps(summary.as_json(), indent=1, ensure_ascii=False))
    elif _log_format.get() == "text":
        # A log of JSON lines holds the answer as its last one: no table in between.
        summary.print(Console())
    progress().result(summary.as_json(), summary.closing, summary.exit_code)
    if summary.exit_code:
        raise typer.Exit(summary.exit_code)


def run_stage(
    stage: Callable[[Context], Summary], target: str, overrides: list[str] | None, as_json: bool
) -> None:
    """Run a stage on a job file or run directory and print its answer."""
    answer(stage(open_target(target, overrides or [], progress())), as_json)
