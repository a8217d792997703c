"""What KubeRay and Slurm share: templates of their files, and calls of their command-line tools."""

import math
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import yaml

from ulcmod_dist.errors import UlcmodError


@cache
def _get_environment() -> jinja2.Environment:
    package = Path(__file__).parent.parent
    # In a checkout the folder is beside the package.
    folders = [package / "cluster", package.parent / "cluster"]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folders),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - the filters below escape for YAML and for the shell
    )
    environment.filters["yaml"] = _quote_yaml
    environment.filters["block"] = _indent_block
    environment.filters["shell"] = lambda value: shlex.quote(str(value))
    return environment


def _quote_yaml(value: str) -> str:
    """A value as a quoted YAML scalar on one line."""
    return yaml.safe_dump(value, default_style='"', width=math.inf).strip()


def _indent_block(text: str, width: int) -> str:
    """Indent all lines but the first, which the template has indented already."""
    return text.strip("\n").replace("\n", "\n" + " " * width)


def render_template(template: str, **values: Any) -> str:
    """Fill in a template; a value that the template needs and does not get is an error."""
    return _get_environment().get_template(template).render(**values)


def call_tool(command: Sequence[str], *, stdin: str | None = None) -> str:
    """Call a tool and return what it prints.

    Secrets go through ``stdin``: other users of the machine can list the arguments.

    Raises:
        UlcmodError: The tool is not installed or failed; the message holds its output.
    """
    _require_installed(command[0])
    done = subprocess.run(list(command), input=stdin, capture_output=True, text=True, check=False)
    if done.returncode:
        output = " ".join((done.stderr or done.stdout).split())
        raise UlcmodError(f"{' '.join(command[:2])} failed ({done.returncode}): {output}.")
    return done.stdout


def stream_tool(command: Sequence[str]) -> Iterator[str]:
    """Call a tool and yield its output line by line.

    Raises:
        UlcmodError: The tool is not installed, or failed after its output.
    """
    _require_installed(command[0])
    with subprocess.Popen(list(command), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield from process.stdout
    if process.returncode:
        raise UlcmodError(f"{' '.join(command[:2])} failed ({process.returncode}).")


def _require_installed(tool: str) -> None:
    if shutil.which(tool) is None:
        raise UlcmodError(
            f"{tool} is not installed here.",
            "Run this on a machine that has it, or print the files with --dry-run.",
        )
