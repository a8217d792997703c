"""Progress of long steps: one callback type, and callbacks that display or record updates.

`track` calls ``on_progress`` when a step starts, advances and ends; `broadcast` combines several
callbacks. Messages are not progress: they go through `logging`.
"""

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

from rich.console import Console
from rich.progress import BarColumn, TaskID, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from ulcmod_dist.runtime.rundir import RunDir

# Seconds between two lines of a step in a log, and between two writes of the step's file.
LOG_INTERVAL = 10.0
STEP_FILE_INTERVAL = 2.0

STEP_FILE = "status/step.json"

State = Literal["started", "running", "finished", "failed"]


@dataclass(frozen=True)
class ProgressUpdate:
    """The state of one long step: work done so far and in all (None if unknown), in ``unit``.

    ``step`` and ``note`` are words for people, ``unit`` is a plural, ``seconds`` counts from the
    start of the step, and failed means ended by an exception.
    """

    step: str
    done: float
    total: float | None
    unit: str
    note: str
    seconds: float
    state: State

    @property
    def rate(self) -> float:
        """Work done per second since the start."""
        return self.done / max(self.seconds, 1e-9)

    @property
    def seconds_left(self) -> float | None:
        """Estimate from the rate so far; None if nothing is done or the total is unknown."""
        if not self.total or self.rate <= 0:
            return None
        return (self.total - self.done) / self.rate

    def as_json(self) -> dict[str, Any]:
        """The update as JSON values."""
        names = ("step", "done", "total", "unit", "rate", "seconds_left", "note")
        return {name: getattr(self, name) for name in names}


ProgressCallback = Callable[[ProgressUpdate], None]


def ignore_progress(update: ProgressUpdate) -> None:
    """Discard the update; the default of calls from Python."""


def broadcast(*callbacks: ProgressCallback) -> ProgressCallback:
    """Combine callbacks: each gets every update, in this order."""

    def send(update: ProgressUpdate) -> None:
        for callback in callbacks:
            callback(update)

    return send


def throttle(on_progress: ProgressCallback, seconds: float) -> ProgressCallback:
    """Pass on at most one running update per step and interval, and every change of state."""
    last_sent: dict[str, float] = {}

    def send(update: ProgressUpdate) -> None:
        now = time.monotonic()
        if update.state != "running" or now - last_sent.get(update.step, 0.0) >= seconds:
            last_sent[update.step] = now
            on_progress(update)

    return send


@dataclass
class Step:
    """One long step, opened by `track`; the attributes are those of its last update."""

    name: str
    total: float | None
    unit: str
    on_progress: ProgressCallback
    done: float = 0.0
    note: str = ""
    _started: float = field(default_factory=time.monotonic)

    def update(self, done: float, note: str = "", total: float | None = None) -> None:
        """Report the amount done so far (not since the last update), and a few words beside it."""
        self.done, self.note = done, note
        self.total = self.total if total is None else total
        self._report("running")

    def _report(self, state: State) -> None:
        seconds = time.monotonic() - self._started
        self.on_progress(
            ProgressUpdate(self.name, self.done, self.total, self.unit, self.note, seconds, state)
        )


@contextlib.contextmanager
def track(
    on_progress: ProgressCallback, name: str, total: float | None, unit: str
) -> Iterator[Step]:
    """Report a long step to a callback: at its start, with every `Step.update`, and at its end."""
    step = Step(name, total, unit, on_progress)
    step._report("started")
    try:
        yield step
    except BaseException:
        step._report("failed")
        raise
    step._report("finished")


