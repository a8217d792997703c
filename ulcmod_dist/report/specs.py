"""Figures as plain values: what is drawn, apart from who draws it.

Every text in a figure may come from a corpus, so renderers escape all of them.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from ulcmod_dist.results.types import Floats, Interval
from ulcmod_dist.runtime.text import number

MAX_TEXT_COLUMNS = 16
"""Columns up to which the cells of a heatmap bear their texts."""


class Scale(StrEnum):
    """How a heatmap's values become colours."""

    SEQUENTIAL = "sequential"  # from zero upwards
    DIVERGING = "diverging"  # symmetric about zero


@dataclass(frozen=True, kw_only=True, eq=False)
class FigureSpec:
    """What every figure has.

    Attributes:
        title: Short heading.
        caption: What the picture shows and how to read it.
        alternative: What a reader who cannot see the picture should know.
        basis: Seeds and restarts behind the picture; empty where neither matters.
    """

    title: str
    caption: str
    alternative: str
    basis: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class Heatmap(FigureSpec):
    """A matrix as coloured cells.

    Attributes:
        values: The matrix, shape (rows, columns).
        row_labels: One label a row, top to bottom.
        column_labels: One label a column, left to right.
        row_axis: Name of the rows.
        column_axis: Name of the columns.
        value_axis: Name of the values, with their unit.
        hover: Text of each cell, lines separated by newlines.
        scale: How values become colours.
        cell_texts: Text printed inside each cell where there is room, or None for bare cells.
        marks: A position along the columns to mark in each row, or None.
        row_modules: Module number of each row where a row is a module, else None.
    """

    values: Floats
    row_labels: tuple[str, ...]
    column_labels: tuple[str, ...]
    row_axis: str
    column_axis: str
    value_axis: str
    hover: tuple[tuple[str, ...], ...]
    scale: Scale
    cell_texts: tuple[tuple[str, ...], ...] | None = None
    marks: tuple[float, ...] | None = None
    row_modules: tuple[int, ...] | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class StackedBars(FigureSpec):
    """Horizontal bars of equal length, each divided into shares.

    Attributes:
        labels: One label a bar, top to bottom.
        parts: Names of the parts.
        shares: Share of each part in each bar, shape (bars, parts); rows sum to 1 or are 0.
        hover: Text of each part of each bar.
        value_axis: Name of the shares.
        row_modules: Module number of each bar where a bar is a module, else None.
    """

    labels: tuple[str, ...]
    parts: tuple[str, ...]
    shares: Floats
    hover: tuple[tuple[str, ...], ...]
    value_axis: str
    row_modules: tuple[int, ...] | None = None


@dataclass(frozen=True)
class DotSeries:
    """One value a row, with intervals.

    Attributes:
        name: Name in the legend.
        values: One number a row; NaN leaves the row empty.
        low: Lower ends of the intervals; NaN for none.
        high: Upper ends of the intervals; NaN for none.
        hover: One text a row.
    """

    name: str
    values: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    hover: tuple[str, ...]

    @classmethod
    def from_intervals(
        cls, name: str, rows: Sequence[str], values: Sequence[Interval]
    ) -> "DotSeries":
        """Return one interval a row; the hover text repeats row, value and interval."""
        return cls(
            name=name,
            values=tuple(value.mean for value in values),
            low=tuple(math.nan if value.low is None else value.low for value in values),
            high=tuple(math.nan if value.high is None else value.high for value in values),
            hover=tuple(
                f"{row}\n{name} {format_interval(value)}"
                for row, value in zip(rows, values, strict=True)
            ),
        )


def format_interval(value: Interval) -> str:
    """Return a number with its interval in brackets, where it has one."""
    if value.low is None or value.high is None:
        return number(value.mean)
    return f"{number(value.mean)} ({number(value.low)} to {number(value.high)})"


@dataclass(frozen=True, kw_only=True, eq=False)
class Dots(FigureSpec):
    """Dots with intervals on a common horizontal axis that includes zero.

    Attributes:
        labels: One label a row, top to bottom.
        series: One or several values a row; a legend is drawn for several.
        value_axis: Name of the values, with their unit.
        row_modules: Module number of each row where a row is a module, else None.
    """

    labels: tuple[str, ...]
    series: tuple[DotSeries, ...]
    value_axis: str
    row_modules: tuple[int, ...] | None = None

    def offset(self, index: int) -> float:
        """Return how far below its row a series lies, so that intervals do not cover each other."""
        return (index - (len(self.series) - 1) / 2) * 0.22


@dataclass(frozen=True)
class Line:
    """One line; hovering shows its name and values."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Lines(FigureSpec):
    """Lines of which one stands out.

    Attributes:
        lines: The lines.
        highlighted: Index of the line that stands out.
        x_axis: Name of the horizontal axis.
        y_axis: Name of the vertical axis.
    """

    lines: tuple[Line, ...]
    highlighted: int
    x_axis: str
    y_axis: str


@dataclass(frozen=True)
class Branch:
    """One joint of a dendrogram: two branches that meet.

    Attributes:
        distances: Distance at the four corners of the bracket.
        rows: Row at the four corners, leaf i lying at row i.
        hover: What meets here.
    """

    distances: tuple[float, ...]
    rows: tuple[float, ...]
    hover: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Dendrogram(FigureSpec):
    """A tree whose leaves are rows, the root at the right.

    Attributes:
        labels: One label a leaf, top to bottom.
        branches: The joints.
        value_axis: Name of the distances.
    """

    labels: tuple[str, ...]
    branches: tuple[Branch, ...]
    value_axis: str


@dataclass(frozen=True)
class FlowNode:
    """One module at one level of a flow.

    Attributes:
        level: Level, from 0 at the left.
        number: The module's number.
        label: Its label.
        size: Units in it.
        group: Index of the module of the first level that it mostly comes from.
    """

    level: int
    number: int
    label: str
    size: float
    group: int


@dataclass(frozen=True)
class FlowLink:
    """Units that two modules of neighbouring levels share.

    Attributes:
        source: Index of the left node.
        target: Index of the right node.
        size: Units shared.
        hover: What the link shows, in words.
    """

    source: int
    target: int
    size: float
    hover: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Flow(FigureSpec):
    """How modules split and join from level to level.

    Attributes:
        levels: Heading of each level.
        nodes: The modules of all levels, level by level.
        links: What neighbouring levels share.
    """

    levels: tuple[str, ...]
    nodes: tuple[FlowNode, ...]
    links: tuple[FlowLink, ...]

    def columns(self) -> list[list[int]]:
        """Return the nodes of each level from top to bottom, those of one origin together."""
        columns = []
        for level in range(len(self.levels)):
            members = [i for i, node in enumerate(self.nodes) if node.level == level]
            columns.append(sorted(members, key=lambda i: (self.nodes[i].group, i)))
        return columns


Figure = Heatmap | StackedBars | Dots | Lines | Dendrogram | Flow


def shows_cell_texts(spec: Figure) -> bool:
    """Return whether a figure prints texts in cells, of which there may be too many a row."""
    if not isinstance(spec, Heatmap) or spec.cell_texts is None:
        return False
    return len(spec.column_labels) <= MAX_TEXT_COLUMNS
