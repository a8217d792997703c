"""Results as JSON and back: dataclasses as objects, arrays as nested lists, NaN as null."""

import typing
from typing import Any, TypeVar

import cattrs
import numpy as np

from ulcmod_dist.results.types import Absent

T = TypeVar("T")

# A file of another version must fail to load, not lose what it holds under an unknown key.
_CONVERTER = cattrs.Converter(forbid_extra_keys=True)


def to_json(value: Any) -> Any:
    """Convert a result to plain values for JSON."""
    return _CONVERTER.unstructure(value)


def from_json(content: Any, kind: type[T]) -> T:
    """Convert what `to_json` returned back to a result, such as `tuple[Overlap, ...]`."""
    value: T = _CONVERTER.structure(content, kind)
    return value


def _is_array(kind: Any) -> bool:
    return np.ndarray in (kind, typing.get_origin(kind))


def _array_to_lists(array: np.ndarray[Any, Any]) -> Any:
    if array.dtype.kind != "f":
        return array.tolist()
    numbers = array.astype(object)
    numbers[np.isnan(array)] = None
    return numbers.tolist()


def _array_from_lists(content: Any, kind: Any) -> np.ndarray[Any, Any]:
    element = typing.get_args(typing.get_args(kind)[1])[0]
    # None becomes NaN in floats, and is refused by integers.
    return np.array(content, dtype=element)


def _present_or_absent(content: Any, kind: Any) -> Any:
    if isinstance(content, dict) and content.keys() == {"reason"}:
        return Absent(content["reason"])
    (present,) = (part for part in typing.get_args(kind) if part is not Absent)
    return _CONVERTER.structure(content, present)


_CONVERTER.register_structure_hook_func(
    lambda kind: Absent in typing.get_args(kind), _present_or_absent
)
_CONVERTER.register_unstructure_hook_func(_is_array, _array_to_lists)
_CONVERTER.register_structure_hook_func(_is_array, _array_from_lists)
_CONVERTER.register_structure_hook(float, lambda value, _: float("nan") if value is None else value)
_CONVERTER.register_unstructure_hook(float, lambda value: None if value != value else value)
