"""The text of a column's values: one rule, whatever the format of the file.

A value reads as the text that Python's csv module writes for it: 1.0 is "1.0", true is "True" and
["x"] is "['x']". CSV holds nothing but text, so only such a rule gives equal values equal texts in
Parquet, JSONL and CSV. Text stays as written: 007 is "007".
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ulcmod_dist.errors import InvalidInput

TextRule: TypeAlias = Callable[[Any], str | None]
"""Text of a value, None for null; raises `ValueError` where it has none."""

_CHUNK_CHARS = 2**23
_VALUE_LIMIT = 60
# Far more than data have, and far below Python's limit, which depends on who calls.
_MAX_DEPTH = 100
_ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def to_text(value: Any) -> str | None:
    """Text of a value as Python's csv module writes it; bytes are UTF-8.

    Raises:
        ValueError: It cannot be encoded as UTF-8, or is nested too deeply.
    """
    plain = _to_plain(value)
    return None if plain is None else str(plain)


def to_json(value: Any) -> str | None:
    """JSON of a value; a text is taken to be JSON already. Raises `ValueError` as `to_text`."""
    if not isinstance(value, str | bytes | None):
        return json.dumps(_to_plain(value), ensure_ascii=False)
    text = to_text(value)
    # Parsed only where it might hold what cannot be read.
    if text and (_ESCAPED_SURROGATE.search(text) or text.count("[") + text.count("{") > _MAX_DEPTH):
        try:
            decoded = parse_json(text)
        except ValueError:
            return text  # refused where it is parsed
        _to_plain(decoded)
    return text


def _to_plain(value: Any, depth: int = 0) -> Any:
    """The value in the types of JSON, so that dates or bytes in a list read as they do alone."""
    if isinstance(value, str):
        value.encode()
        return value
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, bytes):
        return value.decode()
    if depth > _MAX_DEPTH:
        raise ValueError(f"it is nested more than {_MAX_DEPTH} levels deep")
    if isinstance(value, Mapping):
        return {_to_plain(key): _to_plain(entry, depth + 1) for key, entry in value.items()}
    if isinstance(value, list):
        return [_to_plain(entry, depth + 1) for entry in value]
    if isinstance(value, timedelta) and not getattr(value, "nanoseconds", 0):
        # pandas prints its own durations, which Arrow returns for nanoseconds, in another way.
        value = timedelta(value.days, value.seconds, value.microseconds)
    return str(value)


def parse_json(text: str) -> Any:
    """Parse JSON.

    Raises:
        ValueError: It is malformed or nested too deeply, or has a number that Python cannot hold.
    """
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError:
        raise
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except ValueError as error:
        raise ValueError("it has a number of too many digits or beyond float64") from error


def _parse_float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(text)
    return value


_DECODER = json.JSONDecoder(parse_float=_parse_float)


class ColumnBuilder:
    """Collects the values of a column as chunks of large strings."""

    def __init__(self, path: str, name: str, rule: TextRule) -> None:
        self._path, self._name, self._rule = path, name, rule
        self._texts: list[str | None] = []
        self._chars = 0
        self._chunks: list[pa.Array] = []
        self._rows = 0

    def append(self, value: Any) -> None:
        """Append the text of a value.

        Raises:
            InvalidInput: The value has none; file, row, column and value are named.
        """
        try:
            text = self._rule(value)
        except ValueError as error:
            raise reject_value(self._path, self._rows, self._name, value, error) from error
        self._texts.append(text)
        self._rows += 1
        self._chars += len(text or "")
        if self._chars > _CHUNK_CHARS:
            self._flush()

    def _flush(self) -> None:
        self._chunks.append(pa.array(self._texts, pa.large_string()))
        self._texts, self._chars = [], 0

    def finish(self) -> pa.ChunkedArray:
        """The column."""
        self._flush()
        return pa.chunked_array(self._chunks, pa.large_string())


def convert_column(
    column: pa.ChunkedArray, path: str, name: str, rule: TextRule
) -> pa.ChunkedArray:
    """The texts of an Arrow column of any type, as large strings.

    Raises:
        InvalidInput: A value has none; file, row, column and value are named.
    """
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_integer(column.type) or (_is_string(column.type) and _is_valid(column)):
        return column.cast(pa.large_string())
    # NumPy writes the shortest digits that tell a number of this size from its neighbours: 0.1, as
    # CSV and JSON have it, where Python writes the double 0.10000000149011612.
    narrow = {pa.float16(): np.float16, pa.float32(): np.float32}.get(column.type)
    builder = ColumnBuilder(path, name, rule)
    for row, scalar in enumerate(column):
        try:
            value = scalar.as_py(maps_as_pydicts="strict")
        except (ValueError, OverflowError, KeyError, pa.ArrowException) as error:
            raise reject_value(path, row, name, scalar.type, error) from error
        builder.append(value if narrow is None or value is None else str(narrow(value)))
    return builder.finish()


def _is_string(kind: pa.DataType) -> bool:
    kinds = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return any(is_kind(kind) for is_kind in (*kinds, pa.types.is_null))


def _is_valid(column: pa.ChunkedArray) -> bool:
    # Files may hold any bytes as strings; Arrow does not look at them when it reads.
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def reject_value(path: str, row: int, name: str, value: Any, error: Exception) -> InvalidInput:
    """The error that names a value that has no text, and why."""
    reason = str(error).rstrip(".")
    if isinstance(error, UnicodeEncodeError):
        reason = "it holds half of a surrogate pair"
    elif isinstance(error, UnicodeDecodeError):
        reason = "its bytes are not UTF-8"
    try:
        shown = repr(value)
    except RecursionError:
        shown = type(value).__name__
    if len(shown) > _VALUE_LIMIT:
        shown = f"{shown[:_VALUE_LIMIT]}…"
    return InvalidInput(
        f"Row {row} of {path} (the first row is row 0) has no text in {name!r}: {shown}: {reason}.",
        "Correct or remove the row.",
    )


def is_blank(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Where a column of strings is null, empty or nothing but whitespace."""
    texts = pc.utf8_trim_whitespace(pc.fill_null(column, ""))
    return pc.equal(pc.utf8_length(texts), 0)


def blank_to_null(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column of strings in which blank is null: a category or id that is not given."""
    return pc.if_else(is_blank(column), pa.scalar(None, column.type), column)
