"""The templates of the folder ``cluster``: readable files with the job's values filled in."""

from __future__ import annotations

import math
import shlex
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import yaml

_PACKAGE = Path(__file__).parent.parent


def folder() -> Path:
    """Where the templates lie: in the installed package, or beside it in a checkout."""
    installed = _PACKAGE / "cluster"
    return installed if installed.is_dir() else _PACKAGE.parent / "cluster"


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder()),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - the filters below escape for YAML and for the shell
    )
    environment.filters["yaml"] = _quoted
    environment.filters["block"] = _block
    environment.filters["shell"] = lambda value: shlex.quote(str(value))
    return environment


def _quoted(value: str) -> str:
    """A value as a quoted scalar of one line, whatever it holds."""
    return yaml.safe_dump(value, default_style='"', width=math.inf).strip()


def _block(text: str, width: int) -> str:
    """Lines set under a key that stands ``width`` columns in, where the first line starts."""
    return text.strip("\n").replace("\n", "\n" + " " * width)


def render(template: str, **values: Any) -> str:
    """A template with its values; a value that the template misses is an error."""
    return _environment().get_template(template).render(**values)
