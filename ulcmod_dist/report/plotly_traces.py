"""Each kind of figure as plotly's plain JSON, and what changes on dark and narrow pages."""

from collections.abc import Iterable, Sequence
from textwrap import wrap
from typing import Any

from ulcmod_dist.report.colours import (
    CELL_INKS,
    DARK,
    get_colour_limits,
    get_part_colour,
    place_cell_texts,
)
from ulcmod_dist.report.plotly_layout import (
    DEFAULT_STYLE,
    Json,
    PlotStyle,
    build_column_axis,
    build_legend,
    build_plot,
    build_row_axis,
    build_value_axis,
    escape_all,
    escape_html,
    figure_height,
    round_all,
    round_digits,
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
    format_interval,
)
from ulcmod_dist.runtime.text import label

CELL_TEXTS = "cell texts"
"""Name of the traces that print texts in cells; the page's script knows it."""


def build_figure(spec: Figure, style: PlotStyle = DEFAULT_STYLE) -> Json:
    """Return plotly's ``data`` and ``layout`` of a figure."""
    match spec:
        case Heatmap():
            return build_heatmap(spec, style)
        case StackedBars():
            return build_stacked_bars(spec, style)
        case Dots():
            return build_dots(spec, style)
        case Dendrogram():
            return build_dendrogram(spec, style)
        case Flow():
            return build_flow(spec, style)


def build_variants(spec: Figure) -> Json:
    """Return a figure for a wide light page and what other pages change.

    The result is plotly's ``data`` and ``layout``, and under ``dark`` and ``narrow`` lists of
    [path, value] pairs.
    """
    usual = build_figure(spec)
    return {
        **usual,
        "dark": list(_changes(usual, build_figure(spec, PlotStyle(theme=DARK)), [])),
        "narrow": list(_changes(usual, build_figure(spec, PlotStyle(narrow=True)), [])),
    }


def _changes(a: Any, b: Any, path: list[str | int]) -> Iterable[list[Any]]:
    if isinstance(a, dict) and isinstance(b, dict):
        for key in a:
            yield from _changes(a[key], b[key], [*path, key])
    elif isinstance(a, list) and isinstance(b, list) and any(isinstance(x, dict) for x in a):
        for index, pair in enumerate(zip(a, b, strict=True)):
            yield from _changes(*pair, [*path, index])
    elif a != b:
        yield [path, b]


def build_heatmap(spec: Heatmap, style: PlotStyle) -> Json:
    """Return a matrix as coloured cells."""
    low, high = get_colour_limits(spec)
    stops = style.theme.scale(spec.scale)
    cells: Json = {
        "type": "heatmap",
        "z": [round_all(row) for row in spec.values],
        "hovertext": [
            escape_all(spec.hover(row, column) for column in range(len(spec.column_labels)))
            for row in range(len(spec.row_labels))
        ],
        "hoverinfo": "text",
        "showscale": False,  # the page has its own; saved files show it
        "colorscale": [[i / (len(stops) - 1), stop] for i, stop in enumerate(stops)],
        "zmin": round_digits(low),
        "zmax": round_digits(high),
        "xgap": 1,
        "ygap": 1,
        "colorbar": {
            "title": {"text": escape_html(spec.value_axis), "side": "right"},
            "thickness": 8,
            "outlinewidth": 0,
            "nticks": 5,
        },
    }
    texts = _cell_texts(spec, style)
    data = [cells, *texts]
    if spec.marks is not None:
        # Beside the texts, a mark lies at the lower edge of its cell, where it hides none.
        data.append(_marks(spec.marks, 0.38 if texts else 0.0, style))
    columns = build_column_axis(style, spec.column_labels, spec.column_axis)
    return build_plot(
        style,
        data,
        figure_height(len(spec.row_labels), 80),
        xaxis=columns,
        yaxis=build_row_axis(style, spec.row_labels, spec.row_axis),
    )


