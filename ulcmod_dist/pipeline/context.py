"""What every stage starts from: the job, its run directory, its lease, and where progress goes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Concatenate, ParamSpec

from ulcmod_dist.config.job import Job, is_url
from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.pipeline.summary import Summary
from ulcmod_dist.runtime.lease import Fence, Lease
from ulcmod_dist.runtime.progress import (
    ProgressCallback,
    broadcast,
    ignore_progress,
    record_progress,
)
from ulcmod_dist.runtime.rundir import JOB, RunDir

Options = ParamSpec("Options")


@dataclass(frozen=True)
class Context:
    """A job and the run directory it writes to.

    Attributes:
        job: The job.
        run: Its run directory.
        on_progress: Called with the progress of every long step.
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
    """The context with the lease on its run directory, so that nobody else writes to it.

    A stage within another keeps the lease of the outer one.

    Raises:
        LeaseHeld: Another process holds the run; the message names it.
    """
    if context.lease is not None:
        yield context
        return
    with Lease.acquire(context.run, purpose) as lease:
        on_progress = broadcast(context.on_progress, record_progress(context.run))
        yield replace(context, lease=lease.fence, on_progress=on_progress)


def writes(
    stage: Callable[Concatenate[Context, Options], Summary],
) -> Callable[Concatenate[Context, Options], Summary]:
    """A stage that holds the lease on its run directory while it works."""

    @functools.wraps(stage)
    def holding(context: Context, /, *args: Options.args, **options: Options.kwargs) -> Summary:
        with writing(context, stage.__name__.removesuffix("_all")) as held:
            return stage(held, *args, **options)

    return holding


def open_target(
    target: str, overrides: Sequence[str], on_progress: ProgressCallback = ignore_progress
) -> Context:
    """The context of a job file or of a run directory that holds its job.

    Raises:
        InvalidInput: The target is neither, or its job is not valid.
    """
    if not is_url(target) and Path(target).is_file():
        job = Job.from_yaml(target, overrides)
        return Context(job, RunDir.at(job.run), on_progress)
    if not is_url(target) and not Path(target).is_dir():
        raise InvalidInput(
            f"{target} is neither a job file nor a run directory.",
            "Name a YAML file, or a directory that `ulcmod run` has written.",
        )
    run = RunDir.at(target)
    return Context(stored_job(run, overrides), run, on_progress)


def stored_job(run: RunDir, overrides: Sequence[str] = ()) -> Job:
    """The job that a run directory was made by, wherever the directory lies now."""
    try:
        text = run.read(JOB).decode("utf-8")
    except FileNotFoundError as error:
        raise InvalidInput(
            f"{run.url} is no run directory: it holds no {JOB}.", "Start one with `ulcmod run JOB`."
        ) from error
    folder = run.local or Path.cwd()
    return Job.from_text(
        text, source=run.show(JOB), folder=folder, overrides=overrides, require_model_folder=False
    )


def select_num_modules(job: Job, chosen: Sequence[int] | None) -> list[int]:
    """The K that a command works on: all of the job, or those chosen among them.

    Raises:
        InvalidInput: A chosen K is none of the job's.
    """
    if not chosen:
        return list(job.discover.modules)
    if unknown := [k for k in chosen if k not in job.discover.modules]:
        raise InvalidInput(
            f"--num-modules names K = {', '.join(map(str, unknown))}, and the job searches "
            f"K = {', '.join(map(str, job.discover.modules))}.",
            "Choose among these, or add to the job with --set discover.modules=[...].",
        )
    return [k for k in job.discover.modules if k in chosen]


def save_job(context: Context) -> None:
    """Keep the job, with its defaults written out, in the run directory."""
    text = context.job.to_yaml().encode()
    if not context.run.exists(JOB) or context.run.read(JOB) != text:
        context.run.write(JOB, text)
