"""Figures as PNG files: each specification drawn by matplotlib, the same bytes every time."""

import io
import textwrap
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure as Canvas
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path

from ulcmod_dist.report.colours import (
    LIGHT,
    Theme,
    get_colour_limits,
    get_part_colour,
    place_cell_texts,
)
from ulcmod_dist.report.specs import (
    POINTS_BELOW,
    Dendrogram,
    Dots,
    Figure,
    Flow,
    FlowNode,
    Heatmap,
    Lines,
    StackedBars,
)
from ulcmod_dist.runtime.text import MINUS

Axes = Any
WIDTH = 8.0  # inches
DPI = 160
BASIS_CHARACTERS = 140
NODE_WIDTH = 0.024  # of a flow, as a share of the distance of two levels

_STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.parse_math": False,  # a dollar sign in a corpus is a dollar sign
    "text.usetex": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": True,
}


def render(spec: Figure, theme: Theme = LIGHT) -> bytes:
    """Return the PNG file of a figure; equal specifications give equal bytes."""
    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        # Scripts that the font lacks are drawn as boxes; the page shows them in full.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        warnings.filterwarnings("ignore", message="Matplotlib currently does not support")
        canvas = Canvas(figsize=(WIDTH, _compute_height(spec)), dpi=DPI, layout="constrained")
        FigureCanvasAgg(canvas)
        canvas.set_facecolor(theme.background)
        axes = canvas.add_subplot()
        axes.set_title(spec.title, loc="left", fontsize=11, color=theme.ink, pad=24)
        axes.set_facecolor(theme.background)
        axes.tick_params(colors=theme.muted, labelcolor=theme.muted, length=3)
        axes.spines[:].set_color(theme.rule)
        axes.xaxis.label.set_color(theme.muted)
        axes.yaxis.label.set_color(theme.muted)
        _get_painter(spec)(axes, spec, theme)
        if spec.basis:
            basis = textwrap.fill(spec.basis, BASIS_CHARACTERS)
            canvas.supxlabel(basis, x=0.01, ha="left", fontsize=7, color=theme.muted)
        buffer = io.BytesIO()
        canvas.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _get_painter(spec: Figure) -> Callable[[Axes, Any, Theme], None]:
    painters: dict[type, Callable[[Axes, Any, Theme], None]] = {
        Heatmap: _draw_heatmap,
        StackedBars: _draw_stacked_bars,
        Dots: _draw_dots,
        Lines: _draw_lines,
        Dendrogram: _draw_dendrogram,
        Flow: _draw_flow,
    }
    return painters[type(spec)]


def _compute_height(spec: Figure) -> float:
    match spec:
        case Heatmap():
            rows = len(spec.row_labels)
        case StackedBars() | Dots() | Dendrogram():
            rows = len(spec.labels)
        case Lines():
            rows = 10
        case Flow():
            rows = 4 + max(map(len, spec.columns()))
    return min(12.0, 1.6 + 0.3 * max(4, rows))


def _label_rows(axes: Axes, labels: Sequence[str]) -> None:
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)


def _add_legend(axes: Axes, theme: Theme, columns: int) -> None:
    axes.legend(
        loc="lower left", bbox_to_anchor=(0, 1.0), ncols=columns, frameon=False, fontsize=8,
        labelcolor=theme.ink, borderaxespad=0.2, handlelength=1.0,
    )  # fmt: skip


