"""The page in a browser: it opens quietly, asks nobody, and does what its buttons say."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.report.headless import PROGRAM, Browser, browser
from tests.report.report_factory import report
from ulcmod_dist.report.page import render_page

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="chromium is not installed")

SECONDS_TO_OPEN = 3.0
SHOWN = "[...document.querySelectorAll('.plot .main-svg')].filter(p => p.checkVisibility()).length"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    (folder / "report.html").write_text(render_page(report()), encoding="utf-8")
    large = render_page(report((5, 10, 15, 20), layers=32))
    (folder / "large.html").write_text(large, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as tab:
        yield tab


def area(tab: Browser, plot: str) -> list[float]:
    """Return left, top, width and height of a drawn plot's inside, in the window."""
    inside = f"{plot}.querySelector('.nsewdrag').getBoundingClientRect()"
    return list(tab.run(f"(r => [r.x, r.y, r.width, r.height])({inside})"))


def scroll_through(tab: Browser) -> None:
    height = tab.run("document.body.scrollHeight")
    for top in range(0, height, 700):
        tab.run(f"window.scrollTo({{top: {top}, behavior: 'instant'}})")
        time.sleep(0.03)
    all_drawn = (
        "[...document.querySelectorAll('.plot')].filter(p => p.checkVisibility())"
        ".every(p => p.querySelector('.main-svg'))"
    )
    tab.wait(all_drawn)


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_page__opens_quietly_asks_nobody_and_fits_the_width(
    tab: Browser, folder: Path, width: int, dark: bool
) -> None:
    tab.complaints.clear()
    tab.open(folder / "report.html", width=width, dark=dark)
    scroll_through(tab)
    assert tab.complaints == []
    assert tab.requests == []
    assert tab.run("window.pwned === undefined")
    assert tab.run("document.documentElement.scrollWidth") == width
    ground = tab.run("getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(16, 18, 22)" if dark else "rgb(250, 250, 250)")


def test_page__a_click_on_a_module_shows_its_prompts(tab: Browser, folder: Path) -> None:
    tab.open(folder / "report.html")
    assert not tab.run("document.getElementById('module-10-4').checkVisibility()")
    tab.click("#tab-10-4")
    tab.wait("document.getElementById('module-10-4').checkVisibility()")
    text = tab.run("document.getElementById('module-10-4').innerText")
    assert "contract" in text
    assert "</script><script>window.pwned = 1</script> {{ 7 * 7 }}" in text
    assert not tab.run("document.getElementById('module-10-0').checkVisibility()")
    assert tab.run("location.hash") == "#k=10&module=4"


def test_page__an_address_opens_the_module_it_names(tab: Browser, folder: Path) -> None:
    tab.open(folder / "report.html")
    page = (folder / "report.html").as_uri()
    tab.call("Page.navigate", url="about:blank")
    tab.call("Page.navigate", url=f"{page}#k=7&module=2")
    tab.wait("document.getElementById('module-7-2')?.checkVisibility() ?? false")


@pytest.mark.parametrize("subject", ["activation", "categories", "ablation"])
def test_page__a_click_anywhere_in_a_row_of_a_figure_picks_its_module(
    tab: Browser, folder: Path, subject: str
) -> None:
    tab.call("Page.navigate", url="about:blank")  # or the last address would stay
    tab.open(folder / "report.html")
    plot = f"document.querySelector('[data-figure=\"{subject}-k010\"] .plot')"
    tab.run(f"{plot}.scrollIntoView({{block: 'center', behavior: 'instant'}})")
    tab.wait(f"!!{plot}.querySelector('.nsewdrag')")
    x, y, width, height = area(tab, plot)
    tab.press(x + 0.97 * width, y + 6.4 * height / 10)  # right of every dot
    tab.wait("document.getElementById('module-10-6').checkVisibility()")


@pytest.mark.parametrize(("width", "printed"), [(1280, True), (390, False)])
def test_page__texts_in_cells_show_only_where_they_fit(
    tab: Browser, folder: Path, width: int, printed: bool
) -> None:
    tab.open(folder / "report.html", width=width)
    scroll_through(tab)
    boxes = (
        "[...document.querySelectorAll('[data-figure=\"ablation-modules-k010\"] .textpoint text')]"
        ".map(t => [t.getBoundingClientRect().width, parseFloat(getComputedStyle(t).fontSize)])"
    )
    tab.wait(f"({boxes}.length > 0) === {json.dumps(printed)}")
    inside = area(tab, "document.querySelector('[data-figure=\"ablation-modules-k010\"] .plot')")
    found = tab.run(boxes)
    assert all(text < inside[2] / 10 and size >= 10 for text, size in found)
    assert len(found) in (0, 100)


def test_page__the_switch_changes_the_number_of_modules(tab: Browser, folder: Path) -> None:
    tab.open(folder / "report.html")
    tab.click("[data-choose='7']")
    tab.wait("document.getElementById('module-7-0').checkVisibility()")
    assert not tab.run("document.querySelector('[data-picker=\"10\"]').checkVisibility()")
    tab.wait(f"{SHOWN} > 0")
    assert tab.run(
        "[...document.querySelectorAll('.plot .main-svg')]"
        ".every(p => p.clientWidth > 0 || !p.checkVisibility())"
    )


