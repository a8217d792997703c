"""``ulcmod submit``, ``logs`` and ``cancel``, and ``status --to``: jobs on a cluster."""

import json
import os
import shlex
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ulcmod_dist.config.job import Job, is_url
from ulcmod_dist.corpus.files import find_files
from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.pipeline.summary import Summary
from ulcmod_dist.runtime.ray_token import find_home
from ulcmod_dist.submit import kuberay, ray_jobs, slurm
from ulcmod_dist.submit.bundle import ClusterKind, JobBundle, create_bundle


@dataclass(frozen=True)
class Submission:
    """A job file, its overrides ``section.key=value``, and the cluster to run it on.

    The address is that of a Ray cluster's job server; None for the default.
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
        return ray_jobs.resolve_address(self.address, os.environ, find_home())

    def prepare(self, bundle: JobBundle) -> kuberay.Manifest | slurm.BatchScript | ray_jobs.RayJob:
        """Render the job for its cluster; connects to a Ray cluster, and to no other."""
        if self.to == "kuberay":
            return kuberay.render_manifest(bundle)
        if self.to == "slurm":
            return slurm.render_script(bundle)
        client = ray_jobs.connect(self.resolve_address(), os.environ, find_home())
        return ray_jobs.RayJob(client, bundle)


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

    ``again`` repeats one that has succeeded; Slurm does so in any case. On a Ray cluster, ``wait``
    is called with the job's output until it ends; None returns at once.

    Raises:
        InvalidInput: The job cannot run there, or the remote cluster has no authentication.
    """
    if wait is not None and submission.to != "ray":
        raise InvalidInput("--wait is for Ray clusters.", "Use `ulcmod logs JOB --follow`.")
    bundle = submission.create_bundle()
    if submission.to == "slurm":
        _require_inputs(bundle.job)
    job = submission.prepare(bundle)
    if isinstance(job, kuberay.Manifest) and shutil.which("kubectl") is None:
        return _explain_missing_kubectl(submission, job)
    submitted = job.submit(again=again)
    state, exit_code = submitted.state, 0
    closing = f"{submitted.label} was submitted."
    if not submitted.new:
        closing = f"{submitted.label} was submitted before and is {state}."
    if wait is not None and isinstance(job, ray_jobs.RayJob):
        for text in job.follow_logs(submitted.name):
            wait(text)
        state, exit_code = job.get_result(submitted.name)
        closing = f"{submitted.label} has ended: {state}."
    facts = {"submission": submitted.name, **submitted.details}
    return Summary(
        "Submission",
        facts={**facts, "state": state, "new": submitted.new},
        closing=[*submitted.output.splitlines(), closing],
        exit_code=exit_code,
    )


def _explain_missing_kubectl(submission: Submission, manifest: kuberay.Manifest) -> Summary:
    overrides = (word for override in submission.overrides for word in ("--set", override))
    command = ["ulcmod", "submit", submission.job, "--to", submission.to, *overrides, "--dry-run"]
    return Summary(
        "Submission",
        facts={"submission": manifest.name, "sent": False},
        closing=[
            f"kubectl is not installed here, so {manifest.kind} {manifest.name} was not applied.",
            f"Apply it with: {shlex.join(command)} | kubectl apply -f -",
        ],
        exit_code=1,
    )


def _require_inputs(job: Job) -> None:
    """Check that the inputs exist: a Slurm cluster shares the file system of this machine."""
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
    name, state = bundle.name, "not in the queue: ended or never submitted"
    if (job := submission.prepare(bundle).find()) is not None:
        name, state = job.name, job.state
    return Summary("Submission", facts={"submission": name, "state": state, "run": bundle.job.run})


def read_logs(submission: Submission, *, follow: bool) -> Iterator[str]:
    """The output of a submitted job; with ``follow``, until it ends."""
    return submission.prepare(submission.create_bundle()).read_logs(follow=follow)


def cancel(submission: Submission) -> Summary:
    """Cancel a submitted job; results committed so far stay in its run directory."""
    bundle = submission.create_bundle()
    job = submission.prepare(bundle).cancel()
    return Summary(
        "Cancelled",
        facts={"submission": job.name if job else bundle.name, "cancelled": job is not None},
        closing=[f"{job.label} was asked to stop." if job else f"{bundle.name} was not running."],
    )
