"""SIGKILL of driver, actor and raylet at every point of a shard's life, and at random moments."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray

from tests.faults.killing import POINTS, PROMPTS, VICTIMS, Killer, extraction, passed
from ulcmod_dist.corpus.digests import to_hex
from ulcmod_dist.runtime.rundir import RunDir
from ulcmod_dist.store.records import read_commits
from ulcmod_dist.store.shards import read_prompts
from ulcmod_dist.store.snapshot import open_snapshot
from ulcmod_dist.store.verify import verify

ACTORS = 2
LIMIT = 240.0


@pytest.fixture(scope="session")
def undisturbed(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Digest of the store of a run in which nothing happened."""
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "marks").mkdir()
    done = extraction(RunDir.at(folder / "run"), Killer(str(folder / "marks")), None, 0.0)
    return done.snapshot.digest


@pytest.fixture
def marks(tmp_path: Path) -> str:
    (tmp_path / "marks").mkdir()
    return str(tmp_path / "marks")


def driver(
    run: RunDir,
    marks: str,
    *,
    point: str = "",
    victim: str = "",
    after: int = 2,
    seconds: float = 0.02,
) -> subprocess.Popen[str]:
    """Start the extraction as a process; a raylet that dies must not be everybody's."""
    address = "" if victim == "raylet" else ray.get_runtime_context().gcs_address
    command = [sys.executable, "-m", "tests.faults.killing", run.url, marks, point, victim]
    return subprocess.Popen(
        [*command, address, str(after), str(seconds)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def orphans(driver: int) -> list[int]:
    """Actors that a dead driver has left, in this process's Ray or in one of its own.

    Those of other tests, which may run beside this one, are none.
    """
    below = {child.pid for child in psutil.Process().children(recursive=True)}
    actors = [p for p in psutil.process_iter(["name"]) if p.info["name"].startswith("ray::Worker")]
    return [p.pid for p in actors if p.pid in below or session(p.pid) == driver]


def session(process: int) -> int | None:
    """The first process of the session that a process belongs to; None where it has ended."""
    with suppress(ProcessLookupError):
        return os.getsid(process)
    return None


def await_end_of_orphans(driver: int) -> None:
    end = time.monotonic() + 30
    while orphans(driver) and time.monotonic() < end:
        time.sleep(0.1)


def require_whole(run: RunDir, marks: str, undisturbed: str, most: int = ACTORS) -> None:
    view = open_snapshot(run)
    assert view.digest == undisturbed
    assert view.sample_ids() == [f"s{number}" for number in range(PROMPTS)]
    assert verify(run).findings == ()
    commits = list(read_commits(run).values())
    rows = Counter(name for prompts in read_prompts(run, commits) for name in to_hex(prompts))
    assert set(rows.values()) == {1}
    computed = Counter(passed(marks, "computed"))
    assert sum(computed.values()) - len(computed) <= most


def kill_and_resume(run: RunDir, marks: str, point: str, victim: str) -> None:
    if victim == "actor":
        extraction(run, Killer(marks, point, victim), None, 0.02)
    else:
        with driver(run, marks, point=point, victim=victim) as process:
            process.communicate(timeout=LIMIT)
        assert Path(marks, "killed").exists()
        # A new process takes longer to start than Ray to end the actors of a dead one.
        await_end_of_orphans(process.pid)
        # Without its raylet a driver may still end well: the actors outlive it for a while.
        assert victim == "raylet" or process.returncode == -signal.SIGKILL
        extraction(run, Killer(marks), None, 0.02)


def often(*values: object, when: bool) -> Any:
    """A case of the fault tests which, under a condition, is one of the suite as well."""
    return pytest.param(*values, marks=pytest.mark.sample if when else ())


@pytest.mark.faults
@pytest.mark.parametrize(
    ("point", "victim"),
    [
        often(point, victim, when=victim == VICTIMS[number % 3])
        for number, point in enumerate(POINTS)
        for victim in VICTIMS
    ],
)
def test_kill__at_a_point_of_a_shards_life(
    run: RunDir, marks: str, undisturbed: str, point: str, victim: str
) -> None:
    kill_and_resume(run, marks, point, victim)
    require_whole(run, marks, undisturbed)


@pytest.mark.faults
@pytest.mark.parametrize("number", [often(n, when=n < len(VICTIMS)) for n in range(20)])
def test_kill__at_a_random_moment(run: RunDir, marks: str, undisturbed: str, number: int) -> None:
    chance = random.Random(number)
    victim = VICTIMS[number % 3]
    point, after = chance.choice(POINTS), chance.randrange(8)
    with driver(run, marks, point=point, victim=victim, after=after) as process:
        if victim == "driver":
            # Not at a point at all, but after a time.
            time.sleep(chance.uniform(0.5, 12.0))
            process.kill()
        process.communicate(timeout=LIMIT)
    extraction(run, Killer(marks), None, 0.02)
    require_whole(run, marks, undisturbed)
