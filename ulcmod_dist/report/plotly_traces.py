"""Each kind of figure as plotly's plain JSON."""

from collections.abc import Sequence

import numpy as np

from ulcmod_dist.report.colours import CELL_INKS, colour_limits, part_colour
from ulcmod_dist.report.plotly_frame import (
    Json,
    Look,
    axis,
    base_layout,
    colorscale,
    column_axis,
    legend,
    rounded,
    rounded_all,
    row_axis,
    safe,
    safe_all,
    tall,
    value_axis,
)
from ulcmod_dist.report.specs import (
    Dendrogram,
    Dots,
    Flow,
    FlowNode,
    Heatmap,
    Lines,
    StackedBars,
    prints_cells,
)
from ulcmod_dist.runtime.text import label

CELL_TEXTS = "cell texts"
"""Name of the traces that print texts in cells; the page's script knows it."""


def heatmap(spec: Heatmap, look: Look) -> Json:
    """Return a matrix as coloured cells."""
    low, high = colour_limits(spec)
    cells: Json = {
        "type": "heatmap",
        "z": [rounded_all(row) for row in spec.values],
        "hovertext": [safe_all(row) for row in spec.hover],
        "hoverinfo": "text",
        "showscale": False,  # the page has its own; saved files show it
        "colorscale": colorscale(look.theme.scale(spec.scale)),
        "zmin": rounded(low),
        "zmax": rounded(high),
        "xgap": 1,
        "ygap": 1,
        "colorbar": {
            "title": {"text": safe(spec.value_axis), "side": "right"},
            "thickness": 8,
            "outlinewidth": 0,
            "nticks": 5,
        },
    }
    texts = _cell_texts(spec, look)
    data = [cells, *texts]
    if spec.marks is not None:
        # Beside the texts, a mark lies at the lower edge of its cell, where it hides none.
        data.append(_marks(spec.marks, 0.38 if texts else 0.0, look))
    columns = column_axis(look, spec.column_labels, spec.column_axis)
    layout = base_layout(
        look,
        tall(len(spec.row_labels), 80),
        xaxis=columns,
        yaxis=row_axis(look, spec.row_labels, spec.row_axis),
    )
    return {"data": data, "layout": layout}


def _cell_texts(spec: Heatmap, look: Look) -> list[Json]:
    """Return the texts in the cells, one trace an ink.

    Plotly's own texts in cells come in two fixed inks, which many colours swallow. The page hides
    these traces, known by their name, where the cells turn out too small.
    """
    if not prints_cells(spec) or spec.cell_texts is None:
        return []
    low, high = colour_limits(spec)
    cells: dict[str, list[tuple[int, int, str]]] = {ink: [] for ink in CELL_INKS}
    for (row, column), value in np.ndenumerate(spec.values):
        text = spec.cell_texts[row][column]
        if text and np.isfinite(value):
            ink = look.theme.cell_ink(float((value - low) / (high - low)), spec.scale)
            cells[ink].append((row, column, safe(text)))
    return [
        {
            "type": "scatter",
            "mode": "text",
            "name": CELL_TEXTS,
            "x": [column for _, column, _ in found],
            "y": [row for row, _, _ in found],
            "text": [text for _, _, text in found],
            "hoverinfo": "skip",
            "textfont": {"color": ink, "size": 10 if look.narrow else 11},
        }
        for ink, found in cells.items()
    ]


def _marks(marks: Sequence[float], below: float, look: Look) -> Json:
    return {
        "type": "scatter",
        "mode": "markers",
        "x": rounded_all(marks),
        "y": [row + below for row in range(len(marks))],
        "hoverinfo": "skip",
        "marker": {
            "symbol": "diamond",
            "size": 8 if below else 10,
            "color": look.theme.second,
            "line": {"color": look.theme.background, "width": 1.5},
        },
    }


def stacked_bars(spec: StackedBars, look: Look) -> Json:
    """Return divided bars with a legend."""
    rows = list(range(len(spec.labels)))
    data = [
        {
            "type": "bar",
            "orientation": "h",
            "name": safe(part),
            "x": rounded_all(spec.shares[:, index]),
            "y": rows,
            "hovertext": [safe(row[index]) for row in spec.hover],
            "hoverinfo": "text",
            "marker": {
                "color": part_colour(index, len(spec.parts), look.theme),
                "line": {"color": look.theme.background, "width": 1},
            },
        }
        for index, part in enumerate(spec.parts)
    ]
    layout = base_layout(
        look,
        tall(len(rows), 80),
        barmode="stack",
        bargap=0.3,
        legend=legend(look),
        xaxis=value_axis(look, spec.value_axis, range=[0, 1], tickformat=".0%"),
        yaxis=row_axis(look, spec.labels),
    )
    return {"data": data, "layout": layout}


