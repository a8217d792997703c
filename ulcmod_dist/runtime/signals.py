"""A request to end: SIGTERM, which batch systems, Ray Jobs and Kubernetes send before they kill.

It ends work where it stands, as Ctrl-C does: the lease is given back, and what is committed stays.
Work that is about to commit more heeds it instead, and is given a time of grace.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator

EXIT_CODE = 128 + signal.SIGTERM
GRACE_SECONDS = 25.0
"""Below the 30 s that Slurm (KillWait) and Kubernetes wait by default before they send SIGKILL."""


class Stopped(SystemExit):
    """SIGTERM came. No error: whatever catches errors must let it pass."""

    def __init__(self) -> None:
        super().__init__(EXIT_CODE)


def _end(*_: object) -> None:
    # Ray and `timeout` may both send it; a second one must not break the giving back of the lease.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Stopped


@contextlib.contextmanager
def exit_on_sigterm() -> Iterator[None]:
    """Inside, SIGTERM raises `Stopped`; for a program's main thread."""
    before = signal.signal(signal.SIGTERM, _end)
    try:
        yield
    except SystemExit as end:
        if end.code == signal.SIGTERM:  # what Ray's own handler ends with while Ray starts
            raise Stopped from end
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def defer_sigterm(grace: float = GRACE_SECONDS) -> Iterator[Callable[[], bool]]:
    """Inside ``exit_on_sigterm``, let the block see the request and end by itself.

    Yields what tells whether SIGTERM came. The block is then ended by `Stopped`: at its own end,
    or where it stands when the grace is used up. Where SIGTERM is somebody else's business, it
    stays so.

    Args:
        grace: Seconds.
    """
    if signal.getsignal(signal.SIGTERM) is not _end:
        yield lambda: False
        return
    asked = False

    def ask(*_: object) -> None:
        nonlocal asked
        if not asked:
            asked = True
            signal.setitimer(signal.ITIMER_REAL, grace)

    alarm = signal.signal(signal.SIGALRM, _end)
    signal.signal(signal.SIGTERM, ask)
    try:
        yield lambda: asked
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, alarm)
        signal.signal(signal.SIGTERM, _end)
        if asked:
            raise Stopped


@contextlib.contextmanager
def preserve_sigterm_handler() -> Iterator[None]:
    """Put back a handler of SIGTERM that a library replaces inside, as ``ray.init`` does."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if callable(before) and signal.getsignal(signal.SIGTERM) is not before:
            signal.signal(signal.SIGTERM, before)
