"""Colours of figures: texts that can be read on them, in both themes, and what each stands for."""

import numpy as np
import pytest

from ulcmod_dist.report.colours import DARK, LIGHT, Theme, compute_luminance, get_legend
from ulcmod_dist.report.plotly_layout import PlotStyle
from ulcmod_dist.report.plotly_traces import CELL_TEXTS, build_figure
from ulcmod_dist.report.specs import Figure, Scale
from ulcmod_dist.results.types import Floats


def channels(colour: str) -> Floats:
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)], np.float64)


def compute_contrast(one: float, other: float) -> float:
    """Contrast ratio of two luminances, 1 to 21 (WCAG 2.2)."""
    low, high = sorted((one, other))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [LIGHT, DARK])
@pytest.mark.parametrize("name", ["activation-k010", "layers-k010", "ablation-modules-k010"])
def test_heatmap__texts_in_cells_are_readable_on_their_colours(
    figures: dict[str, Figure], name: str, theme: Theme
) -> None:
    made = build_figure(figures[name], PlotStyle(theme))["data"]
    cells, texts = made[0], [trace for trace in made if trace.get("name") == CELL_TEXTS]
    assert "texttemplate" not in cells  # plotly's own inks
    places, colours = zip(*cells["colorscale"], strict=True)
    stops = np.array([channels(colour) for colour in colours])
    for trace in texts:
        ink = compute_luminance(channels(trace["textfont"]["color"]))
        for x, y in zip(trace["x"], trace["y"], strict=True):
            place = (cells["z"][y][x] - cells["zmin"]) / (cells["zmax"] - cells["zmin"])
            ground = np.array([np.interp(place, places, stops[:, c]) for c in range(3)])
            assert compute_contrast(ink, compute_luminance(ground)) >= 4.5
    assert sum(len(trace["text"]) for trace in texts) == np.size(cells["z"])


def test_legend__names_each_part_in_both_themes(figures: dict[str, Figure]) -> None:
    entries = get_legend(figures["categories-k007"])
    assert len({entry.light for entry in entries}) == len(entries) == 7
    assert {entry.dark for entry in entries} <= set(DARK.palette)
    assert get_legend(figures["activation-k007"]) == ()


def test_themes__texts_are_readable_on_every_colour() -> None:
    def readable(a: str, b: str) -> float:
        return compute_contrast(compute_luminance(channels(a)), compute_luminance(channels(b)))

    assert readable("#ffffff", "#000000") == pytest.approx(21)
    for theme in (LIGHT, DARK):
        assert readable(theme.ink, theme.background) > 7
        assert readable(theme.muted, theme.background) > 4.5
        for scale in Scale:
            stops = theme.scale(scale)
            for index, colour in enumerate(stops):
                ink = theme.cell_ink(index / (len(stops) - 1), scale)
                assert readable(ink, colour) >= 4.5
