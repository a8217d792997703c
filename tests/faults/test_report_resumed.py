"""A run killed in each of its stages ends with the page and tables of an undisturbed one."""

import contextlib
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.pipeline.demo_corpus import DEMO, write_demo_corpus

pytestmark = pytest.mark.faults

JOB = f"""\
run: RUN
model: {{id: {DEMO / "model"}}}
corpus: {{train: train.parquet, test: test.parquet, id: id, category: category}}
extract: {{shard_samples: 16, workers: 2}}
discover: {{modules: [3, 4], restarts: 2}}
evaluate: {{seeds: 2, null_permutations: 2, baselines: [k-means]}}
ablate: {{with_run: true, samples: 4, random_sets: 1}}
"""
# What a stage has just written when the run is killed: nothing of the next one is there.
MOMENTS = (
    "activations.zarr/commits/*",
    "modules/K=003/metrics.json",
    "evaluation/K=003.json",
    "evaluation/ablation-K=003.json",
)
PATIENCE = 240.0


@pytest.fixture
def job(tmp_path: Path) -> Path:
    write_demo_corpus(tmp_path)
    path = tmp_path / "job.yaml"
    path.write_text(JOB.replace("RUN", str(tmp_path / "run")))
    return path


@contextlib.contextmanager
def started(job: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The run as a process; it and all that it started are gone when the block ends."""
    main = "from ulcmod_dist.cli import main; main()"
    process = subprocess.Popen([sys.executable, "-c", main, "run", str(job)])
    try:
        yield process
    finally:
        family = (
            psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        )
        for member in [*family, process]:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.send_signal(signal.SIGKILL)
        process.wait()


def killed_at(job: Path, moment: str) -> None:
    end = time.monotonic() + PATIENCE
    with started(job) as process:
        while not any((job.parent / "run").glob(moment)):
            assert process.poll() is None, f"ended before {moment}"
            assert time.monotonic() < end, moment
            time.sleep(0.01)


def finished(job: Path) -> dict[str, bytes]:
    """Run to the end; what a reader gets, by path."""
    with started(job) as process:
        assert process.wait(PATIENCE) == 0
    run = job.parent / "run"
    answers = ("report.html", "tables/*", "figures/*", "evaluation/*")
    paths = [path for pattern in answers for path in run.glob(pattern)]
    return {str(path.relative_to(run)): path.read_bytes() for path in paths}


def test_run__killed_in_each_stage_ends_with_the_same_report(job: Path) -> None:
    undisturbed = finished(job)
    assert len(undisturbed) > 30
    shutil.rmtree(job.parent / "run")
    for moment in MOMENTS:
        killed_at(job, moment)
        assert not (job.parent / "run/report.html").exists()
    resumed = finished(job)
    assert resumed.keys() == undisturbed.keys()
    assert [name for name in resumed if resumed[name] != undisturbed[name]] == []
