"""KubeRay: manifests that run a job on machines of its own, once or on a schedule."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version

from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.sections import ClusterSection
from ulcmod_dist.submit.parcel import JOB_FILE, Parcel, named
from ulcmod_dist.submit.templates import render
from ulcmod_dist.submit.tools import call, stream

MOUNT = "/etc/ulcmod"
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
        entrypoint=f"{parcel.command} {MOUNT}/{JOB_FILE}",
        ray_version=version("ray"),
    )
    return Manifest(kind, name, text)


_SCHEDULES = {"raycronjob": "RayCronJob", "cronjob": "CronJob"}


def _section(parcel: Parcel) -> ClusterSection:
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


def submit(manifest: Manifest, *, again: bool = False) -> str:
    """Apply a manifest to the cluster of kubectl's current context; what kubectl says of it.

    Args:
        manifest: The objects.
        again: Remove a RayJob of the same name first, so that it runs another time.
    """
    if again and manifest.kind == "RayJob":
        call(["kubectl", "delete", "rayjob", manifest.name, "--ignore-not-found"])
    return call(["kubectl", "apply", "-f", "-"], given=manifest.text)


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
    """What the job has printed; with ``follow``, on and on until it ends."""
    label = "job-name" if manifest.kind == "RayJob" else "app.kubernetes.io/instance"
    options = ["--follow"] if follow else []
    selector = f"--selector={label}={manifest.name}"
    return stream(["kubectl", "logs", selector, "--tail=-1", *options])


def cancel(manifest: Manifest) -> str:
    """Remove a job's objects, machines included; what kubectl says of it."""
    return call(["kubectl", "delete", "--ignore-not-found", "-f", "-"], given=manifest.text)
