"""How far an extraction is: while it runs, and as ``status`` reads it from the run directory.

Imports no Ray, whose import takes two seconds, so that ``ulcmod status`` answers at once.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ulcmod_dist.extract.planner import load_plan
from ulcmod_dist.runtime import lease
from ulcmod_dist.runtime.rundir import RunDir
from ulcmod_dist.store.records import committed_digests, read_quarantine

STATUS = "status/extract.json"


@dataclass(frozen=True)
class ExtractionProgress:
    """How far an extraction is. Shards committed by earlier runs are not counted.

    Attributes:
        shards_done, shards: Shards committed, and in all.
        prompts_done, prompts: Prompts computed, in shards committed or in progress, and in all.
        tokens_done, tokens: The same for tokens.
        prompts_per_second, tokens_per_second: Since the first model was loaded.
        actors: Actors alive with a loaded model.
        failures: Failed attempts at a shard.
        quarantined: Prompts in quarantine.
        seconds_left: Estimate from the tokens left; None before the first batch.
        peak_bytes: Largest resident memory that an actor has had.
    """

    shards_done: int = 0
    shards: int = 0
    prompts_done: int = 0
    prompts: int = 0
    tokens_done: int = 0
    tokens: int = 0
    prompts_per_second: float = 0.0
    tokens_per_second: float = 0.0
    actors: int = 0
    failures: int = 0
    quarantined: int = 0
    seconds_left: float | None = None
    peak_bytes: int = 0

    def as_json(self) -> dict[str, Any]:
        """The progress as JSON values."""
        return asdict(self)


def read_extraction_status(run: RunDir) -> dict[str, Any]:
    """Read how far a run's extraction is, as JSON values, from its run directory alone.

    Returns:
        ``plan``: figures of the plan, or None; ``shards_committed``; ``quarantined``: samples and
        reason of each prompt; ``holder``: who works on the run, or None; ``progress``, ``time`` and
        ``metrics``: the last progress, when it was written (seconds since 1970), and where
        Prometheus finds it while the run goes on; None before the first.
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
        "holder": lease.read_holder(run),
        **last,
    }
