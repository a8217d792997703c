"""Figures for the page: each specification as plotly's plain JSON."""

from collections.abc import Iterable
from typing import Any

from ulcmod_dist.report import plotly_traces as traces
from ulcmod_dist.report.colours import DARK
from ulcmod_dist.report.plotly_frame import USUAL, Json, Look
from ulcmod_dist.report.specs import Dendrogram, Dots, Figure, Flow, Heatmap, Lines, StackedBars


def figure(spec: Figure, look: Look = USUAL) -> Json:
    """Return plotly's ``data`` and ``layout`` of a figure."""
    match spec:
        case Heatmap():
            return traces.heatmap(spec, look)
        case StackedBars():
            return traces.stacked_bars(spec, look)
        case Dots():
            return traces.dots(spec, look)
        case Lines():
            return traces.lines(spec, look)
        case Dendrogram():
            return traces.dendrogram(spec, look)
        case Flow():
            return traces.flow(spec, look)


def variants(spec: Figure) -> Json:
    """Return a figure for a wide light page and what other pages change.

    The result is plotly's ``data`` and ``layout``, and under ``dark`` and ``narrow`` lists of
    [path, value] pairs.
    """
    usual = figure(spec)
    return {
        **usual,
        "dark": list(_changes(usual, figure(spec, Look(theme=DARK)), [])),
        "narrow": list(_changes(usual, figure(spec, Look(narrow=True)), [])),
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
