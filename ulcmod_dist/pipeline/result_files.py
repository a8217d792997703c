"""Results of evaluation and ablation as JSON files of a run."""

from typing import Any, TypeVar

from ulcmod_dist.pipeline.artifacts import GRAPH
from ulcmod_dist.results.serialize import from_json, to_json
from ulcmod_dist.runtime.rundir import RunDir

T = TypeVar("T")


def write_result(run: RunDir, name: str, num_modules: int, value: Any) -> None:
    """Write the value of an artifact for one K."""
    run.write_json(_key(name, num_modules), to_json(value))


def read_result(run: RunDir, name: str, num_modules: int, kind: type[T]) -> T:
    """Read the value of an artifact for one K (FileNotFoundError if it is not stored)."""
    return from_json(run.read_json(_key(name, num_modules)), kind)


def _key(name: str, num_modules: int) -> str:
    return GRAPH[name].files[0].format(k=num_modules)
