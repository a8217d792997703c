"""The page as text: what it holds and what it must never hold."""

import re
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.report.large import enlarge_report
from tests.report.planted import CATEGORIES, HOSTILE_TEXTS
from ulcmod_dist.report.blocks import Note, Section
from ulcmod_dist.report.page import render_document, render_page
from ulcmod_dist.report.tables import Column, ColumnKind, build_table
from ulcmod_dist.results.discovery import ReportData


class Outline(HTMLParser):
    """Collects elements, identifiers and visible text."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.text: list[str] = []
        self.scripts: list[str] = []
        self._inside: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {key: value or "" for key, value in attrs}
        self._inside = tag if tag in ("script", "style") else None
        self.elements.append(tag)
        if "id" in values:
            self.ids.append(values["id"])
        self.links += [values[key] for key in ("src", "href") if key in values]
        assert not any(key.startswith("on") for key in values), f"{tag} runs script: {values}"
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = None

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] += data
        elif self._inside is None:
            self.text.append(data)


def outline(page: str) -> Outline:
    parser = Outline()
    parser.feed(page)
    return parser


@pytest.fixture(scope="module")
def page(report_data: ReportData) -> str:
    return render_page(report_data)


@pytest.fixture(scope="module")
def parsed(page: str) -> Outline:
    return outline(page)


def test_page__answers_in_the_order_in_which_a_reader_asks(page: str) -> None:
    keys = re.findall(r'<section id="([a-z]+)"', page)
    assert keys == [
        "finding", "modules", "quality", "ablation", "layers", "membership", "robustness", "run",
    ]  # fmt: skip


def test_page__equal_data_give_equal_text(page: str, report_data: ReportData) -> None:
    assert render_page(report_data) == page


def test_page__identifiers_are_unique_and_links_stay_on_the_page(parsed: Outline) -> None:
    assert len(set(parsed.ids)) == len(parsed.ids)
    assert all(link.startswith(("#", "data:")) for link in parsed.links)
    assert {link[1:] for link in parsed.links if link.startswith("#")} <= set(parsed.ids)


def test_page__runs_only_its_own_two_scripts_and_reaches_nothing(
    page: str, parsed: Outline
) -> None:
    found = re.search(r'Content-Security-Policy" content="([^"]+)"', page)
    assert found is not None
    policy = unescape(found.group(1))
    assert policy.startswith("default-src 'none'")
    assert len(re.findall(r"'sha256-", policy)) == 2
    assert "unsafe-eval" not in policy
    assert "script-src 'unsafe-inline'" not in policy
    assert len(parsed.scripts) == 3  # figures as JSON, plotly, the page's own


def test_page__markup_in_prompts_and_names_is_shown_as_text(page: str, parsed: Outline) -> None:
    text = "".join(parsed.text)
    assert all(hostile.strip() in text for hostile in HOSTILE_TEXTS)
    assert "{{ 7 * 7 }}" in text
    assert "img" not in parsed.elements
    assert "window.pwned" not in parsed.scripts[1] + parsed.scripts[2]
    assert "<" not in parsed.scripts[0]


def test_page__figures_have_words_for_those_who_do_not_see_them(page: str) -> None:
    figures = page.count('<figure class="picture')
    assert figures > 15
    assert page.count('role="img" aria-label="') >= figures
    described = re.findall(r'aria-describedby="([^"]+)"', page)
    assert all(f'<p id="{name}"' in page for name in described)


def test_page__long_prompts_are_cut_at_the_length_it_states(parsed: Outline) -> None:
    text = "".join(parsed.text)
    assert "Prompts are cut after 600 characters." in text
    assert "more characters)" in text
    assert max(len(piece) for piece in parsed.text) < 2_000


def test_page__every_k_has_its_modules_and_one_is_shown(page: str) -> None:
    for size in (7, 10):
        for module in range(size):
            assert f'id="module-{size}-{module}"' in page
    assert page.count('data-k="10" hidden') == 7
    assert 'data-k="7" hidden' not in page


def test_page__what_a_run_lacks_is_said_in_one_sentence_each(bare_run: Path) -> None:
    parsed = outline((bare_run / "report.html").read_text(encoding="utf-8"))
    text = "".join(parsed.text)
    for reason in (
        "The corpus has no categories.",
        "The job asks for no null model (evaluate.null_permutations is 0).",
        "The matrix was imported without the layers of its units.",
        "The matrix was imported without its prompts.",
        "The matrix was imported without its model",
        "The modules of a single K have been found.",
        "One module alone has no hierarchy.",
    ):
        assert text.count(reason) >= 1, reason
    assert "module-1-0" in parsed.ids
    assert not any(category in text for category in CATEGORIES)
    assert "None" not in text
    assert "nan" not in text.split()


def test_page__hostile_title_and_facts_stay_text(report_data: ReportData) -> None:
    title = '"><script>window.pwned=1</script>'
    run = replace(report_data.run, name=title, model=title)
    parsed = outline(render_page(replace(report_data, run=run)))
    assert len(parsed.scripts) == 3
    assert title in parsed.text


@pytest.mark.parametrize(
    ("numbers", "num_categories", "limit"),
    [((5, 10, 15, 20), 7, 15_000_000), ((7, 10, 20, 50), 100, 20_000_000)],
)
def test_page__many_modules_categories_and_layers_stay_small(
    report_data: ReportData, numbers: tuple[int, ...], num_categories: int, limit: int
) -> None:
    large = enlarge_report(report_data, numbers, num_categories=num_categories, num_layers=60)
    assert len(render_page(large).encode()) < limit


def test_render_document__sections_without_any_k_are_a_page() -> None:
    block = build_table(
        "moved", "What moved", (Column("unit", "Unit", ColumnKind.COUNT),), [(3,), (4,)]
    )
    part = Section("drift", "What moved", "", shared=(Note("Two units moved."), block))
    page = render_document("A and B", (part,))
    assert "Two units moved." in "".join(outline(page).text)
    assert 'class="switch"' not in page
