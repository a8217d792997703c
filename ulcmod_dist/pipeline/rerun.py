"""``ulcmod rerun``: a run brought up to date with its corpus, paying only for what has changed.

Every step looks at what is there and does what is missing, so that a rerun that was killed is
repeated and not repaired. Only when all is done do the results become a new version.
"""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from ulcmod_dist.api import Run
from ulcmod_dist.corpus.digests import find_digests, join_digests
from ulcmod_dist.pipeline.artifacts import differences
from ulcmod_dist.pipeline.context import Context, writing
from ulcmod_dist.pipeline.drift import (
    MEASURES,
    Drift,
    accept_drift,
    is_accepted,
    read_drift,
    read_past,
    write_drift,
)
from ulcmod_dist.pipeline.ledger import Ledger, replacing
from ulcmod_dist.pipeline.result_files import read_module_rows
from ulcmod_dist.pipeline.run import make_snapshot, update_results
from ulcmod_dist.pipeline.summary import Summary
from ulcmod_dist.pipeline.warm_start import WarmStart, find_starts
from ulcmod_dist.runtime.lease import LeaseHeld
from ulcmod_dist.runtime.rundir import DRIFT, REPORT, fingerprint
from ulcmod_dist.store.schema import cache_key
from ulcmod_dist.store.versions import (
    Version,
    keep_version,
    newest_version,
    prune_versions,
    version_directory,
)

DRIFTED = 4
"""Exit code of a rerun after which the modules differ from before by more than the job allows."""

COLUMNS = {
    "num_modules": "K",
    "objective": "L",
    "iterations": "Iterations",
    "start": "Start",
    "units_rand": "Units as before",
    "samples_rand": "Samples as before",
    "relative_objective": "L as before",
}


def rerun(context: Context, *, accept: bool = False) -> Summary:
    """Bring a run up to date; the first time, run it. ``accept`` ends the alarm of its drift.

    Where another process writes to the run, nothing is done and that is no failure: the next rerun
    finds what this one would have found.
    """
    try:
        with writing(context, "rerun") as held:
            return _rerun(held, accept)
    except LeaseHeld as error:
        return Summary(
            title="Rerun",
            facts={"state": "skipped"},
            data={"state": "skipped", "reasons": [error.fact]},
            closing=[f"{error.fact} Nothing was done; the next rerun takes up what is new."],
        )


def _rerun(context: Context, accept: bool) -> Summary:
    started = time.monotonic()
    run = context.run
    if newest_version(run) is None and run.exists(REPORT):
        # What `ulcmod run` has left.
        make_version(context)
    if accept:
        accept_drift(run)
    before = newest_version(run)
    last = None if before is None else Run(version_directory(run, before.number))
    extracted = make_snapshot(context, update=True)
    starts: dict[int, WarmStart] = {}
    said: list[str] = []
    if before is not None and last is not None:
        starts, said = find_starts(context, before, last)
    updated = update_results(context, discover={"starts": starts})
    if not Ledger(run, context.job).is_current("version"):
        make_version(context)
    now, current = newest_version(run), Run(run)
    snapshot = Ledger(run, context.job).record("snapshot")
    assert now is not None
    assert snapshot is not None
    is_same = now == before
    facts: dict[str, Any] = {
        "state": "unchanged" if is_same else "updated",
        "version": now.number,
        "samples": snapshot.facts["samples"],
        **({"added": 0, "removed": 0} if is_same else _changes(last, current)),
        "reused": extracted.facts.get("reused"),
        "computed": extracted.facts.get("computed"),
        "seconds": round(time.monotonic() - started, 1),
    }
    reasons = [*([] if is_same else _reasons(last, current)), *said]
    closing = [*extracted.closing, _sentence(now, is_same)]
    found = read_module_rows(context, updated)
    return _summary(context, facts, reasons, found, closing, extracted.exit_code)


def make_version(context: Context) -> None:
    """Keep the present results as a version, after comparing them with the version before."""
    run, before = context.run, newest_version(context.run)
    results = fingerprint(Ledger(run, context.job).expected("version").inputs)
    # A rerun that was killed may have kept the version and not yet recorded it.
    if before is None or before.results != results:
        context.fence.check()
        if before is not None:
            last = Run(version_directory(run, before.number))
            with replacing(context, "drift") as record:
                write_drift(
                    run, [k for k in context.job.discover.modules if k in last.num_modules()]
                )
                record.files = (MEASURES,)
        before = keep_version(run, results, context.fence.check)
        prune_versions(run, context.job.rerun.keep)
    with replacing(context, "version") as record:
        record.facts = {"number": before.number}


def _changes(last: Run | None, now: Run) -> dict[str, int]:
    """How many samples came and went."""
    if last is not None and last.snapshot.digest == now.snapshot.digest:
        return {"added": 0, "removed": 0}
    new = now.snapshot.prompts()
    old = new[:0] if last is None else last.snapshot.prompts()
    # Each prompt by the first row that holds it, and how often it occurs.
    rows = find_digests(join_digests([old, new]), join_digests([old, new]))
    counts = [np.bincount(part, minlength=len(rows)) for part in np.split(rows, [len(old)])]
    gained = counts[1] - counts[0]
    return {"added": int(gained[gained > 0].sum()), "removed": int(-gained[gained < 0].sum())}


def _reasons(last: Run | None, now: Run) -> list[str]:
    """Why no row of the version before could be reused, where none could."""
    if last is None:
        return []
    before, after = (cache_key(run.snapshot.provenance) for run in (last, now))
    changed = differences(before, after)
    return [f"No row was reused: {'; '.join(changed)}."] if changed else []


def _sentence(version: Version, unchanged: bool) -> str:
    if not unchanged:
        return f"Version {version.number} of the results."
    made = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(version.time))
    return f"Nothing new since version {version.number} of {made}."


def _summary(
    context: Context,
    facts: dict[str, Any],
    reasons: list[str],
    found: Sequence[Any],
    closing: list[str],
    exit_code: int,
) -> Summary:
    """The answer; for programs with the reasons of what was done anew and the alarms."""
    drifts = {drift.num_modules: drift for drift in read_drift(context.run)}
    alarms = [text for drift in drifts.values() for text in drift.alarms(context.job.rerun)]
    accepted = is_accepted(context.run)
    data = {
        **facts,
        "reasons": reasons,
        "alarms": [*alarms],
        "accepted": accepted,
        "versions": read_past(context.run),
        "quarantined": exit_code == 3,
    }
    if alarms and accepted:
        alarms = ["The drift of this version was accepted."]
    elif alarms:
        exit_code = DRIFTED
        alarms.append(f"Look at {context.run.show(DRIFT)}; `--accept` ends the alarm.")
    rows = [{**row, **_drift_columns(drifts.get(row["num_modules"]))} for row in found]
    return Summary(
        title="Modules",
        columns=COLUMNS,
        rows=rows,
        facts=facts,
        data=data,
        closing=[*reasons, *closing, *alarms],
        exit_code=exit_code,
    )


def _drift_columns(drift: Drift | None) -> dict[str, Any]:
    if drift is None:
        return {}
    rands = {"units_rand": drift.units_rand, "samples_rand": drift.samples_rand}
    return {**rands, "relative_objective": drift.objective}
