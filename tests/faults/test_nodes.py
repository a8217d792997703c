"""A node is lost, or taken away with on_event, in mid-run."""

import json
import subprocess
import sys
import time
from typing import Any

import pytest

from tests.faults.draining import GRACE_SECONDS
from tests.faults.killing import PROMPTS, SHARD, passed
from tests.faults.test_kills import marks, require_whole, undisturbed
from ulcmod_dist.runtime.rundir import RunDir

__all__ = ["marks", "undisturbed"]


def run_extraction(module: str, run: RunDir, marks: str) -> dict[str, Any]:
    """Run a module of this folder as a process and return what it found in the end."""
    answer = subprocess.run(
        [sys.executable, "-m", f"tests.faults.{module}", run.url, marks],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    last: dict[str, Any] = json.loads(answer.stdout.splitlines()[-1])
    return last


@pytest.mark.faults
def test_node_loss__the_run_goes_on_elsewhere(run: RunDir, marks: str, undisturbed: str) -> None:
    began = time.monotonic()
    last = run_extraction("losing", run, marks)
    assert last["lost"]
    assert last["digest"] == undisturbed
    assert time.monotonic() - began < 120
    require_whole(run, marks, undisturbed)


@pytest.mark.faults
def test_preempted_node__finishes_what_it_has_begun_and_gets_no_more(
    run: RunDir, marks: str, undisturbed: str
) -> None:
    last = run_extraction("draining", run, marks)
    assert last["digest"] == undisturbed
    # Not one shard was lost on the way; its actor made way while others were still to compute, and
    # so the node went before its time was up.
    assert last["failures"] == 0
    assert len(passed(marks, "started")) == PROMPTS // SHARD
    assert last["shards_left"] > 0
    assert last["seconds"] < GRACE_SECONDS
    require_whole(run, marks, undisturbed, most=0)
