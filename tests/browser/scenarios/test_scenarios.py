"""The stories, in Chromium on a served application and in :class:`flask_stateful.testing.FakeBrowser`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.browser.scenarios import fake
from tests.browser.scenarios.chromium import World
from tests.browser.scenarios.stories import STORIES, Story

each_story = pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)


@each_story
def test_story_in_chromium(story: Story, world: World) -> None:
    """Each story holds in Chromium, with two workers and the embedded store."""
    story(world)


@each_story
def test_story_in_fake_browser(story: Story, tmp_path: Path) -> None:
    """Each story holds in the fake browser."""
    story(fake.World(tmp_path))
