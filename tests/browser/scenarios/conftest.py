"""The scenarios' application, served, and Chromium."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

from tests.browser.scenarios.chromium import Site, World
from tests.services import launched

pytest.register_assert_rewrite("tests.browser.scenarios.stories")

ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]


@pytest.fixture(scope="module")
def served(chromium: Path) -> t.Iterator[World]:
    """The application under gunicorn, and Chromium."""
    with launched(Site) as site, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        yield World(site, browser)
        browser.close()


@pytest.fixture
def world(served: World) -> t.Iterator[World]:
    """The application as it is at first; no page of the test may complain."""
    served.deploy()
    yield served
    served.leave()
    complaints, served.complaints = served.complaints, []
    assert complaints == []
