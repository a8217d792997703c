"""Write docs/job.md from the job's own models, so that the reference cannot drift from them."""

from __future__ import annotations

import sys
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, BeforeValidator
from pydantic.fields import FieldInfo

from ulcmod_dist.config.job import Job

HEAD = """\
# Job reference

A job is one YAML file. Paths of inputs (model, corpus, matrix) are relative to the file's folder;
`run` is relative to where the command is called. Unknown keys are refused, and the nearest known
one is named. `--set section.key=value` overrides a key on the command line; the value is YAML. The
run directory keeps the job of the last command that computed, with every default, as `job.yaml`.

A job names `model` and `corpus`, or `matrix` alone. Sections with defaults alone may be left out.
"""


def section_of(annotation: Any) -> type[BaseModel] | None:
    """The section model inside an annotation such as ``ModelConfig | None``."""
    candidates = typing.get_args(annotation) if is_union(annotation) else (annotation,)
    for candidate in candidates:
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def is_union(annotation: Any) -> bool:
    """Whether an annotation offers alternatives."""
    return typing.get_origin(annotation) in (typing.Union, types.UnionType)


def type_name(annotation: Any) -> str:
    """An annotation in the words of YAML."""
    if is_union(annotation):
        names = [type_name(part) for part in typing.get_args(annotation)]
        return " or ".join(names)
    if typing.get_origin(annotation) is typing.Literal:
        return " or ".join(f"`{value}`" for value in typing.get_args(annotation))
    if typing.get_origin(annotation) is tuple:
        return f"{type_name(typing.get_args(annotation)[0])} or a list"
    if typing.get_origin(annotation) is dict:
        return "keys and values"
    if typing.get_origin(annotation) is typing.Annotated:
        return "size"
    if annotation is type(None):
        return "null"
    return {str: "text", int: "whole number", float: "number", bool: "true or false"}[annotation]


def value_name(field: FieldInfo) -> str:
    """What a key holds; some lists may be given as their only entry."""
    name = type_name(field.annotation)
    alone = any(isinstance(part, BeforeValidator) for part in field.metadata)
    if typing.get_origin(field.annotation) is tuple and not alone:
        return f"list of {name.removesuffix(' or a list')}"
    return name


def default_text(field: FieldInfo) -> str:
    """A default in the words of YAML."""
    if field.is_required():
        return "required"
    value = list(field.default) if isinstance(field.default, tuple) else field.default
    text = yaml.safe_dump(value, default_flow_style=True, width=1000)
    # YAML ends a value that stands alone with a mark of its own.
    return f"`{text.split(chr(10))[0]}`"


def meaning(field: FieldInfo) -> str:
    """The docstring of a key on one line."""
    return " ".join((field.description or "").split())


def rows(section: type[BaseModel]) -> list[str]:
    """One table row a key."""
    return [
        f"| `{name}` | {value_name(field)} | {default_text(field)} | {meaning(field)} |"
        for name, field in section.model_fields.items()
        if section_of(field.annotation) is None
    ]


def sections(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    """The sections below a model by their dotted names, each before those within it."""
    for name, field in model.model_fields.items():
        section = section_of(field.annotation)
        if section is not None:
            yield prefix + name, section
            yield from sections(section, f"{prefix}{name}.")


def reference() -> str:
    """The whole page."""
    table = ["| key | value | default | meaning |", "|---|---|---|---|"]
    parts = [HEAD, "\n".join(table + rows(Job)), ""]
    for name, section in sections(Job):
        first_line = (section.__doc__ or "").splitlines()[0]
        parts += [f"## {name}", "", first_line, "", "\n".join(table + rows(section)), ""]
    return "\n".join(parts)


if __name__ == "__main__":
    target = Path(__file__).with_name("job.md")
    target.write_text(reference(), encoding="utf-8")
    sys.stdout.write(f"wrote {target.name}\n")