def test_page__hostile_labels_are_text_in_figures_and_hovers(tab: Browser, folder: Path) -> None:
    tab.open(folder / "report.html")
    scroll_through(tab)
    labels = tab.run("[...document.querySelectorAll('.plot text')].map(t => t.textContent)")
    assert any("<script>win" in text for text in labels)
    flow = tab.run(
        "[...document.querySelectorAll('[data-figure=flow] .node-label')].map(t => t.textContent)"
    )
    assert any(text.startswith("3 <script>") for text in flow)
    plot = "document.querySelector('[data-figure=\"activation-k010\"] .plot')"
    tab.run(f"{plot}.scrollIntoView({{block: 'center', behavior: 'instant'}})")
    x, y, width, height = area(tab, plot)
    tab.hover(x + 3.5 * width / 10, y + 3.5 * height / 10)
    hover = "document.querySelector('.hovertext')"
    tab.wait(f"!!{hover}")
    assert "Samples of module 3 (<script>window.pwned=1</script> & <b>poem" in tab.run(
        f"{hover}.textContent"
    )
    assert tab.run("window.pwned === undefined")


def test_page__tables_sort_by_a_click_on_a_heading(tab: Browser, folder: Path) -> None:
    tab.open(folder / "report.html")
    box = "[data-table='modules-k010']"
    column = f'[...document.querySelectorAll("{box} tbody tr")].map(r => +r.cells[2].dataset.v)'
    tab.click(f"{box} th:nth-child(3) button")
    values = tab.run(column)
    assert values == sorted(values, reverse=True)
    tab.click(f"{box} th:nth-child(3) button")
    assert tab.run(column) == sorted(values)


def test_page__tables_of_scores_fit_a_laptop_and_save_the_intervals_they_show(
    tab: Browser, folder: Path, tmp_path: Path
) -> None:
    tab.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    tab.open(folder / "report.html", width=1280)
    box = "[data-table='methods-k010']"
    wide = (
        "[...document.querySelectorAll('[data-table^=methods] .scroll,[data-table^=down] .scroll')]"
        ".filter(b => b.checkVisibility() && b.scrollWidth > b.clientWidth).map(b => b.ariaLabel)"
    )
    assert tab.run(wide) == []
    shown = tab.run(f'document.querySelector("{box} tbody td:nth-child(2)").innerText')
    _, interval = shown.split("\n")
    assert " to " in interval
    tab.click(f"{box} [data-csv]")
    file = tmp_path / "methods-k010.csv"
    end = time.monotonic() + 30
    while not file.exists():
        assert time.monotonic() < end
        tab.run("1")
        time.sleep(0.1)
    keys, first, *_ = (line.split(",") for line in file.read_text().splitlines())
    assert keys[:4] == ["method", "objective", "objective_low", "objective_high"]
    assert len(first) == len(keys)
    assert float(first[2]) <= float(first[1]) <= float(first[3])


def test_page__tables_and_figures_are_saved_as_files(
    tab: Browser, folder: Path, tmp_path: Path
) -> None:
    tab.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    tab.complaints.clear()
    tab.open(folder / "report.html")
    tab.click("[data-table='modules-k010'] [data-csv]")
    for kind in ("png", "svg"):
        tab.click(f"[data-figure='categories-k010'] [data-save='{kind}']")
    files = [tmp_path / f"categories-k010.{kind}" for kind in ("png", "svg")]
    files.append(tmp_path / "modules-k010.csv")
    end = time.monotonic() + 30
    while not all(file.exists() for file in files):
        assert time.monotonic() < end, sorted(tmp_path.iterdir())
        tab.run("1")
        time.sleep(0.1)
    assert files[0].read_bytes().startswith(b"\x89PNG")
    assert "Mathematics" in files[1].read_text()
    lines = files[2].read_text().splitlines()
    assert lines[0].startswith("module,name,units,samples")
    assert len(lines) == 11
    assert tab.complaints == []


def test_page__the_theme_button_turns_page_and_figures_dark(tab: Browser, folder: Path) -> None:
    tab.open(folder / "report.html")
    tab.wait(f"{SHOWN} > 0")
    tab.click("#theme")
    tab.wait("getComputedStyle(document.body).backgroundColor === 'rgb(16, 18, 22)'")
    paper = "getComputedStyle(document.querySelector('.plot .main-svg')).backgroundColor"
    tab.wait(f"{paper} === 'rgb(23, 25, 30)'")
    tab.run("localStorage.clear()")


def test_page__what_was_hidden_while_the_theme_changed_is_drawn_as_before_when_it_shows(
    tab: Browser, folder: Path
) -> None:
    tab.open(folder / "report.html")
    scroll_through(tab)
    plot = "document.querySelector('[data-figure=\"activation-k010\"] .plot')"
    size = f"JSON.stringify([{plot}._fullLayout._size, {plot}._fullLayout.font.size])"
    before = tab.run(size)
    tab.click("[data-choose='7']")
    tab.click("#theme")
    tab.click("[data-choose='10']")
    tab.wait(
        f"getComputedStyle({plot}.querySelector('.main-svg')).backgroundColor === 'rgb(23, 25, 30)'"
    )
    assert tab.run(size) == before
    tab.run("localStorage.clear()")


def test_page__opens_in_time(tab: Browser, folder: Path) -> None:
    tab.call("Performance.enable", timeDomain="threadTicks")
    tab.open(folder / "large.html")
    metrics = tab.call("Performance.getMetrics")["metrics"]
    spent = {metric["name"]: metric["value"] for metric in metrics}
    tab.call("Performance.disable")
    # Processor time of the page's main thread: other work on the machine does not count.
    assert spent["TaskDuration"] < SECONDS_TO_OPEN, json.dumps(spent, indent=1)
