"""Colours that colour-blind readers can tell apart, on a light and on a dark page."""

from dataclasses import dataclass

import numpy as np

from ulcmod_dist.report.specs import Scale


@dataclass(frozen=True)
class Theme:
    """The colours of one brightness.

    Attributes:
        background: Behind a figure.
        ink: Text and what stands out.
        muted: Axis texts.
        rule: Grid and axis lines.
        faint: Lines in the background of a figure.
        accent: The one colour that stands out.
        second: What the accent is compared with.
        palette: Up to eight parts or groups (after Okabe and Ito).
        rest: The part that gathers what is left.
        sequential: Colours from zero to the largest value.
        diverging: Colours from the most negative over zero to the most positive value.
    """

    background: str
    ink: str
    muted: str
    rule: str
    faint: str
    accent: str
    second: str
    palette: tuple[str, ...]
    rest: str
    sequential: tuple[str, ...]
    diverging: tuple[str, ...]

    def scale(self, scale: Scale) -> tuple[str, ...]:
        """Return the evenly spaced colours of a scale."""
        return self.sequential if scale is Scale.SEQUENTIAL else self.diverging

    def cell_ink(self, position: float, scale: Scale) -> str:
        """Return the text colour that reads best on the scale's colour at 0 <= position <= 1."""
        stops = np.array([_rgb(colour) for colour in self.scale(scale)])
        places = np.linspace(0.0, 1.0, len(stops))
        here = np.array([np.interp(position, places, stops[:, c]) for c in range(3)])
        brightness = float(here @ (0.299, 0.587, 0.114))
        return "#14171c" if brightness > 140 else "#ffffff"


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


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
