"""KubeRay: manifests that run a job on a Ray cluster of its own, once or on a schedule."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version

from ulcmod_dist.errors import InvalidInput, UlcmodError
from ulcmod_dist.submit.bundle import JobBundle, SubmittedJob, make_name
from ulcmod_dist.submit.tools import call_tool, render_template, stream_tool

MAX_JOB_BYTES = 900_000
"""Size limit of a job file: a ConfigMap holds 1 MiB."""

_SCHEDULE_KINDS = {"raycronjob": "RayCronJob", "cronjob": "CronJob"}

_STATE_PATHS = {
    "RayJob": "{.status.jobDeploymentStatus} {.status.jobStatus}",
    "RayCronJob": "last started {.status.lastScheduleTime}",
    "CronJob": "last started {.status.lastScheduleTime}",
}


@dataclass(frozen=True)
class Manifest:
    """Kubernetes objects as YAML text; kind and name are those of the one that runs the job."""

    kind: str
    name: str
    text: str

    def submit(self, *, again: bool = False) -> SubmittedJob:
        """Apply the objects to the cluster of kubectl's current context, or attach to the job.

        A RayJob that waits or runs is kept, and without ``again`` one that has succeeded; one that
        failed is replaced. A schedule is applied in any case, so that a changed job replaces it.
        """
        if self.kind == "RayJob" and (state := self._get_job_state()) is not None:
            failed = state.startswith(("Failed", "ValidationFailed")) or state.endswith("STOPPED")
            if not failed and not (again and state.startswith("Complete")):
                return self._as_submitted(state)
            # Applying an unchanged RayJob starts nothing: the ended one has to go first.
            call_tool(["kubectl", "delete", "rayjob", self.name, "--ignore-not-found"])
        output = call_tool(["kubectl", "apply", "-f", "-"], stdin=self.text)
        return self._as_submitted("applied", new=True, output=output)

    def find(self) -> SubmittedJob:
        """The status of the RayJob, or when the schedule last started one."""
        path = f"jsonpath={_STATE_PATHS[self.kind]}"
        state = call_tool(["kubectl", "get", self.kind.lower(), self.name, "-o", path])
        return self._as_submitted(state.strip())

    def read_logs(self, *, follow: bool) -> Iterator[str]:
        """The output of the job, or of the schedule's newest one; with ``follow``, until it ends.

        It is that of the pod that submits the driver; the head's pod prints Ray's own log.
        """
        if self.kind == "RayJob":
            pods = f"--selector=job-name={self.name}"
        elif self.kind == "RayCronJob":
            label = f"ray.io/cronjob-name={self.name}"
            pods = f"--selector=job-name={_find_newest('rayjobs', label).partition('/')[2]}"
        else:
            label = f"app.kubernetes.io/instance={self.name},app.kubernetes.io/component=submit"
            pods = _find_newest("pods", label)
        options = ["--follow"] if follow else []
        return stream_tool(["kubectl", "logs", pods, "--tail=-1", *options])

    def cancel(self) -> SubmittedJob | None:
        """Delete the job's objects including its cluster; None if there are none."""
        command = ["kubectl", "delete", "--ignore-not-found", "-f", "-"]
        output = call_tool(command, stdin=self.text)
        return self._as_submitted("deleted", output=output) if output.strip() else None

    def _get_job_state(self) -> str | None:
        """The status of the RayJob, such as "Complete SUCCEEDED"; None if it does not exist."""
        path = f"jsonpath={{.metadata.name}} {_STATE_PATHS['RayJob']}"
        command = ["kubectl", "get", "rayjob", self.name, "--ignore-not-found", "-o", path]
        words = call_tool(command).split()
        return (" ".join(words[1:]) or "New") if words else None

    def _as_submitted(self, state: str, *, new: bool = False, output: str = "") -> SubmittedJob:
        label, details = f"{self.kind} {self.name}", {"kind": self.kind, "sent": True}
        return SubmittedJob(self.name, state, new, label, details, output)


def _find_newest(kind: str, label: str) -> str:
    """The newest object with a label as ``kind/name``; UlcmodError if there is none."""
    order = "--sort-by=.metadata.creationTimestamp"
    names = call_tool(["kubectl", "get", kind, f"--selector={label}", order, "-o", "name"]).split()
    if not names:
        raise UlcmodError(
            "The schedule has started no job yet, or its jobs have been deleted.",
            "`ulcmod status JOB --to kuberay` shows when it last started one.",
        )
    return names[-1]


def render_manifest(bundle: JobBundle) -> Manifest:
    """Render the objects of a job: a RayJob, or with a schedule a RayCronJob or a CronJob.

    A RayJob is named by the job's digest, so that applying it twice runs it once. A schedule is
    named by the run directory, so that applying a changed job replaces the schedule.

    Raises:
        InvalidInput: The job's section `cluster` lacks what Kubernetes needs.
    """
    _validate(bundle)
    cluster = bundle.cluster
    kind = "RayJob" if cluster.schedule is None else _SCHEDULE_KINDS[cluster.scheduler]
    name = bundle.name if cluster.schedule is None else make_name({"schedule": bundle.job.run})
    # The cluster of a CronJob runs between jobs, so by default it scales down to one node.
    min_nodes = cluster.min_nodes or (1 if kind == "CronJob" else cluster.nodes)
    if min_nodes < cluster.nodes and bundle.job.extract.workers is None:
        raise InvalidInput(
            f"{cluster.nodes - min_nodes} of {cluster.nodes} nodes are added only when actors wait "
            "for them, and the job does not set the number of actors.",
            "Set extract.workers.",
        )
    text = render_template(
        f"kuberay/{kind.lower()}.yaml.j2",
        name=name,
        job=bundle.text,
        cluster=cluster,
        volumes=[
            {"claim": claim, "path": path}
            for claim, _, path in (volume.partition(":") for volume in cluster.volumes)
        ],
        min_nodes=min_nodes,
        seconds=math.ceil(cluster.hours * 3600) if cluster.hours else None,
        command=bundle.command,
        ray_version=version("ray"),
    )
    return Manifest(kind, name, text)


def _validate(bundle: JobBundle) -> None:
    if bundle.cluster.image is None:
        raise InvalidInput(
            "The job sets no container image for Kubernetes.",
            "Set cluster.image; cluster/Containerfile builds one.",
        )
    if len(bundle.text.encode()) > MAX_JOB_BYTES:
        raise InvalidInput(
            f"The job file has {len(bundle.text):,} characters; a ConfigMap takes at most "
            f"{MAX_JOB_BYTES:,} bytes."
        )
