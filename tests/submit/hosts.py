"""Machines on this machine: each with its own address, processes and Ray, gone when the test ends.

A host is a set of Linux namespaces (network, processes, mounts, name) held by one sleeping
process; when that process ends, the kernel ends all others in it. So nothing in a host sees, or
can harm, what else runs on the machine.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

PROGRAMS = Path(sys.executable).parent
TOOLS = ("ip", "unshare", "nsenter", "setpriv")
# The first process of a machine has to take leave of orphans that have ended.
FIRST_PROCESS = """
import os, time
while True:
    try:
        os.wait()
    except ChildProcessError:
        time.sleep(0.1)
"""
needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or any(shutil.which(tool) is None for tool in TOOLS),
    reason=f"needs root and {', '.join(TOOLS)} for machines of its own",
)


@dataclass(frozen=True)
class Host:
    """One machine."""

    name: str
    address: str
    pid: int
    home: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    staying: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def command(self, words: Sequence[str], folder: Path | None = None) -> list[str]:
        """A command as it is called from outside, in a folder."""
        rooms = ("--net", "--pid", "--mount", "--uts", f"--wdns={folder or self.home}")
        return ["nsenter", f"--target={self.pid}", *rooms, "--", *words]

    def variables(self) -> dict[str, str]:
        """The environment of a command: none of this process's but its programs."""
        path = f"{PROGRAMS}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        fixed = {
            "PATH": path,
            "HOME": str(self.home),
            "LANG": "C.UTF-8",
            "OMP_NUM_THREADS": "1",
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        return fixed | dict(self.environment)

    def run(self, *words: str, cwd: Path | None = None, check: bool = True) -> str:
        """Call a command to its end and return what it printed."""
        done = subprocess.run(
            self.command(words, cwd),
            env=self.variables(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        if check and done.returncode:
            raise AssertionError(
                f"{words} ended with {done.returncode}: {done.stdout}{done.stderr}"
            )
        return done.stdout + done.stderr

    def start(self, *words: str, output: Path) -> None:
        """Call a command that stays until the host goes."""
        with output.open("ab") as log:
            process = subprocess.Popen(
                self.command(words),
                env=self.variables(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.staying.append(process)

    def cut_off(self) -> None:
        """Pull the network cable."""
        self.run("ip", "link", "set", "eth0", "down")


@contextlib.contextmanager
def network(number: int) -> Iterator[str]:
    """A switch at ``10.77.<number>.254``, on which hosts are plugged; yields its name."""
    bridge = f"ulc{number}"
    # A test that was killed leaves its switch behind.
    _ip_if_there("link", "delete", bridge)
    _ip("link", "add", bridge, "type", "bridge")
    try:
        _ip("address", "add", f"10.77.{number}.254/24", "dev", bridge)
        _ip("link", "set", bridge, "up")
        yield bridge
    finally:
        _ip("link", "delete", bridge)


@contextlib.contextmanager
def host(
    bridge: str, last: int, folder: Path, environment: Mapping[str, str] | None = None
) -> Iterator[Host]:
    """A machine on a switch, whose address ends with ``last``."""
    number = int(bridge.removeprefix("ulc"))
    name = f"{bridge}h{last}"
    home = folder / name
    home.mkdir(parents=True)
    address = f"10.77.{number}.{last}"
    # No name server: asking one that cannot be reached makes Ray wait.
    (home / "hosts").write_text(f"127.0.0.1 localhost\n{address} {name}\n")
    (home / "resolv.conf").touch()
    holder = _hold(name, home)
    staying: list[subprocess.Popen[bytes]] = []
    try:
        pid = _inside(holder.pid)
        _ip_if_there("link", "delete", f"{name}o")
        _ip("link", "add", f"{name}o", "type", "veth", "peer", "name", "eth0", "netns", str(pid))
        _ip("link", "set", f"{name}o", "master", bridge, "up")
        machine = Host(name, address, pid, home, environment or {}, staying)
        machine.run("ip", "link", "set", "lo", "up")
        machine.run("ip", "address", "add", f"{address}/24", "dev", "eth0")
        machine.run("ip", "link", "set", "eth0", "up")
        machine.run("ip", "route", "add", "default", "via", f"10.77.{number}.254")
        yield machine
    finally:
        holder.kill()
        holder.wait()
        for process in staying:
            process.wait()
        # The kernel may keep the namespace, and so the cable, for some time.
        _ip_if_there("link", "delete", f"{name}o")


def _hold(name: str, home: Path) -> subprocess.Popen[bytes]:
    """Start the process that holds the namespaces; Ray's own folder is a private one."""
    script = (
        f"hostname {name}; mkdir -p /tmp/ray; mount -t tmpfs tmpfs /tmp/ray; "
        f"mount -t tmpfs tmpfs /dev/shm; mount --bind {home}/hosts /etc/hosts; "
        f"mount --bind {home}/resolv.conf /etc/resolv.conf; touch {home}/up; "
        'exec "$0" -c "$1"'
    )
    holder = subprocess.Popen(
        # The host ends with the test, even when that is killed.
        ["setpriv", "--pdeathsig=KILL",
         "unshare", "--net", "--pid", "--mount", "--uts", "--fork", "--kill-child", "--mount-proc",
         "sh", "-c", script, sys.executable, FIRST_PROCESS],
        start_new_session=True,
    )  # fmt: skip
    wait_for(lambda: (home / "up").exists(), 20, "namespaces")
    return holder


def _inside(holder: int) -> int:
    """The first process inside, the only child of the one that made the namespaces."""
    children = Path(f"/proc/{holder}/task/{holder}/children").read_text().split()
    (child,) = children
    return int(child)


def _ip_if_there(*words: str) -> None:
    subprocess.run(["ip", *words], check=False, capture_output=True)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


def wait_for(condition: Callable[[], object], seconds: float, what: str) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {seconds} s")
        time.sleep(0.2)
