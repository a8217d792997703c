"""``ulcmod demo``: the whole pipeline on the project's own small model and corpus."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from ulcmod_dist.job import Job
from ulcmod_dist.progress import Silent
from ulcmod_dist.rundir import RunDir
from ulcmod_dist.stages.context import Context


def demo_context(run: str, overrides: Sequence[str], progress: Silent) -> Context:
    """The demo's job, writing to ``run``.

    Args:
        run: Run directory, local path or URL.
        overrides: Further ``key=value`` pairs.
        progress: Where progress goes.
    """
    job = Job.from_yaml(demo_folder() / "demo.yaml", [f"run={run}", *overrides])
    return Context(job, RunDir.at(job.run), progress)


def demo_folder() -> Path:
    """Folder of the demo's job, corpus and model: in the package, or beside it in a checkout."""
    package = Path(str(files("ulcmod_dist")))
    installed = package / "demo"
    return installed if installed.is_dir() else package.parent / "jobs" / "demo"
