"""Batches are as large as the job says, as the plan has it, or as the device's memory allows."""

import time
from pathlib import Path

import pytest

from tests.forward.tiny import save_tiny
from tests.pipeline.conftest import Ulcmod
from ulcmod_dist.config.job import Job
from ulcmod_dist.config.schema import PLACEMENT_TIMEOUT, ExtractConfig
from ulcmod_dist.errors import InvalidInput, UlcmodError
from ulcmod_dist.extract.planner import ExtractionPlan, load_plan
from ulcmod_dist.extract.probe import query_actor_memory
from ulcmod_dist.forward.memory import DeviceMemory
from ulcmod_dist.pipeline.context import Context, writing
from ulcmod_dist.pipeline.devices import choose_batch_tokens
from ulcmod_dist.pipeline.extract import extract
from ulcmod_dist.pipeline.plan import prepare_extraction
from ulcmod_dist.runtime.ray_session import ray_session
from ulcmod_dist.runtime.rundir import RunDir

JOB = """\
run: {run}
model: {{id: model}}
corpus: {{train: train.csv}}
extract: {{workers: 1, shard_samples: 4{more}}}
discover: {{modules: 2}}
"""


def make_context(folder: Path, more: str = "") -> Context:
    if not (folder / "model").exists():
        save_tiny(folder / "model")
        texts = [f"prompt {number} " + "x" * number for number in range(6)]
        (folder / "train.csv").write_text("text\n" + "\n".join(texts) + "\n")
    (folder / "job.yaml").write_text(JOB.format(run=folder / "run", more=more))
    job = Job.from_yaml(folder / "job.yaml")
    return Context(job, RunDir.at(job.run))


def set_memory(monkeypatch: pytest.MonkeyPatch, total: int, free: int | None = None) -> None:
    """Let this machine have so much memory for an actor."""
    memory = DeviceMemory(total, total if free is None else free)
    monkeypatch.setattr("ulcmod_dist.pipeline.devices.get_device_memory", lambda device: memory)


def chosen(context: Context) -> int:
    return choose_batch_tokens(context, 64)


def test_batch_tokens__follow_memory_unless_the_job_says_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_memory(monkeypatch, 2**33)
    assert chosen(make_context(tmp_path)) == 4096
    set_memory(monkeypatch, 2**21)
    assert 512 <= chosen(make_context(tmp_path)) < 4096
    assert chosen(make_context(tmp_path, ", batch_tokens: 77")) == 77


def save_plan(context: Context) -> ExtractionPlan:
    with writing(context, "plan") as held:
        return prepare_extraction(held, save=True).plan


def test_batch_tokens__of_the_plan_are_kept_whatever_memory_is_there_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = make_context(tmp_path)
    set_memory(monkeypatch, 2**21)
    first = save_plan(context)
    assert first.batch_tokens < 4096
    set_memory(monkeypatch, 2**33)
    assert save_plan(context) == first
    assert load_plan(context.run) == first
    with pytest.raises(
        InvalidInput, match=rf"extract.batch_tokens is 77, was {first.batch_tokens}"
    ):
        save_plan(make_context(tmp_path, ", batch_tokens: 77"))


def test_batch_tokens__are_those_that_plan_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ulcmod: Ulcmod
) -> None:
    context = make_context(tmp_path)
    set_memory(monkeypatch, 2**21)
    shown = ulcmod("plan", tmp_path / "job.yaml", "--no-probe", "--json").json()
    planned = save_plan(context)
    assert shown["batch_tokens"] == planned.batch_tokens == chosen(context)


@pytest.mark.parametrize(
    ("gpus", "device"), [("0", "cpu"), ("0.5", "cuda"), ("1", "cuda"), ("2", "auto")]
)
def test_device__follows_the_gpus_of_an_actor(tmp_path: Path, gpus: str, device: str) -> None:
    assert make_context(tmp_path, f", gpus: {gpus}").job.extract.device == device


def test_query_actor_memory__is_asked_where_the_actor_would_run() -> None:
    with ray_session(None):
        whole = query_actor_memory(ExtractConfig(workers=1))
        half = query_actor_memory(ExtractConfig(workers=2))
        assert half.total == whole.total // 2
        with pytest.raises(UlcmodError, match="needs 3 GPU, of which the largest node has 0"):
            query_actor_memory(ExtractConfig(gpus=3, patience=1.0))


def test_placement_timeout__of_the_job_ends_every_wait_for_resources(tmp_path: Path) -> None:
    short = "An actor needs 3 GPU"
    with ray_session(None):
        for more in ("", ", batch_tokens: 64"):
            context = make_context(tmp_path, f", gpus: 3, patience: 1{more}")
            began = time.monotonic()
            with pytest.raises(UlcmodError, match=short):
                extract(context)
            assert time.monotonic() - began < PLACEMENT_TIMEOUT / 2
