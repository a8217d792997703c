"""Figures for the page: each specification as plotly's plain JSON.

Plotly reads a little HTML in texts, so every text is escaped here, and only here.
"""

import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

import numpy as np

from ulcmod_dist.report.colours import DARK, LIGHT, Theme
from ulcmod_dist.report.specs import (
    Dendrogram,
    Dots,
    Figure,
    Flow,
    Heatmap,
    Lines,
    Scale,
    StackedBars,
)

Json = dict[str, Any]

DIGITS = 5
"""Significant digits of the numbers that a page carries."""

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
ROW_HEIGHT = 28
MAX_HEIGHT = 760


def figure(spec: Figure, theme: Theme = LIGHT) -> Json:
    """Return plotly's ``data`` and ``layout`` of a figure in the colours of a theme."""
    match spec:
        case Heatmap():
            return _heatmap(spec, theme)
        case StackedBars():
            return _stacked_bars(spec, theme)
        case Dots():
            return _dots(spec, theme)
        case Lines():
            return _lines(spec, theme)
        case Dendrogram():
            return _dendrogram(spec, theme)
        case Flow():
            return _flow(spec, theme)


def themed(spec: Figure) -> Json:
    """Return a figure in light colours and what a dark page changes.

    The result is plotly's ``data`` and ``layout``, and ``dark``: a list of [path, value] pairs.
    """
    light = figure(spec, LIGHT)
    return {**light, "dark": list(_changes(light, figure(spec, DARK), []))}


def _changes(a: Any, b: Any, path: list[str | int]) -> Iterable[list[Any]]:
    if isinstance(a, dict) and isinstance(b, dict):
        for key in a:
            yield from _changes(a[key], b[key], [*path, key])
    elif isinstance(a, list) and isinstance(b, list) and any(isinstance(x, dict) for x in a):
        for index, pair in enumerate(zip(a, b, strict=True)):
            yield from _changes(*pair, [*path, index])
    elif a != b:
        yield [path, b]


def _text(value: str) -> str:
    return escape(value, quote=False).replace("\n", "<br>")


def _texts(values: Iterable[str]) -> list[str]:
    return [_text(value) for value in values]


def _number(value: float) -> float | None:
    return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None


def _numbers(values: Iterable[float]) -> list[float | None]:
    return [_number(value) for value in values]


def _colorscale(colours: Sequence[str]) -> list[list[Any]]:
    return [[i / (len(colours) - 1), colour] for i, colour in enumerate(colours)]


def _layout(theme: Theme, height: float, **parts: Any) -> Json:
    return {
        "height": round(height),
        "margin": {"l": 8, "r": 8, "t": 12, "b": 8},
        "paper_bgcolor": theme.background,
        "plot_bgcolor": theme.background,
        "font": {"family": FONT, "size": 12, "color": theme.muted},
        "hoverlabel": {
            "bgcolor": theme.background,
            "bordercolor": theme.faint,
            "font": {"family": FONT, "size": 13, "color": theme.ink},
            "align": "left",
        },
        "dragmode": False,
        "hovermode": "closest",
        "showlegend": False,
        **parts,
    }


def _axis(theme: Theme, title: str, **parts: Any) -> Json:
    return {
        "title": {"text": _text(title), "standoff": 10},
        "automargin": True,
        "fixedrange": True,
        "showgrid": False,
        "zeroline": False,
        "linecolor": theme.rule,
        "gridcolor": theme.rule,
        "zerolinecolor": theme.faint,
        "tickcolor": theme.rule,
        **parts,
    }


def _value_axis(theme: Theme, title: str, **parts: Any) -> Json:
    return _axis(theme, title, showgrid=True, nticks=6, **parts)


def _label_axis(theme: Theme, labels: Sequence[str], title: str = "", **parts: Any) -> Json:
    """Return an axis with one label at each whole number, thinned where there are many."""
    step = max(1, math.ceil(len(labels) / 48))
    shown = range(0, len(labels), step)
    edges = [-0.5, len(labels) - 0.5]
    return _axis(
        theme,
        title,
        tickvals=list(shown),
        ticktext=_texts(labels[i] for i in shown),
        range=edges,
        **parts,
    )


def _rows(theme: Theme, labels: Sequence[str], title: str = "") -> Json:
    axis = _label_axis(theme, labels, title, ticklen=4)
    return {**axis, "range": axis["range"][::-1]}


def _tall(rows: int, extra: int) -> float:
    return min(MAX_HEIGHT, max(3, rows) * ROW_HEIGHT) + extra


