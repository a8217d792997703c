"""The job: one YAML file, parsed once into frozen configuration classes.

Input paths (model, corpus, matrix) are relative to the job file's folder, so that a job works from
any working directory; the run directory is relative to the working directory.
"""

import difflib
import os
import re
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import ValidationError, model_validator

from ulcmod_dist.config import schema
from ulcmod_dist.config.cluster import ClusterConfig
from ulcmod_dist.errors import InvalidInput
from ulcmod_dist.runtime.credentials import REDACTED, REMEDY, has_credentials, iter_texts, redact
from ulcmod_dist.runtime.rundir import JOB, RunDir


def is_url(location: str) -> bool:
    """Whether a location names its scheme, such as ``s3://bucket/key``."""
    return re.match(r"[a-z][a-z0-9+.-]*://", location) is not None


class Job(schema.Config):
    """Everything that a run depends on.

    Raises:
        InvalidInput: From the constructors below, one line that names key, value and remedy.
    """

    run: str
    """Run directory: local path or URL."""
    model: schema.ModelConfig | None = None
    corpus: schema.CorpusConfig | None = None
    matrix: schema.MatrixConfig | None = None
    prompt: schema.TokenizationConfig = schema.TokenizationConfig()
    extract: schema.ExtractConfig = schema.ExtractConfig()
    discover: schema.SearchConfig
    evaluate: schema.EvaluateConfig = schema.EvaluateConfig()
    ablate: schema.AblateConfig = schema.AblateConfig()
    explain: schema.ExplainConfig = schema.ExplainConfig()
    report: schema.ReportConfig = schema.ReportConfig()
    rerun: schema.RerunConfig = schema.RerunConfig()
    cluster: ClusterConfig | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        extracted = self.model is not None and self.corpus is not None
        partial = self.model is not None or self.corpus is not None
        if extracted == (self.matrix is not None) or partial != extracted:
            raise ValueError("name model and corpus, or matrix alone")
        if self.extract.needs_loss and self.matrix is not None:
            raise ValueError("extract.statistic: a matrix is imported as it is")
        if self.extract.needs_loss and self.prompt.tokens == "last":
            raise ValueError("extract.statistic: no loss comes after prompt.tokens last")
        # `um.discover` accepts 0, which evaluates given labels; a run must search.
        if self.discover.max_iterations == 0:
            raise ValueError("discover.max_iterations: Input should be greater than 0 (it is 0)")
        if unknown := [x for x in self.ablate.baselines if x not in self.evaluate.baselines]:
            raise ValueError(
                f"ablate.baselines: evaluate.baselines does not name {', '.join(unknown)}"
            )
        return self

    @classmethod
    def from_yaml(cls, path: str | Path, overrides: Sequence[str] = ()) -> Self:
        """Read a job file; each override is ``section.key=value`` with a YAML value."""
        path = Path(path)
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInput(f"The job file {path} cannot be read: {error}.") from error
        return cls.from_text(text, source=str(path), folder=path.parent, overrides=overrides)

    @classmethod
    def from_run(cls, run: RunDir, overrides: Sequence[str] = ()) -> Self:
        """Read the job that a run directory was made by, wherever the directory lies now."""
        try:
            text = run.read(JOB).decode("utf-8")
        except FileNotFoundError as error:
            raise InvalidInput(
                f"{run.url} is no run directory: it holds no {JOB}.",
                "Start one with `ulcmod run JOB`.",
            ) from error
        job = cls.parse(text, source=run.show(JOB), overrides=overrides)
        return job.resolve_paths(run.local or Path.cwd(), require_model_folder=False)

    @classmethod
    def from_text(
        cls, text: str, *, source: str, folder: Path, overrides: Sequence[str] = ()
    ) -> Self:
        """Parse a job's YAML text.

        Args:
            text: The text.
            source: Name of the text in error messages.
            folder: Folder that input paths are relative to.
            overrides: ``section.key=value`` each, with a YAML value.

        Raises:
            InvalidInput: The text is no valid job.
        """
        return cls.parse(text, source=source, overrides=overrides).resolve_paths(folder)

    @classmethod
    def parse(cls, text: str, *, source: str, overrides: Sequence[str] = ()) -> Self:
        """Parse a job's YAML text and leave its input paths as they are."""
        try:
            data = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise InvalidInput(
                f"{source} is not valid YAML: {_describe_yaml_error(error)}."
            ) from None
        if not isinstance(data, dict):
            raise InvalidInput(f"{source} must hold keys and values, such as `run: runs/mine`.")
        # Before anything else, so that no other error message shows the credentials.
        _refuse_credentials(data)
        for override in overrides:
            _apply_override(data, override)
            _refuse_credentials(data)
        try:
            job = cls.model_validate(data)
        except ValidationError as error:
            raise InvalidInput(f"{source}: {_describe_validation_error(error)}") from error
        _refuse_credentials(job.model_dump(mode="json"))
        return job

    def resolve_paths(self, folder: Path, *, require_model_folder: bool = True) -> Self:
        """The same job with absolute input paths.

        Without ``require_model_folder`` an absolute path of a model is accepted where there is no
        such folder: a finished run can be evaluated without it.

        Raises:
            InvalidInput: The model is no folder or file and has no fixed revision.
        """
        changes: dict[str, schema.Config] = {}
        if self.model is not None:
            local = _locate_model(self.model, folder, "model.id", require=require_model_folder)
            changes["model"] = self.model.model_copy(update={"id": local})
        if (describe := self.explain.describe) is not None:
            local = _locate_model(
                describe.as_model(), folder, "explain.describe.model", require=require_model_folder
            )
            describe = describe.model_copy(update={"model": local})
            changes["explain"] = self.explain.model_copy(update={"describe": describe})
        if self.corpus is not None:
            locations = {
                split: tuple(_make_absolute(path, folder) for path in getattr(self.corpus, split))
                for split in ("train", "test")
            }
            changes["corpus"] = self.corpus.model_copy(update=locations)
        if self.matrix is not None:
            given = self.matrix.locations()
            absolute = {key: _make_absolute(path, folder) for key, path in given.items()}
            changes["matrix"] = self.matrix.model_copy(update=absolute)
        return self.model_copy(update=changes)

    def require_model(self) -> schema.ModelConfig:
        """The job's model; InvalidInput if its run was made of a matrix."""
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
    """Refuse URLs that carry credentials; the message names the key and never the value."""
    for place, text in iter_texts(data, key):
        # In a system message a URL ends at a space; elsewhere a password may contain one.
        parts = text.split() if place.startswith("prompt.") else [text]
        if any(map(has_credentials, parts)):
            raise InvalidInput(
                f"{place or 'A key'} is a URL that carries credentials; a job is stored and shown.",
                REMEDY,
            )


