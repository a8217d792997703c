"""How far a run is, seen from another process than the one that works on it."""

import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.pipeline.conftest import Planted, Ulcmod
from ulcmod_dist.pipeline.context import open_target, writing
from ulcmod_dist.pipeline.status import status, watch
from ulcmod_dist.runtime.progress import track

SMALL = ("--set", "discover.modules=3", "--set", "discover.restarts=1")


@pytest.fixture
def run(planted: Planted, tmp_path: Path, ulcmod: Ulcmod) -> str:
    assert ulcmod("import", planted.path, "--out", tmp_path / "run", *SMALL).code == 0
    return str(tmp_path / "run")


def test_status__tells_the_step_under_way_and_who_is_at_it(run: str, ulcmod: Ulcmod) -> None:
    mine = open_target(run, [])
    assert status(mine).as_json()["step"] is None
    with writing(mine, "discover") as held:
        with track(held.on_progress, "Searching", 40, "iterations") as step:
            seen = ulcmod("status", run, "--json").json()
            assert seen["step"]["done"] == 0
            step.update(10, "3 moved")
        seen = ulcmod("status", run, "--json").json()
        assert (seen["step"]["step"], seen["step"]["done"]) == ("Searching", 10)
        assert seen["held_by"].startswith("discover (process ")
        shown = ulcmod("status", run).out
        assert "25% Searching" in shown
        assert "10 of 40 iterations" in shown
        assert max(map(len, shown.splitlines())) <= 80
    # Whoever comes next has not begun a step yet.
    with writing(mine, "evaluate"):
        assert status(mine).as_json()["step"] is None
    assert status(mine).as_json()["step"] is None


LEASE = """
import os, signal, sys
from ulcmod_dist.runtime.lease import Lease
from ulcmod_dist.runtime.rundir import RunDir
from ulcmod_dist.runtime.progress import record_progress, track
run = RunDir.at(sys.argv[1])
with (
    Lease.acquire(run, "discover"),
    track(record_progress(run), "Searching", 40, "iterations"),
):
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_status__a_killed_process_works_on_the_run_no_more(run: str, ulcmod: Ulcmod) -> None:
    killed = subprocess.run([sys.executable, "-c", LEASE, run], check=False)
    assert killed.returncode == -signal.SIGKILL
    seen = ulcmod("status", run, "--json").json()
    assert (seen["held_by"], seen["step"], seen["holder"]["alive"]) == (None, None, False)
    shown = " ".join(ulcmod("status", run).out.split())
    assert "left by discover (process" in shown
    assert "which is gone" in shown
    assert "Searching" not in shown


def test_watch__looks_until_nobody_works_on_the_run_any_more(run: str) -> None:
    mine = open_target(run, [])
    began, end = threading.Event(), threading.Event()

    def work() -> None:
        began.wait()
        with writing(mine, "discover"):
            end.wait()

    worker = threading.Thread(target=work)
    worker.start()
    holders = []
    for number, look in enumerate(watch(mine, seconds=0.05)):
        holders.append(look.facts["held by"])
        if number == 1:
            began.set()
        if holders[-1] is not None:
            end.set()
    worker.join()
    assert holders[:2] == [None, None]
    assert holders[-1] is None
    assert any(holders)


def test_watch__as_json_prints_a_line_a_look_and_ends_well_by_ctrl_c(
    run: str, ulcmod: Ulcmod, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", interrupted)
    seen = ulcmod("status", run, "--watch", "--json")
    assert (seen.code, json.loads(seen.out)["held_by"]) == (0, None)


def interrupted(seconds: float) -> None:
    raise KeyboardInterrupt


LIGHT = """
import sys
from ulcmod_dist.cli import main
sys.argv = ["ulcmod", "status", sys.argv[1]]
try:
    main()
except SystemExit as end:
    assert not end.code
heavy = {"dask", "numba", "numpy", "ray", "torch", "transformers", "zarr"} & set(sys.modules)
print("loaded:", sorted(heavy))
"""


def test_status__answers_without_the_libraries_that_compute(run: str, ulcmod: Ulcmod) -> None:
    assert ulcmod("run", run, "--set", "evaluate={seeds: 1, baselines: []}").code == 0
    seen = subprocess.run(
        [sys.executable, "-c", LIGHT, run], capture_output=True, text=True, check=True
    )
    assert "fresh" in seen.stdout
    assert seen.stdout.endswith("loaded: []\n")
