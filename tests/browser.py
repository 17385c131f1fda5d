"""A real browser for the tests of pages: the Chromium of this machine, driven by Playwright, kept from calling out."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

REQUIRED = "HARNESS_REQUIRE_BROWSER"  # set where a browser must be there: then its absence is a failure
QUIET = (
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND",
)


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser. Skips the test where there is none, or fails it where one is required."""
    missing = pytest.fail if os.environ.get(REQUIRED) == "1" else pytest.skip
    program = shutil.which("chromium")
    if program is None:
        missing("there is no `chromium` on this machine: apt-get install chromium")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing("there is no playwright in this environment: pip install -r requirements/dev.txt")
    root = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=[*root, *QUIET])
        yield browser
        browser.close()


class Visit:
    """A page of a site. complaints: what its console said; calls: what it asked of anything but the file system."""

    def __init__(self, browser: Any, site: Path, address: str = "", **options: Any) -> None:
        self.context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        self.page = self.context.new_page()
        self.complaints: list[str] = []
        self.calls: list[str] = []
        self.page.on("console", lambda said: self.complaints.append(said.text) if said.type != "log" else None)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda asked: self._note(asked.url))
        self.page.goto((site / "index.html").as_uri() + address)
        self._drawn(address)

    def _note(self, url: str) -> None:
        if not url.startswith(("file:", "data:")):
            self.calls.append(url)

    def shows(self, selector: str, text: str) -> None:
        """Wait until an element has this text, as it has once the page followed a link; fail if that does not come."""
        from playwright.sync_api import expect

        expect(self.page.locator(selector)).to_have_text(text)

    def has(self, selector: str, count: int) -> None:
        """Wait until the page has so many of these elements; fail if it never does."""
        from playwright.sync_api import expect

        expect(self.page.locator(selector)).to_have_count(count)

    def go(self, address: str) -> None:
        """To another view of the same page, as a link would."""
        self.page.evaluate("address => { location.hash = address; }", address)
        self._drawn(address)

    def _drawn(self, address: str) -> None:
        """Wait until the page shows this address, with what it loads for it."""
        self.page.wait_for_selector(f"html[data-shown='{address}']", state="attached")
        self.page.wait_for_selector("[aria-busy]", state="detached")

    def column(self, number: int) -> list[str]:
        """The text of the n-th field of every row on the page."""
        texts = self.page.locator(f"tbody tr > :nth-child({number})").all_inner_texts()
        return [text.split("\n")[0] for text in texts]

    def close(self) -> None:
        """Ends the visit, which must have been quiet."""
        self.context.close()
        assert not self.complaints, self.complaints
        assert not self.calls, self.calls
