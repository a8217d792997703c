"""Tables as plain values, for Parquet, for the terminal, for JSON and for the page."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import pyarrow as pa

from ulcmod_dist.results.types import Interval, Repeats
from ulcmod_dist.runtime.text import DASH, number, percent, strip_control_chars

Cell = str | int | float | None


class ColumnKind(StrEnum):
    """What a column holds, which decides its type and how it is printed.

    A bound is an end of the interval of the number in the column before it.
    """

    TEXT = "text"
    COUNT = "count"
    NUMBER = "number"
    BOUND = "bound"
    SHARE = "share"


@dataclass(frozen=True)
class Column:
    """One column: its key in files, its heading for readers, and what it holds."""

    key: str
    title: str
    kind: ColumnKind = ColumnKind.TEXT


@dataclass(frozen=True)
class Table:
    """One table."""

    name: str  # name of its file, without ending
    title: str  # its heading
    caption: str  # what it shows, in plain sentences; may be empty
    columns: tuple[Column, ...]  # its columns
    rows: tuple[tuple[Cell, ...], ...]  # its rows; None is an empty cell

    def to_arrow(self) -> pa.Table:
        """Return the table for Parquet; ``to_pandas`` of the result gives a DataFrame."""
        types = {ColumnKind.TEXT: pa.string(), ColumnKind.COUNT: pa.int64()}
        fields = [pa.field(c.key, types.get(c.kind, pa.float64())) for c in self.columns]
        values = zip(*self.rows, strict=True) if self.rows else ([] for _ in fields)
        arrays = [
            pa.array(list(column), field.type) for column, field in zip(values, fields, strict=True)
        ]
        return pa.Table.from_arrays(arrays, schema=pa.schema(fields))

    def to_records(self) -> list[dict[str, Cell]]:
        """Return the rows as dictionaries, for ``--json``."""
        keys = [column.key for column in self.columns]
        return [dict(zip(keys, row, strict=True)) for row in self.rows]

    def filled(self) -> "Table":
        """Return the table without columns that hold nothing."""
        kept = [i for i in range(len(self.columns)) if any(row[i] is not None for row in self.rows)]
        rows = tuple(tuple(row[i] for i in kept) for row in self.rows)
        return replace(self, columns=tuple(self.columns[i] for i in kept), rows=rows)

    def groups(self) -> tuple[tuple[int, ...], ...]:
        """Return the positions of the columns that readers see as one: a number and its bounds."""
        groups: list[tuple[int, ...]] = []
        for position, column in enumerate(self.columns):
            if column.kind is ColumnKind.BOUND and groups:
                groups[-1] += (position,)
            else:
                groups.append((position,))
        return tuple(groups)


def format_cell(cell: Cell, kind: ColumnKind) -> str:
    """Return one cell as readers see it; an empty one is a dash."""
    if cell is None:
        return DASH
    if isinstance(cell, str):
        return strip_control_chars(cell)
    return percent(cell) if kind is ColumnKind.SHARE else number(cell)


def interval_columns(**titles: str) -> Iterator[Column]:
    """Yield the columns of numbers, by their keys, and of the ends of their intervals."""
    for key, title in titles.items():
        yield Column(key, title, ColumnKind.NUMBER)
        yield Column(f"{key}_low", f"{title}, low", ColumnKind.BOUND)
        yield Column(f"{key}_high", f"{title}, high", ColumnKind.BOUND)


def interval_cells(*values: Interval | Repeats | None) -> Iterator[Cell]:
    """Yield the cells of numbers and of the ends of their intervals."""
    for value in values:
        yield from (None, None, None) if value is None else (value.mean, value.low, value.high)


def build_table(
    name: str,
    title: str,
    columns: Sequence[Column],
    rows: Iterable[Sequence[Cell]],
    caption: str = "",
) -> Table:
    """Return a table from any rows; a number that is not finite becomes an empty cell."""
    finite = tuple(tuple(_finite(cell) for cell in row) for row in rows)
    return Table(name, title, caption, tuple(columns), finite)


def _finite(cell: Cell) -> Cell:
    return None if isinstance(cell, float) and not math.isfinite(cell) else cell
