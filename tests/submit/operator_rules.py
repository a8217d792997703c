"""What the operator of KubeRay refuses beyond the schemas: its own rules, in a few lines."""

import re
from collections.abc import Iterator
from typing import Any

OLDEST_WITH_TOKENS = (2, 52)
LONGEST_JOB_NAME = 47
LONGEST_SCHEDULE_NAME = 41


def complaints(manifest: dict[str, Any]) -> list[str]:
    """Every rule that an object breaks."""
    kind, spec, name = manifest["kind"], manifest["spec"], manifest["metadata"]["name"]
    if re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name) is None:
        return [f"{name} is no DNS label"]
    if kind == "RayCluster":
        return list(_cluster(spec))
    if kind == "RayJob":
        return [*(["name too long"] if len(name) > LONGEST_JOB_NAME else []), *_job(spec)]
    assert kind == "RayCronJob"
    return [*(["name too long"] if len(name) > LONGEST_SCHEDULE_NAME else []), *_schedule(spec)]


def _schedule(spec: dict[str, Any]) -> Iterator[str]:
    if len(spec["schedule"].split()) != 5:
        yield "schedule of other than five fields"
    if not spec.get("timeZone"):
        yield "no time zone"
    yield from _job(spec["jobTemplate"])


def _job(spec: dict[str, Any]) -> Iterator[str]:
    if not spec.get("rayClusterSpec") and not spec.get("clusterSelector"):
        yield "neither rayClusterSpec nor clusterSelector"
    if spec.get("ttlSecondsAfterFinished", 0) and not spec.get("shutdownAfterJobFinishes"):
        yield "a time to live without shutdownAfterJobFinishes"
    if spec.get("activeDeadlineSeconds", 1) <= 0 or spec.get("backoffLimit", 0) < 0:
        yield "a limit below its minimum"
    if spec.get("suspend") and not spec.get("shutdownAfterJobFinishes"):
        yield "suspended without shutdownAfterJobFinishes"
    if spec.get("rayClusterSpec"):
        yield from _cluster(spec["rayClusterSpec"])


def _cluster(spec: dict[str, Any]) -> Iterator[str]:
    groups = [spec["headGroupSpec"], *spec.get("workerGroupSpecs", [])]
    for group in groups:
        if not group["template"]["spec"]["containers"]:
            yield "a group without containers"
        resources = {"num-cpus", "num-gpus", "memory", "resources"}
        if resources & set(group.get("rayStartParams", {})) and group.get("resources"):
            yield "resources given twice"
        if "labels" in group.get("rayStartParams", {}):
            yield "labels in rayStartParams"
        pod = group["template"]["spec"]
        if spec.get("enableInTreeAutoscaling") and pod.get("restartPolicy", "Never") != "Never":
            yield "autoscaling with a restart policy"
    for group in spec.get("workerGroupSpecs", []):
        if not group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]:
            yield "replicas outside their bounds"
    if spec.get("authOptions", {}).get("mode") == "token":
        version = tuple(int(part) for part in spec.get("rayVersion", "0").split(".")[:2])
        if version < OLDEST_WITH_TOKENS:
            yield "a token needs rayVersion 2.52"
    names = {env["name"] for env in groups[0]["template"]["spec"]["containers"][0].get("env", [])}
    if names & {"RAY_REDIS_ADDRESS", "REDIS_USERNAME"}:
        yield "redis without fault tolerance"
