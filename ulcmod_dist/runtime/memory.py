"""Memory of this machine, as far as this process may use it."""

import ctypes
import resource
from contextlib import suppress
from pathlib import Path

import psutil

# Options of glibc's mallopt(3), and their values: memory at the top of the heap is given back only
# above 2 GiB, blocks below 32 MiB (the most it takes) are of the heap, and all threads share it.
_MALLOC_OPTIONS = {-1: 2**31 - 1, -3: 2**25, -8: 1}
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


def reuse_freed_memory() -> None:
    """Let this process use the memory of freed arrays again, in place of giving it back.

    Clearing new pages is a third of the time of a small pass, and a fifth of an iteration over a
    store in the page cache. Threads that began before keep a heap of their own, so that the command
    line calls this first. The options stay set. Only where glibc is.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        for option, value in _MALLOC_OPTIONS.items():
            libc.mallopt(option, value)


def release_freed_memory() -> None:
    """Give all memory that is free back to the system."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)
