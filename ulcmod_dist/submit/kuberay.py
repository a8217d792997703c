"""KubeRay: manifests that run a job on machines of its own, once or on a schedule."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version

from ulcmod_dist.config.schema import ClusterConfig
from ulcmod_dist.errors import InvalidInput, UlcmodError
from ulcmod_dist.submit.parcel import Parcel, named
from ulcmod_dist.submit.templates import render
from ulcmod_dist.submit.tools import call, stream

MAX_JOB_BYTES = 900_000
"""A ConfigMap holds 1 MiB."""


@dataclass(frozen=True)
class Volume:
    """A volume claim and where it is mounted."""

    claim: str
    path: str


@dataclass(frozen=True)
class Manifest:
    """Kubernetes objects as YAML text.

    Attributes:
        kind: RayJob, RayCronJob or CronJob: the object that makes the job run.
        name: Its name.
        text: All objects.
    """

    kind: str
    name: str
    text: str


def render_manifest(parcel: Parcel) -> Manifest:
    """The objects of a job: a RayJob, or with a schedule a RayCronJob or a CronJob.

    A RayJob is named by the job's digest, so that applying it twice runs it once. A schedule is
    named by the run directory, so that applying a changed job replaces the schedule.

    Raises:
        InvalidInput: The job's section `cluster` lacks what Kubernetes needs.
    """
    cluster = _section(parcel)
    kind = "RayJob" if cluster.schedule is None else _SCHEDULES[cluster.scheduler]
    name = parcel.name if cluster.schedule is None else named({"schedule": parcel.job.run})
    # A standing cluster keeps one idle machine unless the job says otherwise.
    few = cluster.min_nodes or (1 if kind == "CronJob" else cluster.nodes)
    if few < cluster.nodes and parcel.job.extract.workers is None:
        raise InvalidInput(
            f"Of {cluster.nodes} machines {cluster.nodes - few} come only when actors wait for "
            "them, and the job does not say how many actors there are.",
            "Set extract.workers.",
        )
    text = render(
        f"kuberay/{kind.lower()}.yaml.j2",
        name=name,
        job=parcel.text,
        cluster=cluster,
        volumes=[Volume(*volume.split(":", 1)) for volume in cluster.volumes],
        min_nodes=few,
        seconds=math.ceil(cluster.hours * 3600) if cluster.hours else None,
        command=parcel.command,
        ray_version=version("ray"),
    )
    return Manifest(kind, name, text)


_SCHEDULES = {"raycronjob": "RayCronJob", "cronjob": "CronJob"}


def _section(parcel: Parcel) -> ClusterConfig:
    cluster = parcel.job.cluster
    if cluster is None or cluster.image is None:
        raise InvalidInput(
            "The job names no container image for Kubernetes.",
            "Set cluster.image; cluster/Containerfile builds one.",
        )
    if len(parcel.text.encode()) > MAX_JOB_BYTES:
        raise InvalidInput(
            f"The job file holds {len(parcel.text):,} characters; a ConfigMap takes at most "
            f"{MAX_JOB_BYTES:,} bytes."
        )
    return cluster


@dataclass(frozen=True)
class Sent:
    """A manifest on its cluster.

    Attributes:
        name: Name of the RayJob or of the schedule.
        state: What Kubernetes says of it.
        new: Whether this call started or changed it.
        said: What kubectl said of each object; empty where the job was met.
    """

    name: str
    state: str
    new: bool
    said: str = ""


def submit(manifest: Manifest, *, again: bool = False) -> Sent:
    """Apply a manifest to the cluster of kubectl's current context, or meet its job there.

    A RayJob that waits, runs or has succeeded is met; one that failed makes room for another. A
    schedule is applied in any case, so that a changed job replaces it.

    Args:
        manifest: The objects.
        again: Follow a RayJob that has succeeded, too; never one that runs.
    """
    if manifest.kind == "RayJob" and (there := _state_of_job(manifest.name)) is not None:
        failed = there.startswith(("Failed", "ValidationFailed")) or there.endswith("STOPPED")
        if not failed and not (again and there.startswith("Complete")):
            return Sent(manifest.name, there, new=False)
        # Kubernetes starts nothing for a RayJob that it has already.
        call(["kubectl", "delete", "rayjob", manifest.name, "--ignore-not-found"])
    said = call(["kubectl", "apply", "-f", "-"], given=manifest.text)
    return Sent(manifest.name, "applied", new=True, said=said)


def _state_of_job(name: str) -> str | None:
    """What the operator says of a RayJob, such as "Complete SUCCEEDED"; None without one."""
    path = f"jsonpath={{.metadata.name}} {_STATES['RayJob']}"
    words = call(["kubectl", "get", "rayjob", name, "--ignore-not-found", "-o", path]).split()
    return (" ".join(words[1:]) or "New") if words else None


_STATES = {
    "RayJob": "{.status.jobDeploymentStatus} {.status.jobStatus}",
    "RayCronJob": "last started {.status.lastScheduleTime}",
    "CronJob": "last started {.status.lastScheduleTime}",
}


def state(manifest: Manifest) -> str:
    """What Kubernetes says of a job, or when a schedule last started one."""
    path = f"jsonpath={_STATES[manifest.kind]}"
    return call(["kubectl", "get", manifest.kind.lower(), manifest.name, "-o", path]).strip()


def logs(manifest: Manifest, *, follow: bool) -> Iterator[str]:
    """What the job has printed, or the newest one of a schedule; with ``follow``, until it ends.

    A driver's output is not that of the head's pod, which runs Ray: the pod that submits the driver
    follows it.

    Raises:
        UlcmodError: The schedule has started no job yet.
    """
    if manifest.kind == "RayJob":
        where = f"--selector=job-name={manifest.name}"
    elif manifest.kind == "RayCronJob":
        label = f"ray.io/cronjob-name={manifest.name}"
        where = f"--selector=job-name={_newest('rayjobs', label).partition('/')[2]}"
    else:
        label = f"app.kubernetes.io/instance={manifest.name},app.kubernetes.io/component=submit"
        where = _newest("pods", label)
    options = ["--follow"] if follow else []
    return stream(["kubectl", "logs", where, "--tail=-1", *options])


def _newest(kind: str, label: str) -> str:
    """The newest object with a label, as kubectl names it: kind, a slash, and its name."""
    order = "--sort-by=.metadata.creationTimestamp"
    listed = call(["kubectl", "get", kind, f"--selector={label}", order, "-o", "name"]).split()
    if not listed:
        raise UlcmodError(
            "The schedule has started no job yet, or what it started is gone.",
            "`ulcmod status JOB --to kuberay` says when it last did.",
        )
    return listed[-1]


def cancel(manifest: Manifest) -> str:
    """Remove a job's objects, machines included; what kubectl says of it."""
    return call(["kubectl", "delete", "--ignore-not-found", "-f", "-"], given=manifest.text)
