"""Figures as files of a paper's column width, in several formats, the same bytes every time."""

import contextlib
import hashlib
import io
import json
import textwrap
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure as Canvas
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import PathPatch, Rectangle
from matplotlib.path import Path
from matplotlib.patheffects import Normal
from matplotlib.text import Text
from matplotlib.transforms import blended_transform_factory

from ulcmod_dist.report.colours import (
    LIGHT,
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
    StackedBars,
)
from ulcmod_dist.runtime.text import MINUS, label, number

Axes = Any
WIDTH = 3.3  # inches, a column of a paper of two
MAX_HEIGHT = 9.0  # inches, a page
DPI = 400
LABEL_WIDTH = 24  # characters of a line of a label
MAX_WRAPPED = 24  # labels up to which each has room for several lines
MAX_CELL_TEXT = 32  # characters of the texts in a row of cells that fit
NODE_WIDTH = 0.024  # of a flow, as a share of the distance of two levels

# What would differ from one moment or machine to the next is left out of each format.
FORMATS: dict[str, tuple[Any, dict[str, None]]] = {
    "png": (FigureCanvasAgg, {"Software": None}),
    "svg": (FigureCanvasSVG, {"Date": None, "Creator": None}),
    "pdf": (FigureCanvasPdf, {"CreationDate": None, "Creator": None, "Producer": None}),
}

_STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 6.5,
    "axes.labelsize": 6.5,
    "xtick.labelsize": 6,
    "ytick.labelsize": 6,
    "axes.linewidth": 0.6,
    "text.parse_math": False,  # a dollar sign in a corpus is a dollar sign
    "text.usetex": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": True,
    "svg.hashsalt": "ulcmod",
}


def render(
    spec: Figure, formats: Sequence[str] = tuple(FORMATS), *, titles: bool = True
) -> dict[str, bytes]:
    """Return the files of a figure by ending; equal specifications give equal bytes.

    Args:
        spec: The figure.
        formats: Endings, of ``FORMATS``.
        titles: Whether its title, and the seeds and restarts behind it, are drawn too. A paper
            has them in the caption.
    """
    with _style():
        canvas = draw(spec, titles=titles)
        return {ending: _save(canvas, ending) for ending in formats}


def digest(spec: Figure, *, titles: bool = True) -> str:
    """SHA-256 (hexadecimal) of all that the files of a figure depend on, as `render` gets it."""
    text = json.dumps([type(spec).__name__, spec, titles, mpl.__version__], default=_as_plain)
    return hashlib.sha256(text.encode()).hexdigest()


def _as_plain(value: Any) -> Any:
    """Part of a specification as JSON can hold it."""
    if callable(value):
        return None  # what the page shows under the pointer
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else vars(value)


def draw(spec: Figure, *, titles: bool = True) -> Canvas:
    """Return a figure with everything in its place."""
    layout = ConstrainedLayoutEngine()
    with _style():
        canvas = Canvas(figsize=(WIDTH, _compute_height(spec)), dpi=DPI, layout=layout)
        FigureCanvasAgg(canvas)
        axes = canvas.add_subplot()
        axes.tick_params(colors=LIGHT.muted, labelcolor=LIGHT.muted, length=2, width=0.6)
        axes.spines[:].set_color(LIGHT.rule)
        axes.xaxis.label.set_color(LIGHT.muted)
        axes.yaxis.label.set_color(LIGHT.muted)
        _get_painter(spec)(axes, spec)
        if titles:
            title = textwrap.fill(spec.title, 52)
            canvas.suptitle(title, x=0.01, ha="left", fontsize=7.5, color=LIGHT.ink)
            basis = textwrap.fill(spec.basis, 84)
            canvas.supxlabel(basis, x=0.01, ha="left", fontsize=5, color=LIGHT.muted)
        layout.execute(canvas)
        canvas.set_layout_engine("none")  # one layout serves all formats
    return canvas


@contextlib.contextmanager
def _style() -> Iterator[None]:
    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        # Scripts that the font lacks are drawn as boxes; the page shows them in full.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        warnings.filterwarnings("ignore", message="Matplotlib currently does not support")
        yield


