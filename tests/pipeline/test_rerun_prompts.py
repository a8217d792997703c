"""A rerun of a real model's run: forward passes for new prompts alone, and none without any."""

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

import ulcmod_dist as um
from tests.pipeline.conftest import Answer, Ulcmod
from tests.pipeline.demo_corpus import DEMO, write_demo_corpus
from ulcmod_dist.runtime.rundir import RunDir
from ulcmod_dist.store.records import read_commits

JOB = """\
run: {folder}/run
model: {{id: model}}
corpus: {{train: train.parquet, test: test.parquet, id: id, category: category}}
extract: {{shard_samples: 32, batch_tokens: 4096, workers: 1}}
discover: {{modules: 3, restarts: 2}}
evaluate: {{seeds: 1, null_permutations: 0, baselines: []}}
report: {{formats: [svg]}}
"""
PROGRAM = "from ulcmod_dist.cli import main; main()"
# A process that says which of the heavy libraries it has loaded in the end.
LOADING = """
import sys
from ulcmod_dist.cli import main
sys.argv = ["ulcmod", *sys.argv[1:]]
try:
    main()
finally:
    # What computes, stores and draws; the last one is what reads a corpus in Parquet.
    heavy = {"dask", "matplotlib", "numba", "pandas", "plotly", "scipy", "sklearn", "zarr"}
    heavy |= {"ray", "torch", "transformers", "pyarrow.dataset"}
    print("loaded:", sorted(heavy & set(sys.modules)))
"""


@pytest.fixture(scope="module")
def made(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 60 prompts and 15 held-out ones."""
    folder = tmp_path_factory.mktemp("made")
    shutil.copytree(DEMO / "model", folder / "model")
    write_demo_corpus(folder, 20)
    (folder / "job.yaml").write_text(JOB.format(folder=folder))
    um.run(um.Job.from_yaml(folder / "job.yaml"))
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """The same, to be changed."""
    folder = tmp_path / "here"
    shutil.copytree(made, folder)
    (folder / "job.yaml").write_text(JOB.format(folder=folder))
    return folder


def test_rerun__pays_for_new_prompts_alone_and_then_for_nothing(
    folder: Path, ulcmod: Ulcmod
) -> None:
    run = RunDir.at(folder / "run")
    before = read_commits(run)
    stored = {path: path.stat().st_mtime_ns for path in (folder / "run").rglob("shards/**/c/*/*")}
    write_demo_corpus(folder, 22)
    answer = ulcmod("rerun", folder / "job.yaml", "--json")
    assert answer.code == 0, answer.err
    found = answer.json()
    assert (found["computed"], found["reused"], found["added"]) == (6, 75, 6)
    new = {digest: commit for digest, commit in read_commits(run).items() if digest not in before}
    assert sum(commit.rows for commit in new.values()) == 6
    assert {path: path.stat().st_mtime_ns for path in stored} == stored
    added = set((folder / "run").rglob("shards/**/activations/c/*/*")) - set(stored)
    units = 6 * 512
    assert sum(path.stat().st_size for path in added) < 1.1 * 4 * units * 6

    for command, said in (("rerun", "Nothing new since version 2"), ("run", "Report: ")):
        again = subprocess.run(
            [sys.executable, "-c", LOADING, command, str(folder / "job.yaml")],
            capture_output=True,
            text=True,
            check=False,
        )
        assert again.returncode == 0, again.stderr
        assert said in again.stdout
        assert "loaded: []" in again.stdout


def test_rerun__removed_prompts_leave_the_view_and_cost_no_forward_pass(
    folder: Path, ulcmod: Ulcmod
) -> None:
    write_demo_corpus(folder, 18)
    found = ulcmod("rerun", folder / "job.yaml", "--json").json()
    assert (found["computed"], found["reused"], found["removed"]) == (0, 69, 6)
    assert um.open_run(folder / "run").activations().shape == (54, 6 * 512)


def test_rerun__of_another_model_reuses_nothing_and_says_why(folder: Path, ulcmod: Ulcmod) -> None:
    weights = folder / "model" / "model.safetensors"
    tensors = load_file(weights)
    name = next(name for name in tensors if name.endswith("down_proj.weight"))
    tensors[name] = tensors[name] * 1.5
    save_file(tensors, weights, metadata={"format": "pt"})
    no_limits = "rerun={min_units_rand: -1, min_samples_rand: -1, min_objective: 0}"
    answer = ulcmod("rerun", folder / "job.yaml", "--set", no_limits)
    assert answer.code == 0, answer.err
    assert "No row was reused: model." in answer.out
    assert "reused    0" in answer.out
    assert "The search for K = 3 started anew" in answer.out


def test_rerun__of_another_revision_on_the_hub_reuses_nothing_and_says_why(
    tmp_path: Path, hub_cache: Path, ulcmod: Ulcmod, local_ray: None
) -> None:
    revisions = ["a" * 40, "b" * 40]
    for revision in revisions:
        shutil.copytree(DEMO / "model", hub_cache / "models--someone--decoder/snapshots" / revision)
    write_demo_corpus(tmp_path, 3, 1)
    job = tmp_path / "job.yaml"
    job.write_text(JOB.format(folder=tmp_path).replace("id: model", "id: someone/decoder"))
    no_limits = "rerun={min_units_rand: -1, min_samples_rand: -1, min_objective: 0}"

    def call(command: str, revision: str) -> Answer:
        return ulcmod(command, job, "--set", f"model.revision={revision}", "--set", no_limits)

    first = call("run", revisions[0])
    assert first.code == 0, first.err
    other = call("rerun", revisions[1])
    assert other.code == 0, other.err
    assert "No row was reused: model.revision" in other.out
    assert "reused    0" in other.out
    refused = call("extract", revisions[0])
    assert refused.code == 2
    assert "model.revision" in refused.err


@pytest.mark.faults
def test_rerun__killed_in_mid_extraction_and_started_again_ends_as_if_undisturbed(
    made: Path, folder: Path, tmp_path: Path, ulcmod: Ulcmod
) -> None:
    calm = tmp_path / "calm"
    shutil.copytree(made, calm)
    (calm / "job.yaml").write_text(JOB.format(folder=calm))
    words = "--set", "extract.shard_samples=4", "--json"
    for place in (folder, calm):
        write_demo_corpus(place, 30)
    assert ulcmod("rerun", calm / "job.yaml", *words).json()["computed"] == 30

    run = RunDir.at(folder / "run")
    before = len(read_commits(run))
    command = [sys.executable, "-c", PROGRAM, "rerun", str(folder / "job.yaml"), *words]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as killed:
        while len(read_commits(run)) < before + 2 and killed.poll() is None:
            time.sleep(0.01)
        killed.kill()
    assert killed.returncode == -signal.SIGKILL
    committed = len(read_commits(run)) - before
    assert committed >= 2
    again = ulcmod("rerun", folder / "job.yaml", *words)
    assert again.code == 0, again.err
    assert again.json()["computed"] <= 30 - 4 * (committed - 1)
    one, other = (um.open_run(place / "run") for place in (folder, calm))
    assert one.snapshot.digest == other.snapshot.digest
    assert one.units(3).equals(other.units(3))
