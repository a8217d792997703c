"""The command line: ``ulcmod``. Parses words, calls one stage, prints its answer.

Results go to standard output, progress and errors to standard error, so that ``--json`` can be
piped. Exit codes: 0 done, 1 failed, 2 wrong usage or invalid job, 3 finished with quarantined
samples, 4 a rerun after which the modules have drifted, 143 stopped by SIGTERM.
"""

from __future__ import annotations

import logging
import sys

from obstore.exceptions import BaseError

# Importing them adds their commands to the program.
from ulcmod_dist.cli import clusters as clusters
from ulcmod_dist.cli import runs as runs
from ulcmod_dist.cli.app import app, log_to_stderr
from ulcmod_dist.errors import UlcmodError, one_line
from ulcmod_dist.runtime.signals import Terminated, exit_on_sigterm

__all__ = ["app", "main"]

logger = logging.getLogger(__name__)


def main() -> None:
    """Entry point: errors become one clear line, unless ``--debug`` is given anywhere."""
    words = sys.argv[1:]
    debug = "--debug" in words
    with log_to_stderr():
        try:
            with exit_on_sigterm():
                app(args=[word for word in words if word != "--debug"], prog_name="ulcmod")
        except Terminated:
            logger.error(
                "Stopped by SIGTERM. What was committed stays; the same command continues from "
                "there."
            )
            raise
        except Exception as error:
            if debug:
                raise
            logger.error(_explain(error))
            sys.exit(error.exit_code if isinstance(error, UlcmodError) else 1)


def _explain(error: Exception) -> str:
    if isinstance(error, UlcmodError):
        return str(error)
    if isinstance(error, BaseError):
        return (
            f"The object store fails: {one_line(error)}. Check the URL, the credentials in the "
            "environment and the network; the same command continues from there."
        )
    return f"{type(error).__name__}: {one_line(error)}. Repeat with --debug for the traceback."
