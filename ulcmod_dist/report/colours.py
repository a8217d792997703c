"""Colours that colour-blind readers can tell apart, on a light and on a dark page."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ulcmod_dist.report.specs import Dots, Figure, Heatmap, Scale, StackedBars
from ulcmod_dist.runtime.text import number

CELL_INKS = ("#000000", "#ffffff")
"""Texts in cells: on any colour one of the two has a contrast of 4.5 (WCAG 2.2, level AA)."""


@dataclass(frozen=True)
class Theme:
    """The colours of one brightness."""

    background: str  # behind a figure
    ink: str  # text and what stands out
    muted: str  # axis texts
    rule: str  # grid and axis lines
    faint: str  # lines in the background of a figure
    accent: str  # the one colour that stands out
    second: str  # what the accent is compared with
    palette: tuple[str, ...]  # up to eight parts or groups (after Okabe and Ito)
    rest: str  # the part that gathers what is left
    sequential: tuple[str, ...]  # from zero to the largest value
    diverging: tuple[str, ...]  # from the most negative over zero to the most positive value

    def scale(self, scale: Scale) -> tuple[str, ...]:
        """Return the evenly spaced colours of a scale."""
        return self.sequential if scale is Scale.SEQUENTIAL else self.diverging

    def series(self, index: int) -> str:
        """Return the colour of a series of dots."""
        return (self.accent, self.second, self.muted, self.palette[2])[index % 4]

    def cell_ink(self, position: float, scale: Scale) -> str:
        """Return the text colour that reads best on the scale's colour at 0 <= position <= 1."""
        stops = np.array([_rgb(colour) for colour in self.scale(scale)])
        positions = np.linspace(0.0, 1.0, len(stops))
        colour = np.array([np.interp(position, positions, stops[:, c]) for c in range(3)])
        black, white = CELL_INKS
        # A contrast is (brighter + 0.05) / (darker + 0.05): black's here is at least white's.
        return black if (compute_luminance(colour) + 0.05) ** 2 >= 1.05 * 0.05 else white


LIGHT = Theme(
    background="#ffffff",
    ink="#1b1e23",
    muted="#5a616b",
    rule="#e2e4e8",
    faint="#b4bac3",
    accent="#0b5cad",
    second="#d1690e",
    palette=(
        "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#6a4c93", "#b8a900",
    ),
    rest="#b4bac3",
    sequential=("#f3f5f8", "#c3d9ee", "#7fb2dc", "#3a83c0", "#0b5394", "#062f5c"),
    diverging=("#7f3b08", "#c9711a", "#f1b878", "#f5f5f4", "#8fbce1", "#2f7ab9", "#08386e"),
)  # fmt: skip

DARK = Theme(
    background="#17191e",
    ink="#e8eaed",
    muted="#a3abb6",
    rule="#2c3038",
    faint="#565d68",
    accent="#6db3f2",
    second="#f0964a",
    palette=(
        "#3d9bd9", "#e6ab2e", "#22b48b", "#d990b7", "#8ccdf2", "#e8763a", "#a287cf", "#d0c537",
    ),
    rest="#565d68",
    sequential=("#1f232a", "#1d3d5e", "#22649c", "#3f93d3", "#8cc4f0", "#e2f1fd"),
    diverging=("#fbd3a4", "#e58e3c", "#7a4a1c", "#22262d", "#1f4f7d", "#4a9add", "#d3e9fb"),
)  # fmt: skip


def get_colour_limits(spec: Heatmap) -> tuple[float, float]:
    """Return the values at the two ends of a heatmap's colours."""
    finite = spec.values[np.isfinite(spec.values)]
    largest = float(np.abs(finite).max()) if finite.size else 0.0
    top = largest or 1.0
    return (0.0, top) if spec.scale is Scale.SEQUENTIAL else (-top, top)


def place_cell_texts(spec: Heatmap, theme: Theme) -> Iterator[tuple[int, int, str, str]]:
    """Yield row, column, text and ink of each text that a heatmap prints in its cells."""
    if spec.cell_texts is None or not spec.shows_cell_texts:
        return
    low, high = get_colour_limits(spec)
    for (row, column), value in np.ndenumerate(spec.values):
        text = spec.cell_texts[row][column]
        if text and np.isfinite(value):
            ink = theme.cell_ink(float((value - low) / (high - low)), spec.scale)
            yield row, column, text, ink


def get_part_colour(index: int, parts: int, theme: Theme) -> str:
    """Return the colour of a part; beyond the palette the last part is the rest."""
    if index < len(theme.palette) and (index < parts - 1 or parts <= len(theme.palette)):
        return theme.palette[index]
    return theme.rest


@dataclass(frozen=True)
class LegendEntry:
    """A name and its colour on a light and on a dark page."""

    name: str
    light: str
    dark: str


def get_legend(spec: Figure) -> tuple[LegendEntry, ...]:
    """Return the legend of a figure; empty for one that needs none."""
    if isinstance(spec, StackedBars):
        amount = len(spec.parts)
        return tuple(
            LegendEntry(part, get_part_colour(i, amount, LIGHT), get_part_colour(i, amount, DARK))
            for i, part in enumerate(spec.parts)
        )
    if isinstance(spec, Dots) and len(spec.series) > 1:
        return tuple(
            LegendEntry(series.name, LIGHT.series(i), DARK.series(i))
            for i, series in enumerate(spec.series)
        )
    return ()


@dataclass(frozen=True)
class ScaleBar:
    """What the colours of a heatmap mean."""

    title: str  # name of the values
    ends: tuple[str, str]  # the values at the two ends, printed
    colours: tuple[tuple[str, str], ...]  # evenly spaced, on a light and on a dark page


def get_scale_bar(spec: Figure) -> ScaleBar | None:
    """Return what a heatmap's colours mean; None for other figures."""
    if not isinstance(spec, Heatmap):
        return None
    low, high = get_colour_limits(spec)
    colours = tuple(zip(LIGHT.scale(spec.scale), DARK.scale(spec.scale), strict=True))
    return ScaleBar(spec.value_axis, (number(low, 2), number(high, 2)), colours)


def define_css_colours() -> str:
    """Return a style sheet that names the themes' colours for the rest of the page."""
    roles = {"card": "background", "ink": "ink", "muted": "muted", "rule": "rule",
             "accent": "accent", "second": "second"}  # fmt: skip
    names = "".join(
        f"--{name}:light-dark({getattr(LIGHT, role)},{getattr(DARK, role)});"
        for name, role in roles.items()
    )
    return f":root{{{names}}}\n"


def compute_luminance(rgb: NDArray[np.float64]) -> float:
    """Return the relative luminance of a colour of three values up to 255 (WCAG 2.2)."""
    channels = np.asarray(rgb, dtype=np.float64) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
