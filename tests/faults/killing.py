"""An extraction in which a process is killed at a chosen point of a shard's life."""

import json
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.extract.fakes import RECORD, UNITS, FakeForward, fake, prompts_of, words
from ulcmod_dist.config.schema import ExtractConfig
from ulcmod_dist.extract.driver import ExtractionResult, extract, prepare
from ulcmod_dist.extract.monitor import ExtractionProgress
from ulcmod_dist.runtime.lease import Lease
from ulcmod_dist.runtime.rundir import RunDir

POINTS = ("started", "halfway", "computed", "written", "checked", "committed")
VICTIMS = ("actor", "driver", "raylet")
PROMPTS = 40
SHARD = 4


@dataclass(frozen=True)
class Killer:
    """Notes every point of every shard, and kills once.

    Attributes:
        folder: Gets a file for each point of each shard, and one that says the deed is done.
        point: Where it strikes, or "" for nowhere.
        victim: actor, driver or raylet.
        driver: Process of the driver.
        after: How many times the point is passed before.
    """

    folder: str
    point: str = ""
    victim: str = ""
    driver: int = 0
    after: int = 2

    def __call__(self, point: str, digest: str) -> None:
        (Path(self.folder) / f"{point}-{digest}-{time.time_ns()}").touch()
        if point != self.point or len(passed(self.folder, point)) <= self.after:
            return
        try:
            (Path(self.folder) / "killed").touch(exist_ok=False)
        except FileExistsError:
            return
        self._strike()

    def _strike(self) -> None:
        me = psutil.Process()
        victims = {"actor": me.pid, "driver": self.driver, "raylet": me.ppid()}
        os.kill(victims[self.victim], signal.SIGKILL)
        # Whoever is left goes on, as it would in a real accident.


def passed(folder: str, point: str) -> list[str]:
    """Digests of the shards that passed a point, once for each time."""
    return [path.name.split("-")[1] for path in Path(folder).glob(f"{point}-*")]


def extraction(
    run: RunDir, killer: Killer, address: str | None, seconds: float, **options: Any
) -> ExtractionResult:
    """The extraction that all these tests make."""
    config = {"cpus": 0.5, "workers": 2, "address": address}
    config |= {name: options.pop(name) for name in config if name in options}
    options.setdefault("on_progress", require_no_prompt_counted_twice)
    prompts = prompts_of(words(PROMPTS), test=PROMPTS // 5)
    prepared = prepare(
        run, prompts, FakeForward(), UNITS, RECORD, shard_samples=SHARD, batch_tokens=64
    )
    with Lease.acquire(run, "extract") as lease:
        return extract(
            run,
            prepared,
            fake(seconds=seconds),
            ExtractConfig(**config),
            fence=lease.fence,
            on_event=killer,
            **options,
        )


def require_no_prompt_counted_twice(progress: ExtractionProgress) -> None:
    assert progress.prompts_done <= progress.prompts
    assert progress.tokens_done <= progress.tokens


def main() -> None:
    """Run as a process of its own: RUN FOLDER POINT VICTIM ADDRESS AFTER SECONDS."""
    url, folder, point, victim, address, after, seconds = sys.argv[1:]
    killer = Killer(folder, point, victim, os.getpid(), int(after))
    done = extraction(RunDir(url), killer, address or None, float(seconds))
    print(json.dumps({"digest": done.snapshot.digest, "exit": done.exit_code}), flush=True)


if __name__ == "__main__":
    main()
