"""SIGTERM, which batch systems, Ray Jobs and Kubernetes send before they kill a process.

By default it ends the work at once, as Ctrl-C does: the lease is released, and commits stay. Code
that is about to commit defers it and gets a grace period to finish.
"""

import contextlib
import signal
from collections.abc import Callable, Iterator

EXIT_CODE = 128 + signal.SIGTERM
GRACE_SECONDS = 25.0
"""Below the 30 s that Slurm (KillWait) and Kubernetes wait by default before they send SIGKILL."""


class Terminated(SystemExit):
    """SIGTERM was received. Not an `Exception`: code that handles errors must let it pass."""

    def __init__(self) -> None:
        super().__init__(EXIT_CODE)


def _terminate(*_: object) -> None:
    # Ray and `timeout` may both send SIGTERM; the second must not interrupt the clean-up.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Terminated


@contextlib.contextmanager
def exit_on_sigterm() -> Iterator[None]:
    """Raise `Terminated` on SIGTERM inside the block; for a program's main thread."""
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    except SystemExit as error:
        # Ray's own handler, active while Ray starts, exits with the bare signal number.
        if error.code == signal.SIGTERM:
            raise Terminated from error
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def defer_sigterm(grace: float = GRACE_SECONDS) -> Iterator[Callable[[], bool]]:
    """Let the block finish after SIGTERM; inside `exit_on_sigterm`.

    Yields a function that tells whether SIGTERM was received. `Terminated` is then raised at the
    end of the block, or when the grace period is over. No-op if another SIGTERM handler is
    installed. ``grace`` is in seconds.
    """
    if signal.getsignal(signal.SIGTERM) is not _terminate:
        yield lambda: False
        return
    received = False

    def receive(*_: object) -> None:
        nonlocal received
        if not received:
            received = True
            signal.setitimer(signal.ITIMER_REAL, grace)

    alarm = signal.signal(signal.SIGALRM, _terminate)
    signal.signal(signal.SIGTERM, receive)
    try:
        yield lambda: received
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, alarm)
        signal.signal(signal.SIGTERM, _terminate)
        if received:
            raise Terminated


@contextlib.contextmanager
def preserve_sigterm_handler() -> Iterator[None]:
    """Restore the SIGTERM handler after a library replaces it, as ``ray.init`` does."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if callable(before) and signal.getsignal(signal.SIGTERM) is not before:
            signal.signal(signal.SIGTERM, before)
