"""What the page was made from, noted so that a rerun writes it only where that has changed."""

from __future__ import annotations

import hashlib
from importlib.metadata import version

from ulcmod_dist.rundir import EVALUATION, REPORT, fingerprint
from ulcmod_dist.stages.context import Context

REPORTED = "status/reported.json"


def note_reported(context: Context) -> None:
    """Note what the page in the run directory was made from."""
    context.run.write_json(REPORTED, {"fingerprint": _mark(context)})


def is_reported(context: Context) -> bool:
    """Whether the page in the run directory was made from what is there now."""
    try:
        noted = context.run.read_json(REPORTED)
    except FileNotFoundError:
        return False
    return context.run.exists(REPORT) and bool(noted["fingerprint"] == _mark(context))


def _mark(context: Context) -> str:
    run = context.run
    digests = {key: hashlib.sha256(run.read(key)).hexdigest() for key, _ in run.keys(EVALUATION)}
    job = context.job.model_dump(mode="json")
    return fingerprint({"evaluation": digests, "job": job, "version": version("ulcmod-dist")})
