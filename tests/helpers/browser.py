"""Pages in a real browser: Debian's Chromium, headless, driven by Playwright.

Without a Chromium (``$VLM_HARNESS_CHROMIUM``, or one on the path), tests that need it are skipped
with a reason; ``.ci/run`` installs it.
"""

import base64
import gzip
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
)  # fmt: skip
PHONE = {"width": 390, "height": 844}


def data_of(path: Path) -> Any:
    """The data that the page's scripts load."""
    found = re.search(r'id="data">([^<]*)<', path.read_text(encoding="utf-8"))
    assert found is not None
    return json.loads(gzip.decompress(base64.b64decode(found[1])))


def chromium() -> str | None:
    named = os.environ.get("VLM_HARNESS_CHROMIUM")
    return named or next(filter(None, map(shutil.which, NAMES)), None)


@contextmanager
def launched() -> Iterator[Any]:
    """A browser; skips the test if there is none."""
    api = pytest.importorskip("playwright.sync_api", reason="no browser test: no Playwright")
    path = chromium()
    if path is None:
        pytest.skip(f"no browser test: no {', '.join(NAMES)} and no $VLM_HARNESS_CHROMIUM")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield browser
        browser.close()


class Visit:
    """An open page, with the faults it has had: errors, warnings, requests and dialogs."""

    def __init__(self, browser: Any, url: str, allowed: str = "file:", **options: Any) -> None:
        self.faults: list[str] = []
        self._allowed = (allowed, "data:", "blob:")
        self.page = browser.new_page(**{"viewport": {"width": 1280, "height": 900}, **options})
        self.page.on("console", self._on_console)
        self.page.on("pageerror", lambda error: self.faults.append(f"error: {error}"))
        self.page.on("request", self._on_request)
        self.page.on("dialog", self._on_dialog)
        self.open(url)

    def _on_console(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.faults.append(f"console: {message.text}")

    def _on_request(self, request: Any) -> None:
        if not request.url.startswith(self._allowed):
            self.faults.append(f"request: {request.url}")

    def _on_dialog(self, dialog: Any) -> None:
        self.faults.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def open(self, url: str) -> None:
        # If only the part after # changes, the browser does not load the page again.
        self.page.goto("about:blank")
        self.page.goto(url)
        self.page.wait_for_selector("html[data-ready]", timeout=30_000)

    def text(self, selector: str) -> str:
        return str(self.page.locator(selector).first.inner_text())

    def count(self, selector: str) -> int:
        return int(self.page.locator(selector).count())

    def column(self, table: str, number: int) -> list[str]:
        """The texts of column ``number`` of a table, counted from 1."""
        cells = self.page.locator(f"{table} tbody tr > :nth-child({number})")
        return [str(text).strip() for text in cells.all_inner_texts()]

    def widths(self, images: str) -> list[int]:
        """Widths of images in pixels, once they are decoded; 0 if an image is invalid."""
        script = (
            "found => Promise.all(found.map(i => i.decode().then(() => i.naturalWidth, () => 0)))"
        )
        return list(self.page.locator(images).evaluate_all(script))

    def sort(self, table: str, heading: str, order: str) -> None:
        """Click a heading, and wait until the table is in that order."""
        head = self.page.locator(f"{table} thead th").filter(has_text=heading).first
        head.click()
        self.page.wait_for_selector(f"{table} thead th[aria-sort={order}]")

    def left(self, setting: str) -> None:
        """Wait until the URL no longer has a setting."""
        self.page.wait_for_url(lambda url: f"{setting}=" not in url)

    def serious(self) -> list[str]:
        """Descriptions of the serious and critical faults that axe-core finds."""
        axe = pytest.importorskip("axe_playwright_python.sync_playwright")
        found = axe.Axe().run(self.page).response["violations"]
        return [
            f"{fault['id']}: {fault['help']}: {node['html'][:160]}"
            for fault in found
            if fault["impact"] in ("serious", "critical")
            for node in fault["nodes"]
        ]

    def overflows(self) -> int:
        """Pixels by which the page is wider than its window."""
        return int(self.page.evaluate("document.documentElement.scrollWidth - window.innerWidth"))

    def close(self) -> None:
        self.page.close()


@contextmanager
def visit(browser: Any, url: str, **options: Any) -> Iterator[Visit]:
    """An open page; fails at the end if the page had errors or made network requests."""
    seen = Visit(browser, url, **options)
    try:
        yield seen
    finally:
        seen.close()
    assert seen.faults == []