def _draw_heatmap(axes: Axes, spec: Heatmap, theme: Theme) -> None:
    low, high = get_colour_limits(spec)
    colours = LinearSegmentedColormap.from_list("scale", list(theme.scale(spec.scale)))
    image = axes.imshow(
        spec.values, cmap=colours, vmin=low, vmax=high, aspect="auto", interpolation="nearest"
    )
    _label_rows(axes, spec.row_labels)
    step = max(1, len(spec.column_labels) // 48)
    shown = range(0, len(spec.column_labels), step)
    texts = [spec.column_labels[i] for i in shown]
    turned = max(map(len, texts), default=0) > 4
    axes.set_xticks(
        list(shown), texts, rotation=35 if turned else 0, ha="right" if turned else "center"
    )
    axes.set_xlabel(spec.column_axis)
    axes.set_ylabel(spec.row_axis)
    bar = axes.figure.colorbar(image, ax=axes, fraction=0.03, pad=0.02)
    bar.set_label(spec.value_axis, color=theme.muted)
    bar.ax.tick_params(colors=theme.muted)
    bar.outline.set_visible(False)
    for row, column, text, ink in place_cell_texts(spec, theme):
        axes.text(column, row, text, ha="center", va="center", fontsize=8, color=ink)
    if spec.marks is not None:
        axes.scatter(
            spec.marks, range(len(spec.marks)), marker="D", s=38, color=theme.second,
            edgecolors=theme.background, zorder=3,
        )  # fmt: skip


def _draw_stacked_bars(axes: Axes, spec: StackedBars, theme: Theme) -> None:
    left = np.zeros(len(spec.labels))
    for index, part in enumerate(spec.parts):
        colour = get_part_colour(index, len(spec.parts), theme)
        axes.barh(
            range(len(spec.labels)), spec.shares[:, index], left=left, height=0.7, label=part,
            color=colour, edgecolor=theme.background, linewidth=0.6,
        )  # fmt: skip
        left = left + spec.shares[:, index]
    _label_rows(axes, spec.labels)
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_xlabel(spec.value_axis)
    _add_legend(axes, theme, columns=4)
    axes.set_title(spec.title, loc="left", fontsize=11, color=theme.ink, pad=44)


def _draw_dots(axes: Axes, spec: Dots, theme: Theme) -> None:
    axes.grid(visible=True, color=theme.rule, linewidth=0.6)
    axes.set_axisbelow(True)
    for index, series in enumerate(spec.series):
        rows = np.arange(len(series.values)) + spec.offset(index)
        colour = theme.series(index)
        axes.hlines(rows, series.low, series.high, color=colour, linewidth=1.4)
        marker = ("o", "s", "D", "^")[index % 4]
        axes.scatter(
            series.values, rows, s=34, color=colour, marker=marker, label=series.name, zorder=3
        )
        places = [
            (x, row) for row, points in zip(rows, series.points, strict=False) for x in points
        ]
        axes.scatter(
            [x for x, _ in places], [row + POINTS_BELOW for _, row in places], s=14,
            facecolors="none", edgecolors=colour, linewidths=0.9, zorder=2,
        )  # fmt: skip
    _label_rows(axes, spec.labels)
    left, right = axes.get_xlim()
    axes.set_xlim(min(left, 0.0), max(right, 0.0))
    axes.set_xlabel(spec.value_axis)
    axes.xaxis.set_major_formatter(_format_thousands)
    if len(spec.series) > 1:
        _add_legend(axes, theme, columns=3)


def _format_thousands(value: float, _: int) -> str:
    return f"{value:,.10g}".replace("-", MINUS)


def _draw_lines(axes: Axes, spec: Lines, theme: Theme) -> None:
    axes.grid(visible=True, axis="y", color=theme.rule, linewidth=0.6)
    for index, line in enumerate(spec.lines):
        kept = index == spec.highlighted
        axes.plot(
            line.x, line.y, color=theme.accent if kept else theme.faint,
            linewidth=2.2 if kept else 1.0, zorder=3 if kept else 2,
        )  # fmt: skip
    axes.set_xlabel(spec.x_axis)
    axes.set_ylabel(spec.y_axis)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.yaxis.set_major_formatter(_format_thousands)


def _draw_dendrogram(axes: Axes, spec: Dendrogram, theme: Theme) -> None:
    for branch in spec.branches:
        axes.plot(branch.distances, branch.rows, color=theme.accent, linewidth=1.4)
    _label_rows(axes, spec.labels)
    axes.set_xlim(0, spec.reach)
    place, meaning = spec.mark
    axes.axvline(place, color=theme.muted, linewidth=0.8, linestyle="--")
    axes.text(
        place, 1.0, meaning, transform=axes.get_xaxis_transform(), fontsize=8, ha="right",
        va="bottom", color=theme.muted,
    )  # fmt: skip
    axes.set_xlabel(spec.value_axis)


def _draw_flow(axes: Axes, spec: Flow, theme: Theme) -> None:
    axes.set_axis_off()
    last = max(1, len(spec.levels) - 1)
    spans = _compute_spans(spec)
    colours = [theme.palette[node.group % len(theme.palette)] for node in spec.nodes]
    _draw_bands(axes, spec, spans, colours)
    for node, (top, bottom), colour in zip(spec.nodes, spans, colours, strict=True):
        corner = (node.level - NODE_WIDTH / 2, top)
        axes.add_patch(Rectangle(corner, NODE_WIDTH, bottom - top, color=colour))
        right = node.level == last
        axes.text(
            node.level + (-0.03 if right else 0.03), (top + bottom) / 2, node.label, fontsize=7.5,
            va="center", ha="right" if right else "left", color=theme.ink,
        )  # fmt: skip
    for index, level in enumerate(spec.levels):
        place = ("left", "center", "right")[(index > 0) + (index == last)]
        axes.text(index, -0.02, level, ha=place, va="bottom", color=theme.muted)
    axes.set_xlim(-0.03, last + 0.03)
    axes.set_ylim(1.02, -0.06)


def _compute_spans(spec: Flow) -> list[tuple[float, float]]:
    """Return the top and bottom of each node."""
    spans = [(0.0, 0.0)] * len(spec.nodes)
    for members in spec.columns():
        gap = 0.25 / max(1, len(members))
        total = sum(spec.nodes[i].size for i in members) or 1.0
        scale = (1.0 - gap * (len(members) - 1)) / total
        top = 0.0
        for i in members:
            bottom = top + spec.nodes[i].size * scale
            spans[i] = (top, bottom)
            top = bottom + gap
    return spans


def _draw_bands(
    axes: Axes, spec: Flow, spans: Sequence[tuple[float, float]], colours: Sequence[str]
) -> None:
    leaving = [top for top, _ in spans]
    entering = [top for top, _ in spans]
    order = sorted(spec.links, key=lambda link: (spans[link.source][0], spans[link.target][0]))
    for link in order:
        left, right = spec.nodes[link.source], spec.nodes[link.target]
        start = _scale_size(link.size, left, spans[link.source])
        end = _scale_size(link.size, right, spans[link.target])
        y0, y1 = leaving[link.source], entering[link.target]
        leaving[link.source] += start
        entering[link.target] += end
        band = _build_band(
            left.level + 0.012, right.level - 0.012, (y0, y0 + start), (y1, y1 + end)
        )
        axes.add_patch(PathPatch(band, color=colours[link.source], alpha=0.32, linewidth=0))


def _scale_size(size: float, node: FlowNode, span: tuple[float, float]) -> float:
    return (span[1] - span[0]) * size / node.size if node.size else 0.0


def _build_band(x0: float, x1: float, start: tuple[float, float], end: tuple[float, float]) -> Path:
    middle = (x0 + x1) / 2
    points = [
        (x0, start[0]), (middle, start[0]), (middle, end[0]), (x1, end[0]),
        (x1, end[1]), (middle, end[1]), (middle, start[1]), (x0, start[1]), (x0, start[0]),
    ]  # fmt: skip
    curve = [Path.CURVE4] * 3
    return Path(points, [Path.MOVETO, *curve, Path.LINETO, *curve, Path.CLOSEPOLY])
