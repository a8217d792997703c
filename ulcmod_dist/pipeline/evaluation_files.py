"""The evaluation's JSON files: the report's own values, written and read again.

Arrays are nested lists; what is not a number is null.
"""

from __future__ import annotations

import typing
from typing import Any, TypeVar

import cattrs
import numpy as np

from ulcmod_dist.config.job import Job
from ulcmod_dist.results.types import Absent
from ulcmod_dist.runtime.rundir import RunDir, evaluation_key, fingerprint
from ulcmod_dist.store.modules import StoredModules

T = TypeVar("T")

_CONVERTER = cattrs.Converter(forbid_extra_keys=True)


# Raised whenever the same modules and settings would lead to another file than before.
ABLATION_VERSION = 4


def ablation_name(num_modules: int) -> str:
    """Name of the file that holds the ablation of one K."""
    return f"ablation-K={num_modules:03d}"


def ablation_mark(job: Job, stored: StoredModules) -> str:
    """Fingerprint of what the ablation of one K follows from."""
    settings = job.ablate.model_dump(mode="json", exclude={"with_run"})
    found = stored.metrics["identity"]
    return fingerprint({"modules": found, "ablate": settings, "version": ABLATION_VERSION})


def write_evaluation(run: RunDir, name: str, value: Any, mark: str) -> None:
    """Write one value and the fingerprint of what it was made from."""
    content = _CONVERTER.unstructure(value)
    run.write_json(evaluation_key(name), {"fingerprint": mark, "content": content})


def read_evaluation(run: RunDir, name: str, kind: type[T], mark: str | None = None) -> T | None:
    """Read one value; None where there is none, or where it was made from something else.

    Args:
        run: The run directory.
        name: Name of the file without its ending.
        kind: Type of the value.
        mark: Fingerprint that it must bear; None for any.
    """
    try:
        stored = run.read_json(evaluation_key(name))
    except FileNotFoundError:
        return None
    if mark is not None and stored["fingerprint"] != mark:
        return None
    value: T = _CONVERTER.structure(stored["content"], kind)
    return value


def _is_array(kind: Any) -> bool:
    return np.ndarray in (kind, typing.get_origin(kind))


def _plain(array: np.ndarray[Any, Any]) -> Any:
    if array.dtype.kind != "f":
        return array.tolist()
    numbers = array.astype(object)
    numbers[np.isnan(array)] = None
    return numbers.tolist()


def _array(content: Any, kind: Any) -> np.ndarray[Any, Any]:
    element = typing.get_args(typing.get_args(kind)[1])[0]
    # None becomes NaN in floats, and is refused by integers.
    return np.array(content, dtype=element)


def _may_be_absent(kind: Any) -> bool:
    return Absent in typing.get_args(kind)


def _present_or_absent(content: Any, kind: Any) -> Any:
    if isinstance(content, dict) and content.keys() == {"reason"}:
        return Absent(content["reason"])
    (present,) = (part for part in typing.get_args(kind) if part is not Absent)
    return _CONVERTER.structure(content, present)


_CONVERTER.register_structure_hook_func(_may_be_absent, _present_or_absent)
_CONVERTER.register_unstructure_hook_func(_is_array, _plain)
_CONVERTER.register_structure_hook_func(_is_array, _array)
_CONVERTER.register_structure_hook(float, lambda value, _: float("nan") if value is None else value)
_CONVERTER.register_unstructure_hook(float, lambda value: None if value != value else value)
