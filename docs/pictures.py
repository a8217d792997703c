"""Pictures of a run's report for README (light and dark) and tutorial (light), by Chromium.

    python -m docs.pictures runs/smollm2-135m --module 3
    python -m docs.pictures runs/demo                      # the first screen, of the demo

The pictures hold prompts, so use a run on the project's own corpus alone.
"""

import argparse
from pathlib import Path

from playwright.sync_api import Page

from tests.report.chromium import launch_chromium

IMAGES = Path(__file__).parent / "images"
WIDTH, HEIGHT = 1280, 990
# Picture -> figure of the page. All show the K with which the page opens.
FIGURES = {"layers": "layers", "ablation": "ablation-categories"}
MARGIN = 24


def photograph(report: Path, module: int, *, dark: bool) -> None:
    """Write module.png, layers.png and ablation.png, or module-dark.png alone."""
    with launch_chromium() as browser:
        page = browser.new_page(
            viewport={"width": WIDTH, "height": HEIGHT},
            color_scheme="dark" if dark else "light",
            reduced_motion="reduce",
        )
        page.goto(report.as_uri())
        opened = int(page.get_attribute("#modules .choice:not([hidden])", "data-k") or 0)
        page.click(f"#tab-{opened}-{module}")
        page.mouse.move(0, 0)  # nothing is shown as if it were pointed at
        show(page, "#modules")
        page.screenshot(path=IMAGES / ("module-dark.png" if dark else "module.png"))
        for picture, figure in () if dark else FIGURES.items():
            name = f"{figure}-k{opened:03d}"
            place = f"[data-figure='{name}']"
            if not page.locator(place).count():
                print(f"The report has no figure {name}.")
                continue
            show(page, place)
            page.locator(place).screenshot(path=IMAGES / f"{picture}.png")


def photograph_first_screen(report: Path) -> None:
    """Write report.png."""
    with launch_chromium() as browser:
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
        page.goto(report.as_uri())
        page.wait_for_timeout(2000)
        page.screenshot(path=IMAGES / "report.png")


def show(page: Page, place: str) -> None:
    """Scroll to an element and wait until its figure, if it has any, is drawn."""
    page.evaluate(
        "([place, margin]) => window.scrollTo({behavior: 'instant', top: window.scrollY - margin +"
        " document.querySelector(place).getBoundingClientRect().top})",
        [place, MARGIN + 52],  # the bar at the top covers 52 pixels
    )
    page.wait_for_timeout(2000)


def main() -> None:
    """Draw the pictures of the run that is named."""
    parser = argparse.ArgumentParser(description="Pictures of README and tutorial.")
    parser.add_argument("run", type=Path, help="run directory with a report")
    parser.add_argument("--module", type=int, help="module whose card is shown")
    options = parser.parse_args()
    report = (options.run / "report.html").resolve()
    if options.module is None:
        photograph_first_screen(report)
        return
    for dark in (False, True):
        photograph(report, options.module, dark=dark)


if __name__ == "__main__":
    main()
