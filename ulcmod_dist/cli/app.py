"""What the commands share: the program, its log on standard error, and the printing of results."""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Concatenate, Literal, ParamSpec

from rich.console import Console
from rich.text import Text
from typer import Exit, Option, Typer

from ulcmod_dist.pipeline.context import Context, open_target
from ulcmod_dist.pipeline.summary import Summary
from ulcmod_dist.runtime.progress import (
    ConsoleProgress,
    ProgressCallback,
    broadcast,
    json_progress,
    write_json_line,
)
from ulcmod_dist.runtime.text import strip_control_chars

if TYPE_CHECKING:
    from ulcmod_dist.cli.metrics import Metrics

app = Typer(
    name="ulcmod",
    help="Find modules of a large language model: groups of neurons and the prompts they react to.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
corpus_app = Typer(help="Create a corpus.", no_args_is_help=True)
app.add_typer(corpus_app, name="corpus")

P = ParamSpec("P")
LogFormat = Literal["text", "json"]

_STYLES = {"warning": "bold yellow", "error": "bold red"}


@dataclass
class _Output:
    """Where a command writes messages and progress, chosen by the options before it."""

    log_format: LogFormat = "text"
    metrics: Metrics | None = None
    # Messages and progress bars share one console, so that rich prints messages above the bars.
    console: Console = field(default_factory=lambda: Console(stderr=True))


_output: ContextVar[_Output] = ContextVar("output")


class _LogHandler(logging.Handler):
    """Writes messages to standard error: ``Warning: ...`` for people, or JSON lines."""

    def __init__(self, output: _Output) -> None:
        super().__init__()
        # Not looked up by `emit`: other threads, such as Ray's, do not see the context variable.
        self._output = output

    def emit(self, record: logging.LogRecord) -> None:
        output, message, level = self._output, record.getMessage(), record.levelname.lower()
        if level == "warning" and output.metrics is not None:
            output.metrics.warnings.inc()
        if output.log_format == "json":
            event = "message" if level == "info" else level
            write_json_line(sys.stderr, level, event, message=message)
            return
        # Text, not markup, and no control characters: messages quote users and corpora.
        text = Text(strip_control_chars(message))
        if level in _STYLES:
            text = Text.assemble((f"{level.capitalize()}: ", _STYLES[level]), text)
        # A terminal wraps long messages at words; in a log a message stays on one line.
        output.console.print(text, soft_wrap=not output.console.is_terminal)


@contextlib.contextmanager
def log_to_stderr() -> Iterator[None]:
    """Show the messages of the package's loggers while a command runs."""
    logger = logging.getLogger("ulcmod_dist")
    before = logger.handlers[:], logger.level, logger.propagate
    output = _Output()
    token = _output.set(output)
    logger.addHandler(_LogHandler(output))
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
    debug: Annotated[bool, Option("--debug", help="Show tracebacks of errors.")] = False,
    log_format: Annotated[
        LogFormat,
        Option(
            envvar="ULCMOD_LOG_FORMAT", help="Print progress, errors and results as JSON lines."
        ),
    ] = "text",
    metrics: Annotated[
        str | None,
        Option(
            metavar="HOST:PORT",
            envvar="ULCMOD_METRICS",
            help="Export progress to Prometheus while the command runs.",
        ),
    ] = None,
) -> None:
    """Options before the command."""
    # Another program may call the app without `main`, and so without its log handler.
    output = _output.get(None) or _Output()
    output.log_format = log_format
    _output.set(output)
    if metrics is not None:
        from ulcmod_dist.cli.metrics import Metrics

        output.metrics = Metrics(metrics)


def show_progress() -> ProgressCallback:
    """The callback that shows progress in the format chosen before the command."""
    output = _output.get()
    json_lines = output.log_format == "json"
    shown = json_progress(sys.stderr) if json_lines else ConsoleProgress(output.console)
    return shown if output.metrics is None else broadcast(shown, output.metrics.set_step)


def print_summary(summary: Summary, as_json: bool) -> None:
    """Print the result of a command and end with its exit code."""
    log_format = _output.get().log_format
    if as_json:
        print(json.dumps(summary.as_json(), indent=1, ensure_ascii=False))
    elif log_format == "text":
        Console().print(summary)
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
        raise Exit(summary.exit_code)


def run_command(
    command: Callable[Concatenate[Context, P], Summary],
    target: str,
    overrides: Sequence[str],
    as_json: bool,
    *args: P.args,
    **options: P.kwargs,
) -> None:
    """Run a command on a job file or run directory and print its summary."""
    context = open_target(target, overrides, show_progress())
    print_summary(command(context, *args, **options), as_json)
