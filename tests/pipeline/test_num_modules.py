"""Commands on some K of a run leave the job, and what belongs to the other K, as they are."""

from pathlib import Path

import pytest

from tests.pipeline.conftest import Planted, Ulcmod

JOB = ("--set", "discover={modules: [2, 3, 4], restarts: 1}")
FEW = ("--set", "evaluate={null_permutations: 0, baselines: [], seeds: 1}")


@pytest.fixture
def run(planted: Planted, tmp_path: Path, ulcmod: Ulcmod) -> Path:
    words = ("import", planted.path, "--out", tmp_path / "run", *JOB, *FEW)
    assert ulcmod(*words).code == 0
    return tmp_path / "run"


def test_num_modules__restricts_a_command_and_leaves_the_job(run: Path, ulcmod: Ulcmod) -> None:
    job = (run / "job.yaml").read_text()
    found = ulcmod("discover", run, "--num-modules", 3, "--num-modules", 2, "--json").json()
    assert [row["num_modules"] for row in found["rows"]] == [2, 3]
    assert (run / "job.yaml").read_text() == job
    assert ulcmod("discover", run).code == 0
    evaluated = ulcmod("evaluate", run, "--num-modules", 4, "--json").json()
    assert [row["num_modules"] for row in evaluated["rows"]] == [4]
    assert ulcmod("report", run, "--num-modules", 4).code == 0
    assert ulcmod("evaluate", run).code == 0
    assert ulcmod("report", run, "--num-modules", 2, "--num-modules", 4).code == 0
    assert ulcmod("report", run).code == 0
    assert (run / "job.yaml").read_text() == job
    seen = ulcmod("status", run, "--json").json()["rows"]
    assert [(row["num_modules"], row["modules"], row["evaluation"]) for row in seen] == [
        (k, "done", "done") for k in (2, 3, 4)
    ]


@pytest.mark.parametrize("command", ["discover", "evaluate", "report"])
def test_num_modules__refuses_a_number_that_is_none_of_the_job(
    run: Path, ulcmod: Ulcmod, command: str
) -> None:
    refused = ulcmod(command, run, "--num-modules", 7)
    assert refused.code == 2
    assert "--num-modules names K = 7, and the job searches K = 2, 3, 4." in refused.err
