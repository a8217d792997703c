"""Send a job to a cluster, show what it prints there, take it back."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ulcmod_dist.config.job import Job, is_url
from ulcmod_dist.corpus.files import find_files
from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.pipeline.summary import Summary
from ulcmod_dist.submit import kuberay, ray_jobs, slurm, tools
from ulcmod_dist.submit.parcel import Parcel, Target, pack


@dataclass(frozen=True)
class Sending:
    """A job file, the keys that override its own, and the cluster it goes to.

    Attributes:
        job: The job file.
        overrides: ``section.key=value`` each.
        to: What runs the cluster.
        address: Ray: HTTP address of the job server; None for the default.
    """

    job: str
    overrides: Sequence[str]
    to: Target
    address: str | None = None

    def pack(self) -> Parcel:
        """What travels."""
        if self.address is not None and self.to != "ray":
            raise InvalidInput(f"--address is for Ray clusters; {self.to} knows its own.")
        return pack(self.job, self.overrides, self.to)


def preview(sending: Sending) -> str:
    """What would be sent, as text; nothing is sent and no cluster is asked."""
    parcel = sending.pack()
    if sending.to == "kuberay":
        return kuberay.render_manifest(parcel).text
    if sending.to == "slurm":
        _require_inputs(parcel.job)
        return slurm.render_script(parcel).text
    address = ray_jobs.resolve(sending.address, os.environ, Path.home())
    return json.dumps({"address": address, **ray_jobs.request(parcel)}, indent=1) + "\n"


def submit(
    sending: Sending, *, again: bool = False, wait: Callable[[str], object] | None = None
) -> Summary:
    """Send a job, or meet the one that was sent before.

    Args:
        sending: The job and the cluster.
        again: Run it another time although it has succeeded; Slurm does so in any case.
        wait: Ray: takes what the job prints until it ends; None returns at once.

    Raises:
        InvalidInput: The job cannot run there, or the cluster is open to others.
    """
    if wait is not None and sending.to != "ray":
        raise InvalidInput("--wait is for Ray clusters.", "Use `ulcmod logs JOB --follow`.")
    parcel = sending.pack()
    if sending.to == "kuberay":
        return _to_kuberay(sending, parcel, again)
    if sending.to == "slurm":
        return _to_slurm(parcel)
    return _to_ray(sending, parcel, again, wait)


def _client(sending: Sending) -> ray_jobs.Client:
    address = ray_jobs.resolve(sending.address, os.environ, Path.home())
    return ray_jobs.connect(address, os.environ, Path.home())


def _to_ray(
    sending: Sending, parcel: Parcel, again: bool, wait: Callable[[str], object] | None
) -> Summary:
    client = _client(sending)
    submission = ray_jobs.submit(client, parcel, again=again)
    said = _sentence(submission.id, submission.state, submission.new)
    state, exit_code = submission.state, 0
    if wait is not None:
        for text in ray_jobs.follow(client, submission):
            wait(text)
        state, exit_code = ray_jobs.outcome(client, submission)
        said = f"{submission.id} has ended: {state}."
    return Summary(
        "Submission",
        facts={"submission": submission.id, "state": state, "new": submission.new},
        closing=[said],
        exit_code=exit_code,
    )


def _to_kuberay(sending: Sending, parcel: Parcel, again: bool) -> Summary:
    manifest = kuberay.render_manifest(parcel)
    if not tools.available("kubectl"):
        return Summary(
            "Submission",
            facts={"submission": manifest.name, "sent": False},
            closing=[
                f"kubectl is not installed here, so {manifest.kind} {manifest.name} was not sent.",
                f"Send it with: {_command(sending)} --dry-run | kubectl apply -f -",
            ],
            exit_code=1,
        )
    sent = kuberay.submit(manifest, again=again)
    return Summary(
        "Submission",
        facts={
            "submission": sent.name,
            "kind": manifest.kind,
            "sent": True,
            "state": sent.state,
            "new": sent.new,
        },
        closing=[
            *sent.said.splitlines(),
            _sentence(f"{manifest.kind} {sent.name}", sent.state, sent.new),
        ],
    )


def _command(sending: Sending) -> str:
    """The command that sends a job, as one types it: the overrides are part of what the job is."""
    words = ["ulcmod", "submit", sending.job, "--to", sending.to]
    return shlex.join([*words, *(w for given in sending.overrides for w in ("--set", given))])


def _require_inputs(job: Job) -> None:
    """Return if the inputs of a job are there: Slurm shares the file system with this machine.

    Raises:
        InvalidInput: One is not, or holds no samples.
    """
    if job.matrix is not None:
        place = job.matrix.path
        if not is_url(place) and not Path(place).exists():
            raise InvalidInput(f"matrix.path is {place!r}, and it does not exist.")
    if job.corpus is not None:
        named = [("train", place) for place in job.corpus.train]
        for split, place in [*named, *(("test", place) for place in job.corpus.test)]:
            if not is_url(place):
                find_files(place, split)


def _to_slurm(parcel: Parcel) -> Summary:
    _require_inputs(parcel.job)
    script = slurm.render_script(parcel)
    job = slurm.submit(script)
    return Summary(
        "Submission",
        facts={"submission": script.name, "number": job.number, "state": job.state, "new": job.new},
        closing=[
            _sentence(f"Slurm job {job.number} ({script.name})", job.state, job.new),
            f"It prints to {script.log}.",
        ],
    )


def _sentence(what: str, state: str, new: bool) -> str:
    return f"{what} was submitted." if new else f"{what} was submitted before and is {state}."


def state(sending: Sending) -> Summary:
    """What became of a job that was sent, as the cluster tells it."""
    parcel = sending.pack()
    name = parcel.name
    if sending.to == "kuberay":
        manifest = kuberay.render_manifest(parcel)
        name, told = manifest.name, kuberay.state(manifest)
    elif sending.to == "slurm":
        job = slurm.queued(slurm.render_script(parcel))
        told = "not in the queue: it has ended, or was never sent" if job is None else job.state
    else:
        submission = ray_jobs.latest(_client(sending), name)
        name, told = submission.id, submission.state
    facts = {"submission": name, "state": told, "run": parcel.job.run}
    return Summary("Submission", facts=facts)


def logs(sending: Sending, *, follow: bool) -> Iterator[str]:
    """What a job that was sent has printed; with ``follow``, on and on until it ends."""
    parcel = sending.pack()
    if sending.to == "kuberay":
        yield from kuberay.logs(kuberay.render_manifest(parcel), follow=follow)
    elif sending.to == "slurm":
        yield from slurm.logs(slurm.render_script(parcel), follow=follow)
    else:
        client = _client(sending)
        submission = ray_jobs.latest(client, parcel.name)
        if follow:
            yield from ray_jobs.follow(client, submission)
        else:
            yield ray_jobs.logs(client, submission)


def cancel(sending: Sending) -> Summary:
    """Take a job back; what it has computed so far stays in its run directory."""
    parcel = sending.pack()
    if sending.to == "kuberay":
        manifest = kuberay.render_manifest(parcel)
        said = kuberay.cancel(manifest)
        return Summary("Cancelled", facts={"submission": manifest.name}, closing=said.splitlines())
    if sending.to == "slurm":
        job = slurm.cancel(slurm.render_script(parcel))
        there = job is not None
        name = parcel.name
    else:
        client = _client(sending)
        submission = ray_jobs.latest(client, parcel.name)
        there = ray_jobs.cancel(client, submission)
        name = submission.id
    said = f"{name} was asked to end." if there else f"{name} was not running."
    return Summary("Cancelled", facts={"submission": name, "cancelled": there}, closing=[said])
