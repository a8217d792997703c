"""What all interactive figures share: escaping, rounding, axes, and how a figure adapts.

Plotly reads a little HTML in texts, so every text is escaped here, and only here.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from ulcmod_dist.report.colours import LIGHT, Theme
from ulcmod_dist.runtime.text import LABEL_LIMIT, label

Json = dict[str, Any]

DIGITS = 5
"""Significant digits of the numbers that a page carries."""

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
ROW_HEIGHT = 28
MAX_HEIGHT = 760
MAX_LABELS = 48


@dataclass(frozen=True)
class PlotStyle:
    """What a figure adapts to."""

    theme: Theme = LIGHT  # its colours
    narrow: bool = False  # whether it is drawn on a phone: shorter labels

    @property
    def label_limit(self) -> int:
        """Characters of a label beside the figure."""
        return 13 if self.narrow else LABEL_LIMIT


DEFAULT_STYLE = PlotStyle()
"""A wide light page."""


def escape_html(value: str) -> str:
    """Return a text that plotly shows as it is, each newline as a line break."""
    return escape(value, quote=False).replace("\n", "<br>")


def escape_all(values: Iterable[str]) -> list[str]:
    """Return texts that plotly shows as they are."""
    return [escape_html(value) for value in values]


def round_digits(value: float) -> float | None:
    """Return a number with few digits; None where it is not finite, as JSON demands."""
    return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None


def round_all(values: Iterable[float]) -> list[float | None]:
    """Return numbers with few digits."""
    return [round_digits(value) for value in values]


def figure_height(rows: int, extra: int) -> float:
    """Return the height in pixels of a figure with so many rows and so much around them."""
    return min(MAX_HEIGHT, max(3, rows) * ROW_HEIGHT) + extra


def build_plot(style: PlotStyle, data: list[Json], height: float, **parts: Any) -> Json:
    """Return a figure in which a touch scrolls the page and nothing zooms."""
    layout = {
        "height": round(height),
        "margin": {"l": 8, "r": 8, "t": 12, "b": 8},
        "paper_bgcolor": style.theme.background,
        "plot_bgcolor": style.theme.background,
        "font": {"family": FONT, "size": 11 if style.narrow else 12, "color": style.theme.muted},
        "hoverlabel": {
            "bgcolor": style.theme.background,
            "bordercolor": style.theme.faint,
            "font": {"family": FONT, "size": 13, "color": style.theme.ink},
            "align": "left",
        },
        "dragmode": False,
        "hovermode": "closest",
        "showlegend": False,
        **parts,
    }
    return {"data": data, "layout": layout}


def build_axis(style: PlotStyle, title: str, **parts: Any) -> Json:
    """Return an axis without grid."""
    return {
        "title": {"text": escape_html(title), "standoff": 10},
        "automargin": True,
        "fixedrange": True,
        "showgrid": False,
        "zeroline": False,
        "linecolor": style.theme.rule,
        "gridcolor": style.theme.rule,
        "zerolinecolor": style.theme.faint,
        "tickcolor": style.theme.rule,
        **parts,
    }


def build_value_axis(style: PlotStyle, title: str, **parts: Any) -> Json:
    """Return an axis of numbers, with grid."""
    ticks = 4 if style.narrow else 6
    return build_axis(style, title, showgrid=True, nticks=ticks, tickangle=0, **parts)


def build_column_axis(style: PlotStyle, labels: Sequence[str], title: str = "") -> Json:
    """Return an axis of columns, which lie close together on a phone."""
    wanted = 12 if style.narrow else MAX_LABELS
    return _labelled(style, labels, title, wanted, range=[-0.5, len(labels) - 0.5])


def _labelled(
    style: PlotStyle, labels: Sequence[str], title: str, wanted: int, **parts: Any
) -> Json:
    """Return an axis with a label at each whole number, thinned where more than wanted."""
    step = max(1, math.ceil(len(labels) / wanted))
    shown = range(0, len(labels), step)
    return build_axis(
        style,
        title,
        tickvals=list(shown),
        ticktext=escape_all(labels[i] for i in shown),
        ticklen=4,
        # Plotly's own slant would push the last labels out of the figure, where it hides them.
        autotickangles=[0, -35, -90],
        **parts,
    )


def build_row_axis(style: PlotStyle, labels: Sequence[str], title: str = "", **parts: Any) -> Json:
    """Return an axis with one label at each whole number, the first on top."""
    short = [label(text, style.label_limit) for text in labels]
    down = [len(labels) - 0.5, -0.5]
    return _labelled(style, short, "" if style.narrow else title, MAX_LABELS, range=down, **parts)


def build_legend(style: PlotStyle) -> Json:
    """Return a legend in rows above the figure, for saved files: the page has its own."""
    return {
        "orientation": "h",
        "x": 0,
        "xanchor": "left",
        "y": 1.0,
        "yanchor": "bottom",
        "traceorder": "normal",
        "itemclick": False,
        "itemdoubleclick": False,
        "font": {"color": style.theme.ink},
    }
