"""The tabs of a module that was explained, in a browser."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from playwright.sync_api import expect

from tests.report.conftest import OpenPage, write_page
from ulcmod_dist.results.discovery import ReportData
from ulcmod_dist.results.explanation import (
    Completion,
    Description,
    ExplainedModule,
    Explanation,
    TokenActivations,
    TopToken,
    TopUnit,
)


def test_page__tabs_of_an_explained_module_show_what_was_found(
    open_page: OpenPage, report_data: ReportData, tmp_path: Path
) -> None:
    seven, *others = report_data.discoveries
    tokens = TokenActivations("s1", ("Feed", " the", " owl"), np.array([0.5, -1.0, 4.0]))
    unit = TopUnit(3, "layer 0 unit 3", 1.0, (TopToken("owl", 6.5),))
    said = Completion("s2", "Where do owls live?", "In old barns.", "Barns barns.")
    described = Description("Birds at night", 0.875, 8, 9)
    modules = tuple(
        ExplainedModule(k, (tokens,), (TopToken("owl", 4.0),), (unit,), (said,), described)
        for k in range(7)
    )
    explained = replace(seven, explanation=Explanation(7, modules))
    data = replace(report_data, discoveries=(explained, *others))
    opened = open_page(write_page(data, tmp_path), width=390)
    card = opened.page.locator("#module-7-1")
    opened.page.locator("#tab-7-1").click()
    # All tabs are in view: nothing would tell a reader to scroll them sideways.
    assert card.locator(".tabs").evaluate("tabs => tabs.scrollWidth <= tabs.clientWidth")
    for view, texts in {
        "tokens": ("Birds at night", "0.88 for 8 held-out prompts", "Feed the owl", "owl 4"),
        "units": ("layer 0 unit 3", "owl 6.50"),
        "effects": ("Control sets, other samples",),
        "completions": ("Where do owls live?", "In old barns.", "Barns barns."),
    }.items():
        card.locator(f"#tab-7-1-{view}").click()
        for text in texts:
            expect(card.locator(f"#view-7-1-{view}")).to_contain_text(text)
        assert opened.page.evaluate("document.documentElement.scrollWidth") <= 390
    expect(card.locator("#view-7-1-tokens .shade-5")).to_have_text("owl")
    assert opened.complaints == []
