"""The page in a browser: no errors, no requests, and every control does what it says."""

import json
import time
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Download, Page, expect

from tests.report.chromium import measure_opening
from tests.report.conftest import TIMEOUT_MS, OpenedPage, OpenPage, write_page
from tests.report.planted import HOSTILE_CATEGORY, HOSTILE_TEXTS
from ulcmod_dist.report.page import render_page
from ulcmod_dist.results.discovery import ReportData

# Each number that a phone shows, if it lies on more than one line.
BROKEN_NUMBERS = """
  [...document.querySelectorAll(".key-figures b, td.number, td.count, td.share, .share-text")]
    .filter(box => box.checkVisibility()).flatMap(box => {
      const range = document.createRange(); range.selectNodeContents(box.firstChild);
      const lines = new Set([...range.getClientRects()].map(line => Math.round(line.top / 8)));
      return lines.size > 1 ? [box.innerText] : [];
    })"""
VISIBLE_PLOTS = (
    "[...document.querySelectorAll('.plot .main-svg')].filter(p => p.checkVisibility()).length"
)


@pytest.fixture(scope="module")
def report_page(report_data: ReportData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pages") / "report.html"
    path.write_text(render_page(report_data), encoding="utf-8")
    return path


def find_module(report_data: ReportData, start: str) -> int:
    """Return the module of K = 10 whose name starts so."""
    names = report_data.discoveries[1].names
    return next(number for number, name in enumerate(names) if name.startswith(start))


def choose_ten(opened: OpenedPage) -> Page:
    """Switch the page, which opens with K = 7, to K = 10."""
    opened.page.locator("[data-choose='10']").click()
    return opened.page


def wait_until(page: Page, condition: str) -> None:
    """Ask until the expression holds.

    ``Page.wait_for_function`` evaluates a string inside the page when the first answer is no,
    and the page's Content Security Policy forbids that.
    """
    end = time.monotonic() + TIMEOUT_MS / 1000
    while not page.evaluate(condition):
        assert time.monotonic() < end, condition
        page.wait_for_timeout(50)


def get_plot_area(page: Page, plot: str) -> list[float]:
    """Return left, top, width and height of a drawn plot's inside, in the window."""
    wait_until(page, f"!!{plot}.querySelector('.nsewdrag')")
    inside = f"{plot}.querySelector('.nsewdrag').getBoundingClientRect()"
    return list(page.evaluate(f"(r => [r.x, r.y, r.width, r.height])({inside})"))


def scroll_into_view(page: Page, element: str) -> None:
    page.evaluate(f"{element}.scrollIntoView({{block: 'center', behavior: 'instant'}})")


def scroll_through(page: Page) -> None:
    height = page.evaluate("document.body.scrollHeight")
    for top in range(0, height, 700):
        page.evaluate(f"window.scrollTo({{top: {top}, behavior: 'instant'}})")
        time.sleep(0.03)
    wait_until(  # what a busy browser has missed
        page,
        """(() => {
          const left = [...document.querySelectorAll(".plot")]
            .find(plot => plot.checkVisibility() && !plot.querySelector(".main-svg"));
          left?.scrollIntoView({ behavior: "instant" });
          return !left;
        })()""",
    )


def download(page: Page, selector: str) -> Download:
    with page.expect_download() as started:
        page.locator(selector).click()
    return started.value


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_page__opens_without_errors_or_requests_and_fits_the_width(
    open_page: OpenPage, report_page: Path, width: int, dark: bool
) -> None:
    opened = open_page(report_page, width=width, dark=dark)
    page = opened.page
    scroll_through(page)
    assert opened.complaints == []
    assert opened.requests == []
    assert page.evaluate("window.pwned === undefined")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == ("rgb(16, 18, 22)" if dark else "rgb(250, 250, 250)")


def test_page__a_click_on_a_module_shows_its_prompts(
    open_page: OpenPage, report_page: Path, report_data: ReportData
) -> None:
    page = choose_ten(open_page(report_page))
    number = find_module(report_data, "Law")
    assert number > 0
    card = page.locator(f"#module-10-{number}")
    expect(card).not_to_be_visible()
    page.locator(f"#tab-10-{number}").click()
    expect(card).to_be_visible()
    text = card.inner_text()
    assert "contract" in text
    assert HOSTILE_TEXTS[1].strip() in text
    assert not page.locator("#module-10-0").is_visible()
    assert page.evaluate("location.hash") == f"#k=10&module={number}"


def test_page__a_view_stays_open_from_module_to_module_and_follows_the_keys(
    open_page: OpenPage, report_page: Path
) -> None:
    page = choose_ten(open_page(report_page))
    page.locator("#tab-10-1").click()
    tab = page.locator("#tab-10-1-prompts")
    tab.focus()
    page.keyboard.press("End")
    expect(page.locator("#view-10-1-effects")).to_be_visible()
    expect(page.locator("#view-10-1-prompts")).not_to_be_visible()
    expect(page.locator("#tab-10-1-effects")).to_be_focused()
    assert tab.get_attribute("tabindex") == "-1"
    page.keyboard.press("ArrowLeft")
    page.locator("#tab-10-2").click()
    expect(page.locator("#view-10-2-layers")).to_be_visible()
    assert page.locator("[role=tab][aria-selected=true]:visible").count() == 2


def test_page__without_scripts_every_module_and_view_shows(
    chromium: Browser, report_page: Path
) -> None:
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(report_page.as_uri())
    hidden = "[role=tabpanel]:not(:visible)"
    assert page.locator("[role=tabpanel]").count() == 17 * 4
    assert page.locator(hidden).count() == 0
    assert page.locator("[role=tab]:visible").count() == 0
    context.close()


def test_page__a_row_of_the_table_of_all_k_shows_its_modules(
    open_page: OpenPage, report_page: Path
) -> None:
    page = open_page(report_page).page
    rows = page.locator("[data-table=choices] tbody tr")
    assert rows.locator("nth=0").get_attribute("class") == "chosen"
    rows.locator("nth=1").click()
    expect(page.locator("[data-picker='10']")).to_be_visible()
    assert rows.locator("nth=1").get_attribute("class") == "chosen"


@pytest.mark.parametrize("width", [1280, 390])
def test_page__follows_the_rules_of_accessibility_in_both_themes(
    open_page: OpenPage, report_page: Path, width: int
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    for dark in (False, True):
        page = open_page(report_page, width=width, dark=dark).page
        scroll_through(page)
        page.evaluate("for (const box of document.querySelectorAll('details')) box.open = true")
        found = axe.run(page, options={"resultTypes": ["violations"]}).response["violations"]
        assert not [
            (rule["id"], rule["help"], [node["html"][:200] for node in rule["nodes"][:3]])
            for rule in found
        ]


def test_page__an_address_opens_the_module_it_names(open_page: OpenPage, report_page: Path) -> None:
    page = open_page(report_page, address="#k=7&module=2").page
    expect(page.locator("#module-7-2")).to_be_visible()


@pytest.mark.parametrize("subject", ["activation", "categories", "ablation"])
def test_page__a_click_anywhere_in_a_row_of_a_figure_picks_its_module(
    open_page: OpenPage, report_page: Path, subject: str
) -> None:
    page = choose_ten(open_page(report_page))
    plot = f"document.querySelector('[data-figure=\"{subject}-k010\"] .plot')"
    scroll_into_view(page, plot)
    x, y, width, height = get_plot_area(page, plot)
    page.mouse.click(x + 0.97 * width, y + 6.4 * height / 10)  # right of every dot
    expect(page.locator("#module-10-6")).to_be_visible()


@pytest.mark.parametrize(("width", "printed"), [(1280, True), (390, False)])
def test_page__texts_in_cells_show_only_where_they_fit(
    open_page: OpenPage, report_page: Path, width: int, printed: bool
) -> None:
    page = choose_ten(open_page(report_page, width=width))
    scroll_through(page)
    figure = '[data-figure="ablation-modules-k010"]'
    boxes = (
        f"[...document.querySelectorAll('{figure} .textpoint text')]"
        ".map(t => [t.getBoundingClientRect().width, parseFloat(getComputedStyle(t).fontSize)])"
    )
    wait_until(page, f"({boxes}.length > 0) === {json.dumps(printed)}")
    inside = get_plot_area(page, f"document.querySelector('{figure} .plot')")
    found = page.evaluate(boxes)
    assert all(text < inside[2] / 10 and size >= 10 for text, size in found)
    assert len(found) in (0, 100)


def test_page__the_switch_changes_the_number_of_modules(
    open_page: OpenPage, report_page: Path
) -> None:
    page = choose_ten(open_page(report_page))
    page.locator("[data-choose='7']").click()
    expect(page.locator("#module-7-0")).to_be_visible()
    assert not page.locator("[data-picker='10']").is_visible()
    page.locator("#quality .plot:visible").first.scroll_into_view_if_needed()
    wait_until(page, f"{VISIBLE_PLOTS} > 0")
    assert page.evaluate(
        "[...document.querySelectorAll('.plot .main-svg')]"
        ".every(p => p.clientWidth > 0 || !p.checkVisibility())"
    )


def test_page__hostile_labels_are_text_in_figures_and_hovers(
    open_page: OpenPage, report_page: Path, report_data: ReportData
) -> None:
    page = choose_ten(open_page(report_page))
    number = find_module(report_data, HOSTILE_CATEGORY)
    scroll_through(page)
    labels = page.locator(".plot text").all_text_contents()
    assert any("<script>win" in text for text in labels)
    flow = page.locator("[data-figure=flow] .node-label").all_text_contents()
    assert any(text.startswith(f"{number} <script>") for text in flow)
    plot = "document.querySelector('[data-figure=\"activation-k010\"] .plot')"
    scroll_into_view(page, plot)
    x, y, width, height = get_plot_area(page, plot)
    row = x + (number + 0.5) * width / 10, y + (number + 0.5) * height / 10
    page.mouse.move(row[0] - 3, row[1])
    page.mouse.move(*row)
    expect(page.locator(".hovertext")).to_contain_text(
        f"Samples of module {number} ({HOSTILE_CATEGORY}"
    )
    assert page.evaluate("window.pwned === undefined")


def test_page__tables_sort_by_a_click_on_a_heading(open_page: OpenPage, report_page: Path) -> None:
    page = choose_ten(open_page(report_page))
    box = "[data-table='modules-k010']"
    column = f'[...document.querySelectorAll("{box} tbody tr")].map(r => +r.cells[2].dataset.v)'
    heading = page.locator(f"{box} th:nth-child(3) button")
    heading.click()
    values = page.evaluate(column)
    assert values == sorted(values, reverse=True)
    heading.click()
    assert page.evaluate(column) == sorted(values)


def test_page__tables_of_scores_fit_a_laptop_and_save_the_intervals_they_show(
    open_page: OpenPage, report_page: Path
) -> None:
    page = choose_ten(open_page(report_page, width=1280))
    box = "[data-table='methods-k010']"
    too_wide = (
        "[...document.querySelectorAll('[data-table^=methods] .scroll,[data-table^=down] .scroll')]"
        ".filter(b => b.checkVisibility() && b.scrollWidth > b.clientWidth).map(b => b.ariaLabel)"
    )
    assert page.evaluate(too_wide) == []
    shown = page.locator(f"{box} tbody td:nth-child(2)").first.inner_text()
    _, interval = shown.split("\n")
    assert " to " in interval
    saved = download(page, f"{box} [data-csv]")
    assert saved.suggested_filename == "methods-k010.csv"
    keys, first, *_ = (line.split(",") for line in saved.path().read_text().splitlines())
    assert keys[:4] == ["method", "objective", "objective_low", "objective_high"]
    assert len(first) == len(keys)
    assert float(first[2]) <= float(first[1]) <= float(first[3])


def test_page__tables_and_figures_are_saved_as_files(
    open_page: OpenPage, report_page: Path
) -> None:
    opened = open_page(report_page)
    page = choose_ten(opened)
    table = download(page, "[data-table='modules-k010'] [data-csv]")
    png = download(page, "[data-figure='categories-k010'] [data-save='png']")
    svg = download(page, "[data-figure='categories-k010'] [data-save='svg']")
    assert [file.suggested_filename for file in (table, png, svg)] == [
        "modules-k010.csv",
        "categories-k010.png",
        "categories-k010.svg",
    ]
    assert png.path().read_bytes().startswith(b"\x89PNG")
    assert "Mathematics" in svg.path().read_text()
    lines = table.path().read_text().splitlines()
    assert lines[0].startswith("module,name,units,samples")
    assert len(lines) == 11
    assert opened.complaints == []


def test_page__the_theme_button_turns_page_and_figures_dark(
    open_page: OpenPage, report_page: Path
) -> None:
    page = open_page(report_page).page
    page.locator("#quality .plot:visible").first.scroll_into_view_if_needed()
    wait_until(page, f"{VISIBLE_PLOTS} > 0")
    page.locator("#theme").click()
    expect(page.locator("body")).to_have_css("background-color", "rgb(16, 18, 22)")
    paper = page.locator(".plot .main-svg").first
    expect(paper).to_have_css("background-color", "rgb(23, 25, 30)")


def test_page__a_figure_hidden_while_the_theme_changes_keeps_its_layout(
    open_page: OpenPage, report_page: Path
) -> None:
    page = choose_ten(open_page(report_page))
    scroll_through(page)
    plot = "document.querySelector('[data-figure=\"activation-k010\"] .plot')"
    size = f"JSON.stringify([{plot}._fullLayout._size, {plot}._fullLayout.font.size])"
    before = page.evaluate(size)
    page.locator("[data-choose='7']").click()
    page.locator("#theme").click()
    page.locator("[data-choose='10']").click()
    drawing = page.locator("[data-figure='activation-k010'] .plot .main-svg").first
    expect(drawing).to_have_css("background-color", "rgb(23, 25, 30)")
    assert page.evaluate(size) == before


def test_page__shows_a_phone_short_numbers_on_one_line(
    open_page: OpenPage, large_report: ReportData, tmp_path: Path
) -> None:
    page = open_page(write_page(large_report, tmp_path), width=390).page
    assert page.locator("[data-table=choices] td.number").first.inner_text()[-1] in "MB"
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert page.evaluate(BROKEN_NUMBERS) == []


def test_page__lays_out_only_what_is_shown(
    chromium: Browser, large_report: ReportData, tmp_path: Path
) -> None:
    """What opening costs beside plotly is parsing all nodes and laying out those that are shown.

    ``tests.benchmarks.evaluation`` measures the seconds of opening a page.
    """
    opened = measure_opening(chromium, write_page(large_report, tmp_path))
    assert 100_000 < opened["Nodes"] < 150_000
    assert opened["LayoutObjects"] < 4_000
