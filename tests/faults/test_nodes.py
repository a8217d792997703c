"""A node is lost in mid-run."""

import json
import subprocess
import sys
import time

import pytest

from tests.faults.test_kills import marks, require_whole, undisturbed

__all__ = ["marks", "undisturbed"]


@pytest.mark.faults
def test_node_loss__the_run_goes_on_elsewhere(run, marks, undisturbed):
    began = time.monotonic()
    answer = subprocess.run(
        [sys.executable, "-m", "tests.faults.losing", run.url, marks],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    last = json.loads(answer.stdout.splitlines()[-1])
    assert last["lost"]
    assert last["digest"] == undisturbed
    assert time.monotonic() - began < 120
    require_whole(run, marks, undisturbed)