def _legend(theme: Theme) -> Json:
    return {
        "orientation": "h",
        "x": 0,
        "xanchor": "left",
        "y": 1.0,
        "yanchor": "bottom",
        "traceorder": "normal",
        "itemclick": False,
        "itemdoubleclick": False,
        "font": {"color": theme.ink},
    }


def colour_limits(spec: Heatmap) -> tuple[float, float]:
    """Return the values at the two ends of a heatmap's colours."""
    finite = spec.values[np.isfinite(spec.values)]
    largest = float(np.abs(finite).max()) if finite.size else 0.0
    top = largest or 1.0
    return (0.0, top) if spec.scale is Scale.SEQUENTIAL else (-top, top)


def _heatmap(spec: Heatmap, theme: Theme) -> Json:
    low, high = colour_limits(spec)
    cells: Json = {
        "type": "heatmap",
        "z": [_numbers(row) for row in spec.values],
        "hovertext": [_texts(row) for row in spec.hover],
        "hoverinfo": "text",
        "colorscale": _colorscale(theme.scale(spec.scale)),
        "zmin": _number(low),
        "zmax": _number(high),
        "xgap": 1,
        "ygap": 1,
        "colorbar": {
            "title": {"text": _text(spec.value_axis), "side": "right"},
            "thickness": 8,
            "outlinewidth": 0,
            "nticks": 5,
        },
    }
    if spec.cell_texts is not None:
        cells |= {"text": [_texts(row) for row in spec.cell_texts], "texttemplate": "%{text}"}
    data = [cells]
    if spec.marks is not None:
        data.append(_marks(spec.marks, theme))
    columns = _label_axis(theme, spec.column_labels, spec.column_axis, ticklen=4)
    layout = _layout(
        theme,
        _tall(len(spec.row_labels), 110),
        xaxis=columns,
        yaxis=_rows(theme, spec.row_labels, spec.row_axis),
    )
    return {"data": data, "layout": layout}


def _marks(marks: Sequence[float], theme: Theme) -> Json:
    return {
        "type": "scatter",
        "mode": "markers",
        "x": _numbers(marks),
        "y": list(range(len(marks))),
        "hoverinfo": "skip",
        "marker": {
            "symbol": "diamond",
            "size": 10,
            "color": theme.second,
            "line": {"color": theme.background, "width": 1.5},
        },
    }


def _stacked_bars(spec: StackedBars, theme: Theme) -> Json:
    rows = list(range(len(spec.labels)))
    data = [
        {
            "type": "bar",
            "orientation": "h",
            "name": _text(part),
            "x": _numbers(spec.shares[:, index]),
            "y": rows,
            "hovertext": [_text(row[index]) for row in spec.hover],
            "hoverinfo": "text",
            "marker": {
                "color": part_colour(index, len(spec.parts), theme),
                "line": {"color": theme.background, "width": 1},
            },
        }
        for index, part in enumerate(spec.parts)
    ]
    layout = _layout(
        theme,
        _tall(len(rows), 150),
        barmode="stack",
        bargap=0.3,
        showlegend=True,
        legend=_legend(theme),
        xaxis=_value_axis(theme, spec.value_axis, range=[0, 1], tickformat=".0%"),
        yaxis=_rows(theme, spec.labels),
    )
    return {"data": data, "layout": layout}


def part_colour(index: int, parts: int, theme: Theme) -> str:
    """Return the colour of a part; beyond the palette the last part is the rest."""
    if index < len(theme.palette) and (index < parts - 1 or parts <= len(theme.palette)):
        return theme.palette[index]
    return theme.rest


def _dots(spec: Dots, theme: Theme) -> Json:
    data = [_dot_trace(spec, index, theme) for index in range(len(spec.series))]
    several = len(spec.series) > 1
    layout = _layout(
        theme,
        _tall(len(spec.labels), 120 if several else 80),
        showlegend=several,
        legend=_legend(theme),
        xaxis=_value_axis(theme, spec.value_axis, zeroline=True, rangemode="tozero"),
        yaxis=_rows(theme, spec.labels) | {"showgrid": True},
    )
    return {"data": data, "layout": layout}


def _dot_trace(spec: Dots, index: int, theme: Theme) -> Json:
    series = spec.series[index]
    colour = (theme.accent, theme.second, theme.muted)[index % 3]
    # Series of a row lie a little apart so that their intervals do not cover each other.
    shift = (index - (len(spec.series) - 1) / 2) * 0.22
    values = np.array(series.values)
    return {
        "type": "scatter",
        "mode": "markers",
        "name": _text(series.name),
        "x": _numbers(series.values),
        "y": [_number(row + shift) for row in range(len(values))],
        "hovertext": _texts(series.hover),
        "hoverinfo": "text",
        "marker": {
            "color": colour,
            "size": 9,
            "symbol": ("circle", "square", "diamond")[index % 3],
        },
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": _numbers(np.array(series.high) - values),
            "arrayminus": _numbers(values - np.array(series.low)),
            "color": colour,
            "thickness": 1.5,
            "width": 0,
        },
    }


