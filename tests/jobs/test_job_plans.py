"""What `ulcmod plan` says of every job file, for the models as they are published."""

import io
import json
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.jobs.published import MODELS, write
from ulcmod_dist import cli
from ulcmod_dist.config.job import Job
from ulcmod_dist.pipeline import plan as plan_module

ROOT = Path(__file__).parents[2]
SAMPLES = 8400
GIB = 2**30


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As many prompts as the paper has, a sixth of them held out."""
    folder = tmp_path_factory.mktemp("corpus")
    for split, first, count in (("train", 0, 7000), ("test", 7000, 1400)):
        numbers = range(first, first + count)
        rows = {
            "id": [f"s{number}" for number in numbers],
            "text": [f"Write story number {number}." for number in numbers],
            "category": [f"c{number % 7}" for number in numbers],
        }
        pq.write_table(pa.table(rows), folder / f"{split}.parquet")
    return folder


@pytest.fixture(scope="module", params=sorted(MODELS))
def planned(
    request: pytest.FixtureRequest, corpus: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, dict[str, Any]]:
    """A job's name and its plan, as a user on a machine of the cluster would get it."""
    name: str = request.param
    folder = tmp_path_factory.mktemp(name)
    model = write(MODELS[name], folder / "model")
    changes = {
        "run": folder / "run",
        "model": json.dumps({"id": str(model), "dtype": "bfloat16"}),
        "corpus.train": corpus / "train.parquet",
        "corpus.test": corpus / "test.parquet",
        "discover.memory": "24 GiB",
    }
    words = [word for key, value in changes.items() for word in ("--set", f"{key}={value}")]
    command = ["ulcmod", "plan", str(ROOT / "jobs" / f"{name}.yaml"), "--no-probe", "--json"]
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(printed):
        patch.setattr(sys, "argv", [*command, *words])
        # The folder holds no weights, and this disk need not hold the activations: those of the
        # largest model are 140 and 75 GiB.
        for check in ("check_weights", "check_disk_space", "check_remaining_space"):
            patch.setattr(plan_module, check, lambda *_, **__: None)
        with pytest.raises(SystemExit) as end:
            cli.main()
    assert not end.value.code, printed.getvalue()
    return name, json.loads(printed.getvalue())


def test_plan__captures_every_unit_of_the_published_model(
    planned: tuple[str, dict[str, Any]],
) -> None:
    name, plan = planned
    assert plan["units"] == MODELS[name].units
    assert plan["samples"] == plan["prompts"] == SAMPLES


def test_plan__bytes_are_those_of_the_job_file_and_the_docs(
    planned: tuple[str, dict[str, Any]],
) -> None:
    name, plan = planned
    text = (ROOT / "jobs" / f"{name}.yaml").read_text(encoding="utf-8")
    guide = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
    (row,) = [line for line in guide.splitlines() if line.startswith(f"| `jobs/{name}.yaml`")]
    assert f"| {MODELS[name].units:,} |" in row
    assert f"| {plan['actor_bytes'] / GIB:.1f} GiB |" in row
    if name != "nightly":
        size = f"{plan['bytes'] / 1e9:.1f} GB"
        assert f"8,400 samples take {size}" in text
        assert f"| {size} |" in row


def test_plan__an_actor_takes_the_weights_and_fits_its_machine(
    planned: tuple[str, dict[str, Any]],
) -> None:
    name, plan = planned
    model, job = MODELS[name], Job.from_yaml(ROOT / "jobs" / f"{name}.yaml")
    weights = 2 * (model.parameters - model.head)
    shards = 2 * 4 * model.units * (job.extract.shard_samples or 512)
    assert weights + shards < plan["actor_bytes"] < weights + shards + 3 * GIB
    assert job.cluster is not None
    room = job.cluster.gpus // job.extract.gpus
    assert room * plan["actor_bytes"] < job.cluster.memory_gib * GIB
