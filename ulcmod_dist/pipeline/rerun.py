"""``ulcmod rerun``: a run brought up to date with its corpus, paying only for what has changed.

Every step looks at what is there and does what is missing, so that a rerun that was killed is
repeated and not repaired. Only when all is done do the results become a new version.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ulcmod_dist.api import Run
from ulcmod_dist.corpus.digests import find_digests, join_digests
from ulcmod_dist.passes.standardised import LabelArray
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


@dataclass(frozen=True)
class WarmStart:
    """Labels of an earlier version that a search continues from."""

    version: int
    modules: str  # identity of the modules of that version
    sample_labels: LabelArray  # of the train samples; -1 for one that the version does not have
    unit_labels: LabelArray


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
        starts, said = _find_starts(context, before, last)
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


def _find_starts(
    context: Context, before: Version, last: Run
) -> tuple[dict[int, WarmStart], list[str]]:
    """Where the search for each outdated K continues from, and why it does not."""
    ledger = Ledger(context.run, context.job)
    starts: dict[int, WarmStart] = {}
    said: list[str] = []
    for k in context.job.discover.modules:
        if ledger.is_current("modules", k):
            continue
        start = _find_start(context, ledger, before, last, k)
        if isinstance(start, WarmStart):
            starts[k] = start
        else:
            said.append(f"The search for K = {k} started anew: {start}.")
    return starts, said


def _find_start(
    context: Context, ledger: Ledger, before: Version, last: Run, num_modules: int
) -> WarmStart | str:
    """Where the search for one K continues from, or why it starts anew."""
    if context.job.rerun.start == "cold":
        return "the job asks for it (rerun.start is cold)"
    old = Ledger(last.directory, context.job).record("modules", num_modules)
    if old is None:
        return f"version {before.number} has no modules for it"
    if changes := differences(old.config, ledger.expected("modules", num_modules).config):
        return "; ".join(changes)
    run, modules = Run(context.run), last.modules(num_modules)
    snapshot = last.snapshot_for(modules)
    # Modules found in the rows of another model say nothing about those of this one.
    if (
        cache_key(snapshot.provenance) != cache_key(run.snapshot.provenance)
        or snapshot.units.num_rows != run.snapshot.units.num_rows
    ):
        return f"version {before.number} has other units"
    rows = find_digests(run.snapshot.prompts("train"), snapshot.prompts("train"))
    if rows.max() < 0:
        return f"version {before.number} has other samples"
    samples = np.where(rows < 0, -1, modules.sample_labels("train")[rows]).astype(np.int32)
    return WarmStart(before.number, old.identity, samples, modules.unit_labels)


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
