"""A rerun does what is new, keeps what was, and ends with the same result however often killed."""

import random
import re
import signal
from pathlib import Path

import numpy as np
import pytest

import ulcmod_dist as um
from tests.pipeline.conftest import Ulcmod, copy_run
from tests.pipeline.reruns import CONTEXT, planted_rows, start
from ulcmod_dist.runtime.lease import read_holder
from ulcmod_dist.runtime.rundir import RunDir
from ulcmod_dist.store.versions import list_versions

QUICK = (
    "--set", "discover.modules=3", "--set", "discover.restarts=2", "--set", "evaluate.seeds=1",
    "--set", "evaluate.null_permutations=1", "--set", "evaluate.baselines=[]",
    "--set", "report.formats=[svg]",
)  # fmt: skip
LIMIT = 120
MADE = re.compile(rb"\d{4}-\d\d-\d\d \d\d:\d\d UTC")


def write_rows(folder: Path, rows: np.ndarray) -> None:
    np.save(folder / "rows.npy", rows)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a matrix of 60 samples and of the run that was made of it."""
    from ulcmod_dist.pipeline.import_matrix import import_context
    from ulcmod_dist.pipeline.run import run_all

    folder = tmp_path_factory.mktemp("first")
    write_rows(folder, planted_rows(60))
    files = {"path": "rows.npy", "samples": None, "units": None}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run_all(import_context(files, str(folder / "run"), QUICK[1::2]))
    return folder


@pytest.fixture
def folder(first: Path, tmp_path: Path) -> Path:
    """A copy of the first run, with a matrix that has grown by a tenth since."""
    folder = tmp_path / "later"
    copy_run(first, folder)
    write_rows(folder, planted_rows(66))
    return folder


def contents(run: Path) -> dict[str, bytes]:
    """Everything that a rerun leaves and that does not tell the time."""
    told = ("version.json", "history.parquet", "job.yaml", "report.html", ".png", ".svg", ".pdf")
    paths = ("artifacts/snapshot.json", "artifacts/page.json")  # hold those of the job
    return {
        str(path.relative_to(run)): MADE.sub(b"", path.read_bytes())
        for name in ("artifacts", "modules", "evaluation", "drift", "tables", "versions")
        for path in sorted((run / name).rglob("*"))
        if path.is_file() and not str(path).endswith((*told, *paths))
    }


def test_rerun__what_ulcmod_run_left_is_version_one(folder: Path, ulcmod: Ulcmod) -> None:
    write_rows(folder, planted_rows(60))
    answer = ulcmod("rerun", folder / "run", "--json").json()
    assert (answer["state"], answer["version"]) == ("unchanged", 1)
    written = (folder / "run/report.html").stat().st_mtime_ns
    said = ulcmod("rerun", folder / "run")
    assert (said.code, "Nothing new since version 1" in said.out) == (0, True)
    assert (folder / "run/report.html").stat().st_mtime_ns == written


def test_rerun__the_first_time_it_is_a_run(tmp_path: Path, ulcmod: Ulcmod) -> None:
    write_rows(tmp_path, planted_rows(60))
    job = tmp_path / "job.yaml"
    job.write_text(f"run: {tmp_path / 'run'}\nmatrix: {{path: rows.npy}}\ndiscover: {{modules: 3}}")
    answer = ulcmod("rerun", job, *QUICK, "--json")
    assert (answer.json()["version"], answer.json()["added"]) == (1, 60)
    assert (tmp_path / "run/report.html").exists()


def test_rerun__goes_on_from_the_last_modules(folder: Path, ulcmod: Ulcmod) -> None:
    answer = ulcmod("rerun", folder / "run", "--json").json()
    assert (answer["state"], answer["version"]) == ("updated", 2)
    assert (answer["added"], answer["removed"]) == (6, 0)
    (row,) = answer["rows"]
    assert row["start"] == "version 1"
    assert row["iterations"] <= 2
    assert row["units_rand"] == row["samples_rand"] == 1.0
    assert (folder / "run/drift/K=003.html").exists()


def test_rerun__starts_anew_where_the_search_has_changed(folder: Path, ulcmod: Ulcmod) -> None:
    answer = ulcmod("rerun", folder / "run", "--set", "discover.seed=4")
    assert answer.code == 0
    assert "K = 3 started anew: discover.seed is 4, was 0" in answer.out
    cold = ulcmod("rerun", folder / "run", "--set", "rerun.start=cold", "--set", "discover.seed=5")
    assert "rerun.start is cold" in cold.out


def test_rerun__earlier_versions_stay_readable(folder: Path, ulcmod: Ulcmod) -> None:
    old = contents(folder / "run")
    ulcmod("rerun", folder / "run")
    past = folder / "run/versions/000001"
    assert {name: (past / name).read_bytes() for name in old} == old
    opened = um.open_run(past)
    assert opened.activations().shape == (60, 90)
    assert len(opened.samples(3)) == 60
    assert (
        opened.metrics(3)["objective"][0] < um.open_run(folder / "run").metrics(3)["objective"][0]
    )
    compared = ulcmod("compare", past, folder / "run", "--json").json()
    assert (compared["shared_samples"], compared["samples_moved"]) == (60, 0)
    said = " ".join(ulcmod("compare", past, folder / "run").out.split())
    assert "run (version 1), K = 3" in said


def test_rerun__keeps_as_many_versions_as_asked_for(folder: Path, ulcmod: Ulcmod) -> None:
    for count in (66, 72, 78):
        write_rows(folder, planted_rows(count))
        assert ulcmod("rerun", folder / "run", "--set", "rerun.keep=1").code == 0
    assert list_versions(RunDir.at(folder / "run")) == [3, 4]
    left = [path for path in (folder / "run/versions").rglob("*") if path.is_file()]
    assert {path.relative_to(folder / "run/versions").parts[0] for path in left} == {
        "000003",
        "000004",
    }


def test_rerun__renews_the_page_alone_where_only_the_page_has_changed(
    folder: Path, ulcmod: Ulcmod
) -> None:
    write_rows(folder, planted_rows(60))
    written = (folder / "run/modules/K=003/metrics.json").stat().st_mtime_ns
    page = (folder / "run/report.html").stat().st_mtime_ns
    answer = ulcmod("rerun", folder / "run", "--set", "report.typical=3", "--json").json()
    assert (answer["state"], answer["version"]) == ("unchanged", 1)
    assert (folder / "run/report.html").stat().st_mtime_ns > page
    assert (folder / "run/modules/K=003/metrics.json").stat().st_mtime_ns == written


def test_drift__adds_up_over_the_versions(folder: Path, ulcmod: Ulcmod) -> None:
    for step in (1, 2):
        rows = planted_rows(60 + 6 * step)
        rows[:, : 10 * step] = rows[:, 30 : 30 + 10 * step]
        write_rows(folder, rows)
        answer = ulcmod("rerun", folder / "run", "--json")
        assert answer.code in (0, 4), answer.err
    first, second, now = answer.json()["versions"]["3"]
    assert [first["version"], second["version"], now["version"]] == [1, 2, 3]
    assert [first["samples"], second["samples"], now["samples"]] == [60, 66, 72]
    assert (first["units_rand"], now["units_rand_now"]) == (None, None)
    assert now["units_rand"] == answer.json()["rows"][0]["units_rand"] == second["units_rand_now"]
    assert first["units_rand_now"] < second["units_rand_now"] < 1
    page = (folder / "run/drift/K=003.html").read_text(encoding="utf-8")
    assert "Drift over time" in page
    assert re.search(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", page)


def test_drift__beyond_the_limits_ends_with_four_until_it_is_accepted(
    folder: Path, ulcmod: Ulcmod
) -> None:
    changed = planted_rows(66)
    changed[:, 20:50] = changed[:, 20:50][:, np.random.default_rng(1).permutation(30)]
    write_rows(folder, changed)
    for state in ("updated", "unchanged"):
        answer = ulcmod("rerun", folder / "run", "--json")
        assert (answer.code, answer.json()["state"]) == (4, state)
        (alarm,) = answer.json()["alarms"]
        assert alarm.startswith("Drift, K = 3: the adjusted Rand index of units is 0.")
    said = " ".join(ulcmod("rerun", folder / "run").out.split())
    assert "Drift, K = 3: the adjusted Rand index of units is 0." in said
    assert "below rerun.min_units_rand (0.7)" in said
    lenient = ulcmod("rerun", folder / "run", "--set", "rerun.min_units_rand=0.1")
    assert lenient.code == 0
    strict = ulcmod("rerun", folder / "run", "--set", "rerun.min_units_rand=0.7")
    assert strict.code == 4
    assert ulcmod("rerun", folder / "run", "--accept").code == 0
    assert ulcmod("rerun", folder / "run").code == 0


def test_two_reruns__the_second_does_nothing_and_raises_no_alarm(
    folder: Path, ulcmod: Ulcmod
) -> None:
    results, gate = CONTEXT.Queue(), folder / "gate"
    process = start(folder / "run", results, gate=str(gate))
    while (held := read_holder(RunDir.at(folder / "run"))) is None or held["pid"] != process.pid:
        assert process.exitcode is None
    said = ulcmod("rerun", folder / "run")
    gate.touch()
    process.join(LIMIT)
    assert results.get(timeout=LIMIT) == ("updated", 0)
    assert said.code == 0
    assert f"in use by process {process.pid}" in said.out
    assert "Nothing was done" in said.out
    assert list_versions(RunDir.at(folder / "run")) == [1, 2]


def test_three_missed_ticks__are_caught_up_once(folder: Path) -> None:
    # What three nights have added is there when the three reruns start together.
    write_rows(folder, planted_rows(78))
    results = CONTEXT.Queue()
    processes = [start(folder / "run", results) for _ in range(3)]
    for process in processes:
        process.join(LIMIT)
    answers = [results.get(timeout=LIMIT) for _ in processes]
    assert [code for _, code in answers] == [0, 0, 0]
    states = [state for state, _ in answers]
    assert states.count("updated") == 1
    assert set(states) <= {"updated", "skipped", "unchanged"}
    assert list_versions(RunDir.at(folder / "run")) == [1, 2]
    assert um.open_run(folder / "run").activations().shape == (78, 90)


@pytest.fixture(scope="module")
def undisturbed(first: Path) -> dict[str, bytes]:
    """What a rerun leaves in which nothing happened."""
    folder = first.parent / "undisturbed"
    copy_run(first, folder)
    write_rows(folder, planted_rows(66))
    process = start(folder / "run")
    process.join(LIMIT)
    assert process.exitcode == 0
    return contents(folder / "run")


def kill_and_repeat(folder: Path, undisturbed: dict[str, bytes], kill_at: str) -> None:
    old = contents(folder / "run")
    process = start(folder / "run", kill_at=kill_at)
    process.join(LIMIT)
    assert process.exitcode == -signal.SIGKILL
    past = folder / "run/versions/000001"
    if (past / "version.json").exists():
        assert {name: (past / name).read_bytes() for name in old} == old
    else:
        assert contents(folder / "run").items() >= old.items()
    process = start(folder / "run")
    process.join(LIMIT)
    assert process.exitcode == 0
    assert contents(folder / "run") == undisturbed


@pytest.mark.faults
@pytest.mark.parametrize(
    "kill_at",
    [
        "versions/000001/evaluation",
        pytest.param("modules/checkpoints", marks=pytest.mark.sample),
        "modules/K=003/samples",
        "figures",
        pytest.param("drift/drift.json", marks=pytest.mark.sample),
        "versions/000002/version.json",
    ],
)
def test_kill__a_repeated_rerun_ends_as_if_nothing_had_happened(
    folder: Path, undisturbed: dict[str, bytes], kill_at: str
) -> None:
    kill_and_repeat(folder, undisturbed, kill_at)


@pytest.mark.faults
@pytest.mark.parametrize("number", range(15))
def test_kill__at_a_random_moment(folder: Path, undisturbed: dict[str, bytes], number: int) -> None:
    kill_and_repeat(folder, undisturbed, random.Random(number).choice([*undisturbed]))
