"""What a stage answers: one value that prints as a table for people or as JSON for programs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from ulcmod_dist.runtime.text import strip_control_chars


@dataclass(frozen=True)
class Summary:
    """The answer of a stage.

    Attributes:
        title: What the rows are, for people.
        columns: Key of each shown column -> its heading.
        rows: Records, one a line; JSON values.
        facts: Further facts, shown above the rows; JSON values.
        data: The facts for programs, where they are better served by other names and units.
        closing: Plain sentences that end the output, such as where a report lies.
        exit_code: What the command ends with (0 done, 3 finished with quarantined samples).
    """

    title: str
    columns: Mapping[str, str] = field(default_factory=dict)
    rows: Sequence[Mapping[str, Any]] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] | None = None
    closing: Sequence[str] = ()
    exit_code: int = 0

    def as_json(self) -> dict[str, Any]:
        """The machine-readable form: the facts and all columns of the rows."""
        facts = self.facts if self.data is None else self.data
        return {**facts, "rows": [dict(row) for row in self.rows]}

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if self.facts:
            yield self._facts()
        if self.rows:
            yield from self._tables(console, options)
        # Text, not markup: paths and names may hold brackets.
        yield from (Text(strip_control_chars(line), overflow="fold") for line in self.closing)

    def print(self, console: Console) -> None:
        """Print the form for people."""
        console.print(self)

    def _facts(self) -> Table:
        table = Table.grid(padding=(0, 2))
        for name, value in self.facts.items():
            table.add_row(Text(name.replace("_", " "), style="dim"), Text(shown(value)))
        return table

    def _tables(self, console: Console, options: ConsoleOptions) -> Iterator[Table]:
        """The rows, in as many tables as the width asks for; each begins with the first column."""
        unlimited = options.update_width(10**6)
        first, *others = self.columns
        keys, title = [first], self.title
        for key in others:
            wider = self._table([*keys, key], title)
            least = Measurement.get(console, unlimited, wider).minimum
            if len(keys) > 1 and least > options.max_width:
                yield self._table(keys, title)
                keys, title = [first], ""
            keys.append(key)
        yield self._table(keys, title)

    def _table(self, keys: Sequence[str], title: str) -> Table:
        table = Table(title=title or None, title_justify="left", title_style="bold")
        for key in keys:
            heading = self.columns[key]
            numeric = all(isinstance(row.get(key), int | float | None) for row in self.rows)
            # A number broken over two lines is read as two numbers.
            least = max(len(heading), *(len(shown(row.get(key))) for row in self.rows))
            table.add_column(
                heading,
                justify="right" if numeric else "left",
                min_width=least if numeric else None,
                overflow="fold",
            )
        for row in self.rows:
            table.add_row(*(Text(shown(row.get(key))) for key in keys))
        return table


def shown(value: Any) -> str:
    """A value for people: thousands separated, few digits, a dash for what is not there."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(shown(part) for part in value) or "none"
    # Ids and categories come from corpora.
    return strip_control_chars(str(value))


def size_text(count: float) -> str:
    """A number of bytes for people, in binary units."""
    units = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB")
    power = min(len(units) - 1, int(math.log(max(count, 1), 1024)))
    return f"{count / 1024**power:,.{1 if power else 0}f} {units[power]}"
