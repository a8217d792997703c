"""What a module's card shows of its explanation, as HTML."""

import html
import re

import numpy as np

from ulcmod_dist.report.blocks import Section
from ulcmod_dist.report.page import render_document
from ulcmod_dist.report.sections.explanation import show_completions, show_tokens, show_units
from ulcmod_dist.results.explanation import (
    Completion,
    Description,
    ExplainedModule,
    TokenActivations,
    TopToken,
    TopUnit,
)
from ulcmod_dist.results.types import Absent

HOSTILE = "<img src=x onerror=alert(1)>\u202e"
NONE = Absent("None.")


def render(explained: ExplainedModule) -> str:
    blocks = (*show_tokens(explained), *show_units(explained), *show_completions(explained))
    page = render_document("Title", [Section("s", "S", "", shared=blocks)])
    return page[page.index("<main") :]


def test_explanation__tokens_are_shaded_by_their_share_of_the_largest_and_safe() -> None:
    tokens = TokenActivations(
        "s1", (" the", " owl", HOSTILE, "\n"), np.array([-1.0, 5.0, 2.2, 0.5])
    )
    unit = TopUnit(3, "layer 0 unit 3", 1.0, (TopToken("owl", 4.0),))
    said = Completion("s2", HOSTILE, "An owl.", HOSTILE)
    described = Description("Birds", 0.875, 8, 9)
    page = render(
        ExplainedModule(0, (tokens,), (TopToken("owl", 5.0),), (unit,), (said,), described)
    )
    assert HOSTILE not in page
    assert "\u202e" not in page
    clean = html.escape(HOSTILE.removesuffix("\u202e"))
    shades = re.findall(r'<span class="shade-(\d)" title="([^"]+)">([^<]*)</span>', page)
    assert shades == [("5", "5", " owl"), ("2", "2.20", clean)]
    assert ' the<span class="shade-5"' in page
    assert page.count(clean) == 3
    assert "owl\u00a04" in page
    for text in ("Birds", "0.88", "8 held-out", "9 others", "layer 0 unit 3", "An owl."):
        assert text in page


def test_explanation__without_texts_shows_the_units_alone() -> None:
    unit = TopUnit(3, "layer 0 unit 3", 1.0, NONE)
    page = render(ExplainedModule(0, NONE, NONE, (unit,), NONE, NONE))
    assert "layer 0 unit 3" in page
    assert "shade-" not in page.partition("</style>")[2]
    assert "Untouched" not in page
