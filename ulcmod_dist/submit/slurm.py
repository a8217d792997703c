"""Slurm: a batch script that starts Ray on the nodes of an allocation and runs a job there.

The job needs a file system shared by login and compute nodes: for the run directory (unless it is
an object store), the inputs, and the Python environment.
"""

import math
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

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

    def submit(self, *, again: bool = False) -> SubmittedJob:
        """Queue the script, or attach to the same job if it is queued or running.

        Slurm forgets jobs soon after they end, so one that has succeeded is repeated whether or
        not ``again`` is set.
        """
        if (job := self.find()) is not None:
            return job
        number = call_tool(["sbatch", "--parsable"], stdin=self.text).strip().split(";")[0]
        return self._as_submitted(number, "PENDING", new=True)

    def find(self) -> SubmittedJob | None:
        """The job in the queue, or None."""
        command = ["squeue", "--noheader", f"--name={self.name}", "--me", "--format=%i %T"]
        jobs = call_tool(command).splitlines()
        return self._as_submitted(*jobs[0].split(), new=False) if jobs else None

    def read_logs(self, *, follow: bool) -> Iterator[str]:
        """The job's output in the current folder; with ``follow``, until it leaves the queue."""
        if not self.log.is_file() and not (follow and self.find()):
            raise UlcmodError(
                f"There is no {self.log} here.",
                "Run this in the folder that the job was submitted from, once the job has started.",
            )
        position = 0
        while True:
            # Asked before reading, so that what the job prints last is read too.
            running = follow and self.find() is not None
            if self.log.is_file():
                with self.log.open(encoding="utf-8", errors="replace") as output:
                    output.seek(position)
                    yield output.read()
                    position = output.tell()
            if not running:
                return
            time.sleep(POLL_SECONDS)

    def cancel(self) -> SubmittedJob | None:
        """Cancel the job, queued or running; None if there is none."""
        job = self.find()
        if job is not None:
            call_tool(["scancel", str(job.details["number"])])
        return job

    def _as_submitted(self, number: str, state: str, *, new: bool) -> SubmittedJob:
        output = f"The output of the job is in {self.log}."
        label = f"Slurm job {number} ({self.name})"
        return SubmittedJob(self.name, state, new, label, {"number": number}, output)


def render_script(
    bundle: JobBundle, *, environment: Path | None = None, entrypoint: str | None = None
) -> BatchScript:
    """Render the batch script of a job, whose paths are absolute.

    ``environment`` is the folder of the programs ``ulcmod`` and ``ray`` on the compute nodes, by
    default that of the running Python; ``entrypoint`` replaces the driver's command.
    """
    text = render_template(
        "slurm/job.sh.j2",
        name=bundle.name,
        job=bundle.text,
        cluster=bundle.cluster,
        minutes=math.ceil(bundle.cluster.hours * 60) if bundle.cluster.hours else None,
        environment=environment or Path(sys.executable).parent,
        entrypoint=entrypoint or bundle.command,
        log_format=bundle.cluster.log_format,
        port=PORT,
        restarts=MAX_RESTARTS,
    )
    return BatchScript(bundle.name, text)
