"""Progress of long steps: a live bar in a terminal, a line now and then in a log, or JSON lines.

Science never prints; stages open a step and pass plain callables down.
"""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.text import Text

from ulcmod_dist.runtime.text import strip_control_chars

# A log (no terminal) gets a line this often, in seconds: enough to see life, few enough to read.
LOG_INTERVAL = 10.0


@dataclass
class Step:
    """One long step under way.

    Attributes:
        name: What is being done, for people.
        total: Amount of work, in ``unit``; None where it is not known.
        unit: What is counted, in the plural.
    """

    name: str
    total: float | None
    unit: str
    started: float = field(default_factory=time.monotonic)
    done: float = 0.0
    note: str = ""

    def update(self, done: float, note: str = "", total: float | None = None) -> None:
        """Say how much is done by now (not how much more), and a few words beside it."""
        self.done, self.note = done, note
        self.total = self.total if total is None else total
        self._show()

    def rate(self) -> float:
        """Work done per second since the start."""
        return self.done / max(time.monotonic() - self.started, 1e-9)

    def seconds_left(self) -> float | None:
        """Estimate from the rate so far; None where nothing is done or the total is not known."""
        if not self.total or self.rate() <= 0:
            return None
        return (self.total - self.done) / self.rate()

    def as_json(self) -> dict[str, Any]:
        """How far it is, as JSON values."""
        return {
            "step": self.name,
            "done": self.done,
            "total": self.total,
            "unit": self.unit,
            "rate": self.rate(),
            "seconds_left": self.seconds_left(),
            "note": self.note,
        }

    def _show(self) -> None:
        """Nothing to show: the step of a caller that wants silence."""


class _BarStep(Step):
    bars: Bars
    task: TaskID

    def _show(self) -> None:
        self.bars.update(
            self.task, completed=self.done, total=self.total, rate=_rate(self), note=self.note
        )


class _LogStep(Step):
    console: Console
    last: float = 0.0

    def _show(self) -> None:
        now = time.monotonic()
        if now - self.last >= LOG_INTERVAL:
            self.last = now
            self.console.print(_line(self), highlight=False, soft_wrap=True)


class _EventStep(Step):
    events: JsonProgress
    last: float = 0.0

    def _show(self) -> None:
        now = time.monotonic()
        if now - self.last >= LOG_INTERVAL:
            self.last = now
            self.events.emit("info", "progress", **self.as_json())


class NullProgress:
    """Progress for callers from Python: nothing is printed."""

    @contextmanager
    def step(self, name: str, total: float | None, unit: str) -> Iterator[Step]:
        """Open a step that shows nothing."""
        yield Step(name, total, unit)

    def say(self, message: str) -> None:
        """Say nothing."""

    def warn(self, message: str) -> None:
        """Say nothing of what went wrong without ending the work."""

    def fail(self, message: str) -> None:
        """Say nothing of the error that ends the work."""

    def result(self, answer: Mapping[str, Any], closing: Sequence[str], exit_code: int) -> None:
        """Say nothing of what came of the work."""


@dataclass
class _ToldStep(Step):
    shown: Step | None = None
    tell: Callable[[Step, bool], None] = lambda step, edge: None

    def _show(self) -> None:
        assert self.shown is not None
        self.shown.update(self.done, self.note, self.total)
        self.tell(self, False)


@dataclass
class ForwardingProgress(NullProgress, ABC):
    """Progress that is shown as before, and of which somebody else is told: see ``tell``.

    Attributes:
        shown: Where it is shown.
    """

    shown: NullProgress

    @abstractmethod
    def tell(self, step: Step, edge: bool) -> None:
        """Take notice of a step, at its start and end (its edges) and whenever it moves."""

    @contextmanager
    def step(self, name: str, total: float | None, unit: str) -> Iterator[Step]:
        """Open a step."""
        with self.shown.step(name, total, unit) as shown:
            step = _ToldStep(name, total, unit, shown=shown, tell=self.tell)
            self.tell(step, True)
            yield step
            self.tell(step, True)

    def say(self, message: str) -> None:
        """Show a message."""
        self.shown.say(message)

    def warn(self, message: str) -> None:
        """Show a warning."""
        self.shown.warn(message)

    def fail(self, message: str) -> None:
        """Show the error that ends the work."""
        self.shown.fail(message)

    def result(self, answer: Mapping[str, Any], closing: Sequence[str], exit_code: int) -> None:
        """Show what came of the work."""
        self.shown.result(answer, closing, exit_code)


