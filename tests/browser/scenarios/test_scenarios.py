"""The stories, in Chromium on a served application and in :class:`flask_stateful.testing.FakeBrowser`."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

pytest.register_assert_rewrite("tests.browser.scenarios.stories")

from tests.browser.scenarios import chromium as real  # noqa: E402
from tests.browser.scenarios import fake  # noqa: E402
from tests.browser.scenarios.stories import STORIES, Story  # noqa: E402
from tests.services import launched  # noqa: E402

ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]

each_story = pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)


@pytest.fixture(scope="module")
def served(chromium: Path) -> t.Iterator[real.World]:
    """The application under gunicorn, and Chromium."""
    with launched(real.Site) as site, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        yield real.World(site, browser)
        browser.close()


@pytest.fixture
def world(served: real.World) -> t.Iterator[real.World]:
    """The application as it is at first; no page of the test may complain."""
    served.deploy()
    yield served
    served.leave()
    complaints, served.complaints = served.complaints, []
    assert complaints == []


@each_story
def test_story_in_chromium(story: Story, world: real.World) -> None:
    """Each story holds in Chromium, with two workers and the embedded store."""
    story(world)


@each_story
def test_story_in_fake_browser(story: Story, tmp_path: Path) -> None:
    """Each story holds in the fake browser."""
    story(fake.World(tmp_path))
