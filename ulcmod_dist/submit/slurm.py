"""Slurm: a batch script that starts Ray on the nodes of an allocation and runs a job there.

The job needs the file system that login and compute nodes share: for the run directory (unless it
is an object store), for the inputs, and for the Python environment.
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
from ulcmod_dist.submit.parcel import Parcel
from ulcmod_dist.submit.templates import render
from ulcmod_dist.submit.tools import call

PORT = 6379
POLL_SECONDS = 5.0
MAX_RESTARTS = 100
"""How often a job may go back to the queue before its time limit ends it."""


@dataclass(frozen=True)
class Script:
    """A batch script, its job's name, and the file its output goes to."""

    name: str
    text: str

    @property
    def log(self) -> Path:
        """Where the job prints to, in the folder that it was submitted from."""
        return Path(f"{self.name}.log")


def render_script(
    parcel: Parcel, *, environment: Path | None = None, entrypoint: str | None = None
) -> Script:
    """The batch script of a job.

    Args:
        parcel: The job; its paths are absolute.
        environment: Folder of the programs ``ulcmod`` and ``ray`` on the compute nodes; by default
            the one that this Python runs from.
        entrypoint: Command of the driver; the job file follows. By default that of the parcel.
    """
    cluster = parcel.job.cluster or ClusterConfig()
    text = render(
        "slurm/job.sh.j2",
        name=parcel.name,
        job=parcel.text,
        cluster=cluster,
        minutes=math.ceil(cluster.hours * 60) if cluster.hours else None,
        environment=environment or Path(sys.executable).parent,
        entrypoint=entrypoint or parcel.command,
        log_format=parcel.log_format,
        port=PORT,
        restarts=MAX_RESTARTS,
    )
    return Script(parcel.name, text)


@dataclass(frozen=True)
class Queued:
    """A job in Slurm's queue: its number, its state, and whether this call put it there."""

    number: str
    state: str
    new: bool


def submit(script: Script) -> Queued:
    """Queue a script, or meet the one of the same job that is queued or running."""
    there = queued(script)
    if there is not None:
        return there
    number = call(["sbatch", "--parsable"], given=script.text).strip().split(";")[0]
    return Queued(number, "PENDING", new=True)


def queued(script: Script) -> Queued | None:
    """The job of a script in the queue, or None."""
    listed = call(["squeue", "--noheader", f"--name={script.name}", "--me", "--format=%i %T"])
    first = next(iter(listed.splitlines()), None)
    if first is None:
        return None
    number, state = first.split()
    return Queued(number, state, new=False)


def logs(script: Script, *, follow: bool) -> Iterator[str]:
    """What a job has printed; with ``follow``, on and on until it leaves the queue.

    Raises:
        UlcmodError: There is no output here.
    """
    if not script.log.is_file() and not (follow and queued(script)):
        raise UlcmodError(
            f"There is no {script.log} here.",
            "Call this in the folder that the job was submitted from, once the job has started.",
        )
    shown = 0
    while True:
        more = follow and queued(script) is not None
        if script.log.is_file():
            with script.log.open(encoding="utf-8", errors="replace") as output:
                output.seek(shown)
                yield output.read()
                shown = output.tell()
        if not more:
            return
        time.sleep(POLL_SECONDS)


def cancel(script: Script) -> Queued | None:
    """Take the job out of the queue, running or not; None when it is not there."""
    there = queued(script)
    if there is not None:
        call(["scancel", there.number])
    return there
