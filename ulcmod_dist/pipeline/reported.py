"""What the page was made from, noted so that it is written again only where that has changed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from importlib.metadata import version

from ulcmod_dist.pipeline.context import Context
from ulcmod_dist.runtime.rundir import EVALUATION, REPORT, fingerprint

REPORTED = "status/reported.json"


def note_reported(context: Context, num_modules: Sequence[int], keys: Iterable[str]) -> None:
    """Note what the page was made from, and the keys of it and of all that is beside it."""
    context.run.write_json(
        REPORTED, {"fingerprint": _mark(context, num_modules), "keys": sorted(keys)}
    )


def is_reported(context: Context) -> bool:
    """Whether page, figures and tables are there and were made from what is there now."""
    try:
        noted = context.run.read_json(REPORTED)
    except FileNotFoundError:
        return False
    # A note of an older version names no keys.
    complete = all(context.run.exists(key) for key in noted.get("keys", [REPORT]))
    return complete and bool(noted["fingerprint"] == _mark(context, context.job.discover.modules))


def _mark(context: Context, num_modules: Sequence[int]) -> str:
    run = context.run
    digests = {key: hashlib.sha256(run.read(key)).hexdigest() for key, _ in run.keys(EVALUATION)}
    job = context.job.model_dump(mode="json")
    made_from = {"evaluation": digests, "job": job, "num_modules": list(num_modules)}
    return fingerprint({**made_from, "version": version("ulcmod-dist")})
