"""Memory that is free within the process, given back to the system."""

from __future__ import annotations

import contextlib
import ctypes


def malloc_trim() -> None:
    """Give back what the C library keeps of freed memory, where it can be asked to.

    glibc keeps freed pieces below 32 MiB for later. After a pass over 100,000 x 20,000 permuted
    cells these were 1.0 of 1.3 GB, and what followed came on top.
    """
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