class ConsoleProgress(NullProgress):
    """Progress on a console: a bar a step in a terminal, lines in a log."""

    def __init__(self, console: Console) -> None:
        self.console = console

    @contextmanager
    def step(self, name: str, total: float | None, unit: str) -> Iterator[Step]:
        """Open a step; its closing line says how much was done and how long it took."""
        started = time.monotonic()
        with self._open(name, total, unit) as step:
            yield step
        seconds = time.monotonic() - started
        amount = f"{step.done:,.0f} {unit}, " if step.done else ""
        self.say(f"[green]✓[/green] {name} [dim]({amount}{seconds:.1f} s)[/dim]")

    def say(self, message: str) -> None:
        """Print one line (rich markup)."""
        self.console.print(message, highlight=False, soft_wrap=True)

    def warn(self, message: str) -> None:
        """Print a warning."""
        self._quote("Warning:", "bold yellow", message)

    def fail(self, message: str) -> None:
        """Print an error."""
        self._quote("Error:", "bold red", message)

    def _quote(self, heading: str, style: str, message: str) -> None:
        # No markup, no control characters: messages quote what users and corpora say. No wrapping:
        # one line stays one line.
        self.console.print(heading, style=style, end=" ")
        self.console.print(
            strip_control_chars(message), markup=False, highlight=False, soft_wrap=True
        )

    @contextmanager
    def _open(self, name: str, total: float | None, unit: str) -> Iterator[Step]:
        if not self.console.is_terminal:
            step = _LogStep(name, total, unit)
            step.console = self.console
            step.last = time.monotonic()
            yield step
            return
        with self._bars() as bars:
            bar = _BarStep(name, total, unit)
            bar.bars, bar.task = bars, bars.add_task(name, total=total, rate="", note="")
            yield bar

    def _bars(self) -> Bars:
        # Widths are chosen for a terminal of 80 columns.
        return Bars(
            TextColumn("{task.description}"),
            BarColumn(bar_width=16),
            TaskProgressColumn(),
            TextColumn("[dim]{task.fields[rate]}"),
            TimeRemainingColumn(compact=True),
            TextColumn("[dim]{task.fields[note]}"),
            console=self.console,
            transient=True,
        )


class JsonProgress(NullProgress):
    """Progress for programs that collect logs: a JSON object a line.

    Each has ``time`` (ISO 8601, UTC), ``level`` and ``event``: ``started``, ``progress`` and
    ``ended`` of a step, ``message``, ``warning``, ``error``, and at the end ``result``: the answer
    as ``--json`` prints it, its closing sentences and the exit code.

    Args:
        stream: Where lines go.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    @contextmanager
    def step(self, name: str, total: float | None, unit: str) -> Iterator[Step]:
        """Open a step: a line at its start and end, and now and then between them."""
        self.emit("info", "started", step=name, total=total, unit=unit)
        step = _EventStep(name, total, unit)
        step.events, step.last = self, step.started
        yield step
        seconds = time.monotonic() - step.started
        self.emit("info", "ended", step=name, done=step.done, unit=unit, seconds=seconds)

    def say(self, message: str) -> None:
        """A message, without its markup."""
        self.emit("info", "message", message=Text.from_markup(message).plain)

    def fail(self, message: str) -> None:
        """An error."""
        self.emit("error", "error", message=message)

    def warn(self, message: str) -> None:
        """What went wrong without ending the work, such as an attempt that is repeated."""
        self.emit("warning", "warning", message=message)

    def result(self, answer: Mapping[str, Any], closing: Sequence[str], exit_code: int) -> None:
        """What came of the work."""
        level = "warning" if exit_code else "info"
        self.emit(level, "result", exit_code=exit_code, closing=list(closing), answer=dict(answer))

    def emit(self, level: str, event: str, **values: Any) -> None:
        """Write one line."""
        moment = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = {"time": moment, "level": level, "event": event, **values}
        self._stream.write(json.dumps(line, ensure_ascii=False) + "\n")
        self._stream.flush()


def _rate(step: Step) -> str:
    return f"{step.rate():,.1f} {step.unit}/s"


def _line(step: Step) -> str:
    share = f" of {step.total:,.0f}" if step.total else ""
    seconds = step.seconds_left()
    left = "" if seconds is None else f", {seconds:,.0f} s left"
    note = f", {step.note}" if step.note else ""
    return f"{step.name}: {step.done:,.0f}{share} {step.unit}, {_rate(step)}{left}{note}"
