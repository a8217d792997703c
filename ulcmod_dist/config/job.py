"""The job: one YAML file, parsed once into frozen values that the rest trusts.

Input paths (model, corpus, matrix) are relative to the job file's folder, so that a job works from
wherever it is called; the run directory is relative to where the command is called, so that results
lie where the user stands.
"""

from __future__ import annotations

import difflib
import re
import types
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import (
    BaseModel,
    Field,
    ValidationError,
    model_validator,
)

from ulcmod_dist.config.schema import (
    AblateConfig,
    ClusterConfig,
    Config,
    CorpusConfig,
    EvaluateConfig,
    ExtractConfig,
    MatrixConfig,
    ModelConfig,
    ReportConfig,
    RerunConfig,
    SearchConfig,
    TokenizationConfig,
)
from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.runtime.credentials import REDACTED, REMEDY, has_credentials, iter_texts, redact

_URL = re.compile(r"[a-z][a-z0-9+.-]*://")


def is_url(location: str) -> bool:
    """Whether a location names its scheme, such as ``s3://bucket/key``."""
    return _URL.match(location) is not None


class Job(Config):
    """Everything a run depends on.

    Raises:
        InvalidInput: From the constructors below, one line that names key, value and remedy.
    """

    run: str = Field(description="Run directory: local path or URL.")
    model: ModelConfig | None = None
    corpus: CorpusConfig | None = None
    matrix: MatrixConfig | None = None
    prompt: TokenizationConfig = TokenizationConfig()
    extract: ExtractConfig = ExtractConfig()
    discover: SearchConfig
    evaluate: EvaluateConfig = EvaluateConfig()
    ablate: AblateConfig = AblateConfig()
    report: ReportConfig = ReportConfig()
    rerun: RerunConfig = RerunConfig()
    cluster: ClusterConfig | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        extracted = self.model is not None and self.corpus is not None
        partial = self.model is not None or self.corpus is not None
        if extracted == (self.matrix is not None) or partial != extracted:
            raise ValueError("name model and corpus, or matrix alone")
        return self

    @classmethod
    def from_yaml(cls, path: str | Path, overrides: Sequence[str] = ()) -> Job:
        """Read a job file; each override is ``section.key=value`` with a YAML value."""
        path = Path(path)
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInput(f"The job file {path} cannot be read: {error}.") from error
        return cls.from_text(text, source=str(path), folder=path.parent, overrides=overrides)

    @classmethod
    def from_text(
        cls,
        text: str,
        *,
        source: str,
        folder: Path,
        overrides: Sequence[str] = (),
        model_there: bool = True,
    ) -> Job:
        """Parse a job's YAML text.

        Args:
            text: The text.
            source: What messages call it.
            folder: Where relative input paths begin.
            overrides: ``section.key=value`` each, with a YAML value.
            model_there: Whether the folder of a model must exist; a run outlives it.

        Raises:
            InvalidInput: The text is no valid job.
        """
        job = cls.as_written(text, source=source, overrides=overrides)
        return job.resolved(folder, model_there=model_there)

    @classmethod
    def as_written(cls, text: str, *, source: str, overrides: Sequence[str] = ()) -> Job:
        """Parse a job's YAML text and leave its input paths as they stand there."""
        try:
            data = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise InvalidInput(f"{source} is not valid YAML: {_fault(error)}.") from None
        if not isinstance(data, dict):
            raise InvalidInput(f"{source} must hold keys and values, such as `run: runs/mine`.")
        # Before anything else, so that no other message shows what must not be there.
        _refuse_credentials(data)
        for override in overrides:
            _apply_override(data, override)
            _refuse_credentials(data)
        try:
            job = cls.model_validate(data)
        except ValidationError as error:
            raise InvalidInput(f"{source}: {_explain(error)}") from error
        _refuse_credentials(job.model_dump(mode="json"))
        return job

    def resolved(self, folder: Path, *, model_there: bool = True) -> Job:
        """The same job with input paths made absolute, so that it can be opened from anywhere.

        Raises:
            InvalidInput: The model is no folder and has no fixed revision, unless ``model_there``
                is false and it was one.
        """
        changes: dict[str, Config] = {}
        if self.model is not None:
            local = _absolute(self.model.id, folder)
            if is_url(self.model.id) or Path(local).exists():
                changes["model"] = self.model.model_copy(update={"id": local})
            elif self.model.revision is None and (
                model_there or not Path(self.model.id).is_absolute()
            ):
                raise InvalidInput(
                    f"model.id {self.model.id!r} is no folder under {folder.resolve()} and, as an "
                    "id on the hub, lacks a fixed revision.",
                    "Correct the path, or set model.revision to a commit.",
                )
        if self.corpus is not None:
            places = {
                split: tuple(_absolute(place, folder) for place in getattr(self.corpus, split))
                for split in ("train", "test")
            }
            changes["corpus"] = self.corpus.model_copy(update=places)
        if self.matrix is not None:
            given = self.matrix.model_dump(exclude_none=True)
            absolute = {key: _absolute(place, folder) for key, place in given.items()}
            changes["matrix"] = self.matrix.model_copy(update=absolute)
        return self.model_copy(update=changes)

    def require_model(self) -> ModelConfig:
        """The model that the job names.

        Raises:
            InvalidInput: The job has none: its run was made of a matrix.
        """
        if self.model is None:
            raise InvalidInput(
                f"The run {self.run} was made of an imported matrix: there is no model to run.",
                "Only `discover`, `evaluate` and `report` work on it.",
            )
        return self.model

    def to_yaml(self) -> str:
        """The job as YAML, every default written out."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def _refuse_credentials(data: Any, key: str = "") -> None:
    """Refuse URLs that carry credentials: a job is stored, shown and sent.

    Raises:
        InvalidInput: The message names the key and never the value.
    """
    for place, text in iter_texts(data, key):
        # In running text a URL ends at a space; elsewhere a password may hold one.
        parts = text.split() if place.startswith("prompt.") else [text]
        if any(map(has_credentials, parts)):
            raise InvalidInput(
                f"{place or 'A key'} is a URL that carries credentials; a job is stored and shown.",
                REMEDY,
            )


def _absolute(location: str, folder: Path) -> str:
    return location if is_url(location) else str((folder / Path(location).expanduser()).resolve())


def _fault(error: yaml.YAMLError) -> str:
    """What is wrong with YAML and where, without the line itself: it may hold a secret."""
    if not isinstance(error, yaml.MarkedYAMLError):
        return " ".join(str(error).split())
    mark = error.problem_mark
    place = "" if mark is None else f" in line {mark.line + 1}, column {mark.column + 1}"
    what = " ".join(str(error.problem).split())
    return f"{REDACTED if has_credentials(what) else what}{place}"


def _apply_override(data: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    _refuse_credentials(key, "--set")
    if not equals or not key:
        raise InvalidInput(f"--set {override!r} is not of the form key=value.")
    *parents, leaf = key.split(".")
    for parent in parents:
        below = data.setdefault(parent, {})
        if not isinstance(below, dict):
            raise InvalidInput(f"--set {key}: {parent} holds {redact(below)}, not keys.")
        data = below
    try:
        data[leaf] = yaml.safe_load(value)
    except yaml.YAMLError:
        raise InvalidInput(f"--set {key}: {redact(value)} is not valid YAML.") from None


def _explain(error: ValidationError) -> str:
    """One line for the first of pydantic's complaints."""
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return _unknown_key(tuple(str(part) for part in first["loc"]))
    if first["type"] == "missing":
        return f"the key {place} is missing."
    message = first["msg"].removeprefix("Value error, ")
    value = first["input"]
    given = "" if isinstance(value, dict) else f" (it is {redact(value)})"
    return f"{place + ': ' if place else ''}{message}{given}."


def _unknown_key(location: tuple[str, ...]) -> str:
    *parents, key = location
    section: type[BaseModel] = Job
    for parent in parents:
        section = next(_sections(section.model_fields[parent].annotation))
    known = list(section.model_fields)
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.0)
    place = ".".join([*parents, near[0]])
    return f"unknown key {'.'.join(location)}; the nearest known one is {place}."


def _sections(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif typing.get_origin(annotation) in (types.UnionType, typing.Union):
        for part in typing.get_args(annotation):
            yield from _sections(part)
