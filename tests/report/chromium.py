"""The system's Chromium, driven by Playwright; no browser is downloaded."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
# As root, Chromium starts only without its sandbox; the other switches keep it off the network.
SWITCHES = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@contextlib.contextmanager
def launch_chromium() -> Iterator[Browser]:
    """Yield a fresh headless browser."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*SWITCHES])
        yield browser
        browser.close()


def measure_opening(browser: Browser, file: Path) -> dict[str, float]:
    """Return Chromium's performance metrics of opening a file; seconds are processor time.

    The time domain is the page's main thread, so other work on the machine does not count.
    """
    page = browser.new_page()
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})
    page.goto(file.as_uri())
    metrics = session.send("Performance.getMetrics")["metrics"]
    page.close()
    return {metric["name"]: float(metric["value"]) for metric in metrics}
