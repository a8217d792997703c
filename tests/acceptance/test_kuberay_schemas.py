"""Manifests against KubeRay's own resource definitions."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator, ValidationError

from ulcmod_dist.submit.bundle import create_bundle
from ulcmod_dist.submit.kuberay import render_manifest

pytestmark = pytest.mark.acceptance

ROOT = Path(__file__).parents[2]
DEFINITIONS = ROOT.parent / "shared" / "kuberay-crds"
JOBS = sorted((ROOT / "jobs").glob("*.yaml"))
ON_CLUSTER = [
    "run=/data/runs/x",
    "corpus.train=/data/x.parquet",
    "corpus.test=[]",
    "extract.workers=1",
    "cluster.image=registry.example/ulcmod:0.1.0",
]
VARIANTS = [
    ["cluster.schedule=null"],
    ["cluster.schedule=null", "cluster.min_nodes=1", "cluster.secrets=[a, b]"],
    ["cluster.schedule=0 2 * * *", "cluster.scheduler=raycronjob", "cluster.volumes=[a:/a]"],
    [
        "cluster.schedule=null",
        "cluster.node_selector={pool: gpu}",
        "cluster.tolerations=[{key: gpu, operator: Exists}]",
        "cluster.service_account=reader",
    ],
    ["cluster.schedule=0 2 * * *", "cluster.scheduler=cronjob", "cluster.gpus=0"],
]


@pytest.fixture(scope="module")
def schemas() -> dict[str, dict[str, Any]]:
    """Schema of each kind, version v1, where unknown keys are refused as `kubectl` would."""
    if not DEFINITIONS.is_dir():
        pytest.skip(f"{DEFINITIONS} is not there")
    found = {}
    for path in DEFINITIONS.glob("*.yaml"):
        definition = yaml.load(path.read_text(), Loader=yaml.CSafeLoader)
        (version,) = (v for v in definition["spec"]["versions"] if v["name"] == "v1")
        schema = version["schema"]["openAPIV3Schema"]
        refuse_unknown(schema["properties"]["spec"])
        found[definition["spec"]["names"]["kind"]] = schema
    return found


def refuse_unknown(schema: dict[str, Any]) -> None:
    """A misspelt key is an error, wherever the schema names the keys it knows."""
    if "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
        schema.setdefault("additionalProperties", False)
    for inner in schema.get("properties", {}).values():
        refuse_unknown(inner)
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            refuse_unknown(schema[key])


def objects(path: Path, variant: list[str]) -> Iterator[dict[str, Any]]:
    bundle = create_bundle(path, [*ON_CLUSTER, *variant], "kuberay")
    return yaml.safe_load_all(render_manifest(bundle).text)


@pytest.mark.parametrize("variant", VARIANTS, ids=" ".join)
@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.stem)
def test_manifest__fits_the_definitions(
    schemas: dict[str, dict[str, Any]], path: Path, variant: list[str]
) -> None:
    checked = 0
    for entry in objects(path, variant):
        if entry["apiVersion"] == "ray.io/v1":
            Draft7Validator(schemas[entry["kind"]]).validate(entry)
            checked += 1
    assert checked == 1


def test_cron_job__holds_a_pod_that_kubernetes_knows(schemas: dict[str, dict[str, Any]]) -> None:
    group = schemas["RayCluster"]["properties"]["spec"]["properties"]["headGroupSpec"]
    (cron,) = (e for e in objects(JOBS[0], VARIANTS[-1]) if e["kind"] == "CronJob")
    pod = Draft7Validator(group["properties"]["template"])
    pod.validate(cron["spec"]["jobTemplate"]["spec"]["template"])


def test_schemas__refuse_a_misspelt_key(schemas: dict[str, dict[str, Any]]) -> None:
    (_, job) = objects(JOBS[0], VARIANTS[0])
    job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["volume"] = []
    with pytest.raises(ValidationError, match="volume"):
        Draft7Validator(schemas["RayJob"]).validate(job)