class ConsoleProgress:
    """Progress on a console: a bar for each running step in a terminal, lines in a log."""

    def __init__(self, console: Console, interval: float = LOG_INTERVAL) -> None:
        self._console = console
        self._tasks: dict[str, TaskID] = {}
        # Widths are chosen for a terminal of 80 columns.
        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(bar_width=16),
            TaskProgressColumn(),
            TextColumn("[dim]{task.fields[rate]}"),
            TimeRemainingColumn(compact=True),
            TextColumn("[dim]{task.fields[note]}"),
            console=console,
            transient=True,
        )
        self._show = self._draw if console.is_terminal else throttle(self._log, interval)

    def __call__(self, update: ProgressUpdate) -> None:
        """Show the update; a finished step leaves one line with amount and time."""
        self._show(update)
        if update.state == "finished":
            amount = f"{update.done:,.0f} {update.unit}, " if update.done else ""
            self._print(
                f"[green]✓[/green] {update.step} [dim]({amount}{update.seconds:.1f} s)[/dim]"
            )

    def _draw(self, update: ProgressUpdate) -> None:
        if update.state == "started":
            self._tasks[update.step] = self._bars.add_task(update.step, rate="", note="")
            self._bars.start()
        if update.step not in self._tasks:
            return  # A worker thread may report once more after the end of its step.
        task = self._tasks[update.step]
        rate = f"{update.rate:,.1f} {update.unit}/s" if update.done else ""
        self._bars.update(
            task, completed=update.done, total=update.total, rate=rate, note=update.note
        )
        if update.state in ("finished", "failed"):
            self._bars.remove_task(self._tasks.pop(update.step))
        if not self._tasks:
            # A running display hides the cursor, and rich allows one display at a time.
            self._bars.stop()

    def _log(self, update: ProgressUpdate) -> None:
        if update.state != "running":
            return
        share = f" of {update.total:,.0f}" if update.total else ""
        left = "" if update.seconds_left is None else f", {update.seconds_left:,.0f} s left"
        note = f", {update.note}" if update.note else ""
        self._print(
            f"{update.step}: {update.done:,.0f}{share} {update.unit}, "
            f"{update.rate:,.1f} {update.unit}/s{left}{note}"
        )

    def _print(self, line: str) -> None:
        self._console.print(line, highlight=False, soft_wrap=True)


def write_json_line(stream: TextIO, level: str, event: str, **values: Any) -> None:
    """Write one line of a log for programs: time (ISO 8601, UTC), level, event and values."""
    moment = datetime.now(UTC).isoformat(timespec="milliseconds")
    line = {"time": moment, "level": level, "event": event, **values}
    stream.write(json.dumps(line, ensure_ascii=False) + "\n")
    stream.flush()


def json_progress(stream: TextIO, interval: float = LOG_INTERVAL) -> ProgressCallback:
    """Progress as JSON lines: ``started``, now and then ``progress``, and ``ended`` of a step."""

    def write(update: ProgressUpdate) -> None:
        values: dict[str, Any]
        if update.state == "running":
            write_json_line(stream, "info", "progress", **update.as_json())
        elif update.state == "started":
            values = {"step": update.step, "total": update.total, "unit": update.unit}
            write_json_line(stream, "info", "started", **values)
        elif update.state == "finished":
            values = {"step": update.step, "done": update.done, "unit": update.unit}
            write_json_line(stream, "info", "ended", **values, seconds=update.seconds)

    return throttle(write, interval)


def record_progress(run: RunDir) -> ProgressCallback:
    """A callback that writes updates to the run directory, which this process holds, for status."""

    def record(update: ProgressUpdate) -> None:
        if update.state == "failed":
            return
        # If the store cannot be written, the step itself fails with a better message.
        with contextlib.suppress(Exception):
            run.write_json(STEP_FILE, {**update.as_json(), "time": time.time()})

    return throttle(record, STEP_FILE_INTERVAL)


def read_current_step(run: RunDir, since: float) -> dict[str, Any] | None:
    """The step that the holder of a run has recorded last, as JSON values, or None.

    Steps recorded before ``since``, when the holder acquired the lease (seconds since 1970 by its
    own clock), are those of another process.
    """
    try:
        step = run.read_json(STEP_FILE)
    except FileNotFoundError:
        return None
    return step if step["time"] >= since else None
