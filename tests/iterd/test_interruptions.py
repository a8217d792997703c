"""A search killed anywhere ends, resumed, as an uninterrupted one."""

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest

from tests.iterd.killed import run
from ulcmod_dist.iterd.driver import discover
from ulcmod_dist.iterd.search import Checkpoint
from ulcmod_dist.passes.standardised import Standardised

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


def test_discover__resumed_from_any_iteration_answers_with_the_same_bytes() -> None:
    raw = np.random.default_rng(3).random((300, 240), np.float32)
    mean, std = raw.mean(axis=0, dtype=np.float64), raw.std(axis=0, ddof=1, dtype=np.float64)
    lazy: Any = da.from_array(raw, chunks=(128, 240))
    activations = Standardised(lazy, mean, std)
    saved: list[Checkpoint] = []
    whole = discover(activations, 6, restarts=2, checkpoint=saved.append)
    assert len(saved) > 6
    for checkpoint in saved:
        found = discover(activations, 6, restarts=2, resume=checkpoint)
        assert found.best_restart == whole.best_restart
        assert found.objective == whole.objective
        for name in ("labels", "margins", "stability"):
            for side in ("unit", "sample"):
                answers = (getattr(modules, f"{side}_{name}") for modules in (found, whole))
                np.testing.assert_array_equal(*answers)
