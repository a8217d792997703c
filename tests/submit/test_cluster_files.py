"""The files of the folder cluster that are used as they are."""

import json
import re
from pathlib import Path

import jsonschema
import ray
import yaml
from ray.autoscaler._private.util import fillout_defaults

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


def test_containerfile__copies_files_that_are_there() -> None:
    lines = (ROOT / "cluster" / "Containerfile").read_text().splitlines()
    copied = [name for line in lines if line.startswith("COPY ") for name in line.split()[1:-1]]
    assert copied
    assert [name for name in copied if not (ROOT / name).exists()] == []
    assert "USER 1000" in lines
    (installed,) = (line for line in lines if "apt-get install" in line)
    assert {"wget", "rsync", "openssh-client"} <= set(installed.split())
