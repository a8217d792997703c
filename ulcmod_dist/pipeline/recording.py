"""The step under way, kept in the run directory for `ulcmod status`, wherever that is called."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import Any

from ulcmod_dist.runtime.progress import ForwardingProgress, Step
from ulcmod_dist.runtime.rundir import RunDir

STEP = "status/step.json"
SECONDS = 2.0
"""How often the file of a step is renewed."""


@dataclass
class Recorded(ForwardingProgress):
    """Progress that is shown as before and kept in the run directory.

    Attributes:
        run: The run directory; who writes there holds its lease.
    """

    run: RunDir
    _kept: float = float("-inf")

    def tell(self, step: Step, edge: bool) -> None:
        """Renew the file of the step where it is due."""
        now = time.monotonic()
        if not edge and now - self._kept < SECONDS:
            return
        self._kept = now
        # A store that takes nothing is met, and named, by what has to be written.
        with contextlib.suppress(Exception):
            self.run.write_json(STEP, {**step.as_json(), "time": time.time()})


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
