"""Chromium for tests, as fixtures that a conftest.py or a test module imports."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Playwright, sync_playwright

#: It runs as root and without a network, and asks nobody for anything at its start.
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


class NewVisitor(t.Protocol):
    """Return a visitor's own browser, with the options of Playwright's `new_context`."""

    def __call__(self, browser: Browser | None = None, url: str = "", **options: t.Any) -> BrowserContext: ...


@pytest.fixture(scope="module")
def playwright() -> t.Iterator[Playwright]:
    """What drives the browsers; for one module only, because its event loop runs in the thread of the tests."""
    with sync_playwright() as playwright:
        yield playwright


@pytest.fixture(scope="module")
def browser(playwright: Playwright, chromium: Path) -> t.Iterator[Browser]:
    """Chromium."""
    browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
    yield browser
    browser.close()


@pytest.fixture
def complaints() -> list[str]:
    """What the pages of this test have complained about."""
    return []
