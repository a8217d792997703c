"""A search killed anywhere ends, resumed, as an uninterrupted one."""

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.iterd.killed import run

PLACES = [("sweep", 7), ("pass", 2), ("checkpoint", 3)]


@pytest.mark.faults
@pytest.mark.parametrize(("place", "calls"), PLACES)
@pytest.mark.parametrize("mode", ["exact", "blockwise"])
def test_discover__killed_and_resumed_equals_uninterrupted(
    tmp_path: Path, mode: str, place: str, calls: int
) -> None:
    arguments = [str(tmp_path), mode, place, str(calls)]
    died = subprocess.run([sys.executable, "-m", "tests.iterd.killed", *arguments])
    assert died.returncode == -signal.SIGKILL
    (whole := tmp_path / "whole").mkdir()
    expected, found = run(whole, mode), run(tmp_path, mode)
    assert np.array_equal(expected.sample_labels, found.sample_labels)
    assert np.array_equal(expected.unit_labels, found.unit_labels)
    assert len(expected.history) == len(found.history)
