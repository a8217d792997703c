"""``ulcmod status``: how far a run is, from what it has stored alone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from ulcmod_dist.api import Run
from ulcmod_dist.extract.progress import read_extraction_status
from ulcmod_dist.pipeline.context import Context
from ulcmod_dist.pipeline.discover import found_metrics, search_mark
from ulcmod_dist.pipeline.evaluate import evaluation_mark, name_of
from ulcmod_dist.pipeline.evaluation_files import read_evaluation
from ulcmod_dist.pipeline.summary import Summary
from ulcmod_dist.results.discovery import Discovery
from ulcmod_dist.runtime.lease import TIMEOUT
from ulcmod_dist.runtime.progress import read_current_step
from ulcmod_dist.runtime.rundir import REPORT
from ulcmod_dist.store.records import list_snapshots

LOOK_SECONDS = 2.0
BAR = 20
NAMED = 10
"""Samples in quarantine that are named for each reason; `--json` names all."""

COLUMNS = {"num_modules": "K", "modules": "Modules", "evaluation": "Evaluation", "objective": "L"}


def looks(context: Context, seconds: float = LOOK_SECONDS) -> Iterator[Summary]:
    """The status again and again, until work that is under way or yet to begin has ended."""
    worked = False
    beat, since = None, time.monotonic()
    while True:
        look = status(context)
        yield look
        holder = look.as_json()["holder"]
        if holder is not None and holder["beat"] != beat:
            beat, since = holder["beat"], time.monotonic()
        # Of a process on another machine only the beat tells whether it is still there.
        silent = time.monotonic() - since > TIMEOUT
        works = look.facts["held by"] is not None and not silent
        if worked and not works:
            return
        worked = works
        time.sleep(seconds)


def status(context: Context) -> Summary:
    """What is there, what is out of date and what is missing; reads no activation."""
    directory = context.run
    views = list_snapshots(directory)
    extraction = read_extraction_status(directory)
    held_back = [name for entry in extraction["quarantined"] for name in entry["samples"]]
    holder = extraction["holder"]
    works = holder is not None and holder["alive"]
    step = read_current_step(directory, holder["started"]) if works else None
    facts: dict[str, Any] = {
        "run": directory.url,
        "shards committed": extraction["shards_committed"],
        "view": views[-1] if views else None,
        "quarantined": len(held_back),
        "held by": _holder(holder) if works else None,
        "report": directory.show(REPORT) if directory.exists(REPORT) else None,
    }
    if holder is not None and not works:
        facts["left by"] = f"{_holder(holder)}, which is gone"
    if extraction["plan"] is not None:
        facts["shards planned"] = extraction["plan"]["shards"]
    if views:
        view = Run(directory).snapshot
        facts |= {"samples": view.samples.num_rows, "units": view.units.num_rows}
    data = {
        **extraction,
        "step": step,
        **{name.replace(" ", "_"): value for name, value in facts.items()},
        "quarantined": sorted(held_back),
    }
    rows = [_row(context, k, bool(views)) for k in context.job.discover.modules]
    facts["now"] = _step(step)
    closing = _reasons(extraction["quarantined"])
    return Summary(
        title="Modules", columns=COLUMNS, rows=rows, facts=facts, data=data, closing=closing
    )


def _reasons(quarantined: list[dict[str, Any]]) -> list[str]:
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


def _holder(holder: dict[str, Any]) -> str:
    """Who works on the run, for people."""
    return f"{holder['purpose']} (process {holder['pid']} on {holder['host']})"


def _step(step: dict[str, Any] | None) -> str | None:
    """The step under way, for people, on two lines of at most 60 columns."""
    if step is None:
        return None
    share = step["done"] / step["total"] if step["total"] else None
    filled = 0 if share is None else round(BAR * share)
    bar = "" if share is None else f"{'━' * filled}{'╌' * (BAR - filled)} {share:.0%} "
    left = "" if step["seconds_left"] is None else f", {step['seconds_left']:,.0f} s left"
    of = "" if step["total"] is None else f" of {step['total']:,.0f}"
    return (
        f"{bar}{step['step']}\n{step['done']:,.0f}{of} {step['unit']}, {step['rate']:,.1f}/s{left}"
    )


def _row(context: Context, num_modules: int, extracted: bool) -> dict[str, object]:
    run = Run(context.run)
    metrics = found_metrics(context.run, num_modules)
    if metrics is None:
        return {"num_modules": num_modules, "modules": "missing", "evaluation": "missing"}
    fresh = extracted and metrics["fingerprint"] == search_mark(context, run, num_modules)
    mark = evaluation_mark(context, run.modules(num_modules))
    name = name_of(num_modules)
    if read_evaluation(context.run, name, Discovery, mark) is not None:
        evaluation = "done"
    else:
        known = read_evaluation(context.run, name, Discovery) is not None
        evaluation = "out of date" if known else "missing"
    return {
        "num_modules": num_modules,
        "modules": "done" if fresh else "out of date",
        "evaluation": evaluation,
        "objective": metrics["objective"],
    }
