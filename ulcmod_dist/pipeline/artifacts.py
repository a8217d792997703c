"""The artifacts of a run: one graph that says what each is made from, where it lies, what is fresh.

Every part of a run is declared once in ``GRAPH``. Beside each stored artifact lies a record of what
it was made from. The record is removed before the artifact is replaced and written after it, so
that an artifact without a record does not count. An artifact is fresh where its record equals what
the job and the artifacts before it say now; otherwise it is stale, and the difference is the
reason. `run`, `rerun`, `status` and the command of each step walk this graph; nothing else decides
what is fresh.

Neither Dask, torch nor Zarr is imported here, so that `ulcmod status` answers at once: the function
that makes an artifact is named, and imported when it is called.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ulcmod_dist.config.job import Job
from ulcmod_dist.runtime.rundir import (
    ARTIFACTS,
    DRIFT,
    EVALUATION,
    PLAN,
    REPORT,
    SIDES,
    grouping_key,
    membership_key,
)

METHOD_ABLATIONS = "method-ablations"
"""Name of the artifact with the ablation of the modules that other methods found."""

FOLDERS = ("modules", EVALUATION, "figures", "tables", DRIFT)
"""Folders whose files belong to artifacts."""

MODULES_RECORD = re.compile(rf"{ARTIFACTS}/K=(\d+)/modules\.json")


@dataclass(frozen=True)
class Artifact:
    """One kind of artifact."""

    name: str
    version: int  # raised whenever equal inputs would lead to another content than before
    make: str  # ``module:function`` in this package; called with the context and what is wanted
    command: str  # of ``ulcmod``, that makes it alone
    inputs: tuple[str, ...] = ()  # artifacts that it is made from
    config: tuple[str, ...] = ()  # sections or keys of the job that its content depends on
    ignored: tuple[str, ...] = ()  # keys below ``config`` that it does not depend on
    files: tuple[str, ...] = ()  # keys that it is stored under; ``{k}`` stands for K
    each_k: bool = False  # whether there is one for each K

    def depends_on(self, key: str) -> bool:
        """Whether its content depends on a key of the job, such as ``discover.seed``."""
        if key in self.ignored:
            return False
        return any(key == name or key.startswith(f"{name}.") for name in self.config)

    def label(self, num_modules: int | None) -> str:
        """What records call the artifact, such as ``modules for K = 7``."""
        return self.name if num_modules is None else f"{self.name} for K = {num_modules}"


def describe_label(label: str) -> str:
    """The label of an artifact as people know it; that in records stays, or all would be stale."""
    name, space, rest = label.partition(" ")
    return _TITLES.get(name, name) + space + rest


def _stored(name: str) -> str:
    """Key of an evaluation file of one K."""
    return f"{EVALUATION}/{name}K={{k:03d}}.json"


_TITLES = {
    "null": "null model",
    "methods": "comparison of methods",
    METHOD_ABLATIONS: "ablation of methods",
}
_PLACES = ("discover.modules", "discover.executor")
_SHOWN = ("snapshot", "evaluation", "ablation", METHOD_ABLATIONS)
_FIGURE_FILES = ("report.titles", "report.formats")
_WHOLE_JOB = tuple(Job.model_fields)

GRAPH: Mapping[str, Artifact] = {
    artifact.name: artifact
    for artifact in (
        Artifact("plan", 1, "plan:prepare_extraction", "plan", files=(PLAN,)),
        Artifact(
            "snapshot", 1, "run:make_snapshot", "extract",
            inputs=("plan",), config=("model", "prompt", "matrix", "extract.statistic"),
        ),
        Artifact(
            "modules", 4, "discover:make_modules", "discover",
            inputs=("snapshot",), config=("discover",), ignored=_PLACES, each_k=True,
            files=tuple(
                f"modules/K={{k:03d}}/{name}"
                for name in ("units.parquet", "samples.parquet", "history.parquet", "metrics.json")
            ),
        ),
        Artifact(
            "null", 8, "evaluate:make_evaluation", "evaluate",
            inputs=("snapshot",), each_k=True, files=(_stored("null-"),),
            config=("discover", "evaluate.seed", "evaluate.null_permutations"), ignored=_PLACES,
        ),
        Artifact(
            "methods", 11, "evaluate:make_evaluation", "evaluate",
            inputs=("modules",), config=("evaluate",), each_k=True,
            files=(_stored("methods-"), *(grouping_key(side, "{k:03d}") for side in SIDES)),
        ),
        Artifact(
            "evaluation", 6, "evaluate:make_evaluation", "evaluate",
            inputs=("modules", "null", "methods"), config=("evaluate", "report"),
            ignored=_FIGURE_FILES, each_k=True,
            files=(_stored(""), *(membership_key(side, "{k:03d}") for side in SIDES)),
        ),
        Artifact(
            "ablation", 2, "ablate:make_ablation", "ablate",
            inputs=("modules",), config=("ablate", "corpus.answer"),
            ignored=("ablate.with_run", "ablate.baselines"),
            each_k=True, files=(_stored("ablation-"),),
        ),
        Artifact(
            METHOD_ABLATIONS, 1, "ablate:make_ablation", "ablate",
            inputs=("modules", "methods"), config=("ablate", "corpus.answer"),
            ignored=("ablate.with_run",), each_k=True, files=(_stored(f"{METHOD_ABLATIONS}-"),),
        ),
        Artifact(
            "explanation", 1, "explain:make_explanation", "explain",
            inputs=("modules", "evaluation"), config=("explain",), ignored=("explain.with_run",),
            each_k=True, files=(_stored("explanation-"),),
        ),
        Artifact("figures", 2, "report:make_report", "report", _SHOWN, ("report",)),
        Artifact(
            "tables", 2, "report:make_report", "report", _SHOWN, ("report",), _FIGURE_FILES
        ),
        Artifact(
            "page", 3, "report:make_report", "report",
            inputs=(*_SHOWN, "explanation"), config=_WHOLE_JOB, ignored=("run",), files=(REPORT,),
        ),
        Artifact("drift", 1, "rerun:make_version", "rerun", ("modules",)),
        Artifact("version", 1, "rerun:make_version", "rerun", ("modules",)),
    )
}  # fmt: skip
"""All artifacts, each after those that it is made from."""


@dataclass(frozen=True)
class Record:
    """What a stored artifact was made from."""

    version: int  # of the artifact in ``GRAPH``
    inputs: dict[str, str]  # label of each artifact that it was made from -> identity of that one
    config: dict[str, Any]  # keys of the job, such as ``discover.seed``, -> their values
    observed: dict[str, Any] = field(default_factory=dict)  # what only reading an input tells
    identity: str = ""  # digest of the content, by which later artifacts know it
    files: tuple[str, ...] = ()  # keys beside those that ``GRAPH`` declares
    facts: dict[str, Any] = field(default_factory=dict)  # what `ulcmod status` shows


def record_key(name: str, num_modules: int | None = None) -> str:
    """Key of the record of an artifact."""
    return (
        f"{ARTIFACTS}/{name}.json"
        if num_modules is None
        else f"{ARTIFACTS}/K={num_modules:03d}/{name}.json"
    )


def flatten(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested sections by dotted keys."""
    flat: dict[str, Any] = {}
    for name, inner in value.items():
        below = isinstance(inner, dict)
        flat |= flatten(inner, f"{prefix}{name}.") if below else {f"{prefix}{name}": inner}
    return flat


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Names whose values differ, each as a clause with both values."""
    return [
        f"{name} is {_shorten(new.get(name))}, was {_shorten(old.get(name))}"
        for name in sorted({*old, *new})
        if old.get(name) != new.get(name)
    ]


def _shorten(value: Any) -> str:
    """A value for a message; of a digest, enough to tell two apart."""
    text = str(value)
    return f"{text[:12]}…" if re.fullmatch(r"[0-9a-f]{32,}", text) else text
