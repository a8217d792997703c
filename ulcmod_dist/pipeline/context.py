"""The context of a command: job, run directory, lease and progress callback."""

import functools
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Concatenate, ParamSpec

import yaml

from ulcmod_dist.config.job import Job, is_url
from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.pipeline.artifacts import differences, flatten
from ulcmod_dist.pipeline.summary import Summary
from ulcmod_dist.runtime.lease import Fence, Lease
from ulcmod_dist.runtime.progress import (
    ProgressCallback,
    broadcast,
    ignore_progress,
    record_progress,
)
from ulcmod_dist.runtime.rundir import ACTIVATIONS, FORMAT_FILE, JOB, RunDir

logger = logging.getLogger(__name__)

P = ParamSpec("P")

FORMAT = 2
"""Version of the layout of a run directory; raised when an earlier layout cannot be read."""


@dataclass(frozen=True)
class Context:
    """A job and the run directory it writes to.

    Attributes:
        lease: The lease that is held on the run directory, if any.
    """

    job: Job
    run: RunDir
    on_progress: ProgressCallback = ignore_progress
    lease: Fence | None = None

    @property
    def fence(self) -> Fence:
        """The lease under which this context writes; only inside ``writing``."""
        assert self.lease is not None
        return self.lease


@contextmanager
def writing(context: Context, purpose: str) -> Iterator[Context]:
    """The context with the lease on its run directory, so that no other process writes to it.

    A stage within another keeps the lease of the outer one.

    Raises:
        InvalidInput: The run directory cannot be written.
        LeaseHeld: Another process holds the run; the message names it.
    """
    if context.lease is not None:
        yield context
        return
    context.run.check_writable()
    check_format(context.run)
    with Lease.acquire(context.run, purpose) as lease:
        if not context.run.exists(FORMAT_FILE):
            context.run.write_json(FORMAT_FILE, {"format": FORMAT})
        on_progress = broadcast(context.on_progress, record_progress(context.run))
        yield replace(context, lease=lease.fence, on_progress=on_progress)


def writes(
    command: Callable[Concatenate[Context, P], Summary],
) -> Callable[Concatenate[Context, P], Summary]:
    """A command that holds the lease on its run directory while it works."""

    @functools.wraps(command)
    def locked(context: Context, /, *args: P.args, **kwargs: P.kwargs) -> Summary:
        with writing(context, command.__name__.removesuffix("_all")) as held:
            return command(held, *args, **kwargs)

    return locked


def open_target(
    target: str, overrides: Sequence[str], on_progress: ProgressCallback = ignore_progress
) -> Context:
    """The context of a job file or of a run directory that holds its job.

    Raises:
        InvalidInput: The target is neither, or its job is not valid.
    """
    if not is_url(target) and Path(target).is_file():
        job = Job.from_yaml(target, overrides)
        run = RunDir.at(job.run)
        check_format(run)
        return Context(job, run, on_progress)
    if not is_url(target) and not Path(target).is_dir():
        raise InvalidInput(
            f"{target} is neither a job file nor a run directory.",
            "Name a YAML file, or a directory that `ulcmod run` has written.",
        )
    run = RunDir.at(target)
    check_format(run)
    return Context(Job.from_run(run, overrides), run, on_progress)


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


def save_job(context: Context) -> None:
    """Keep the job, with its defaults written out, in the run directory; log what it changes."""
    text = context.job.to_yaml()
    try:
        before = context.run.read(JOB).decode("utf-8")
    except FileNotFoundError:
        before = text
        context.run.write(JOB, text.encode())
    if before != text:
        changes = differences(flatten(yaml.safe_load(before)), flatten(yaml.safe_load(text)))
        logger.info("The job of this run changes: %s.", "; ".join(changes))
        context.run.write(JOB, text.encode())


def check_format(run: RunDir) -> None:
    """Return if a run directory is empty or of the format that this version reads and writes.

    Raises:
        InvalidInput: It has another format.
    """
    if run.local is not None and not os.path.isdir(run.local):
        return
    try:
        found = run.read_json(FORMAT_FILE)["format"]
    except FileNotFoundError:
        # Format 1 had no such file.
        found = 1 if run.exists(JOB) else FORMAT
    if found != FORMAT:
        raise InvalidInput(
            f"The run directory {run.url} has format {found}; this version reads and writes "
            f"format {FORMAT}.",
            f"Run its job into a new directory: `ulcmod run {run.show(JOB)} --set run=NEW`. To "
            f"keep the activations, copy {run.show(ACTIVATIONS)} to NEW before.",
        )
