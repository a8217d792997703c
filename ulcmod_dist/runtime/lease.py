"""The lease on a run directory: one writer at a time, and a fence against the one before.

A lease is a number, its epoch. Whoever creates ``lease/<epoch>.json`` first holds the run; the
holder renews ``lease/<epoch>.beat.json``. A lease whose beat stands still has no holder any more:
the next epoch may be created, and from then on the old one is fenced off, since whatever commits
asks first whether a higher epoch exists. Only create-if-absent is needed, which local disks and
object stores both have, and no two clocks are ever compared.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from ulcmod_dist.errors import UlcmodError
from ulcmod_dist.runtime.rundir import KeyExists, RunDir, canonical_json

FOLDER = "lease"
_EPOCH = re.compile(rf"{FOLDER}/(\d+)\.json")


class LeaseHeld(UlcmodError):
    """Another process works on the run."""


class LeaseLost(UlcmodError):
    """Another process has taken the run over; this one may not commit any more."""


@dataclass(frozen=True)
class Timing:
    """How often a holder renews its lease, and how long a beat may stand still.

    Attributes:
        beat: Seconds between two beats.
        patience: Seconds without a beat after which the lease counts as abandoned; above several
            beats and below the 10 s within which a second run has to give up.
    """

    beat: float = 1.5
    patience: float = 8.0


@dataclass(frozen=True)
class Fence:
    """What a worker holds of a lease: cheap to pickle, asked before each commit.

    Attributes:
        run: The run directory.
        epoch: The lease under which the worker was started.
    """

    run: RunDir
    epoch: int

    def check(self) -> None:
        """Return if the lease still holds.

        Raises:
            LeaseLost: A higher epoch exists.
        """
        newest = max(_epochs(self.run), default=0)
        if newest > self.epoch:
            holder = _read(self.run, _key(newest))
            raise LeaseLost(
                f"The run {self.run.url} was taken over by {_describe(holder)}.",
                "Nothing more is committed here; what was committed stays.",
            )


@dataclass
class Lease:
    """A held lease; a context manager that gives it back.

    Attributes:
        fence: What workers ask before they commit.
        timing: How often it is renewed.
    """

    fence: Fence
    timing: Timing
    _beats: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    @classmethod
    def acquire(cls, run: RunDir, purpose: str, timing: Timing | None = None) -> Self:
        """Take the run, or an abandoned lease over.

        Args:
            run: The run directory.
            purpose: What the holder does, for people, such as the command's name.
            timing: How often to renew and how long to wait for a beat.

        Raises:
            LeaseHeld: Another process holds it; the message names process and host.
        """
        timing = timing or Timing()
        current = max(_epochs(run), default=0)
        if current and not _abandoned(run, current, timing):
            # The newest may be another by now, whose holder has swept this one away.
            raise _held(run, max(_epochs(run)))
        try:
            run.create(_key(current + 1), canonical_json(_identity(purpose)))
        except KeyExists as error:
            raise _held(run, current + 1) from error
        newest = max(_epochs(run))
        if newest > current + 1:
            # Others came and went since the first look, and swept this epoch away.
            raise _held(run, newest)
        _sweep(run, below=current + 1)
        lease = cls(Fence(run, current + 1), timing)
        lease._start()
        return lease

    def release(self) -> None:
        """Give the lease back, so that the next holder need not wait."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        # A full disk must not hide the error that ended the work; an unreleased lease goes stale.
        with contextlib.suppress(Exception):
            self._write_beat(released=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()

    def _start(self) -> None:
        self._write_beat(released=False)
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._thread.start()

    def _renew(self) -> None:
        while not self._stop.wait(self.timing.beat):
            self._beats += 1
            try:
                self._write_beat(released=False)
            except Exception:  # noqa: S112 - a store that fails once is asked again
                continue

    def _write_beat(self, *, released: bool) -> None:
        beat = {"beats": self._beats, "released": released, "time": time.time()}
        self.fence.run.write_json(_beat_key(self.fence.epoch), beat)


def holder(run: RunDir) -> dict[str, Any] | None:
    """Who holds the run, or held it last without giving it back; None if nobody does.

    Returns:
        Process, host, purpose, time of the start and of the last beat (seconds since 1970, by the
        holder's clock), and ``alive``: False where the process is known to be gone.
    """
    epoch = max(_epochs(run), default=0)
    beat = _read(run, _beat_key(epoch))
    if not epoch or beat.get("released"):
        return None
    identity = _read(run, _key(epoch))
    return {
        **{key: identity.get(key) for key in ("pid", "host", "purpose", "started")},
        "beat": beat.get("time"),
        "alive": not _dead(identity),
    }


def _abandoned(run: RunDir, epoch: int, timing: Timing) -> bool:
    """Whether a lease was given back, its process is gone, or its beat stands still."""
    if _dead(_read(run, _key(epoch))):
        return True
    first = _read(run, _beat_key(epoch))
    end = time.monotonic() + timing.patience
    while True:
        beat = _read(run, _beat_key(epoch))
        if beat.get("released"):
            return True
        if beat != first:
            return False
        if time.monotonic() >= end:
            return True
        time.sleep(timing.beat / 3)


def _identity(purpose: str) -> dict[str, Any]:
    process = psutil.Process()
    return {
        "host": socket.gethostname(),
        "machine": _machine(),
        "pid": process.pid,
        "born": process.create_time(),
        "purpose": purpose,
        "started": time.time(),
    }


def _machine() -> str:
    """What is equal for two processes exactly if one can see whether the other lives."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return f"{socket.gethostname()} {psutil.boot_time():.0f}"


def _dead(identity: dict[str, Any]) -> bool:
    """Whether a holder's process ran on this machine and is there no more."""
    if identity.get("machine") != _machine():
        return False
    try:
        # A process id is reused in time; the moment of birth tells the processes apart.
        process = psutil.Process(identity["pid"])
        reborn = process.create_time() != identity["born"]
        return bool(reborn or process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def _epochs(run: RunDir) -> list[int]:
    found = (_EPOCH.fullmatch(key) for key, _ in run.keys(FOLDER))
    return [int(match[1]) for match in found if match]


def _sweep(run: RunDir, below: int) -> None:
    for epoch in _epochs(run):
        if epoch < below:
            run.delete(_beat_key(epoch))
            run.delete(_key(epoch))


def _key(epoch: int) -> str:
    return f"{FOLDER}/{epoch:06d}.json"


def _beat_key(epoch: int) -> str:
    return f"{FOLDER}/{epoch:06d}.beat.json"


def _read(run: RunDir, key: str) -> dict[str, Any]:
    try:
        value = run.read_json(key)
    except FileNotFoundError:
        return {}
    return value if isinstance(value, dict) else {}


def _held(run: RunDir, epoch: int) -> LeaseHeld:
    return LeaseHeld(
        f"The run {run.url} is in use by {_describe(_read(run, _key(epoch)))}.",
        "Wait for it to end, or stop it.",
    )


def _describe(identity: dict[str, Any]) -> str:
    started = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(identity.get("started", 0)))
    return (
        f"process {identity.get('pid', '?')} on {identity.get('host', '?')} "
        f"(ulcmod {identity.get('purpose', '?')}, since {started})"
    )
