"""The section of a job that describes machines: read by `ulcmod submit` alone."""

import re
import zoneinfo
from typing import Literal, Self

from pydantic import Field, model_validator

from ulcmod_dist.config.fields import Schedule, StrList
from ulcmod_dist.config.schema import Config

_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"


class ClusterConfig(Config):
    """The machines that `ulcmod submit` requests; results do not depend on them."""

    nodes: int = Field(1, gt=0)
    """Number of machines."""
    min_nodes: int | None = Field(None, ge=1)
    """Kubernetes: machines kept when idle; below `nodes` it autoscales."""
    cpus: int = Field(8, gt=0)
    """CPUs of a machine."""
    memory_gib: int = Field(32, gt=0)
    """Memory of a machine in GiB."""
    object_store_gib: float | None = Field(None, gt=0)
    """Part of a machine's memory that is Ray's object store, in GiB; by default 30%. With
    `discover.executor: ray` it holds the matrix."""
    spill_limit: float | None = Field(None, gt=0, lt=1)
    """Share of a machine's disk in use up to which Ray spills objects to it that the object store
    cannot hold; by default 0.95."""
    gpus: int = Field(0, ge=0)
    """GPUs of a machine."""
    hours: float | None = Field(None, gt=0)
    """Time limit of one submission."""
    log_format: Literal["text", "json"] = "text"
    """Format of the job's log: text, or JSON lines for log collectors."""
    partition: str | None = Field(None, pattern=_NAME)
    """Slurm: partition."""
    account: str | None = Field(None, pattern=_NAME)
    """Slurm: account to charge."""
    image: str | None = None
    """Kubernetes: container image; required there."""
    volumes: StrList = ()
    """Kubernetes: volume claims and where they are mounted, as `claim:/path`."""
    secrets: StrList = ()
    """Kubernetes: names of Secrets whose keys become environment variables."""
    node_selector: dict[str, str] = Field({})
    """Kubernetes: node selector of the machines."""
    tolerations: tuple[dict[str, str | int], ...] = ()
    """Kubernetes: tolerations of the machines, as in a pod."""
    service_account: str | None = Field(None, pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$")
    """Kubernetes: service account of the pods, such as one with access to a bucket."""
    schedule: Schedule = None
    """Cron schedule of reruns, five fields such as `0 2 * * *`."""
    time_zone: str = "Etc/UTC"
    """Kubernetes: time zone of the schedule."""
    scheduler: Literal["cronjob", "raycronjob"] = "cronjob"
    """Kubernetes: CronJob that uses a standing RayCluster, or RayCronJob (alpha)."""

    @model_validator(mode="after")
    def _check_formats(self) -> Self:
        for volume in self.volumes:
            if re.fullmatch(r"[a-z0-9.-]+:/[^:\s]*", volume) is None:
                raise ValueError(f"volumes: {volume!r} is not of the form claim:/path")
        for secret in self.secrets:
            if re.fullmatch(r"[a-z0-9.-]+", secret) is None:
                raise ValueError("secrets: give the names of Secrets, never their contents")
        # Slim container images have no time zone database; Kubernetes checks the name again.
        time_zones = zoneinfo.available_timezones()
        if time_zones and self.time_zone not in time_zones:
            raise ValueError(f"{self.time_zone!r} is no time zone, such as Europe/Zurich")
        if (self.object_store_gib or 0) >= self.memory_gib:
            raise ValueError(
                f"object_store_gib {self.object_store_gib:g} is not below memory_gib "
                f"{self.memory_gib}"
            )
        if self.min_nodes is not None and self.min_nodes > self.nodes:
            raise ValueError(f"min_nodes {self.min_nodes} is above nodes {self.nodes}")
        return self
