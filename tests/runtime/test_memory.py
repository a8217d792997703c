"""The memory that this process may use, and what it does with freed memory."""

import platform
import subprocess
import sys

import pytest
from distributed.system import memory_limit

from ulcmod_dist.runtime.memory import machine_memory

FREED = """
import sys
import numpy as np, psutil
from ulcmod_dist.runtime.memory import release_freed_memory, reuse_freed_memory
if sys.argv[1] == "reuse":
    reuse_freed_memory()
resident = lambda: psutil.Process().memory_info().rss >> 20
before = resident()
blocks = [np.ones(2**20) for _ in range(16)]
del blocks
print(resident() - before)
release_freed_memory()
print(resident() - before)
"""


def test_machine_memory__is_what_distributed_finds() -> None:
    assert machine_memory() == memory_limit()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other libraries have no such option")
@pytest.mark.parametrize(("how", "least", "most"), [("reuse", 120, 140), ("as it is", 0, 20)])
def test_freed_memory__is_kept_for_reuse_until_it_is_released(
    how: str, least: int, most: int
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FREED, how], capture_output=True, text=True, check=True
    )
    kept, released = map(int, done.stdout.split())
    assert least <= kept <= most
    assert released < 20
