"""The command-line tools of clusters: kubectl and Slurm's own."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Sequence

from ulcmod_dist.errors import UlcmodError


def available(tool: str) -> bool:
    """Whether a tool can be called here."""
    return shutil.which(tool) is not None


def call(command: Sequence[str], *, given: str | None = None) -> str:
    """Call a tool and return what it prints.

    Args:
        command: The tool and its arguments, all of which show in the list of processes.
        given: Text for its standard input, which shows nowhere.

    Raises:
        UlcmodError: The tool is not there, or failed; the message holds what it said.
    """
    _require(command[0])
    done = subprocess.run(list(command), input=given, capture_output=True, text=True, check=False)
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split())
        raise UlcmodError(f"{' '.join(command[:2])} failed ({done.returncode}): {said}.")
    return done.stdout


def stream(command: Sequence[str]) -> Iterator[str]:
    """Call a tool and hand on what it prints, line by line as it prints it.

    Raises:
        UlcmodError: The tool is not there, or failed after what it printed.
    """
    _require(command[0])
    with subprocess.Popen(list(command), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield from process.stdout
    if process.returncode:
        raise UlcmodError(f"{' '.join(command[:2])} failed ({process.returncode}).")


def _require(tool: str) -> None:
    if not available(tool):
        raise UlcmodError(
            f"{tool} is not installed here.",
            "Call this where it is, or print what would be sent with --dry-run and send it there.",
        )
