"""``ulcmod submit``, ``logs`` and ``cancel``, and ``status --to``: jobs on a cluster."""

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
from ulcmod_dist.submit import kuberay, ray_jobs, slurm
from ulcmod_dist.submit.bundle import ClusterKind, JobBundle, SubmittedJob, create_bundle
from ulcmod_dist.submit.tools import is_installed


@dataclass(frozen=True)
class Submission:
    """A job file, its overrides, and the cluster to run it on.

    Attributes:
        job: The job file.
        overrides: ``section.key=value`` each.
        to: Kind of cluster.
        address: Ray: HTTP address of the job server; None for the default.
    """

    job: str
    overrides: Sequence[str]
    to: ClusterKind
    address: str | None = None

    def create_bundle(self) -> JobBundle:
        """Read the job and collect its inputs."""
        if self.address is not None and self.to != "ray":
            raise InvalidInput(
                f"--address is for Ray clusters; {self.to} uses its own configuration."
            )
        return create_bundle(self.job, self.overrides, self.to)

    def resolve_address(self) -> str:
        """The HTTP address of the Ray cluster's job server."""
        return ray_jobs.resolve_address(self.address, os.environ, Path.home())

    def connect(self) -> ray_jobs.Client:
        """Connect to the Ray cluster."""
        return ray_jobs.connect(self.resolve_address(), os.environ, Path.home())

    def as_command(self) -> str:
        """The shell command that makes this submission."""
        words = ["ulcmod", "submit", self.job, "--to", self.to]
        return shlex.join([*words, *(word for o in self.overrides for word in ("--set", o))])


def preview(submission: Submission) -> str:
    """What would be sent, as text; contacts no cluster."""
    bundle = submission.create_bundle()
    if submission.to == "kuberay":
        return kuberay.render_manifest(bundle).text
    if submission.to == "slurm":
        _require_inputs(bundle.job)
        return slurm.render_script(bundle).text
    request = {"address": submission.resolve_address(), **ray_jobs.preview_request(bundle)}
    return json.dumps(request, indent=1) + "\n"


def submit(
    submission: Submission, *, again: bool = False, wait: Callable[[str], object] | None = None
) -> Summary:
    """Submit a job, or attach to the same job if it is there.

    Args:
        submission: The job and the cluster.
        again: Run it again although it has succeeded; Slurm does so in any case.
        wait: Ray: called with the job's output until it ends; None returns at once.

    Raises:
        InvalidInput: The job cannot run there, or the remote cluster has no authentication.
    """
    if wait is not None and submission.to != "ray":
        raise InvalidInput("--wait is for Ray clusters.", "Use `ulcmod logs JOB --follow`.")
    bundle = submission.create_bundle()
    if submission.to == "kuberay":
        return _submit_to_kuberay(submission, bundle, again)
    if submission.to == "slurm":
        return _submit_to_slurm(bundle)
    return _submit_to_ray(submission.connect(), bundle, again, wait)


def _submit_to_ray(
    client: ray_jobs.Client,
    bundle: JobBundle,
    again: bool,
    wait: Callable[[str], object] | None,
) -> Summary:
    job = ray_jobs.submit(client, bundle, again=again)
    closing = _describe(job.id, job)
    state, exit_code = job.state, 0
    if wait is not None:
        for text in ray_jobs.follow_logs(client, job.id):
            wait(text)
        state, exit_code = ray_jobs.get_result(client, job.id)
        closing = f"{job.id} has ended: {state}."
    return Summary(
        "Submission",
        facts={"submission": job.id, "state": state, "new": job.new},
        closing=[closing],
        exit_code=exit_code,
    )


