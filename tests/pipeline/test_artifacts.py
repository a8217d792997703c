"""Any sequence of commands leaves a run that is described truly, and that later commands accept."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from tests.pipeline.conftest import Ulcmod
from tests.pipeline.reruns import planted_rows
from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.pipeline.artifacts import GRAPH, record_key
from ulcmod_dist.pipeline.context import open_target
from ulcmod_dist.pipeline.discover import discover
from ulcmod_dist.pipeline.evaluate import evaluate
from ulcmod_dist.pipeline.import_matrix import import_context, import_matrix
from ulcmod_dist.pipeline.ledger import Ledger
from ulcmod_dist.pipeline.report import report
from ulcmod_dist.pipeline.rerun import rerun
from ulcmod_dist.pipeline.run import run_all
from ulcmod_dist.pipeline.status import status
from ulcmod_dist.pipeline.summary import Summary
from ulcmod_dist.runtime.rundir import RunDir

QUICK = (
    "discover.modules=[2, 3]", "discover.restarts=1", "evaluate.seeds=1",
    "evaluate.null_permutations=1", "evaluate.baselines=[]", "report.formats=[svg]",
)  # fmt: skip
CHANGES = (
    "discover.modules=[3]",
    "discover.modules=[3, 4]",
    "discover.seed=1",
    "evaluate.seed=2",
    "report.typical=3",
)
COMMANDS: dict[str, Callable[..., Summary]] = {
    "discover": discover,
    "evaluate": evaluate,
    "report": report,
}

subsets = st.lists(st.sampled_from([2, 3, 4]), min_size=1, max_size=3, unique=True)
steps = st.one_of(
    st.tuples(st.sampled_from(sorted(COMMANDS)), st.none() | subsets),
    st.tuples(st.just("set"), st.sampled_from(CHANGES)),
    st.tuples(st.sampled_from(["run", "rerun"]), st.none()),
)


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a small matrix that nothing has been found in yet."""
    folder = tmp_path_factory.mktemp("artifacts")
    np.save(folder / "rows.npy", planted_rows(60))
    files = {"path": str(folder / "rows.npy"), "samples": None, "units": None}
    import_matrix(import_context(files, str(folder / "run"), QUICK))
    return folder / "run"


@pytest.fixture
def run(imported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(imported, tmp_path / "run"))


def do(run: Path, command: str, argument: Any) -> Summary | None:
    """Run one step; None where it was refused with a clear error."""
    overrides = [argument] if command == "set" else []
    context = open_target(str(run), overrides)
    try:
        if command == "set":
            return discover(context)
        if command in ("run", "rerun"):
            return run_all(context) if command == "run" else rerun(context)
        return COMMANDS[command](context, num_modules=argument)
    except InvalidInput:
        return None


def records(run: Path) -> dict[tuple[str, int | None], int]:
    """When the record of each artifact was written."""
    directory = RunDir.at(run)
    nodes = [(name, k) for name in GRAPH for k in (None, 2, 3, 4)]
    paths = {node: Path(directory.show(record_key(*node))) for node in nodes}
    return {node: path.stat().st_mtime_ns for node, path in paths.items() if path.exists()}


# An example runs up to ten commands, so there are few, and a failing one is not shrunk.
@settings(
    max_examples=8,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow],
)
@example([("discover", [4, 3]), ("evaluate", [3])])
@given(st.lists(steps, min_size=1, max_size=6))
def test_commands__any_sequence_leaves_a_run_that_is_described_truly(
    imported: Path, tmp_path_factory: pytest.TempPathFactory, sequence: Sequence[tuple[str, Any]]
) -> None:
    run = Path(shutil.copytree(imported, tmp_path_factory.mktemp("run") / "run"))
    with pytest.MonkeyPatch.context() as patch:
        # Drawing takes most of the time, and no pixel says what is fresh.
        patch.setattr("ulcmod_dist.report.paper.render", lambda *_, titles: {"svg": b""})
        for step in sequence:
            do(run, *step)
            status(open_target(str(run), []))
        check_page(run)
        check_described(run)
        again = do(run, "rerun", None)
    assert again is not None
    assert {row["state"] for row in shown(run) if row["artifact"] != "drift"} == {"fresh"}
    assert do(run, "rerun", None).facts["state"] == "unchanged"  # type: ignore[union-attr]


def check_page(run: Path) -> None:
    """A page is written of just the K that are evaluated; without one the report is refused."""
    context = open_target(str(run), [])
    evaluated = Ledger(context.run, context.job).on_page()
    answer = do(run, "report", None)
    assert (answer is not None) == bool(evaluated)
    page = Ledger(context.run, context.job).record("page")
    if answer is not None and page is not None:
        named = {label for label in page.inputs if label.startswith("evaluation")}
        assert named == {f"evaluation for K = {k}" for k in evaluated}


