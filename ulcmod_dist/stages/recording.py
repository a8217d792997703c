"""The step under way, kept in the run directory for `ulcmod status`, wherever that is called."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ulcmod_dist.progress import Silent, Step
from ulcmod_dist.rundir import RunDir

STEP = "status/step.json"
SECONDS = 2.0
"""How often the file of a step is renewed."""


@dataclass
class _RecordedStep(Step):
    shown: Step | None = None
    run: RunDir | None = None
    _kept: float = float("-inf")

    def _show(self) -> None:
        assert self.shown is not None
        self.shown.update(self.done, self.note, self.total)
        if time.monotonic() - self._kept >= SECONDS:
            self.keep()

    def keep(self) -> None:
        """Renew the file."""
        assert self.run is not None
        self._kept = time.monotonic()
        # A store that takes nothing is met, and named, by what has to be written.
        with contextlib.suppress(Exception):
            self.run.write_json(STEP, {**self.as_json(), "time": time.time()})


@dataclass(frozen=True)
class Recorded(Silent):
    """Progress that is shown as before and kept in the run directory.

    Attributes:
        shown: Where it is shown.
        run: The run directory; who writes there holds its lease.
    """

    shown: Silent
    run: RunDir

    @contextlib.contextmanager
    def step(self, name: str, total: float | None, unit: str) -> Iterator[Step]:
        """Open a step."""
        with self.shown.step(name, total, unit) as shown:
            step = _RecordedStep(name, total, unit, shown=shown, run=self.run)
            step.keep()
            yield step
            step.keep()

    def say(self, message: str) -> None:
        """Show a message."""
        self.shown.say(message)

    def warn(self, message: str) -> None:
        """Show a warning."""
        self.shown.warn(message)


def step_under_way(run: RunDir, since: float) -> dict[str, Any] | None:
    """The step that the holder of a run is at, as JSON values, or None before its first.

    Args:
        run: The run directory.
        since: When the holder took the run, by its own clock; an older step is not its own.
    """
    try:
        kept = run.read_json(STEP)
    except FileNotFoundError:
        return None
    return kept if kept["time"] >= since else None
