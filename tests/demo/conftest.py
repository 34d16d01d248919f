"""A shop for the tests of a module, and one for a test alone."""

from __future__ import annotations

import typing as t

import pytest

from tests.demo.visitor import PATIENCE, Shop
from tests.services import Launch, launched

#: A machine that is busy with other things is slow, and that is not what is tested.
PATIENT = [
    *("--env", f"FLASK_STATEFUL_STORE_TIMEOUT={PATIENCE}"),
    *("--env", f"FLASK_STATEFUL_LOCK_TIMEOUT={PATIENCE}"),
    *("--env", "FLASK_SHOP_THINKS_FOR=0"),
]


@pytest.fixture(scope="module")
def shop() -> t.Iterator[Shop]:
    """The shop, open for a whole module: leave it running."""
    with launched(Shop, *PATIENT) as service:
        yield service


@pytest.fixture
def own_shop(launch: Launch) -> Shop:
    """A shop that the test may restart."""
    return launch(Shop, *PATIENT)
