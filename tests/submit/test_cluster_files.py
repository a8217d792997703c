"""The files of the folder cluster that are used as they are."""

import json
import re
import shlex
import shutil
from pathlib import Path

import jsonschema
import pytest
import ray
import yaml
from ray.autoscaler._private.util import fillout_defaults
from typer.testing import CliRunner

from ulcmod_dist.cli import app

ROOT = Path(__file__).parents[2]
LAUNCHER = ROOT / "cluster" / "ray" / "cluster.yaml"


def test_launcher__fits_rays_own_schema() -> None:
    schema = Path(ray.__file__).parent / "autoscaler" / "ray-schema.json"
    jsonschema.validate(yaml.safe_load(LAUNCHER.read_text()), json.loads(schema.read_text()))


def test_launcher__scales_down_to_nothing_and_asks_for_a_token() -> None:
    config = yaml.safe_load(LAUNCHER.read_text())
    assert config["available_node_types"]["gpu"]["min_workers"] == 0
    assert "--env RAY_AUTH_MODE=token" in config["docker"]["run_options"]
    (place,) = config["file_mounts"]
    assert f"--env RAY_AUTH_TOKEN_PATH={place}" in config["docker"]["run_options"]
    head = " ".join(config["head_start_ray_commands"])
    assert "--dashboard-host=127.0.0.1" in head
    assert "--autoscaling-config=" in head
    assert not re.search(r"RAY_AUTH_TOKEN=|[0-9a-f]{32}", LAUNCHER.read_text())


def test_launcher__sets_nothing_up_that_the_image_holds() -> None:
    filled = fillout_defaults(yaml.safe_load(LAUNCHER.read_text()))
    assert filled["setup_commands"] == filled["worker_setup_commands"] == []
    assert filled["head_setup_commands"] == ["pip install boto3"]


def test_data__is_a_claim_that_several_machines_share_and_a_pod_that_reaches_it() -> None:
    text = (ROOT / "cluster" / "kuberay" / "data.yaml").read_text()
    claim, pod = yaml.safe_load_all(text)
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    (volume,) = pod["spec"]["volumes"]
    assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    (container,) = pod["spec"]["containers"]
    assert [mount["name"] for mount in container["volumeMounts"]] == [volume["name"]]


def test_documents__first_commands_can_be_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (ROOT / "docs" / "cluster.md").read_text().split("`--dry-run`")[0]
    lines = page.replace("\\\n", " ").splitlines()
    commands = [shlex.split(line, comments=True)[1:] for line in lines if "ulcmod submit" in line]
    shutil.copytree(ROOT / "jobs", tmp_path / "jobs")
    (tmp_path / "jobs" / "infinity").mkdir(exist_ok=True)
    for split in ("train", "test"):
        (tmp_path / "jobs" / "infinity" / f"{split}.parquet").touch()
    monkeypatch.chdir(tmp_path)
    assert len(commands) == 3
    for words in commands:
        done = CliRunner().invoke(app, [*words, "--dry-run"])
        assert done.exit_code == 0, done.output


def test_containerfile__copies_files_that_are_there() -> None:
    lines = (ROOT / "cluster" / "Containerfile").read_text().splitlines()
    copied = [name for line in lines if line.startswith("COPY ") for name in line.split()[1:-1]]
    assert copied
    assert [name for name in copied if not (ROOT / name).exists()] == []
    assert "USER 1000" in lines
    (installed,) = (line for line in lines if "apt-get install" in line)
    assert {"wget", "rsync", "openssh-client"} <= set(installed.split())
