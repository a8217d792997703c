"""Every job file of the folder jobs can be parsed; all but the laptop's, sent to any cluster."""

import re
from pathlib import Path

import pytest
import yaml

from ulcmod_dist.config.job import Job
from ulcmod_dist.submit.bundle import create_bundle
from ulcmod_dist.submit.kuberay import render_manifest
from ulcmod_dist.submit.slurm import render_script

JOBS = Path(__file__).parents[2] / "jobs"
FILES = sorted(JOBS.glob("*.yaml"))
PAPER = [JOBS / f"qwen2.5-{size}.yaml" for size in ("1.5b", "3b", "7b")]
LAPTOP = JOBS / "smollm2-135m.yaml"
CLUSTER_FILES = [path for path in FILES if path != LAPTOP]
ON_CLUSTER = ["run=/data/runs/x", "corpus.train=/data/x.parquet", "corpus.test=[]"]


def get_name(path: Path) -> str:
    return path.stem


def test_jobs__cover_every_scale() -> None:
    assert {path.stem for path in FILES} >= {
        "qwen2.5-1.5b",
        "qwen2.5-3b",
        "qwen2.5-7b",
        "llama-3.1-70b",
        "qwen3-30b-a3b",
        "nightly",
        "smollm2-135m",
    }


def test_laptop__needs_no_gpu_and_reads_the_corpus_of_the_demo() -> None:
    job = Job.from_yaml(LAPTOP)
    assert job.extract.gpus == 0
    assert job.corpus is not None
    files = [*job.corpus.train, *job.corpus.test]
    assert files == [str(JOBS / "demo" / f"{split}.parquet") for split in ("train", "test")]
    assert all(Path(file).is_file() for file in files)


@pytest.mark.parametrize("path", FILES, ids=get_name)
def test_job__fixes_its_model(path: Path) -> None:
    job = Job.from_yaml(path)
    assert job.model is not None
    assert job.model.revision is not None
    assert re.fullmatch("[0-9a-f]{40}", job.model.revision)


@pytest.mark.parametrize("path", PAPER, ids=get_name)
def test_job__asks_for_the_modules_of_the_paper(path: Path) -> None:
    assert Job.from_yaml(path).discover.modules == (5, 10, 15, 20)


@pytest.mark.parametrize("path", CLUSTER_FILES, ids=get_name)
def test_job__has_room_for_its_actors(path: Path) -> None:
    job = Job.from_yaml(path)
    assert job.cluster is not None
    assert job.extract.gpus <= job.cluster.gpus
    room = job.cluster.gpus // job.extract.gpus
    assert room * job.extract.cpus <= job.cluster.cpus
    assert (job.extract.workers or 0) <= room * job.cluster.nodes


@pytest.mark.parametrize("path", CLUSTER_FILES, ids=get_name)
def test_job__can_be_sent_to_every_kind_of_cluster(path: Path) -> None:
    objects = yaml.safe_load_all(render_manifest(create_bundle(path, ON_CLUSTER, "kuberay")).text)
    assert {"RayJob", "RayCronJob", "CronJob"} & {entry["kind"] for entry in objects}
    assert "#SBATCH --requeue" in render_script(create_bundle(path, ON_CLUSTER, "slurm")).text
    assert create_bundle(path, ON_CLUSTER, "ray").files == ()


def test_nightly__keeps_prompts_to_itself_and_has_a_schedule() -> None:
    job = Job.from_yaml(JOBS / "nightly.yaml")
    assert job.report.prompts == "none"
    assert job.cluster is not None
    assert job.cluster.schedule is not None
