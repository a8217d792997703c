"""What the commands share: the program, its common options, its log, and how results are shown."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Annotated, Literal

import typer
from rich.console import Console

from ulcmod_dist.pipeline.context import Context, open_target
from ulcmod_dist.pipeline.summary import Summary
from ulcmod_dist.runtime.progress import (
    ConsoleProgress,
    JsonProgress,
    ProgressCallback,
    broadcast,
    ignore_progress,
    write_json_line,
)
from ulcmod_dist.runtime.text import strip_control_chars

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


@dataclass
class _Output:
    """Where one command writes its log and progress, as the options before it say.

    Attributes:
        log_format: Text for people, or JSON lines for programs.
        metrics: Serves progress to Prometheus; ignores it without ``--metrics``.
        console: Standard error. Messages and bars share it, so that messages go above the bars.
    """

    log_format: LogFormat = "text"
    metrics: ProgressCallback = ignore_progress
    console: Console = field(default_factory=lambda: Console(stderr=True))


_output: ContextVar[_Output] = ContextVar("output")


class _LogHandler(logging.Handler):
    """Writes the package's messages to standard error, in the format of the command's log."""

    def emit(self, record: logging.LogRecord) -> None:
        output, message = _output.get(), record.getMessage()
        level = record.levelname.lower()
        if output.log_format == "json":
            event = "message" if level == "info" else level
            write_json_line(sys.stderr, level, event, message=message)
            return
        heading, style = {
            "warning": ("Warning:", "bold yellow"),
            "error": ("Error:", "bold red"),
        }.get(level, ("", ""))
        if heading:
            output.console.print(heading, style=style, end=" ")
        # No markup, no control characters: messages quote what users and corpora say. No wrapping:
        # a message is one line of a log.
        output.console.print(
            strip_control_chars(message), markup=False, highlight=False, soft_wrap=True
        )


@contextlib.contextmanager
def log_to_stderr() -> Iterator[None]:
    """Show the messages of the package's loggers while a command runs."""
    logger = logging.getLogger("ulcmod_dist")
    before = logger.handlers[:], logger.level, logger.propagate
    token = _output.set(_Output())
    logger.addHandler(_LogHandler())
    logger.setLevel(logging.INFO)
    # A library that configures the root logger must not print every message a second time.
    logger.propagate = False
    try:
        yield
    finally:
        _output.reset(token)
        logger.handlers[:], logger.level, logger.propagate = before


@app.callback()
def set_options(
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
    output = _Output(log_format)
    _output.set(output)
    if metrics is not None:
        from ulcmod_dist.cli.metrics import Metrics

        served = Metrics(metrics)
        output.metrics = served.set_step
        logging.getLogger("ulcmod_dist").addHandler(served.warning_counter())


def show_progress() -> ProgressCallback:
    """The callback that shows progress as the options before the command say."""
    output = _output.get()
    shown = JsonProgress(sys.stderr) if output.log_format == "json" else None
    return broadcast(shown or ConsoleProgress(output.console), output.metrics)


def print_summary(summary: Summary, as_json: bool) -> None:
    """Print what a command found and end with its exit code."""
    log_format = _output.get().log_format
    if as_json:
        print(json.dumps(summary.as_json(), indent=1, ensure_ascii=False))
    elif log_format == "text":
        # A log of JSON lines holds the answer as its last one: no table in between.
        summary.print(Console())
    if log_format == "json":
        write_json_line(
            sys.stderr,
            "warning" if summary.exit_code else "info",
            "result",
            exit_code=summary.exit_code,
            closing=list(summary.closing),
            answer=summary.as_json(),
        )
    if summary.exit_code:
        raise typer.Exit(summary.exit_code)


def run_command(
    command: Callable[[Context], Summary], target: str, overrides: list[str] | None, as_json: bool
) -> None:
    """Run a command on a job file or run directory and print its summary."""
    print_summary(command(open_target(target, overrides or [], show_progress())), as_json)
