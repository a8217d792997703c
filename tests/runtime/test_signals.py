"""SIGTERM in this process."""

import os
import signal
import sys
import time

import pytest

from ulcmod_dist.runtime.signals import (
    EXIT_CODE,
    Terminated,
    defer_sigterm,
    exit_on_sigterm,
    preserve_sigterm_handler,
)


def ask() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_sigterm__ends_the_work_at_once_with_its_own_exit_code() -> None:
    before = signal.getsignal(signal.SIGTERM)
    went_on = False

    def work() -> None:
        nonlocal went_on
        with exit_on_sigterm():
            ask()
            went_on = True

    with pytest.raises(Terminated) as end:
        work()
    assert not went_on
    assert end.value.code == EXIT_CODE == 143
    assert signal.getsignal(signal.SIGTERM) is before


def test_sigterm__a_second_one_does_not_interrupt_the_cleanup() -> None:
    cleaned_up = False

    def work() -> None:
        nonlocal cleaned_up
        with exit_on_sigterm():
            try:
                ask()
            finally:
                ask()
                cleaned_up = True

    with pytest.raises(Terminated):
        work()
    assert cleaned_up


def test_defer__lets_the_block_finish() -> None:
    reached = False

    def work() -> None:
        nonlocal reached
        with exit_on_sigterm(), defer_sigterm() as asked:
            assert not asked()
            ask()
            ask()
            assert asked()
            reached = True

    with pytest.raises(Terminated):
        work()
    assert reached


def test_defer__ends_a_block_that_outlasts_the_grace_period() -> None:
    def work() -> None:
        with exit_on_sigterm(), defer_sigterm(grace=0.2):
            ask()
            time.sleep(30)

    began = time.monotonic()
    with pytest.raises(Terminated):
        work()
    assert time.monotonic() - began < 10


def test_defer__replaces_an_error_that_the_signal_caused() -> None:
    def work() -> None:
        with exit_on_sigterm(), defer_sigterm():
            ask()
            raise RuntimeError("the work was stopped")

    with pytest.raises(Terminated):
        work()


def test_defer__without_a_signal_changes_nothing() -> None:
    with exit_on_sigterm():
        with defer_sigterm():
            pass
        with pytest.raises(Terminated):
            ask()


def test_defer__keeps_a_handler_of_the_caller() -> None:
    came = []
    before = signal.signal(signal.SIGTERM, lambda *_: came.append(1))
    try:
        with defer_sigterm() as asked:
            ask()
            assert not asked()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert came == [1]


def test_handler__survives_a_library_that_sets_its_own() -> None:
    with exit_on_sigterm():
        with preserve_sigterm_handler():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        with pytest.raises(Terminated):
            ask()


def test_sigterm__counts_while_a_library_has_set_its_own_handler() -> None:
    def work() -> None:
        with exit_on_sigterm():
            sys.exit(signal.SIGTERM)

    with pytest.raises(Terminated):
        work()
