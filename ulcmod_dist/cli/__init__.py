"""The command line: ``ulcmod``. Parses words, calls one stage, prints its answer.

Results go to standard output, progress and errors to standard error, so that ``--json`` can be
piped. Exit codes: 0 done, 1 failed, 2 wrong usage or invalid job, 3 finished with quarantined
samples, 4 a rerun after which the modules have drifted, 143 stopped by SIGTERM.
"""

from __future__ import annotations

import sys

from obstore.exceptions import BaseError

# Importing them adds their commands to the program.
from ulcmod_dist.cli import clusters as clusters
from ulcmod_dist.cli import runs as runs
from ulcmod_dist.cli.words import app, progress
from ulcmod_dist.errors import UlcmodError, one_line
from ulcmod_dist.runtime.signals import Stopped, exit_on_sigterm

__all__ = ["app", "main"]


def main() -> None:
    """Entry point: errors become one clear line, unless ``--debug`` stands anywhere."""
    words = sys.argv[1:]
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    try:
        with exit_on_sigterm():
            app(args=words, prog_name="ulcmod")
    except Stopped:
        progress().fail(
            "Stopped by SIGTERM. What was committed stays; the same command continues from there."
        )
        raise
    except UlcmodError as error:
        if debug:
            raise
        progress().fail(str(error))
        sys.exit(error.exit_code)
    except BaseError as error:
        if debug:
            raise
        progress().fail(
            f"The object store fails: {one_line(error)}. Check the URL, the credentials in the "
            "environment and the network; the same command continues from there."
        )
        sys.exit(1)
    except Exception as error:
        if debug:
            raise
        kind, said = type(error).__name__, one_line(error)
        progress().fail(f"{kind}: {said}. Repeat with --debug for the traceback.")
        sys.exit(1)
