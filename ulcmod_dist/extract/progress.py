"""How far an extraction is: while it runs, and as ``status`` reads it from the run directory.

Imports no Ray, whose import takes two seconds, so that ``ulcmod status`` answers at once.
"""

from dataclasses import dataclass
from typing import Any

from ulcmod_dist.extract.planner import load_plan
from ulcmod_dist.runtime import lease
from ulcmod_dist.runtime.rundir import RunDir
from ulcmod_dist.store.records import committed_digests, read_quarantine

STATUS = "status/extract.json"


@dataclass(frozen=True)
class ExtractionProgress:
    """How far an extraction is. Shards committed by earlier runs are not counted."""

    shards_done: int = 0
    shards: int = 0
    prompts_done: int = 0  # in shards committed or in progress
    prompts: int = 0
    tokens_done: int = 0
    tokens: int = 0
    prompts_per_second: float = 0.0  # since the first model was loaded
    tokens_per_second: float = 0.0
    actors: int = 0  # alive with a loaded model
    failures: int = 0  # failed attempts at a shard
    quarantined: int = 0  # prompts
    seconds_left: float | None = None  # from the tokens left; None before the first batch
    peak_bytes: int = 0  # largest resident memory that an actor has had


def read_extraction_status(run: RunDir) -> dict[str, Any]:
    """Read how far a run's extraction is, as JSON values, from its run directory alone.

    ``progress`` is the last one, written at ``time`` (seconds since 1970); Prometheus finds it at
    ``metrics`` while the run goes on. All three are None before the first.
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
