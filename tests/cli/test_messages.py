"""Messages of the package's loggers reach standard error while a command runs."""

import logging
import threading

import pytest

from ulcmod_dist.cli.app import log_to_stderr


def test_messages__of_another_thread_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("ulcmod_dist.extract")
    with log_to_stderr():
        thread = threading.Thread(target=logger.warning, args=("A node is lost.",))
        thread.start()
        thread.join()
    assert capsys.readouterr().err == "Warning: A node is lost.\n"
