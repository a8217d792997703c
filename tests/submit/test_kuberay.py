import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.submit.job_files import CLUSTER, HUB_JOB, job_file
from tests.submit.operator_rules import complaints
from ulcmod_dist.config.job import Job
from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.runtime.signals import GRACE_SECONDS
from ulcmod_dist.submit.bundle import create_bundle
from ulcmod_dist.submit.kuberay import render_manifest

NIGHTLY = ["cluster.schedule=0 2 * * *", "cluster.time_zone=Europe/Zurich"]
KINDS = {
    "RayJob": [],
    "RayCronJob": [*NIGHTLY, "cluster.scheduler=raycronjob"],
    "CronJob": NIGHTLY,
}


def rendered(folder: Path, *overrides: str) -> dict[str, dict[str, Any]]:
    """Objects by their kind."""
    manifest = render_manifest(create_bundle(job_file(folder), overrides, "kuberay"))
    return {entry["kind"]: entry for entry in yaml.safe_load_all(manifest.text)}


def ray_cluster(objects: dict[str, dict[str, Any]]) -> dict[str, Any]:
    if "RayCluster" in objects:
        found = objects["RayCluster"]["spec"]
    elif "RayJob" in objects:
        found = objects["RayJob"]["spec"]["rayClusterSpec"]
    else:
        found = objects["RayCronJob"]["spec"]["jobTemplate"]["rayClusterSpec"]
    assert isinstance(found, dict)
    return found


