"""Progress for others than the caller: Prometheus through Ray, and a file that ``status`` reads."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from ray.util.metrics import Gauge

from ulcmod_dist.extract.planner import load_plan
from ulcmod_dist.extract.values import Progress
from ulcmod_dist.runtime import lease
from ulcmod_dist.runtime.ray_session import metrics_addresses
from ulcmod_dist.runtime.rundir import RunDir
from ulcmod_dist.store.quarantine import read_quarantine
from ulcmod_dist.store.shards import committed_digests

STATUS = "status/extract.json"
STATUS_SECONDS = 5.0
"""How often the file of a running extraction is renewed."""

PREFIX = "ulcmod_extract_"


@dataclass
class Reporter:
    """Publishes the progress of one extraction; needs a connection to Ray.

    Attributes:
        run: The run directory, whose URL labels the metrics.
    """

    run: RunDir
    _gauges: dict[str, Gauge] = field(default_factory=dict)
    _written: float = float("-inf")

    def publish(self, progress: Progress, *, last: bool = False) -> None:
        """Set the metrics, and renew the file where it is due or the progress is the last."""
        values = progress.as_json()
        for name, value in values.items():
            if value is not None:
                self._gauge(name).set(float(value), tags={"run": self.run.url})
        now = time.monotonic()
        if last or now - self._written >= STATUS_SECONDS:
            self._written = now
            status = {"progress": values, "time": time.time(), "metrics": metrics_addresses()}
            self.run.write_json(STATUS, status)

    def _gauge(self, name: str) -> Gauge:
        if name not in self._gauges:
            words = name.replace("_", " ")
            self._gauges[name] = Gauge(f"{PREFIX}{name}", f"Extraction: {words}", ("run",))
        return self._gauges[name]


def extraction_status(run: RunDir) -> dict[str, Any]:
    """How far a run's extraction is, as JSON values, from what it has stored alone.

    Returns:
        ``plan``: figures of the plan, or None; ``shards_committed``; ``quarantined``: samples and
        reason of each prompt; ``holder``: who works on the run, or None; ``progress``, ``time`` and
        ``metrics``: the last progress, when it was noted (seconds since 1970), and where Prometheus
        finds it while the run goes on; None before the first.
    """
    plan = load_plan(run)
    try:
        last = run.read_json(STATUS)
    except FileNotFoundError:
        last = {"progress": None, "time": None, "metrics": None}
    return {
        "plan": None if plan is None else plan.summary(),
        "shards_committed": len(committed_digests(run)),
        "quarantined": [
            {"samples": list(entry.sample_ids), "reason": entry.reason, "attempts": entry.attempts}
            for entry in read_quarantine(run).values()
        ],
        "holder": lease.holder(run),
        **last,
    }