def _lines(spec: Lines, theme: Theme) -> Json:
    order = [i for i in range(len(spec.lines)) if i != spec.highlighted] + [spec.highlighted]
    data = []
    for index in order:
        line, kept = spec.lines[index], index == spec.highlighted
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers" if kept else "lines",
                "name": _text(line.name),
                "x": _numbers(line.x),
                "y": _numbers(line.y),
                "hovertemplate": "%{fullData.name}<br>"
                f"{_text(spec.x_axis)} %{{x}}<br>{_text(spec.y_axis)} %{{y:,.6~g}}<extra></extra>",
                "line": {
                    "color": theme.accent if kept else theme.faint,
                    "width": 2.5 if kept else 1.2,
                },
                "marker": {"size": 5},
            }
        )
    layout = _layout(
        theme,
        320,
        xaxis=_axis(theme, spec.x_axis, tickformat=",d", nticks=8),
        yaxis=_value_axis(theme, spec.y_axis),
    )
    return {"data": data, "layout": layout}


def _dendrogram(spec: Dendrogram, theme: Theme) -> Json:
    data = [
        {
            "type": "scatter",
            "mode": "lines",
            "x": _numbers(branch.distances),
            "y": _numbers(branch.rows),
            "hovertext": _text(branch.hover),
            "hoverinfo": "text",
            "line": {"color": theme.accent, "width": 1.6},
        }
        for branch in spec.branches
    ]
    layout = _layout(
        theme,
        _tall(len(spec.labels), 80),
        xaxis=_value_axis(theme, spec.value_axis, rangemode="tozero"),
        yaxis=_rows(theme, spec.labels),
    )
    return {"data": data, "layout": layout}


def _flow(spec: Flow, theme: Theme) -> Json:
    colours = [theme.palette[node.group % len(theme.palette)] for node in spec.nodes]
    last = max(1, len(spec.levels) - 1)
    trace = {
        "type": "sankey",
        "arrangement": "snap",
        "node": {
            # Sankey labels are plain text in plotly: they are never read as HTML.
            "label": [node.label for node in spec.nodes],
            "color": colours,
            "line": {"width": 0},
            "pad": 10,
            "thickness": 10,
            "x": [min(0.999, max(0.001, node.level / last)) for node in spec.nodes],
            "y": _flow_positions(spec),
            "hovertemplate": "%{label}<br>%{value:,} units<extra></extra>",
        },
        "link": {
            "source": [link.source for link in spec.links],
            "target": [link.target for link in spec.links],
            "value": _numbers(link.size for link in spec.links),
            "color": [_translucent(colours[link.source]) for link in spec.links],
            "customdata": _texts(link.hover for link in spec.links),
            "hovertemplate": "%{customdata}<extra></extra>",
        },
        "textfont": {"color": theme.ink, "shadow": "none"},
    }
    headings = [
        {
            "text": _text(level),
            "x": index / last,
            "xanchor": ("left", "center", "right")[(index > 0) + (index == last)],
            "y": 1.0,
            "yanchor": "bottom",
            "xref": "paper",
            "yref": "paper",
            "showarrow": False,
        }
        for index, level in enumerate(spec.levels)
    ]
    largest = max(sum(node.level == level for node in spec.nodes) for level in range(last + 1))
    layout = _layout(theme, _tall(largest, 120), annotations=headings)
    return {"data": [trace], "layout": layout | {"margin": {"l": 8, "r": 8, "t": 32, "b": 12}}}


def _flow_positions(spec: Flow) -> list[float]:
    """Return each node's centre down the page, nodes of one origin beside each other."""
    centres = [0.0] * len(spec.nodes)
    for level in range(len(spec.levels)):
        members = [i for i, node in enumerate(spec.nodes) if node.level == level]
        members.sort(key=lambda i: (spec.nodes[i].group, i))
        total = sum(spec.nodes[i].size for i in members) or 1.0
        top = 0.0
        for i in members:
            share = spec.nodes[i].size / total
            centres[i] = min(0.999, max(0.001, round(top + share / 2, 4)))
            top += share
    return centres


def _translucent(colour: str) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.32)"