def pods(cluster: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield cluster["headGroupSpec"]["template"]["spec"]
    yield cluster["workerGroupSpecs"][0]["template"]["spec"]


@pytest.mark.parametrize("kind", KINDS)
def test_manifest__breaks_no_rule_of_the_operator(tmp_path: Path, kind: str) -> None:
    for overrides in ([], ["cluster.min_nodes=1"], ["cluster.gpus=0", "cluster.hours=null"]):
        objects = rendered(tmp_path, *KINDS[kind], *overrides)
        assert kind in objects
        for entry in objects.values():
            if entry["apiVersion"].startswith("ray.io"):
                assert complaints(entry) == []


@pytest.mark.parametrize(
    ("place", "change"),
    [
        ((), {"rayClusterSpec": None}),
        ((), {"shutdownAfterJobFinishes": False}),
        ((), {"backoffLimit": -1}),
        (("rayClusterSpec",), {"rayVersion": "2.51.2"}),
        (("rayClusterSpec", "workerGroupSpecs", 0), {"replicas": 9}),
    ],
)
def test_rules__find_what_the_operator_would_refuse(
    tmp_path: Path, place: tuple[str | int, ...], change: dict[str, Any]
) -> None:
    bad = rendered(tmp_path)["RayJob"]
    inner = bad["spec"]
    for step in place:
        inner = inner[step]
    inner.update(change)
    assert complaints(bad)


@pytest.mark.parametrize("kind", KINDS)
def test_manifest__asks_for_the_machines_of_the_job(tmp_path: Path, kind: str) -> None:
    cluster = ray_cluster(rendered(tmp_path, *KINDS[kind]))
    workers = cluster["workerGroupSpecs"][0]
    assert workers["maxReplicas"] == 3
    head, worker = (pod["containers"][0] for pod in pods(cluster))
    size = {"cpu": 16, "memory": "64Gi"}
    assert head["resources"] == {"requests": size, "limits": size}
    size = size | {"nvidia.com/gpu": 2}
    assert worker["resources"] == {"requests": size, "limits": size}
    assert head["image"] == worker["image"] == "registry.example/ulcmod:1"


@pytest.mark.parametrize("kind", KINDS)
def test_manifest__limits_the_object_store_and_spilling_as_the_job_says(
    tmp_path: Path, kind: str
) -> None:
    limits = ["cluster.object_store_gib=1.5", "cluster.spill_limit=0.8"]
    cluster = ray_cluster(rendered(tmp_path, *KINDS[kind], *limits))
    for group in (cluster["headGroupSpec"], cluster["workerGroupSpecs"][0]):
        assert group["rayStartParams"]["object-store-memory"] == "1610612736"
        environment = group["template"]["spec"]["containers"][0]["env"]
        assert {"name": "RAY_local_fs_capacity_threshold", "value": "0.8"} in environment


@pytest.mark.parametrize("kind", KINDS)
def test_manifest__runs_ray_with_a_token_and_this_version(tmp_path: Path, kind: str) -> None:
    cluster = ray_cluster(rendered(tmp_path, *KINDS[kind]))
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["rayVersion"] == ray.__version__


@pytest.mark.parametrize("kind", KINDS)
def test_manifest__gives_every_ray_node_the_job_the_volumes_and_the_secrets_by_reference(
    tmp_path: Path, kind: str
) -> None:
    objects = rendered(tmp_path, *KINDS[kind])
    for pod in pods(ray_cluster(objects)):
        container = pod["containers"][0]
        assert container["envFrom"] == [{"secretRef": {"name": "object-store"}}]
        mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        config_map = volumes[mounts["/etc/ulcmod"]]["configMap"]["name"]
        assert config_map == objects["ConfigMap"]["metadata"]["name"]
        claims = {path: volumes[name].get("persistentVolumeClaim") for path, name in mounts.items()}
        assert claims["/data"] == {"claimName": "data"}
        assert claims["/models"] == {"claimName": "models"}


def test_manifest__holds_the_job_that_was_given(tmp_path: Path) -> None:
    text = rendered(tmp_path, "discover.seed=4")["ConfigMap"]["data"]["job.yaml"]
    again = Job.from_text(text, source="the manifest", folder=tmp_path)
    assert again == Job.from_yaml(tmp_path / "job.yaml", ["discover.seed=4"])


@settings(deadline=None, max_examples=50)
@given(text=st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=40))
def test_manifest__no_value_of_a_job_breaks_out_of_its_place(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    folder = tmp_path_factory.mktemp("job")
    values = yaml.safe_load(HUB_JOB + CLUSTER)
    values["prompt"] = {"system": f"{text}\nkind: Pod\n---\n{text}"}
    values["cluster"]["image"] = f"image: {text}"
    path = job_file(folder, yaml.safe_dump(values))
    objects = list(yaml.safe_load_all(render_manifest(create_bundle(path, [], "kuberay")).text))
    assert [entry["kind"] for entry in objects] == ["ConfigMap", "RayJob"]
    job = yaml.safe_load(objects[0]["data"]["job.yaml"])
    assert job["prompt"]["system"] == values["prompt"]["system"]
    assert (
        next(pods(objects[1]["spec"]["rayClusterSpec"]))["containers"][0]["image"]
        == (values["cluster"]["image"])
    )


def test_ray_job__ends_its_machines_and_tries_again(tmp_path: Path) -> None:
    objects = rendered(tmp_path)
    spec = objects["RayJob"]["spec"]
    assert spec["entrypoint"] == "sh /etc/ulcmod/run.sh"
    assert "ulcmod run /etc/ulcmod/job.yaml" in objects["ConfigMap"]["data"]["run.sh"]
    assert "RAY_JOB_STOP_WAIT_TIME_S" in yaml.safe_load(spec["runtimeEnvYAML"])["env_vars"]
    assert spec["shutdownAfterJobFinishes"] is True
    assert 0 < spec["ttlSecondsAfterFinished"] <= 60
    assert spec["backoffLimit"] > 0
    assert spec["activeDeadlineSeconds"] == 5400
    assert "enableInTreeAutoscaling" not in spec["rayClusterSpec"]


def test_ray_job__scales_when_fewer_machines_may_stay(tmp_path: Path) -> None:
    cluster = ray_cluster(rendered(tmp_path, "cluster.min_nodes=1"))
    assert cluster["enableInTreeAutoscaling"] is True
    group = cluster["workerGroupSpecs"][0]
    assert (group["minReplicas"], group["replicas"], group["maxReplicas"]) == (1, 1, 3)


def test_manifest__that_scales_wants_to_know_how_many_actors_there_are(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"extract\.workers"):
        rendered(tmp_path, "cluster.min_nodes=1", "extract.workers=null")


def test_schedule__reruns_the_job_once_a_tick(tmp_path: Path) -> None:
    objects = rendered(tmp_path, *KINDS["RayCronJob"])
    spec = objects["RayCronJob"]["spec"]["jobTemplate"]
    assert spec["entrypoint"] == "sh /etc/ulcmod/run.sh"
    assert "ulcmod rerun /etc/ulcmod/job.yaml" in objects["ConfigMap"]["data"]["run.sh"]
    assert spec["backoffLimit"] == 0


@pytest.mark.parametrize("kind", KINDS)
def test_manifest__gives_shards_under_way_time_before_a_pod_goes(tmp_path: Path, kind: str) -> None:
    for pod in pods(ray_cluster(rendered(tmp_path, *KINDS[kind]))):
        given = {entry["name"]: entry["value"] for entry in pod["containers"][0]["env"]}
        drain = float(given["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"])
        assert GRACE_SECONDS <= drain < pod["terminationGracePeriodSeconds"]


def test_manifest__lets_a_job_print_json_lines(tmp_path: Path) -> None:
    cluster = ray_cluster(rendered(tmp_path, "cluster.log_format=json"))
    (head, _) = pods(cluster)
    assert {"name": "ULCMOD_LOG_FORMAT", "value": "json"} in head["containers"][0]["env"]


def test_schedule__keeps_its_name_when_the_job_changes(tmp_path: Path) -> None:
    names = {
        rendered(tmp_path, *NIGHTLY, f"discover.seed={seed}")["CronJob"]["metadata"]["name"]
        for seed in (0, 1)
    }
    assert len(names) == 1
    jobs = {
        rendered(tmp_path, f"discover.seed={seed}")["RayJob"]["metadata"]["name"] for seed in (0, 1)
    }
    assert len(jobs) == 2


def test_cron_job__submits_to_its_cluster_with_the_operators_token(tmp_path: Path) -> None:
    objects = rendered(tmp_path, *KINDS["CronJob"])
    spec = objects["CronJob"]["spec"]
    assert (spec["schedule"], spec["timeZone"]) == ("0 2 * * *", "Europe/Zurich")
    assert spec["concurrencyPolicy"] == "Forbid"
    assert spec["startingDeadlineSeconds"] == 12 * 3600
    assert objects["RayCluster"]["spec"]["upgradeStrategy"] == {"type": "Recreate"}
    container = spec["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]
    name = objects["RayCluster"]["metadata"]["name"]
    assert f"--address=http://{name}-head-svc:8265" in container["command"]
    assert container["env"] == [
        {
            "name": "RAY_AUTH_TOKEN",
            "valueFrom": {"secretKeyRef": {"name": name, "key": "auth_token"}},
        }
    ]


def test_manifest__wants_an_image(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"cluster\.image"):
        render_manifest(create_bundle(job_file(tmp_path, HUB_JOB), [], "kuberay"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("cluster.schedule=daily", "'daily' has not five fields"),
        ("cluster.schedule=0 25 * * *", "'25' is no hour"),
        ("cluster.schedule=99 2 * * *", "'99' is no minute"),
        ("cluster.schedule=0 2 * * funday", "'funday' is no day of the week"),
        ("cluster.schedule=0 2 0 * *", "'0' is no day of the month"),
        ("cluster.schedule='*/0 2 * * *'", r"'\*/0' is no minute"),
        ("cluster.schedule=0 5-2 * * *", "'5-2' is no hour"),
        ("cluster.time_zone=Mars/Olympus", "no time zone"),
        ("cluster.volumes=data", "claim:/path"),
        ("cluster.secrets=[planted secret]", "names of Secrets"),
        ("cluster.min_nodes=4", "above nodes"),
        ("cluster.partition='x\n#SBATCH --uid=0'", "partition"),
    ],
)
def test_cluster_section__refuses_what_cannot_be_rendered(
    tmp_path: Path, change: str, message: str
) -> None:
    with pytest.raises(InvalidInput, match=message) as caught:
        Job.from_yaml(job_file(tmp_path), [change])
    assert "planted" not in str(caught.value)


@pytest.mark.parametrize("schedule", ["*/15 0-6/2 1,15 jan-MAR mon-fri", "05 02 * * SUN"])
def test_cluster_section__takes_every_form_of_a_schedule(tmp_path: Path, schedule: str) -> None:
    job = Job.from_yaml(job_file(tmp_path), [f"cluster.schedule='{schedule}'"])
    assert job.cluster is not None
    assert job.cluster.schedule == schedule


@pytest.mark.parametrize("kind", KINDS)
def test_manifest__lets_the_user_of_the_image_write_to_volumes(tmp_path: Path, kind: str) -> None:
    for pod in pods(ray_cluster(rendered(tmp_path, *KINDS[kind]))):
        assert pod["securityContext"]["fsGroup"] == 1000


@pytest.mark.parametrize("kind", KINDS)
def test_manifest__puts_the_machines_that_work_where_the_job_says(
    tmp_path: Path, kind: str
) -> None:
    toleration = {"key": "nvidia.com/gpu", "operator": "Exists", "tolerationSeconds": 60}
    where = [
        "cluster.node_selector={pool: 'it''s: \"<gpu>\"'}",
        f"cluster.tolerations={[toleration]}",
        "cluster.service_account=reader",
    ]
    head, worker = pods(ray_cluster(rendered(tmp_path, *KINDS[kind], *where)))
    assert worker["nodeSelector"] == {"pool": 'it\'s: "<gpu>"'}
    assert worker["tolerations"] == [toleration]
    assert "nodeSelector" not in head
    assert head["serviceAccountName"] == worker["serviceAccountName"] == "reader"


def run_script(folder: Path, body: str) -> Path:
    """The script that Ray calls, with a program of this body in place of ``ulcmod``."""
    program = folder / "ulcmod"
    program.write_text(f"#!/bin/sh\n{body}\n")
    program.chmod(0o755)
    script = folder / "run.sh"
    script.write_text(rendered(folder)["ConfigMap"]["data"]["run.sh"])
    return script


@pytest.mark.parametrize(("code", "seen"), [(0, 0), (1, 1), (2, 2), (3, 0), (143, 143)])
def test_ray_job__that_ends_with_samples_in_quarantine_is_not_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, seen: int
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    script = run_script(tmp_path, f"exit {code}")
    assert subprocess.run(["sh", script], check=False).returncode == seen


def test_ray_job__that_is_told_to_end_waits_for_its_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    body = "trap 'sleep 1; touch committed; exit 143' TERM\ntouch ready\nsleep 3 & wait"
    script = run_script(tmp_path, body)
    with subprocess.Popen(["sh", script], cwd=tmp_path, start_new_session=True) as process:
        while not (tmp_path / "ready").exists():
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGTERM)
        assert process.wait(10) == 143
    assert (tmp_path / "committed").exists()


def test_cron_job__marks_the_pod_whose_output_is_shown(tmp_path: Path) -> None:
    objects = rendered(tmp_path, *KINDS["CronJob"])
    labels = objects["CronJob"]["spec"]["jobTemplate"]["spec"]["template"]["metadata"]["labels"]
    assert labels["app.kubernetes.io/component"] == "submit"
    head = objects["RayCluster"]["spec"]["headGroupSpec"]["template"]["metadata"]["labels"]
    assert "app.kubernetes.io/component" not in head