def _cell_texts(spec: Heatmap, style: PlotStyle) -> list[Json]:
    """Return the texts in the cells, one trace an ink.

    Plotly's own texts in cells come in two fixed inks, which many colours swallow. The page hides
    these traces, known by their name, where the cells turn out too small.
    """
    if not spec.shows_cell_texts:
        return []
    cells: dict[str, list[tuple[int, int, str]]] = {ink: [] for ink in CELL_INKS}
    for row, column, text, ink in place_cell_texts(spec, style.theme):
        cells[ink].append((row, column, escape_html(text)))
    return [
        {
            "type": "scatter",
            "mode": "text",
            "name": CELL_TEXTS,
            "x": [column for _, column, _ in found],
            "y": [row for row, _, _ in found],
            "text": [text for _, _, text in found],
            "hoverinfo": "skip",
            "textfont": {"color": ink, "size": 10 if style.narrow else 11},
        }
        for ink, found in cells.items()
    ]


def _marks(marks: Sequence[float], below: float, style: PlotStyle) -> Json:
    return {
        "type": "scatter",
        "mode": "markers",
        "x": round_all(marks),
        "y": [row + below for row in range(len(marks))],
        "hoverinfo": "skip",
        "marker": {
            "symbol": "diamond",
            "size": 8 if below else 10,
            "color": style.theme.second,
            "line": {"color": style.theme.background, "width": 1.5},
        },
    }


def build_stacked_bars(spec: StackedBars, style: PlotStyle) -> Json:
    """Return divided bars with a legend."""
    rows = list(range(len(spec.labels)))
    data = [
        {
            "type": "bar",
            "orientation": "h",
            "name": escape_html(part),
            "x": round_all(spec.shares[:, index]),
            "y": rows,
            "hovertext": [escape_html(spec.hover(row, index)) for row in rows],
            "hoverinfo": "text",
            "marker": {
                "color": get_part_colour(index, len(spec.parts), style.theme),
                "line": {"color": style.theme.background, "width": 1},
            },
        }
        for index, part in enumerate(spec.parts)
    ]
    return build_plot(
        style,
        data,
        figure_height(len(rows), 80),
        barmode="stack",
        bargap=0.3,
        legend=build_legend(style),
        xaxis=build_value_axis(style, spec.value_axis, range=[0, 1], tickformat=".0%"),
        yaxis=build_row_axis(style, spec.labels),
    )


def build_dots(spec: Dots, style: PlotStyle) -> Json:
    """Return dots with intervals."""
    indices = range(len(spec.series))
    data = [_dot_trace(spec, index, style) for index in indices]
    data += [_point_trace(spec, index, style) for index in indices if spec.series[index].points]
    return build_plot(
        style,
        data,
        figure_height(len(spec.labels), 80),
        legend=build_legend(style),
        xaxis=build_value_axis(style, spec.value_axis, zeroline=True, rangemode="tozero"),
        yaxis=build_row_axis(style, spec.labels, showgrid=True),
    )


def _dot_trace(spec: Dots, index: int, style: PlotStyle) -> Json:
    series = spec.series[index]
    colour = style.theme.series(index)
    low, high = series.bounds
    return {
        "type": "scatter",
        "mode": "markers",
        "name": escape_html(series.name),
        "x": round_all(series.means),
        "y": [round_digits(row + spec.offset(index)) for row in range(len(series.values))],
        "hovertext": [
            escape_html(f"{row}\n{series.name} {format_interval(value)}")
            for row, value in zip(spec.labels, series.values, strict=True)
        ],
        "hoverinfo": "text",
        "cliponaxis": False,  # a score of zero lies on the axis
        "marker": {
            "color": colour,
            "size": 9,
            "symbol": ("circle", "square", "diamond", "triangle-up")[index % 4],
        },
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": round_all(high - series.means),
            "arrayminus": round_all(series.means - low),
            "color": colour,
            "thickness": 1.5,
            "width": 0,
        },
    }


