"""Ray's memory monitor ends the actors: the machine is to blame, and the next command goes on."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.extract.fakes import expected, words
from ulcmod_dist.runtime.rundir import RunDir
from ulcmod_dist.store.records import read_quarantine
from ulcmod_dist.store.snapshot import open_snapshot

HEADROOM = 2 * 2**30  # above what is in use now; an actor takes less until it eats
SCRIPT = """
import sys
from tests.extract.fakes import RECORD, UNITS, FakeForward, fake, prompts_of, words
from ulcmod_dist.config.schema import ExtractConfig
from ulcmod_dist.errors import UlcmodError
from ulcmod_dist.extract.driver import extract, prepare
from ulcmod_dist.runtime.lease import Lease
from ulcmod_dist.runtime.rundir import RunDir

run, illness = RunDir(sys.argv[1]), sys.argv[2]
plan = {"shard_samples": 4, "batch_tokens": 64}
prepared = prepare(run, prompts_of(words(8)), FakeForward(), UNITS, RECORD, **plan)
load_model = fake(poison={"prompt": "eat"}, illness=illness)
with Lease.acquire(run, "extract") as lease:
    try:
        extract(run, prepared, load_model, ExtractConfig(workers=1), fence=lease.fence)
    except UlcmodError as error:
        print(error)
"""


@pytest.mark.faults
def test_extract__low_memory_is_the_machines_and_the_next_command_goes_on(tmp_path: Path) -> None:
    (illness := tmp_path / "illness").touch()
    run, memory = RunDir.at(tmp_path / "run"), psutil.virtual_memory()
    share = (memory.total - memory.available + HEADROOM) / memory.total
    for environment, shown in (({"RAY_memory_usage_threshold": f"{share:.3f}"}, True), ({}, False)):
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, run.url, str(illness)],
            env=os.environ | environment,
            capture_output=True,
            text=True,
            check=True,
            timeout=300,
        )
        assert ("has run out of memory" in done.stdout) == shown, done.stdout + done.stderr
        assert ("continues where it stopped" in done.stdout) == shown
        assert read_quarantine(run) == {}
        illness.unlink(missing_ok=True)
    rows = open_snapshot(run).activations().raw.compute()
    np.testing.assert_array_equal(rows, expected(words(8)))
