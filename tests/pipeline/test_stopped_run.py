"""SIGTERM to a real process in the middle of its work, and the run that follows."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.pipeline.conftest import Ulcmod
from ulcmod_dist.runtime.lease import read_holder
from ulcmod_dist.runtime.rundir import CHECKPOINTS, RunDir
from ulcmod_dist.runtime.signals import GRACE_SECONDS

DEMO = Path(__file__).parents[2] / "jobs" / "demo" / "demo.yaml"
SMALL = ("--set", "extract.shard_samples=32", "--set", "extract.batch_tokens=512")


def stopped(words: list[str], due: Callable[[], bool]) -> tuple[int, str, float]:
    """Start the program and send SIGTERM once it is due: exit code, errors, seconds to the end."""
    program = [str(Path(sys.executable).parent / "ulcmod"), *words]
    with subprocess.Popen(program, stderr=subprocess.PIPE, text=True) as process:
        end = time.monotonic() + 240
        while not due():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < end
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        asked = time.monotonic()
        _, errors = process.communicate(timeout=2 * GRACE_SECONDS)
    return process.returncode, errors, time.monotonic() - asked


def test_search__stopped_leaves_a_checkpoint_and_continues_at_once(
    tmp_path: Path, ulcmod: Ulcmod
) -> None:
    values = np.random.default_rng(3).random((1500, 1200), np.float32)
    np.save(tmp_path / "noise.npy", values)
    search = ["--set", "discover={modules: 12, restarts: 2, max_iterations: 40}"]
    for name in ("stopped", "whole"):
        done = ulcmod("import", tmp_path / "noise.npy", "--out", tmp_path / name, *search)
        assert done.code == 0, done.err
    run = tmp_path / "stopped"
    checkpoints = run / "modules" / "checkpoints"
    code, errors, seconds = stopped(["discover", str(run)], lambda: any(checkpoints.glob("*.npz")))
    assert code == 143
    assert "Stopped by SIGTERM" in errors
    assert seconds < GRACE_SECONDS
    assert read_holder(RunDir.at(run)) is None
    assert list(checkpoints.glob("*.npz"))
    assert not (run / "modules" / "K=012").exists()

    for name in ("stopped", "whole"):
        assert ulcmod("discover", tmp_path / name).code == 0
    for table in ("units", "samples"):
        one, other = (
            pq.read_table(tmp_path / name / "modules" / "K=012" / f"{table}.parquet")
            for name in ("stopped", "whole")
        )
        assert one.equals(other)


def test_search__writes_checkpoints_all_along_but_not_after_every_iteration(
    tmp_path: Path, ulcmod: Ulcmod, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save(tmp_path / "noise.npy", np.random.default_rng(3).random((600, 500), np.float32))
    search = ["--set", "discover={modules: 12, restarts: 2, max_iterations: 40}"]
    done = ulcmod("import", tmp_path / "noise.npy", "--out", tmp_path / "run", *search)
    assert done.code == 0, done.err
    clock, written, write = count(), [], RunDir.write

    def watch(run: RunDir, key: str, data: bytes) -> None:
        if key.startswith(CHECKPOINTS):
            written.append(key)
        write(run, key, data)

    # A second each time that it is read: an iteration takes as long as writing a checkpoint.
    monkeypatch.setattr(
        "ulcmod_dist.pipeline.discover.time", SimpleNamespace(monotonic=clock.__next__)
    )
    monkeypatch.setattr(RunDir, "write", watch)
    assert ulcmod("discover", tmp_path / "run").code == 0
    checkpoints = next(clock) - len(written)
    assert checkpoints > 20
    assert len(written) == -(-checkpoints // 20)


@pytest.mark.faults
def test_extraction__stopped_commits_what_is_under_way_and_continues_at_once(
    tmp_path: Path, ulcmod: Ulcmod
) -> None:
    run = tmp_path / "run"
    commits = run / "activations.zarr" / "commits"
    target = [str(DEMO), "--set", f"run={run}", *SMALL]
    began: list[int] = []

    def due() -> bool:
        began[:] = [len(list(commits.glob("*.json")))]
        return began[0] >= 3

    code, errors, seconds = stopped(["extract", *target], due)
    assert code == 143, errors
    assert "Stopped by SIGTERM" in errors
    assert seconds < GRACE_SECONDS
    assert read_holder(RunDir.at(run)) is None
    assert ulcmod("verify", run).code == 0
    kept = {path.name: path.stat().st_mtime_ns for path in commits.glob("*.json")}
    # What actors had begun was committed; what waited was not begun.
    assert began[0] < len(kept) < 40
    assert not list((run / "activations.zarr").rglob("*.partial"))

    done = ulcmod("extract", *target, "--json")
    assert done.code == 0, done.err
    assert done.json()["computed"] == 1260 - 32 * len(kept)
    now = {path.name: path.stat().st_mtime_ns for path in commits.glob("*.json")}
    assert kept.items() <= now.items()
