"""What tests of browser state share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from flask_stateful.testing import FakeClock
from tests.chromium import browser, complaints, playwright

__all__ = ["browser", "complaints", "playwright"]


@pytest.fixture
def clock() -> Iterator[FakeClock]:
    """The package's clock, which the test moves."""
    with FakeClock() as fake:
        yield fake
