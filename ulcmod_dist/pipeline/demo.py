"""``ulcmod demo``: the whole pipeline on the project's own small model and corpus."""

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from ulcmod_dist.config.job import Job
from ulcmod_dist.pipeline.context import Context
from ulcmod_dist.runtime.progress import ProgressCallback, ignore_progress
from ulcmod_dist.runtime.rundir import RunDir


def demo_context(
    run: str, overrides: Sequence[str], on_progress: ProgressCallback = ignore_progress
) -> Context:
    """The demo's job, writing to ``run``.

    Args:
        run: Run directory, local path or URL.
        overrides: Further ``key=value`` pairs.
    """
    job = Job.from_yaml(demo_folder() / "demo.yaml", [f"run={run}", *overrides])
    return Context(job, RunDir.at(job.run), on_progress)


def demo_folder() -> Path:
    """Folder of the demo's job, corpus and model: in the package, or beside it in a checkout."""
    package = Path(str(files("ulcmod_dist")))
    installed = package / "demo"
    return installed if installed.is_dir() else package.parent / "jobs" / "demo"
