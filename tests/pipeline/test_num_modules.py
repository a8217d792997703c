"""Commands on some K of a run leave the job, and what belongs to the other K, as they are."""

from pathlib import Path

import pytest

from tests.pipeline.conftest import Planted, Ulcmod

JOB = ("--set", "discover={modules: [2, 3, 4], restarts: 1}")
FEW = (
    "--set", "evaluate={null_permutations: 0, baselines: [], seeds: 1}",
    "--set", "report.formats=[svg]",
)  # fmt: skip


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
        (k, "fresh", "fresh") for k in (2, 3, 4)
    ]


def test_num_modules__may_be_one_that_the_job_does_not_name(run: Path, ulcmod: Ulcmod) -> None:
    job = (run / "job.yaml").read_text()
    missing = ulcmod("evaluate", run, "--num-modules", 5)
    assert missing.code == 2
    assert f"Run `ulcmod discover {run} --num-modules 5` first." in missing.err
    for command in ("discover", "evaluate", "report"):
        assert ulcmod(command, run, "--num-modules", 5).code == 0
    assert (run / "job.yaml").read_text() == job
    rows = {row["num_modules"]: row for row in ulcmod("status", run, "--json").json()["rows"]}
    assert {k: row["in_job"] for k, row in rows.items()} == {2: True, 3: True, 4: True, 5: False}
    assert (rows[5]["modules"], rows[5]["evaluation"], rows[2]["modules"]) == (
        "fresh",
        "fresh",
        "missing",
    )