def dots(spec: Dots, look: Look) -> Json:
    """Return dots with intervals."""
    data = [_dot_trace(spec, index, look) for index in range(len(spec.series))]
    layout = base_layout(
        look,
        tall(len(spec.labels), 80),
        legend=legend(look),
        xaxis=value_axis(look, spec.value_axis, zeroline=True, rangemode="tozero"),
        yaxis=row_axis(look, spec.labels, showgrid=True),
    )
    return {"data": data, "layout": layout}


def _dot_trace(spec: Dots, index: int, look: Look) -> Json:
    series = spec.series[index]
    colour = look.theme.series(index)
    # Series of a row lie a little apart so that their intervals do not cover each other.
    shift = (index - (len(spec.series) - 1) / 2) * 0.22
    values = np.array(series.values)
    return {
        "type": "scatter",
        "mode": "markers",
        "name": safe(series.name),
        "x": rounded_all(series.values),
        "y": [rounded(row + shift) for row in range(len(values))],
        "hovertext": safe_all(series.hover),
        "hoverinfo": "text",
        "marker": {
            "color": colour,
            "size": 9,
            "symbol": ("circle", "square", "diamond")[index % 3],
        },
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": rounded_all(np.array(series.high) - values),
            "arrayminus": rounded_all(values - np.array(series.low)),
            "color": colour,
            "thickness": 1.5,
            "width": 0,
        },
    }


def lines(spec: Lines, look: Look) -> Json:
    """Return lines, the highlighted one on top."""
    order = [i for i in range(len(spec.lines)) if i != spec.highlighted] + [spec.highlighted]
    data = []
    for index in order:
        line, kept = spec.lines[index], index == spec.highlighted
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers" if kept else "lines",
                "name": safe(line.name),
                "x": rounded_all(line.x),
                "y": rounded_all(line.y),
                "hovertemplate": "%{fullData.name}<br>"
                f"{safe(spec.x_axis)} %{{x}}<br>{safe(spec.y_axis)} %{{y:,.6~g}}<extra></extra>",
                "line": {
                    "color": look.theme.accent if kept else look.theme.faint,
                    "width": 2.5 if kept else 1.2,
                },
                "marker": {"size": 5},
            }
        )
    layout = base_layout(
        look,
        320,
        xaxis=axis(look, spec.x_axis, tickformat=",d", nticks=8),
        yaxis=value_axis(look, spec.y_axis),
    )
    return {"data": data, "layout": layout}


def dendrogram(spec: Dendrogram, look: Look) -> Json:
    """Return a tree as one bracket a joint."""
    data = [
        {
            "type": "scatter",
            "mode": "lines",
            "x": rounded_all(branch.distances),
            "y": rounded_all(branch.rows),
            "hovertext": safe(branch.hover),
            "hoverinfo": "text",
            "line": {"color": look.theme.accent, "width": 1.6},
        }
        for branch in spec.branches
    ]
    layout = base_layout(
        look,
        tall(len(spec.labels), 80),
        xaxis=value_axis(look, spec.value_axis, rangemode="tozero"),
        yaxis=row_axis(look, spec.labels),
    )
    return {"data": data, "layout": layout}


def flow(spec: Flow, look: Look) -> Json:
    """Return levels of modules with bands between them."""
    colours = [look.theme.palette[node.group % len(look.theme.palette)] for node in spec.nodes]
    last = max(1, len(spec.levels) - 1)
    trace = {
        "type": "sankey",
        "arrangement": "snap",
        "node": {
            # Sankey labels are plain text in plotly: they are never read as HTML.
            "label": [_node_label(node, spec, look) for node in spec.nodes],
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
            "value": rounded_all(link.size for link in spec.links),
            "color": [_translucent(colours[link.source]) for link in spec.links],
            "customdata": safe_all(link.hover for link in spec.links),
            "hovertemplate": "%{customdata}<extra></extra>",
        },
        "textfont": {"color": look.theme.ink, "shadow": "none"},
    }
    headings = [
        {
            "text": safe(level),
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
    layout = base_layout(look, tall(largest, 120), annotations=headings)
    return {"data": [trace], "layout": layout | {"margin": {"l": 8, "r": 8, "t": 32, "b": 12}}}


def _node_label(node: FlowNode, spec: Flow, look: Look) -> str:
    if look.narrow and len(spec.levels) > 2:
        return str(node.number)
    return label(node.label, look.label_limit)


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
