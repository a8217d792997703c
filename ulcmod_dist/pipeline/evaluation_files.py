"""The evaluation's JSON files: results with the fingerprint of what they follow from."""

from __future__ import annotations

from typing import Any, TypeVar

from ulcmod_dist.config.job import Job
from ulcmod_dist.results.serialize import from_json, to_json
from ulcmod_dist.runtime.rundir import RunDir, evaluation_key, fingerprint
from ulcmod_dist.store.modules import StoredModules

T = TypeVar("T")

# Raised whenever the same modules and settings would lead to another file than before.
ABLATION_VERSION = 4


def ablation_name(num_modules: int) -> str:
    """Name of the file that holds the ablation of one K."""
    return f"ablation-K={num_modules:03d}"


def ablation_mark(job: Job, stored: StoredModules) -> str:
    """Fingerprint of what the ablation of one K follows from."""
    settings = job.ablate.model_dump(mode="json", exclude={"with_run"})
    found = stored.metrics["identity"]
    return fingerprint({"modules": found, "ablate": settings, "version": ABLATION_VERSION})


def write_evaluation(run: RunDir, name: str, value: Any, mark: str) -> None:
    """Write one value and the fingerprint of what it was made from."""
    run.write_json(evaluation_key(name), {"fingerprint": mark, "content": to_json(value)})


def read_evaluation(run: RunDir, name: str, kind: type[T], mark: str | None = None) -> T | None:
    """Read one value; None where there is none, or where it was made from something else.

    Args:
        run: The run directory.
        name: Name of the file without its ending.
        kind: Type of the value.
        mark: Fingerprint that it must bear; None for any.
    """
    try:
        stored = run.read_json(evaluation_key(name))
    except FileNotFoundError:
        return None
    if mark is not None and stored["fingerprint"] != mark:
        return None
    return from_json(stored["content"], kind)
