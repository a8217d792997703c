"""``ulcmod status``: how far a run is, from its records alone.

Neither Dask, torch, Zarr nor the corpus is read, so that it answers at once.
"""

import time
from collections.abc import Iterator
from typing import Any

from ulcmod_dist.pipeline.context import Context
from ulcmod_dist.pipeline.ledger import Ledger, stale_sentences
from ulcmod_dist.pipeline.summary import Summary
from ulcmod_dist.runtime.lease import TIMEOUT, read_holder
from ulcmod_dist.runtime.progress import read_current_step
from ulcmod_dist.runtime.rundir import EXTRACTION_FILE, REPORT, RunDir
from ulcmod_dist.store.records import read_quarantine
from ulcmod_dist.store.schema import COMMITS

WATCH_INTERVAL = 2.0
BAR_WIDTH = 20
NAMED = 10
"""Samples in quarantine that are named for each reason; `--json` names all."""

PER_K = ("modules", "evaluation", "ablation")
COLUMNS = {"num_modules": "K", **{name: name.capitalize() for name in PER_K}, "objective": "L"}


def watch(context: Context, seconds: float = WATCH_INTERVAL) -> Iterator[Summary]:
    """The status again and again, until work that is under way or yet to begin has ended."""
    worked = False
    beat, since = None, time.monotonic()
    while True:
        current = status(context)
        yield current
        holder = current.as_json()["holder"]
        if holder is not None and holder["beat"] != beat:
            beat, since = holder["beat"], time.monotonic()
        # Of a process on another machine only the heartbeat tells whether it is still there.
        silent = time.monotonic() - since > TIMEOUT
        works = current.facts["held by"] is not None and not silent
        if worked and not works:
            return
        worked = works
        time.sleep(seconds)


def status(context: Context) -> Summary:
    """Which artifacts of a run are fresh, stale or missing, and what is under way."""
    run, ledger = context.run, Ledger(context.run, context.job)
    extraction = read_extraction(run, ledger)
    holder, quarantined = extraction["holder"], extraction["quarantined"]
    works = holder is not None and holder["alive"]
    step = read_current_step(run, holder["started"]) if works else None
    facts = _facts(run, ledger, extraction)
    data = {
        **extraction,
        "step": step,
        **{name.replace(" ", "_"): value for name, value in facts.items()},
        "quarantined": sorted(name for entry in quarantined for name in entry["samples"]),
        "artifacts": [each.as_json() for each in ledger.statuses()],
        "left_out": {str(k): _left_out(ledger, k) for k in ledger.num_modules},
    }
    facts["now"] = _step(step)
    return Summary(
        title="Modules",
        columns=COLUMNS,
        rows=[_row(ledger, k) for k in ledger.num_modules],
        facts=facts,
        data=data,
        closing=[*_quarantine_sentences(quarantined), *stale_sentences(context)],
    )


def read_extraction(run: RunDir, ledger: Ledger) -> dict[str, Any]:
    """How far a run's extraction is, as JSON values.

    Returns:
        ``plan``: figures of the plan, or None; ``shards_committed``; ``quarantined``: samples and
        reason of each prompt; ``holder``: the process that holds the lease, or None; ``progress``,
        ``time`` and ``metrics``: the last progress, its time (seconds since 1970), and where
        Prometheus finds it while the run is active; None before the first.
    """
    plan = ledger.record("plan")
    try:
        last = run.read_json(EXTRACTION_FILE)
    except FileNotFoundError:
        last = {"progress": None, "time": None, "metrics": None}
    return {
        "plan": None if plan is None else plan.facts,
        "shards_committed": sum(1 for _ in run.keys(COMMITS)),
        "quarantined": [
            {"samples": list(entry.sample_ids), "reason": entry.reason, "attempts": entry.attempts}
            for entry in read_quarantine(run).values()
        ],
        "holder": read_holder(run),
        **last,
    }


def _facts(run: RunDir, ledger: Ledger, extraction: dict[str, Any]) -> dict[str, Any]:
    holder, snapshot = extraction["holder"], ledger.record("snapshot")
    works = holder is not None and holder["alive"]
    page = ledger.status("page")
    facts: dict[str, Any] = {
        "run": run.url,
        "shards committed": extraction["shards_committed"],
        "snapshot": None if snapshot is None else snapshot.facts["version"],
        "quarantined": sum(len(entry["samples"]) for entry in extraction["quarantined"]),
        "held by": _describe_holder(holder) if works else None,
        "report": run.show(REPORT) if page.state != "missing" else None,
    }
    if holder is not None and not works:
        facts["left by"] = f"{_describe_holder(holder)}, which is gone"
    if extraction["plan"] is not None:
        facts["shards planned"] = extraction["plan"]["shards"]
    if snapshot is not None:
        facts |= {name: snapshot.facts[name] for name in ("samples", "units")}
        if ledger.job.matrix is None:
            facts["statistic"] = snapshot.config["extract.statistic"]
    return facts


def _row(ledger: Ledger, num_modules: int) -> dict[str, Any]:
    record = ledger.record("modules", num_modules)
    return {
        "num_modules": num_modules,
        **{name: ledger.status(name, num_modules).state for name in PER_K},
        "objective": None if record is None else record.facts["objective"],
        "in_job": num_modules in ledger.job.discover.modules,
    }


def _left_out(ledger: Ledger, num_modules: int) -> dict[str, str]:
    """Parts that the evaluation for one K lacks, and why."""
    record = ledger.record("evaluation", num_modules)
    parts: dict[str, str] = {} if record is None else record.facts.get("left_out", {})
    return parts


def _quarantine_sentences(quarantined: list[dict[str, Any]]) -> list[str]:
    """Why prompts are in quarantine, a sentence a reason."""
    by_reason: dict[str, list[str]] = {}
    for entry in quarantined:
        by_reason.setdefault(entry["reason"], []).extend(entry["samples"])
    return [
        f"In quarantine: {', '.join(sorted(names)[:NAMED])}"
        + (f" and {len(names) - NAMED:,} more" if len(names) > NAMED else "")
        + f": {reason}"
        for reason, names in by_reason.items()
    ]


def _describe_holder(holder: dict[str, Any]) -> str:
    """The process that holds the lease, for people."""
    return f"{holder['purpose']} (process {holder['pid']} on {holder['host']})"


def _step(step: dict[str, Any] | None) -> str | None:
    """The step under way, for people, on two lines of at most 60 columns."""
    if step is None:
        return None
    share = step["done"] / step["total"] if step["total"] else None
    filled = 0 if share is None else round(BAR_WIDTH * share)
    bar = "" if share is None else f"{'━' * filled}{'╌' * (BAR_WIDTH - filled)} {share:.0%} "
    left = "" if step["seconds_left"] is None else f", {step['seconds_left']:,.0f} s left"
    of = "" if step["total"] is None else f" of {step['total']:,.0f}"
    return (
        f"{bar}{step['step']}\n{step['done']:,.0f}{of} {step['unit']}, {step['rate']:,.1f}/s{left}"
    )
