"""The lease on a run directory: one writer at a time, and a fence against earlier ones.

A lease is a number, its epoch. The process that creates ``lease/<epoch>.json`` holds the run and
renews ``lease/<epoch>.beat.json``, its heartbeat. When the heartbeat stops changing, another
process may create the next epoch; from then on the old one is fenced off, since every commit first
checks that no higher epoch exists. This needs only create-if-absent, which local disks and object
stores both have, and never compares the clocks of two machines.
"""

import contextlib
import os
import re
import socket
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import psutil

from ulcmod_dist.errors import UlcmodError
from ulcmod_dist.runtime.rundir import KeyExists, RunDir, canonical_json

FOLDER = "lease"

RENEW_INTERVAL = 1.5
"""Seconds between two heartbeats."""

TIMEOUT = 8.0
"""Seconds without a heartbeat after which a lease is abandoned: several intervals, and below 10 s,
so that a second command on the run fails soon."""

_EPOCH = re.compile(rf"{FOLDER}/(\d+)\.json")


class LeaseHeld(UlcmodError):
    """Another process holds the lease on the run."""


class LeaseLost(UlcmodError):
    """Another process has taken the lease over; this one must not commit any more."""


@dataclass(frozen=True)
class Fence:
    """Checks before each commit that a lease still holds; cheap to pickle, for workers."""

    run: RunDir
    epoch: int

    def check(self) -> None:
        """Raise `LeaseLost` if a higher epoch exists."""
        newest = max(_list_epochs(self.run), default=0)
        if newest > self.epoch:
            raise LeaseLost(
                f"The run {self.run.url} was taken over by {_describe_holder(self.run, newest)}.",
                "This process commits nothing more; what it has committed stays.",
            )


@dataclass
class Lease:
    """A lease held by this process; a context manager that releases it."""

    fence: Fence
    renew_interval: float = RENEW_INTERVAL
    _beats: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    @classmethod
    def acquire(
        cls,
        run: RunDir,
        purpose: str,
        *,
        renew_interval: float = RENEW_INTERVAL,
        timeout: float = TIMEOUT,
    ) -> Self:
        """Acquire the lease on a run, or take an abandoned one over.

        The purpose is for people: what the holder does, such as the command's name. ``timeout`` is
        how many seconds to wait for another holder's heartbeat.

        Raises:
            LeaseHeld: Another process holds it; the message names process and host.
        """
        current = max(_list_epochs(run), default=0)
        if current and not _is_abandoned(run, current, timeout):
            # Another process may have taken this epoch over meanwhile and deleted it.
            raise _lease_held(run, max(_list_epochs(run)))
        try:
            run.create(_holder_key(current + 1), canonical_json(_identify_process(purpose)))
        except KeyExists as error:
            raise _lease_held(run, current + 1) from error
        newest = max(_list_epochs(run))
        if newest > current + 1:
            # This epoch was held, released and deleted by others since it was listed as free.
            raise _lease_held(run, newest)
        for epoch in (each for each in _list_epochs(run) if each <= current):
            run.delete(_beat_key(epoch))
            run.delete(_holder_key(epoch))
        lease = cls(Fence(run, current + 1), renew_interval)
        lease._write_beat()
        lease._thread = threading.Thread(target=lease._renew, name="lease", daemon=True)
        lease._thread.start()
        return lease

    def release(self) -> None:
        """Release the lease, so that the next process need not wait for the timeout."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        # A full disk must not hide the error that ended the work; an unreleased lease times out.
        with contextlib.suppress(Exception):
            self._write_beat(released=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def _renew(self) -> None:
        while not self._stop.wait(self.renew_interval):
            self._beats += 1
            # A store that fails once is tried again at the next heartbeat.
            with contextlib.suppress(Exception):
                self._write_beat()

    def _write_beat(self, *, released: bool = False) -> None:
        # The time is for people: other processes only check whether the heartbeat changes.
        beat = {"beats": self._beats, "released": released, "time": time.time()}
        self.fence.run.write_json(_beat_key(self.fence.epoch), beat)


def read_holder(run: RunDir) -> dict[str, Any] | None:
    """The process that holds the lease, or held it last without releasing it; or None.

    With process id, host, purpose, time of the start and of the last heartbeat (seconds since 1970,
    by the holder's clock), and ``alive``: False if the process is known to have ended.
    """
    epoch = max(_list_epochs(run), default=0)
    beat = _read(run, _beat_key(epoch))
    if not epoch or beat.get("released"):
        return None
    holder = _read(run, _holder_key(epoch))
    return {
        **{key: holder.get(key) for key in ("pid", "host", "purpose", "started")},
        "beat": beat.get("time"),
        "alive": not _has_ended(holder),
    }


def _is_abandoned(run: RunDir, epoch: int, timeout: float) -> bool:
    """Whether a lease was released, its process has ended, or its heartbeat has stopped."""
    if _has_ended(_read(run, _holder_key(epoch))):
        return True
    first = _read(run, _beat_key(epoch))
    deadline = time.monotonic() + timeout
    while True:
        beat = _read(run, _beat_key(epoch))
        if beat.get("released"):
            return True
        if beat != first:
            return False
        if time.monotonic() >= deadline:
            return True
        time.sleep(timeout / 16)


def _identify_process(purpose: str) -> dict[str, Any]:
    process = psutil.Process()
    return {
        "host": socket.gethostname(),
        "machine": _identify_machine(),
        "pid": process.pid,
        "create_time": process.create_time(),
        "purpose": purpose,
        "started": time.time(),
    }


def _identify_machine() -> str:
    """Equal for two processes exactly if one can look up the other's process id."""
    try:
        # Containers share the kernel's boot id, and not the namespace of process ids.
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return f"{socket.gethostname()} {psutil.boot_time():.0f}"


def _has_ended(holder: dict[str, Any]) -> bool:
    """Whether a holder's process ran on this machine and has ended."""
    if holder.get("machine") != _identify_machine():
        return False
    try:
        process = psutil.Process(holder["pid"])
        # The system reuses process ids; the creation time tells the processes apart.
        reused = holder.get("create_time") not in (None, process.create_time())
        return bool(reused or process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def _list_epochs(run: RunDir) -> list[int]:
    matches = (_EPOCH.fullmatch(key) for key, _ in run.keys(FOLDER))
    return [int(match[1]) for match in matches if match]


def _holder_key(epoch: int) -> str:
    return f"{FOLDER}/{epoch:06d}.json"


def _beat_key(epoch: int) -> str:
    return f"{FOLDER}/{epoch:06d}.beat.json"


def _read(run: RunDir, key: str) -> dict[str, Any]:
    try:
        value = run.read_json(key)
    except FileNotFoundError:
        return {}
    return value if isinstance(value, dict) else {}


def _lease_held(run: RunDir, epoch: int) -> LeaseHeld:
    return LeaseHeld(
        f"The run {run.url} is in use by {_describe_holder(run, epoch)}.",
        "Wait for it to end, or stop it.",
    )


def _describe_holder(run: RunDir, epoch: int) -> str:
    holder = _read(run, _holder_key(epoch))
    started = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(holder.get("started", 0)))
    return (
        f"process {holder.get('pid', '?')} on {holder.get('host', '?')} "
        f"(ulcmod {holder.get('purpose', '?')}, since {started})"
    )
