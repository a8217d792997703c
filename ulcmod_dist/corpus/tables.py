"""Tables of samples and units: the columns of files as text, checked row by row."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ulcmod_dist.corpus.columns import blank_to_null, to_json, to_text
from ulcmod_dist.corpus.files import SourceFile
from ulcmod_dist.corpus.readers import Columns, Rules, read_columns
from ulcmod_dist.errors import InvalidInput

MAX_SHOWN = 5
"""Faulty rows that a message lists."""
_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}


def read_table(source: SourceFile, texts: Sequence[str], encoded: Sequence[str] = ()) -> pa.Table:
    """Read the named columns of a file as large strings, all rows in order.

    Columns of ``texts`` are read by the rule of `corpus.columns`, those of ``encoded`` as JSON. A
    column that the file lacks is taken from its path (``category=Math/part.parquet``). Null where a
    record lacks the field; class labels become their names.

    Raises:
        InvalidInput: The file cannot be read or a value has no text (row and column are named), it
            lacks a column (the existing ones are named), or its path names another value.
    """
    rules = {**dict.fromkeys(texts, to_text), **dict.fromkeys(encoded, to_json)}
    columns = _read_with_partition(source, rules)
    missing = [name for name in rules if name not in columns.values]
    if missing:
        raise InvalidInput(
            f"{source.path} has no column {', '.join(map(repr, missing))}.",
            _suggest_separator(columns.names)
            or f"Its columns are {', '.join(map(repr, columns.names)) or 'none'}.",
        )
    return pa.table({name: columns.values[name] for name in rules})


def read_known_columns(source: SourceFile, known: Sequence[str]) -> pa.Table:
    """Read those of the known columns that a file has, as `read_table` does.

    Raises:
        InvalidInput: Also if the file has another column, or none of these.
    """
    columns = _read_with_partition(source, dict.fromkeys(known, to_text))
    unknown = [name for name in columns.names if name not in known]
    if unknown or not columns.values:
        near = difflib.get_close_matches(str(unknown[0]), known, n=1) if unknown else []
        hint = f" The nearest to {unknown[0]!r} is {near[0]!r}." if near else ""
        raise InvalidInput(
            f"{source.path} has the unknown columns {', '.join(map(repr, unknown))}."
            if unknown
            else f"{source.path} has no column.",
            _suggest_separator(columns.names) or f"Known are {', '.join(known)}.{hint}",
        )
    return pa.table({name: columns.values[name] for name in known if name in columns.values})


@dataclass(frozen=True)
class Rows:
    """The rows of several files, one after the other: a table of texts a file.

    Attributes:
        title: What a row describes, in the plural: "units".
    """

    title: str
    sources: tuple[SourceFile, ...]
    tables: tuple[pa.Table, ...]

    def __len__(self) -> int:
        return sum(table.num_rows for table in self.tables)

    def names(self) -> set[str]:
        """The columns that at least one of the files has."""
        return {name for table in self.tables for name in table.column_names}

    def column(self, name: str) -> pa.ChunkedArray:
        """A column of large strings; null where a file has no such column."""
        chunks = [
            chunk
            for table in self.tables
            for chunk in (
                table[name].chunks
                if name in table.column_names
                else [pa.nulls(table.num_rows, pa.large_string())]
            )
        ]
        return pa.chunked_array(chunks, pa.large_string())

    def labels(self, name: str) -> pa.ChunkedArray:
        """A column of ids or categories: null where there is none.

        Raises:
            InvalidInput: One holds a NUL character, at which NumPy cuts texts off.
        """
        labels = blank_to_null(self.column(name))
        faulty = pc.fill_null(pc.match_substring(labels, "\0"), False)
        self.reject(np.flatnonzero(faulty.to_numpy()), f"have a NUL character in {name!r}")
        return labels

    def ids(self, name: str) -> pa.ChunkedArray:
        """A column of ids.

        Raises:
            InvalidInput: One is missing or holds a NUL character.
        """
        ids = self.labels(name)
        self.reject(np.flatnonzero(pc.is_null(ids).to_numpy()), f"have no id in {name!r}")
        return ids

    def reject_repeated(self, values: Sequence[Any] | pa.ChunkedArray, what: str) -> None:
        """Raise `InvalidInput` if a value occurs twice: how many do, and the first with places."""
        if isinstance(values, pa.ChunkedArray):
            if pc.count_distinct(values, mode="all").as_py() == len(values):
                return
            values = values.to_pylist()
        repeated = _find_repeated(values)
        if not repeated:
            return
        places = [
            f"{values[row]!r} ({self.describe(row)}, before: {self.describe(before)})"
            for row, before in repeated[:MAX_SHOWN]
        ]
        raise InvalidInput(
            f"{len(repeated)} {what} occur again: {_join_first(places, len(repeated))}.",
            "They must be unique.",
        )

    def describe(self, row: int) -> str:
        """A row as the row of its file, counted from 0."""
        ends = np.cumsum([table.num_rows for table in self.tables])
        number = int(np.searchsorted(ends, row, side="right"))
        start = int(ends[number - 1]) if number else 0
        return f"row {row - start} of {self.sources[number].path}"

    def reject(
        self,
        faulty: Sequence[int] | NDArray[np.int64],
        fault: str,
        remedy: str = "Correct or remove them.",
        reasons: Mapping[int, str] | None = None,
    ) -> None:
        """Raise `InvalidInput` if there are faulty rows: how many, and the first with reasons."""
        if not len(faulty):
            return
        places = [
            self.describe(int(row)) + ("" if reasons is None else f": {reasons[int(row)]}")
            for row in faulty[:MAX_SHOWN]
        ]
        raise InvalidInput(
            f"{len(faulty)} of {len(self)} {self.title} {fault}: "
            f"{_join_first(places, len(faulty))}.",
            remedy,
        )


def _suggest_separator(names: Sequence[str]) -> str | None:
    for mark, plural in _SEPARATORS.items():
        if len(names) == 1 and mark in names[0]:
            return f"Its fields seem to be separated by {plural} ({names[0]!r}): use commas."
    return None


def _read_with_partition(source: SourceFile, rules: Rules) -> Columns:
    """The columns of a file and, where it lacks them, of its path; where both are, they agree."""
    columns = read_columns(source, rules)
    values = dict(columns.values)
    for name, text in source.partition().items():
        if name in values:
            texts = blank_to_null(values[name]).to_pylist()
            for row, other in enumerate(texts):
                if other != text:
                    raise InvalidInput(
                        f"Row {row} of {source.path} (the first row is row 0) has {other!r} in "
                        f"{name!r}, but the file's folder names {text!r}.",
                        "Correct the column or the folder's name.",
                    )
        elif name in rules:
            values[name] = pa.chunked_array(
                [pa.repeat(pa.scalar(text, pa.large_string()), columns.rows)]
            )
    return Columns(values, columns.names, columns.rows)


def _find_repeated(values: Sequence[Any]) -> list[tuple[int, int]]:
    """Each row whose value occurred before, with the first row of this value."""
    first: dict[Any, int] = {}
    rows = ((row, first.setdefault(value, row)) for row, value in enumerate(values))
    return [(row, before) for row, before in rows if before != row]


def _join_first(places: Sequence[str], total: int) -> str:
    """The first few of several places, and how many more there are."""
    more = f" and {total - MAX_SHOWN} more" if total > MAX_SHOWN else ""
    return f"{', '.join(places[:MAX_SHOWN])}{more} (the first row is row 0)"
