"""Reports of planted modules, and pages opened in a browser."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect

from tests.report.chromium import CHROMIUM, launch_chromium
from tests.report.large import enlarge_report
from tests.report.planted import PERMUTATIONS, RESTARTS, SEEDS, build_report, make_run, run_ulcmod
from ulcmod_dist.report.page import collect_figures, collect_tables, render_page
from ulcmod_dist.report.sections import build_sections
from ulcmod_dist.report.specs import Figure
from ulcmod_dist.report.tables import Table
from ulcmod_dist.results.discovery import ReportData

TIMEOUT_MS = 60_000  # a loaded machine draws a large page slowly
expect.set_options(timeout=TIMEOUT_MS)


def write_page(data: ReportData, folder: Path) -> Path:
    path = folder / "large.html"
    path.write_text(render_page(data), encoding="utf-8")
    return path


@dataclass
class OpenedPage:
    """A page in a browser context of its own, with what it logged and asked other hosts for.

    Attributes:
        complaints: Console errors and warnings, uncaught exceptions, refused content.
        requests: Addresses asked for, except files and data within the page.
    """

    page: Page
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("console", self._on_console)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self._on_request(request.url))

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def _on_request(self, url: str) -> None:
        if not url.startswith(("file:", "data:", "blob:", "about:")):
            self.requests.append(url)


OpenPage: TypeAlias = Callable[..., OpenedPage]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    # Module scope: Playwright's event loop, while it runs, forbids other ones in this thread.
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    with launch_chromium() as browser:
        yield browser


@pytest.fixture
def open_page(chromium: Browser) -> Iterator[OpenPage]:
    """Open a file in a context of its own, so that no storage is shared between tests."""
    contexts = []

    def open_page(
        file: Path, *, address: str = "", width: int = 1280, dark: bool = False
    ) -> OpenedPage:
        context = chromium.new_context(
            viewport={"width": width, "height": 900},
            is_mobile=width < 600,
            color_scheme="dark" if dark else "light",
        )
        contexts.append(context)
        context.set_default_timeout(TIMEOUT_MS)
        opened = OpenedPage(context.new_page())
        opened.page.goto(file.as_uri() + address)
        return opened

    yield open_page
    for context in contexts:
        context.close()


@pytest.fixture(scope="session")
def report_data(tmp_path_factory: pytest.TempPathFactory) -> ReportData:
    """The report of K = 7 and 10, with all that a run may have."""
    folder = tmp_path_factory.mktemp("planted")
    settings = (
        f"discover.restarts={RESTARTS}",
        f"evaluate.seeds={SEEDS}",
        f"evaluate.null_permutations={PERMUTATIONS}",
        "evaluate.baselines=[k-means]",
    )
    return build_report(make_run(folder, (7, 10), *settings))


@pytest.fixture(scope="session")
def large_report(report_data: ReportData) -> ReportData:
    """The report of four K up to 50, over 100 categories and 60 layers."""
    return enlarge_report(report_data, (7, 10, 20, 50), num_categories=100, num_layers=60)


@pytest.fixture(scope="session")
def bare_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of a matrix of which nothing else is known, with little asked for."""
    folder = tmp_path_factory.mktemp("bare")
    settings = (
        "discover.restarts=1",
        "evaluate.seeds=1",
        "evaluate.null_permutations=0",
        "evaluate.baselines=[]",
    )
    run = make_run(folder, (1,), *settings, described=False)
    run_ulcmod("report", run)
    return run


@pytest.fixture(scope="session")
def figures(report_data: ReportData) -> dict[str, Figure]:
    return collect_figures(build_sections(report_data))


@pytest.fixture(scope="session")
def tables(report_data: ReportData) -> dict[str, Table]:
    return collect_tables(build_sections(report_data))