def _save(canvas: Canvas, ending: str) -> bytes:
    buffer = io.BytesIO()
    canvas.set_dpi(DPI)  # which vector formats change
    if ending == "pdf":
        # Texts as outlines: journals refuse fonts of Type 3, the default, and a subset of a
        # TrueType font takes longer than all the rest.
        for text in canvas.findobj(Text):
            text.set_path_effects([Normal()])
    # Not by savefig, which draws a figure twice if it ever had a layout engine.
    backend, metadata = FORMATS[ending]
    getattr(backend(canvas), f"print_{ending}")(buffer, metadata=metadata)
    return buffer.getvalue()


def _get_painter(spec: Figure) -> Callable[[Axes, Any], None]:
    painters: dict[type, Callable[[Axes, Any], None]] = {
        Heatmap: _draw_heatmap,
        StackedBars: _draw_stacked_bars,
        Dots: _draw_dots,
        Dendrogram: _draw_dendrogram,
        Flow: _draw_flow,
    }
    return painters[type(spec)]


def _compute_height(spec: Figure) -> float:
    match spec:
        case Heatmap():
            labels, rows = spec.row_labels, float(len(spec.row_labels))
        case StackedBars():
            labels, rows = spec.labels, len(spec.labels) + len(spec.parts) / 3  # and the legend
        case Dots():
            labels, rows = spec.labels, (1 + 0.2 * len(spec.series)) * len(spec.labels)
        case Dendrogram():
            labels, rows = spec.labels, len(spec.labels)
        case Flow():
            labels, rows = (), 4 + max(map(len, spec.columns()))
    lines = max((text.count("\n") + 1 for text in _fold_labels(labels)), default=1)
    return min(MAX_HEIGHT, 1.3 + max(0.2, 0.1 * lines) * max(4, rows))


def _fold_labels(labels: Sequence[str]) -> list[str]:
    """Return every label in full, on several lines or, among many rows, cut to one."""
    fold = textwrap.fill if len(labels) <= MAX_WRAPPED else label
    return [fold(text, LABEL_WIDTH) for text in labels]


