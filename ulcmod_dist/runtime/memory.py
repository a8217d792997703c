"""Memory of this machine, as far as this process may use it."""

import resource
from contextlib import suppress
from pathlib import Path

import psutil

_CGROUP_LIMITS = ("memory/memory.limit_in_bytes", "memory.max", "memory.high")


def machine_memory() -> int:
    """Bytes of this machine, or fewer by a limit on the container or on resident memory.

    As `distributed.system.MEMORY_LIMIT`, whose package takes half a second to import.
    """
    limits = [int(psutil.virtual_memory().total), resource.getrlimit(resource.RLIMIT_RSS)[1]]
    for name in _CGROUP_LIMITS:
        # A limit that is not set reads "max", or is no file.
        with suppress(OSError, ValueError):
            limits.append(int(Path("/sys/fs/cgroup", name).read_text()))
    return min(limit for limit in limits if limit > 0)