def _submit_to_kuberay(submission: Submission, bundle: JobBundle, again: bool) -> Summary:
    manifest = kuberay.render_manifest(bundle)
    if not is_installed("kubectl"):
        return Summary(
            "Submission",
            facts={"submission": manifest.name, "sent": False},
            closing=[
                f"kubectl is not installed here, so {manifest.kind} {manifest.name} was not "
                "applied.",
                f"Apply it with: {submission.as_command()} --dry-run | kubectl apply -f -",
            ],
            exit_code=1,
        )
    job = kuberay.submit(manifest, again=again)
    return Summary(
        "Submission",
        facts={
            "submission": job.id,
            "kind": manifest.kind,
            "sent": True,
            "state": job.state,
            "new": job.new,
        },
        closing=[*job.output.splitlines(), _describe(f"{manifest.kind} {job.id}", job)],
    )


def _submit_to_slurm(bundle: JobBundle) -> Summary:
    _require_inputs(bundle.job)
    script = slurm.render_script(bundle)
    job = slurm.submit(script)
    return Summary(
        "Submission",
        facts={"submission": script.name, "number": job.id, "state": job.state, "new": job.new},
        closing=[
            _describe(f"Slurm job {job.id} ({script.name})", job),
            f"Its output is in {script.log}.",
        ],
    )


def _describe(name: str, job: SubmittedJob) -> str:
    if job.new:
        return f"{name} was submitted."
    return f"{name} was submitted before and is {job.state}."


def _require_inputs(job: Job) -> None:
    """Check that the inputs exist: a Slurm cluster shares the file system of this machine.

    Raises:
        InvalidInput: An input does not exist or holds no samples.
    """
    if job.matrix is not None:
        path = job.matrix.path
        if not is_url(path) and not Path(path).exists():
            raise InvalidInput(f"matrix.path is {path!r}, which does not exist.")
    if job.corpus is not None:
        for split, locations in (("train", job.corpus.train), ("test", job.corpus.test)):
            for location in locations:
                if not is_url(location):
                    find_files(location, split)


def get_state(submission: Submission) -> Summary:
    """The state of a submitted job, as the cluster reports it."""
    bundle = submission.create_bundle()
    name = bundle.name
    if submission.to == "kuberay":
        manifest = kuberay.render_manifest(bundle)
        name, state = manifest.name, kuberay.get_state(manifest)
    elif submission.to == "slurm":
        job = slurm.find_job(slurm.render_script(bundle))
        state = "not in the queue: ended or never submitted" if job is None else job.state
    else:
        job = ray_jobs.find_latest(submission.connect(), name)
        name, state = job.id, job.state
    facts = {"submission": name, "state": state, "run": bundle.job.run}
    return Summary("Submission", facts=facts)


def read_logs(submission: Submission, *, follow: bool) -> Iterator[str]:
    """The output of a submitted job; with ``follow``, until it ends."""
    bundle = submission.create_bundle()
    if submission.to == "kuberay":
        yield from kuberay.read_logs(kuberay.render_manifest(bundle), follow=follow)
    elif submission.to == "slurm":
        yield from slurm.read_logs(slurm.render_script(bundle), follow=follow)
    else:
        client = submission.connect()
        job = ray_jobs.find_latest(client, bundle.name)
        if follow:
            yield from ray_jobs.follow_logs(client, job.id)
        else:
            yield ray_jobs.read_logs(client, job.id)


def cancel(submission: Submission) -> Summary:
    """Cancel a submitted job; results committed so far stay in its run directory."""
    bundle = submission.create_bundle()
    name = bundle.name
    if submission.to == "kuberay":
        manifest = kuberay.render_manifest(bundle)
        output = kuberay.cancel(manifest)
        return Summary(
            "Cancelled", facts={"submission": manifest.name}, closing=output.splitlines()
        )
    if submission.to == "slurm":
        cancelled = slurm.cancel(slurm.render_script(bundle)) is not None
    else:
        client = submission.connect()
        name = ray_jobs.find_latest(client, name).id
        cancelled = ray_jobs.cancel(client, name)
    closing = f"{name} was asked to stop." if cancelled else f"{name} was not running."
    facts = {"submission": name, "cancelled": cancelled}
    return Summary("Cancelled", facts=facts, closing=[closing])