def check_described(run: Path) -> None:
    """Updating the run makes just what was said to be stale or missing."""
    said = {(row["artifact"], row["num_modules"]): row["state"] for row in shown(run)}
    before = records(run)
    assert do(run, "run", None) is not None
    after = records(run)
    wanted = open_target(str(run), []).job.discover.modules
    complete = all(state == "fresh" for (_, k), state in said.items() if k is not None)
    # An import is always read again; versions and drift are made by a rerun.
    for (name, k), state in said.items():
        if name in ("snapshot", "version", "drift") or k not in (None, *wanted):
            continue
        # The page gathers every K, so that it is made again for one that is new.
        stays = state == "fresh" and (k is not None or complete)
        assert (after[name, k] == before.get((name, k))) == stays, (name, k, state)


def shown(run: Path) -> list[dict[str, Any]]:
    artifacts: list[dict[str, Any]] = status(open_target(str(run), [])).as_json()["artifacts"]
    context = open_target(str(run), [])
    return [row for row in artifacts if row["num_modules"] in (None, *context.job.discover.modules)]


def test_num_modules__never_narrows_the_job(run: Path, ulcmod: Ulcmod) -> None:
    job = (run / "job.yaml").read_bytes()
    assert ulcmod("run", run).code == 0
    for command in ("discover", "evaluate", "report"):
        answer = ulcmod(command, run, "--num-modules", 3)
        assert answer.code == 0, answer.err
    assert (run / "job.yaml").read_bytes() == job
    stale = ulcmod("status", run)
    assert "Page is stale: evaluation for K = 2 is new." in " ".join(stale.out.split())
    assert ulcmod("report", run).code == 0
    assert "stale" not in ulcmod("status", run).out


def test_set__says_how_the_job_changes_and_keeps_what_was_found(run: Path, ulcmod: Ulcmod) -> None:
    assert ulcmod("run", run).code == 0
    changed = ulcmod("discover", run, "--set", "discover.modules=[3, 4]")
    said = " ".join(changed.err.split())
    assert "The job of this run changes: discover.modules is [3, 4], was [2, 3]." in said
    rows = {row["num_modules"]: row for row in ulcmod("status", run, "--json").json()["rows"]}
    assert {k: (row["modules"], row["in_job"]) for k, row in rows.items()} == {
        2: ("fresh", False),
        3: ("fresh", True),
        4: ("fresh", True),
    }
    answer = ulcmod("report", run)
    assert answer.code == 0
    assert "Not on the page, since not evaluated with these settings: K = 4." in answer.out
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "K = 2" in page


def test_status__names_the_command_for_a_number_beside_the_job(run: Path, ulcmod: Ulcmod) -> None:
    assert ulcmod("run", run).code == 0
    words = ("--set", "discover.modules=[3]", "--set", "discover.seed=1")
    assert ulcmod("discover", run, *words).code == 0
    said = " ".join(ulcmod("status", run).out.split())
    assert "Modules for K = 2 are stale: discover.seed is 1, was 0." in said
    assert "--num-modules 2` updates it." in said


def test_update__says_why_something_is_made_again(run: Path, ulcmod: Ulcmod) -> None:
    assert ulcmod("run", run).code == 0
    said = " ".join(ulcmod("run", run, "--set", "evaluate.seed=4").err.split())
    assert "Updating null model for K = 2: evaluate.seed is 4, was 0." in said
    assert "Searching K" not in said


def test_format__of_an_earlier_layout_is_refused_and_its_rows_can_be_kept(
    run: Path, tmp_path: Path, ulcmod: Ulcmod
) -> None:
    (run / "format.json").unlink()
    for command in ("status", "run", "rerun", "discover"):
        answer = ulcmod(command, run)
        assert answer.code == 2
        assert f"The run directory {run} has format 1" in answer.err
        assert f"ulcmod run {run}/job.yaml --set run=NEW" in answer.err
    matrix = yaml.safe_load((run / "job.yaml").read_text())["matrix"]["path"]
    shutil.copytree(run / "activations.zarr", tmp_path / "new/activations.zarr")
    written = {p: p.stat().st_mtime_ns for p in (tmp_path / "new").rglob("c/*/*")}
    words = ("--set", f"run={tmp_path / 'new'}", "--set", f"matrix.path={matrix}")
    assert ulcmod("run", run / "job.yaml", *words).code == 0
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "new").rglob("c/*/*")} == written
