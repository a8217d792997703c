"""Slurm: a batch script that starts Ray on the nodes of an allocation and runs a job there.

The job needs a file system shared by login and compute nodes: for the run directory (unless it is
an object store), the inputs, and the Python environment.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ulcmod_dist.config.schema import ClusterConfig
from ulcmod_dist.errors import UlcmodError
from ulcmod_dist.submit.bundle import JobBundle, SubmittedJob
from ulcmod_dist.submit.tools import call_tool, render_template

PORT = 6379
POLL_SECONDS = 5.0
MAX_RESTARTS = 100
"""How often a job may be requeued before its time limit ends it."""


@dataclass(frozen=True)
class BatchScript:
    """A batch script and its job's name."""

    name: str
    text: str

    @property
    def log(self) -> Path:
        """The job's output file, relative to the folder it was submitted from."""
        return Path(f"{self.name}.log")


def render_script(
    bundle: JobBundle, *, environment: Path | None = None, entrypoint: str | None = None
) -> BatchScript:
    """Render the batch script of a job.

    Args:
        bundle: The job; its paths are absolute.
        environment: Folder of the programs ``ulcmod`` and ``ray`` on the compute nodes; by default
            that of the running Python.
        entrypoint: Command of the driver, followed by the job file; by default the bundle's.
    """
    cluster = bundle.job.cluster or ClusterConfig()
    text = render_template(
        "slurm/job.sh.j2",
        name=bundle.name,
        job=bundle.text,
        cluster=cluster,
        minutes=math.ceil(cluster.hours * 60) if cluster.hours else None,
        environment=environment or Path(sys.executable).parent,
        entrypoint=entrypoint or bundle.command,
        log_format=bundle.log_format,
        port=PORT,
        restarts=MAX_RESTARTS,
    )
    return BatchScript(bundle.name, text)


def submit(script: BatchScript) -> SubmittedJob:
    """Queue a script, or attach to the same job if it is queued or running."""
    if (job := find_job(script)) is not None:
        return job
    number = call_tool(["sbatch", "--parsable"], stdin=script.text).strip().split(";")[0]
    return SubmittedJob(number, "PENDING", new=True)


def find_job(script: BatchScript) -> SubmittedJob | None:
    """The job of a script in the queue, or None. Slurm forgets jobs soon after they end."""
    jobs = call_tool(["squeue", "--noheader", f"--name={script.name}", "--me", "--format=%i %T"])
    if not jobs.strip():
        return None
    number, state = jobs.splitlines()[0].split()
    return SubmittedJob(number, state, new=False)


def read_logs(script: BatchScript, *, follow: bool) -> Iterator[str]:
    """The output of a job; with ``follow``, until it leaves the queue.

    Raises:
        UlcmodError: There is no output in the current folder.
    """
    if not script.log.is_file() and not (follow and find_job(script)):
        raise UlcmodError(
            f"There is no {script.log} here.",
            "Run this in the folder that the job was submitted from, once the job has started.",
        )
    position = 0
    while True:
        # Asked before reading, so that what the job prints last is read too.
        running = follow and find_job(script) is not None
        if script.log.is_file():
            with script.log.open(encoding="utf-8", errors="replace") as output:
                output.seek(position)
                yield output.read()
                position = output.tell()
        if not running:
            return
        time.sleep(POLL_SECONDS)


def cancel(script: BatchScript) -> SubmittedJob | None:
    """Cancel a queued or running job; None if there is none."""
    job = find_job(script)
    if job is not None:
        call_tool(["scancel", job.id])
    return job