def _point_trace(spec: Dots, index: int, style: PlotStyle) -> Json:
    points = spec.series[index].points
    return {
        "type": "scatter",
        "mode": "markers",
        "x": round_all(value for _, value in points),
        "y": [round_digits(row + spec.offset(index) + POINTS_BELOW) for row, _ in points],
        "hoverinfo": "skip",
        "cliponaxis": False,
        "marker": {"color": style.theme.series(index), "size": 6, "symbol": "circle-open"},
    }


def build_dendrogram(spec: Dendrogram, style: PlotStyle) -> Json:
    """Return a tree as one bracket a joint."""
    data = [
        {
            "type": "scatter",
            "mode": "lines",
            "x": round_all(branch.distances),
            "y": round_all(branch.rows),
            "hovertext": escape_html(branch.hover),
            "hoverinfo": "text",
            "line": {"color": style.theme.accent, "width": 1.6},
        }
        for branch in spec.branches
    ]
    place, meaning = spec.mark
    edge = {"x0": place, "x1": place, "y0": 0, "y1": 1, "yref": "paper"}
    line = {"type": "line", "line": {"color": style.theme.muted, "width": 1, "dash": "dash"}}
    text = {"x": place, "y": 1, "yref": "paper", "text": escape_html(meaning), "showarrow": False}
    return build_plot(
        style,
        data,
        figure_height(len(spec.labels), 80),
        shapes=[edge | line],
        annotations=[{**text, "yanchor": "bottom", "xanchor": "right"}],
        margin={"l": 8, "r": 8, "t": 24, "b": 8},
        xaxis=build_value_axis(style, spec.value_axis, range=[0, round_digits(spec.reach)]),
        yaxis=build_row_axis(style, spec.labels),
    )


def build_flow(spec: Flow, style: PlotStyle) -> Json:
    """Return levels of modules with bands between them."""
    colours = [style.theme.palette[node.group % len(style.theme.palette)] for node in spec.nodes]
    last = max(1, len(spec.levels) - 1)
    trace = {
        "type": "sankey",
        "arrangement": "snap",
        "node": {
            # Sankey labels are plain text in plotly: they are never read as HTML.
            "label": [_node_label(node, spec, style) for node in spec.nodes],
            "color": colours,
            "line": {"width": 0},
            "pad": 10,
            "thickness": 10,
            "x": [min(0.999, max(0.001, node.level / last)) for node in spec.nodes],
            "y": [min(0.999, max(0.001, round(sum(span) / 2, 4))) for span in spec.spans()],
            "hovertemplate": f"%{{label}}<br>%{{value:,}} {spec.members}<extra></extra>",
        },
        "link": {
            "source": [link.source for link in spec.links],
            "target": [link.target for link in spec.links],
            "value": round_all(link.size for link in spec.links),
            "color": [_translucent(colours[link.source]) for link in spec.links],
            "customdata": escape_all(link.hover for link in spec.links),
            "hovertemplate": "%{customdata}<extra></extra>",
        },
        "textfont": {"color": style.theme.ink, "shadow": "none"},
    }
    # A name of a run wraps where its level's share of the width ends.
    wraps = [
        wrap(level, (36 if style.narrow else 108) // len(spec.levels)) for level in spec.levels
    ]
    headings = [
        {
            "text": escape_html("\n".join(lines)),
            "x": index / last,
            "xanchor": ("left", "center", "right")[(index > 0) + (index == last)],
            "y": 1.0,
            "yanchor": "bottom",
            "xref": "paper",
            "yref": "paper",
            "showarrow": False,
        }
        for index, lines in enumerate(wraps)
    ]
    largest = max(map(len, spec.columns()))
    margin = {"l": 8, "r": 8, "t": 16 * (1 + max(map(len, wraps))), "b": 12}
    height = figure_height(largest, 88 + margin["t"])
    return build_plot(style, [trace], height, annotations=headings, margin=margin)


def _node_label(node: FlowNode, spec: Flow, style: PlotStyle) -> str:
    if style.narrow and len(spec.levels) > 2:
        return str(node.number)
    # With four levels and more, these lie closer together.
    return label(node.label, min(style.label_limit, 20 if len(spec.levels) < 4 else 14))


def _translucent(colour: str) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.32)"
