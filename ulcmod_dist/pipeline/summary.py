"""The result of a command: one value that prints as tables for people or JSON for programs."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Column, Table
from rich.text import Text

from ulcmod_dist.runtime.text import strip_control_chars


@dataclass(frozen=True)
class Summary:
    """The result of a command: facts, then rows under a title, then closing sentences.

    ``columns`` maps the key of each shown column to its heading; ``data`` replaces the facts in
    JSON, with other names and units.
    """

    title: str
    columns: Mapping[str, str] = field(default_factory=dict)
    rows: Sequence[Mapping[str, Any]] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] | None = None
    closing: Sequence[str] = ()
    exit_code: int = 0
    num_keys: int = 1  # columns that name a row; a table that is split repeats them

    def as_json(self) -> dict[str, Any]:
        """The facts and all columns of the rows, as JSON values."""
        facts = self.facts if self.data is None else self.data
        return {**facts, "rows": [dict(row) for row in self.rows]}

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if self.facts:
            facts = Table.grid("", Column(overflow="fold"), padding=(0, 2))
            for name, value in self.facts.items():
                facts.add_row(Text(name.replace("_", " "), style="dim"), Text(format_value(value)))
            yield facts
        if self.rows:
            yield from self._tables(console, options)
        # Text, not markup: paths and names may hold brackets.
        yield from (Text(strip_control_chars(line), overflow="fold") for line in self.closing)

    def _tables(self, console: Console, options: ConsoleOptions) -> Iterator[Table]:
        """The rows, in as many tables as the width requires; each begins with the key columns."""
        unlimited = options.update_width(10**6)
        named, others = [*self.columns][: self.num_keys], [*self.columns][self.num_keys :]
        keys, title = named, self.title
        for key in others:
            wider = self._table([*keys, key], title)
            least = Measurement.get(console, unlimited, wider).minimum
            if len(keys) > len(named) and least > options.max_width:
                yield self._table(keys, title)
                keys, title = named, ""
            keys = [*keys, key]
        yield self._table(keys, title)

    def _table(self, keys: Sequence[str], title: str) -> Table:
        table = Table(title=title or None, title_justify="left", title_style="bold")
        for key in keys:
            heading = self.columns[key]
            numeric = all(isinstance(row.get(key), int | float | None) for row in self.rows)
            # A number wrapped onto a second line would read as two numbers.
            least = max(len(heading), *(len(format_value(row.get(key))) for row in self.rows))
            table.add_column(
                heading,
                justify="right" if numeric else "left",
                min_width=least if numeric else None,
                overflow="fold",
            )
        for row in self.rows:
            table.add_row(*(Text(format_value(row.get(key))) for key in keys))
        return table


def format_value(value: Any) -> str:
    """Format a value for people: separated thousands, few digits, a dash for None."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(format_value(part) for part in value) or "none"
    # Sample ids and categories come from corpora and may contain control characters.
    return strip_control_chars(str(value))


def format_bytes(count: float) -> str:
    """Format a number of bytes in binary units."""
    units = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB")
    power = min(len(units) - 1, int(math.log(max(count, 1), 1024)))
    return f"{count / 1024**power:,.{1 if power else 0}f} {units[power]}"