def _label_rows(axes: Axes, labels: Sequence[str]) -> None:
    step = max(1, -(-len(labels) // 60))
    axes.set_yticks(range(0, len(labels), step), _fold_labels(labels)[::step])
    axes.set_ylim(len(labels) - 0.5, -0.5)


def _add_legend(axes: Axes) -> None:
    """Place the legend above the axes, over the width of the whole figure."""
    place = blended_transform_factory(axes.figure.transFigure, axes.transAxes)
    axes.legend(
        loc="lower left", bbox_to_anchor=(0.01, 1.0), bbox_transform=place, ncols=2, fontsize=6,
        frameon=False, labelcolor=LIGHT.ink, borderaxespad=0.2, handlelength=1.0, borderpad=0,
        columnspacing=1.0,
    )  # fmt: skip


def _draw_heatmap(axes: Axes, spec: Heatmap) -> None:
    low, high = get_colour_limits(spec)
    colours = LinearSegmentedColormap.from_list("scale", list(LIGHT.scale(spec.scale)))
    image = axes.imshow(
        spec.values, cmap=colours, vmin=low, vmax=high, aspect="auto", interpolation="nearest"
    )
    _label_rows(axes, spec.row_labels)
    step = max(1, -(-len(spec.column_labels) // 30))
    shown = range(0, len(spec.column_labels), step)
    texts = [spec.column_labels[i] for i in shown]
    turned = max(map(len, texts), default=0) > 4
    axes.set_xticks(
        list(shown), texts, rotation=35 if turned else 0, ha="right" if turned else "center"
    )
    axes.set_xlabel(spec.column_axis)
    axes.set_ylabel(spec.row_axis)
    bar = axes.figure.colorbar(image, ax=axes, fraction=0.03, pad=0.02, aspect=30)
    # Ticks that matplotlib chooses change with the layout, which then is too narrow for them.
    ends = (low, (low + high) / 2, high)
    bar.set_ticks(ends, labels=[number(value, 2) for value in ends])
    bar.set_label(spec.value_axis, color=LIGHT.muted)
    bar.ax.tick_params(colors=LIGHT.muted)
    bar.outline.set_visible(False)
    cells = list(place_cell_texts(spec, LIGHT))
    if (
        len(spec.column_labels) * max((len(text) for *_, text, _ in cells), default=0)
        > MAX_CELL_TEXT
    ):
        cells = []
    for row, column, text, ink in cells:
        axes.text(column, row, text, ha="center", va="center", fontsize=5, color=ink)
    if spec.marks is not None:
        # Beside the texts, a mark lies at the lower edge of its cell, where it hides none.
        axes.scatter(
            spec.marks, np.arange(len(spec.marks)) + (0.38 if cells else 0), marker="D", s=12,
            color=LIGHT.second, edgecolors=LIGHT.background, linewidths=0.6, zorder=3,
        )  # fmt: skip


def _draw_stacked_bars(axes: Axes, spec: StackedBars) -> None:
    left = np.zeros(len(spec.labels))
    for index, part in enumerate(spec.parts):
        colour = get_part_colour(index, len(spec.parts), LIGHT)
        axes.barh(
            range(len(spec.labels)), spec.shares[:, index], left=left, height=0.7, label=part,
            color=colour, edgecolor=LIGHT.background, linewidth=0.4,
        )  # fmt: skip
        left = left + spec.shares[:, index]
    _label_rows(axes, spec.labels)
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_xlabel(spec.value_axis)
    _add_legend(axes)


def _draw_dots(axes: Axes, spec: Dots) -> None:
    axes.grid(visible=True, color=LIGHT.rule, linewidth=0.6)
    axes.set_axisbelow(True)
    for index, series in enumerate(spec.series):
        rows = np.arange(len(series.values)) + spec.offset(index)
        colour = LIGHT.series(index)
        axes.hlines(rows, *series.bounds, color=colour, linewidth=0.9)
        marker = ("o", "s", "D", "^")[index % 4]
        axes.scatter(
            series.means, rows, s=12, color=colour, marker=marker, label=series.name, zorder=3
        )
        axes.scatter(
            [value for _, value in series.points],
            [rows[row] + POINTS_BELOW for row, _ in series.points], s=6,
            facecolors="none", edgecolors=colour, linewidths=0.6, zorder=2,
        )  # fmt: skip
    _label_rows(axes, spec.labels)
    left, right = axes.get_xlim()
    axes.set_xlim(min(left, 0.0), max(right, 0.0))
    axes.set_xlabel(spec.value_axis)
    axes.xaxis.set_major_formatter(_format_thousands)
    if len(spec.series) > 1:
        _add_legend(axes)


def _format_thousands(value: float, _: int) -> str:
    return f"{value:,.10g}".replace("-", MINUS)


def _draw_dendrogram(axes: Axes, spec: Dendrogram) -> None:
    for branch in spec.branches:
        axes.plot(branch.distances, branch.rows, color=LIGHT.accent, linewidth=1.0)
    _label_rows(axes, spec.labels)
    axes.set_xlim(0, spec.reach)
    place, meaning = spec.mark
    axes.axvline(place, color=LIGHT.muted, linewidth=0.8, linestyle="--")
    axes.text(
        place, 1.0, meaning, transform=axes.get_xaxis_transform(), fontsize=6, ha="right",
        va="bottom", color=LIGHT.muted,
    )  # fmt: skip
    axes.set_xlabel(spec.value_axis)


def _draw_flow(axes: Axes, spec: Flow) -> None:
    axes.set_axis_off()
    last = max(1, len(spec.levels) - 1)
    spans = spec.spans(gaps=0.25)
    colours = [LIGHT.palette[node.group % len(LIGHT.palette)] for node in spec.nodes]
    _draw_bands(axes, spec, spans, colours)
    for node, (top, bottom), colour in zip(spec.nodes, spans, colours, strict=True):
        corner = (node.level - NODE_WIDTH / 2, top)
        axes.add_patch(Rectangle(corner, NODE_WIDTH, bottom - top, color=colour))
        right = node.level == last
        # Between the first level and the last there is room for numbers alone.
        text = textwrap.fill(node.label, 20) if node.level in (0, last) else str(node.number)
        axes.text(
            node.level + (-0.03 if right else 0.03), (top + bottom) / 2, text, fontsize=5.5,
            va="center", ha="right" if right else "left", color=LIGHT.ink,
        )  # fmt: skip
    for index, level in enumerate(spec.levels):
        place = ("left", "center", "right")[(index > 0) + (index == last)]
        axes.text(index, -0.02, level, ha=place, va="bottom", color=LIGHT.muted)
    axes.set_xlim(-0.03, last + 0.03)
    axes.set_ylim(1.02, -0.06)


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
