"""The command line: ``ulcmod``.

Results go to standard output, messages and progress to standard error, so that the output of
``--json`` can be piped. Exit codes: 0 success, 1 failure, 2 invalid command line, job or input
data, 3 finished with quarantined samples, 4 a rerun whose drift exceeds the job's limits, 143
terminated by SIGTERM.
"""

import errno
import logging
import sys

from obstore.exceptions import BaseError

from ulcmod_dist.cli import commands as commands  # registers the commands
from ulcmod_dist.cli.app import app, log_to_stderr
from ulcmod_dist.errors import UlcmodError, one_line
from ulcmod_dist.runtime.memory import reuse_freed_memory
from ulcmod_dist.runtime.signals import Terminated, exit_on_sigterm

__all__ = ["app", "main"]

FILE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)

logger = logging.getLogger(__name__)


def main() -> None:
    """Entry point: errors become one line, unless ``--debug`` is given anywhere."""
    words = sys.argv[1:]
    debug = "--debug" in words
    reuse_freed_memory()
    with log_to_stderr():
        try:
            with exit_on_sigterm():
                app(args=[word for word in words if word != "--debug"], prog_name="ulcmod")
        except Terminated:
            logger.error(
                "Stopped by SIGTERM. Committed results are kept; the same command resumes."
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
    is_local = isinstance(error, OSError) and error.errno in FILE_ERRORS
    if is_local or (isinstance(error, BaseError) and "LocalFileSystem" in str(error)):
        return (
            f"A file cannot be read or written: {one_line(error)}. Check the space on the disk and "
            "the permissions; the same command resumes."
        )
    if isinstance(error, MemoryError):
        return "This machine has no memory left. Lower discover.memory, or use a larger machine."
    if isinstance(error, BaseError):
        return (
            f"The object store failed: {one_line(error)}. Check the URL, the credentials in the "
            "environment and the network; the same command resumes."
        )
    return f"{type(error).__name__}: {one_line(error)}. Run with --debug for the traceback."
