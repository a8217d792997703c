"""``ulcmod rerun``: a run brought up to date with its corpus, paying only for what has changed.

Every step looks at what is there and does what is missing, so that a rerun that was killed is
repeated and not repaired. Only when all is done do the results become a new version.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ulcmod_dist.api import Run
from ulcmod_dist.corpus.prompts import read_corpus
from ulcmod_dist.extract.planner import list_provenance_changes
from ulcmod_dist.pipeline.ablatable import why_not_ablated
from ulcmod_dist.pipeline.context import Context, writing
from ulcmod_dist.pipeline.discover import find_modules, found_metrics, mark_in, search_mark
from ulcmod_dist.pipeline.drift import (
    Drift,
    accept_drift,
    is_accepted,
    read_drift,
    read_past,
    write_drift,
)
from ulcmod_dist.pipeline.evaluate import evaluate
from ulcmod_dist.pipeline.evaluation_files import (
    ablation_mark,
    ablation_name,
    read_evaluation,
)
from ulcmod_dist.pipeline.import_matrix import import_matrix
from ulcmod_dist.pipeline.inputs import inputs_mark, is_extracted
from ulcmod_dist.pipeline.report import report
from ulcmod_dist.pipeline.reported import is_reported
from ulcmod_dist.pipeline.start import Start, start_from
from ulcmod_dist.pipeline.summary import Summary
from ulcmod_dist.results.ablation import Ablation
from ulcmod_dist.runtime.lease import LeaseHeld
from ulcmod_dist.runtime.rundir import DRIFT, REPORT
from ulcmod_dist.store.records import read_quarantine
from ulcmod_dist.store.versions import (
    Version,
    keep_version,
    newest_version,
    prune_versions,
    results_fingerprint,
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
    """Bring a run up to date; the first time, run it.

    Where another process writes to the run, nothing is done and that is no failure: the next rerun
    finds what this one would have found.

    Args:
        context: The job and its run directory.
        accept: Whether the drift of the present version is to raise no alarm any more.

    Raises:
        UlcmodError: As extraction, search, evaluation and report.
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
        keep_version(run, context.fence.check)
    if accept:
        accept_drift(run)
    before = newest_version(run)
    last = None if before is None else Run(version_directory(run, before.number))
    extracted = _extract(context)
    starts, said = _starts(context, before, last)
    found = find_modules(context, starts)
    evaluate(context)
    _ablate(context)
    if not is_reported(context):
        report(context)
    now = before
    if before is None or results_fingerprint(run) != before.results:
        context.fence.check()
        if last is not None:
            write_drift(run, _common(context, last))
        now = keep_version(run, context.fence.check)
        prune_versions(run, context.job.rerun.keep)
    assert now is not None
    facts: dict[str, Any] = {
        "state": "unchanged" if now == before else "updated",
        "version": now.number,
        "samples": Run(run).snapshot.samples.num_rows,
        **_changes(last, Run(run)),
        "reused": extracted.facts.get("reused"),
        "computed": extracted.facts.get("computed"),
        "seconds": round(time.monotonic() - started, 1),
    }
    reasons = [*_reasons(last, Run(run)), *said]
    closing = [*extracted.closing, _sentence(now, now == before)]
    return _summary(context, facts, reasons, found.rows, closing, extracted.exit_code)


def _extract(context: Context) -> Summary:
    """Bring the store up to date; torch and Ray are loaded only where something has changed."""
    job = context.job
    if job.corpus is None:
        return import_matrix(context)
    prompts = read_corpus(job.corpus)
    digests = prompts.digests()
    if not is_extracted(context.run, inputs_mark(job, prompts, digests)):
        from ulcmod_dist.pipeline.extract import extract

        return extract(context, update=True)
    held_back = sorted(read_quarantine(context.run).keys() & set(digests))
    return Summary(
        title="Extraction",
        facts={"reused": Run(context.run).snapshot.samples.num_rows, "computed": 0},
        closing=[f"In quarantine: {len(held_back)} prompts."] if held_back else [],
        exit_code=3 if held_back else 0,
    )


def _ablate(context: Context) -> None:
    """Silence the modules of those K for which that is still to be done, if the job asks for it."""
    job, run = context.job, Run(context.run)
    if not job.ablate.with_run or why_not_ablated(run.snapshot.provenance) is not None:
        return
    marks = {k: ablation_mark(job, run.modules(k)) for k in job.discover.modules}
    names = {k: ablation_name(k) for k in marks}
    if any(read_evaluation(context.run, names[k], Ablation, marks[k]) is None for k in marks):
        from ulcmod_dist.pipeline.ablate import ablate

        ablate(context)


def _starts(
    context: Context, before: Version | None, last: Run | None
) -> tuple[dict[int, Start], list[str]]:
    """Where the search for each K goes on from, and why it does not where it does not."""
    run = Run(context.run)
    starts: dict[int, Start] = {}
    said: list[str] = []
    if before is None or last is None:
        return starts, said
    for k in context.job.discover.modules:
        if (found_metrics(context.run, k) or {}).get("fingerprint") == search_mark(context, run, k):
            continue
        start = _start(context, run, before, last, k)
        if isinstance(start, Start):
            starts[k] = start
        else:
            said.append(f"The search for K = {k} started anew: {start}.")
    return starts, said


def _start(context: Context, run: Run, before: Version, last: Run, num_modules: int) -> Start | str:
    """Where the search for one K goes on from, or why it starts anew."""
    if context.job.rerun.start == "cold":
        return "the job asks for it (rerun.start is cold)"
    if num_modules not in last.num_modules():
        return f"version {before.number} has no modules for it"
    modules = last.modules(num_modules)
    settings = mark_in(context, modules.metrics["view_digest"], num_modules)
    if modules.metrics["fingerprint"] != settings:
        return "the section discover of the job has changed"
    start = start_from(run, before.number, last, modules)
    return start or f"version {before.number} has other units or other samples"


def _common(context: Context, last: Run) -> list[int]:
    return [k for k in context.job.discover.modules if k in last.num_modules()]


def _changes(last: Run | None, now: Run) -> dict[str, int]:
    """How many samples came and went."""
    old = Counter[str]() if last is None else Counter(last.snapshot.prompts())
    new = Counter(now.snapshot.prompts())
    return {"added": (new - old).total(), "removed": (old - new).total()}


def _reasons(last: Run | None, now: Run) -> list[str]:
    """Why no row of the version before could be reused, where none could."""
    if last is None:
        return []
    changed = list_provenance_changes(last.snapshot.provenance, now.snapshot.provenance)
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
    rows = [{**row, **_columns(drifts.get(row["num_modules"]))} for row in found]
    return Summary(
        title="Modules",
        columns=COLUMNS,
        rows=rows,
        facts=facts,
        data=data,
        closing=[*reasons, *closing, *alarms],
        exit_code=exit_code,
    )


def _columns(drift: Drift | None) -> dict[str, Any]:
    if drift is None:
        return {}
    values = asdict(drift)
    return {
        "units_rand": values["units_rand"],
        "samples_rand": values["samples_rand"],
        "relative_objective": values["objective"],
    }
