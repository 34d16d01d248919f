"""What tests of applications and of stores are made with.

.. code-block:: text

    FakeBrowser        a browser without a window: cookies, web storage and tabs
    FakeClock          time stands still until the test moves it
    FaultyStore        a store that fails on a plan, and counts its calls
    login              a test client whose visitor is logged in
    StoreConformance   the tests that every store passes; needs pytest
"""

from __future__ import annotations

import typing as t

from .browser import FakeBrowser, FakeTab
from .client import login
from .clock import FakeClock
from .faults import Fault, FaultyStore

if t.TYPE_CHECKING:
    from .conformance import StoreConformance

__all__ = ["FakeBrowser", "FakeClock", "FakeTab", "Fault", "FaultyStore", "StoreConformance", "login"]


def __getattr__(name: str) -> t.Any:
    # Only who tests a store needs pytest.
    if name == "StoreConformance":
        from .conformance import StoreConformance

        return StoreConformance
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
