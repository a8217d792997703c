"""One process writes a run; one whose lease was taken over commits nothing more."""

import multiprocessing
import multiprocessing.queues
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ulcmod_dist.runtime.lease import Fence, Lease, LeaseHeld, LeaseLost, read_holder
from ulcmod_dist.runtime.rundir import RunDir

IDENTIFY = "ulcmod_dist.runtime.lease._identify_machine"
INTERVAL = 0.1

HOLD = """
import sys, time
from ulcmod_dist.runtime.lease import Lease
from ulcmod_dist.runtime.rundir import RunDir
Lease.acquire(RunDir.at(sys.argv[1]), "extract")
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir.at(tmp_path / "run")


def test_lease__a_second_process_learns_the_holder_within_ten_seconds(run: RunDir) -> None:
    with Lease.acquire(run, "extract"):
        began = time.monotonic()
        with pytest.raises(LeaseHeld, match=rf"process {os.getpid()} on .*ulcmod extract"):
            Lease.acquire(run, "discover")
        assert time.monotonic() - began < 10


def test_lease__a_released_one_is_free_at_once(run: RunDir) -> None:
    Lease.acquire(run, "extract").release()
    assert read_holder(run) is None
    began = time.monotonic()
    Lease.acquire(run, "extract").release()
    assert time.monotonic() - began < 2


def test_lease__a_killed_process_on_this_machine_holds_nothing(run: RunDir) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, run.url], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        assert (read_holder(run) or {})["alive"] is True
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert (read_holder(run) or {})["alive"] is False
    began = time.monotonic()
    with Lease.acquire(run, "extract"):
        assert time.monotonic() - began < 2


def test_lease__an_abandoned_one_of_another_machine_is_taken_over_and_fenced(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Lease.acquire(run, "extract", renew_interval=INTERVAL, timeout=0.6)
    first.fence.check()
    # The holder stops beating, as on a machine that was cut off.
    first._stop.set()
    assert first._thread is not None
    first._thread.join()
    monkeypatch.setattr(IDENTIFY, lambda: "another machine")
    second = Lease.acquire(run, "extract", renew_interval=INTERVAL, timeout=0.6)
    second.fence.check()
    with pytest.raises(LeaseLost, match="taken over by process"):
        first.fence.check()
    first.release()
    second.fence.check()
    second.release()


def test_lease__a_renewed_one_of_another_machine_is_respected(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Lease.acquire(run, "extract", renew_interval=INTERVAL, timeout=0.6):
        monkeypatch.setattr(IDENTIFY, lambda: "another machine")
        with pytest.raises(LeaseHeld):
            Lease.acquire(run, "extract", timeout=2.0)


def _try(url: str, results: "multiprocessing.queues.Queue[str]") -> None:
    try:
        lease = Lease.acquire(RunDir(url), "extract")
    except LeaseHeld:
        results.put("held")
    else:
        results.put("got it")
        time.sleep(2)
        lease.release()


def test_lease__of_several_at_once_exactly_one_gets_it(run: RunDir) -> None:
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    processes = [context.Process(target=_try, args=(run.url, results)) for _ in range(3)]
    for process in processes:
        process.start()
    answers = sorted(results.get(timeout=30) for _ in processes)
    for process in processes:
        process.join()
    assert answers == ["got it", "held", "held"]


def test_fence__an_epoch_that_was_deleted_is_still_lost(run: RunDir) -> None:
    for _ in range(4):
        Lease.acquire(run, "extract").release()
    with pytest.raises(LeaseLost):
        Fence(run, 1).check()
    assert len(list(run.keys("lease"))) <= 4
