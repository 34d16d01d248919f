"""The scenarios' application, served, and Chromium."""

from __future__ import annotations

import typing as t

import pytest
from playwright.sync_api import Browser

from tests.browser.scenarios.chromium import Site, World
from tests.services import launched

pytest.register_assert_rewrite("tests.browser.scenarios.stories")


@pytest.fixture(scope="module")
def served(browser: Browser) -> t.Iterator[World]:
    """The application under gunicorn, and Chromium."""
    with launched(Site) as site:
        yield World(site, browser)


@pytest.fixture
def world(served: World) -> t.Iterator[World]:
    """The application as it is at first; no page of the test may complain."""
    served.deploy()
    yield served
    served.leave()
    complaints, served.complaints = served.complaints, []
    assert complaints == []