def _locate_model(model: schema.ModelConfig, folder: Path, key: str, *, require: bool) -> str:
    """Absolute path of a local model, or the id of one on the hub."""
    local = _make_absolute(model.id, folder)
    if is_url(model.id) or Path(local).exists():
        return local
    if model.revision is None and (require or not Path(model.id).is_absolute()):
        raise InvalidInput(
            f"{key} {model.id!r} is no folder or GGUF file under {folder.resolve()} and, as an id "
            "on the hub, lacks a fixed revision.",
            f"Correct the path, or set {key.rpartition('.')[0]}.revision to a commit.",
        )
    return model.id


def _make_absolute(location: str, folder: Path) -> str:
    if is_url(location):
        return location
    # Links are not followed: in the cache of Hugging Face they lead to files without a suffix.
    return os.path.abspath(folder.resolve() / Path(location).expanduser())


def _describe_yaml_error(error: yaml.YAMLError) -> str:
    """Error and position, without the line itself: it may contain a secret."""
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


def _describe_validation_error(error: ValidationError) -> str:
    """The first of pydantic's errors on one line."""
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return _describe_unknown_key(tuple(str(part) for part in first["loc"]))
    if first["type"] == "missing":
        return f"the key {place} is missing."
    message = first["msg"].removeprefix("Value error, ")
    value = first["input"]
    given = "" if isinstance(value, dict) else f" (it is {redact(value)})"
    return f"{place + ': ' if place else ''}{message}{given}."


def _describe_unknown_key(location: tuple[str, ...]) -> str:
    *parents, key = location
    section: type[schema.Config] = Job
    for parent in parents:
        annotation = section.model_fields[parent].annotation
        section = next(
            part
            for part in (annotation, *typing.get_args(annotation))
            if isinstance(part, type) and issubclass(part, schema.Config)
        )
    known = list(section.model_fields)
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.0)
    place = ".".join([*parents, near[0]])
    return f"unknown key {'.'.join(location)}; the nearest known one is {place}."
