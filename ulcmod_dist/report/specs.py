"""Figures as plain values: what is drawn, apart from who draws it.

Every text in a figure may come from a corpus, so renderers escape all of them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from ulcmod_dist.results.types import Floats, Interval, Repeats
from ulcmod_dist.runtime.text import number

MAX_TEXT_COLUMNS = 16
"""Columns up to which the cells of a heatmap bear their texts."""


POINTS_BELOW = 0.2
"""How far below their mean single values lie, in rows."""


class Scale(StrEnum):
    """How a heatmap's values become colours."""

    SEQUENTIAL = "sequential"  # from zero upwards
    DIVERGING = "diverging"  # symmetric about zero


@dataclass(frozen=True, kw_only=True, eq=False)
class FigureSpec:
    """What every figure has."""

    title: str  # short heading
    caption: str  # what the picture shows and how to read it
    alternative: str  # what a reader who cannot see the picture should know
    basis: str = ""  # seeds and restarts behind the picture; empty where neither matters
    row_modules: tuple[int, ...] | None = None  # module that a click on each row picks, if any


@dataclass(frozen=True, kw_only=True, eq=False)
class Heatmap(FigureSpec):
    """A matrix as coloured cells."""

    values: Floats  # the matrix, shape (rows, columns)
    row_labels: tuple[str, ...]  # one label a row, top to bottom
    column_labels: tuple[str, ...]  # one label a column, left to right
    row_axis: str = ""  # name of the rows
    column_axis: str = ""  # name of the columns
    value_axis: str  # name of the values, with their unit
    hover: Callable[[int, int], str]  # text of the cell at a row and a column, on several lines
    scale: Scale  # how values become colours
    cell_texts: tuple[tuple[str, ...], ...] | None = None  # text in each cell where there is room
    marks: tuple[float, ...] | None = None  # a position along the columns to mark in each row

    @property
    def shows_cell_texts(self) -> bool:
        """Whether texts are printed in the cells, of which there may be too many a row."""
        return self.cell_texts is not None and len(self.column_labels) <= MAX_TEXT_COLUMNS


@dataclass(frozen=True, kw_only=True, eq=False)
class StackedBars(FigureSpec):
    """Horizontal bars of equal length, each divided into shares."""

    labels: tuple[str, ...]  # one label a bar, top to bottom
    parts: tuple[str, ...]  # names of the parts
    shares: Floats  # shape (bars, parts); rows sum to 1 or are 0
    hover: Callable[[int, int], str]  # text of the part of a bar, by bar and part
    value_axis: str  # name of the shares


@dataclass(frozen=True)
class DotSeries:
    """One value a row, with its interval, or with repeats that are drawn one by one."""

    name: str  # name in the legend
    values: tuple[Interval | Repeats, ...]  # NaN leaves the row empty

    @property
    def means(self) -> Floats:
        """The values alone."""
        return np.array([value.mean for value in self.values])

    @property
    def bounds(self) -> Floats:
        """Lower and upper ends of the intervals, shape (2, rows); NaN for none."""
        ends = [(v.low, v.high) if isinstance(v, Interval) else (None, None) for v in self.values]
        return np.array(ends, dtype=np.float64).T

    @property
    def points(self) -> list[tuple[int, float]]:
        """Row and value of each repeat."""
        repeats = [v.values if isinstance(v, Repeats) else () for v in self.values]
        return [(row, value) for row, values in enumerate(repeats) for value in values]


def format_interval(value: Interval | Repeats) -> str:
    """Return a number with its interval in brackets, where it has one."""
    if value.low is None or value.high is None:
        return number(value.mean)
    return f"{number(value.mean)} ({number(value.low)} to {number(value.high)})"


@dataclass(frozen=True, kw_only=True, eq=False)
class Dots(FigureSpec):
    """Dots with intervals on a common horizontal axis that includes zero."""

    labels: tuple[str, ...]  # one label a row, top to bottom
    series: tuple[DotSeries, ...]  # one or several values a row
    value_axis: str  # name of the values, with their unit

    def offset(self, index: int) -> float:
        """Return how far below its row a series lies, so that intervals do not cover each other."""
        return (index - (len(self.series) - 1) / 2) * 0.22


@dataclass(frozen=True)
class Branch:
    """One joint of a dendrogram: two branches that meet."""

    distances: tuple[float, ...]  # distance at the four corners of the bracket
    rows: tuple[float, ...]  # row at the four corners, leaf i lying at row i
    hover: str  # what meets here


@dataclass(frozen=True, kw_only=True, eq=False)
class Dendrogram(FigureSpec):
    """A tree whose leaves are rows, the root at the right."""

    labels: tuple[str, ...]  # one label a leaf, top to bottom
    branches: tuple[Branch, ...]
    value_axis: str  # name of the distances
    mark: tuple[float, str]  # a distance to mark, and what it means

    @property
    def reach(self) -> float:
        """Return the end of the axis: beyond all joints and the mark."""
        return 1.05 * max(self.mark[0], *(max(branch.distances) for branch in self.branches))


@dataclass(frozen=True)
class FlowNode:
    """One module at one level of a flow."""

    level: int  # from 0 at the left
    number: int
    label: str
    size: float  # units in it
    group: int  # number of its colour: that of the module that it mostly comes from


@dataclass(frozen=True)
class FlowLink:
    """Units that two modules of neighbouring levels share."""

    source: int  # index of the left node
    target: int  # index of the right node
    size: float  # units shared
    hover: str  # what the link shows, in words


@dataclass(frozen=True, kw_only=True, eq=False)
class Flow(FigureSpec):
    """How modules split and join from level to level."""

    levels: tuple[str, ...]  # heading of each level
    nodes: tuple[FlowNode, ...]  # the modules of all levels, level by level
    links: tuple[FlowLink, ...]  # what neighbouring levels share
    members: str = "units"  # what a size counts

    def columns(self) -> list[list[int]]:
        """Return the nodes of each level from top to bottom, those of one origin together."""
        columns = []
        for level in range(len(self.levels)):
            members = [i for i, node in enumerate(self.nodes) if node.level == level]
            columns.append(sorted(members, key=lambda i: (self.nodes[i].group, i)))
        return columns

    def spans(self, gaps: float = 0.0) -> list[tuple[float, float]]:
        """Return top and bottom of each node in a height of 1, of which ``gaps`` lie between."""
        spans = [(0.0, 0.0)] * len(self.nodes)
        for members in self.columns():
            gap = gaps / max(1, len(members))
            total = sum(self.nodes[i].size for i in members) or 1.0
            scale = (1.0 - gap * (len(members) - 1)) / total
            top = 0.0
            for i in members:
                spans[i] = top, top + self.nodes[i].size * scale
                top = spans[i][1] + gap
        return spans


Figure = Heatmap | StackedBars | Dots | Dendrogram | Flow
