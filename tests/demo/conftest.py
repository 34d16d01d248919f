"""A shop for the tests of a module, one for a test alone, and visitors with a browser of their own."""

from __future__ import annotations

import typing as t

import pytest
from playwright.sync_api import Browser, BrowserContext, Response

from tests.chromium import NewVisitor, browser, complaints, playwright
from tests.demo.visitor import PATIENCE, Shop
from tests.services import Launch, launched

__all__ = ["browser", "complaints", "playwright"]

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


@pytest.fixture
def new_visitor(browser: Browser, shop: Shop, complaints: list[str]) -> t.Iterator[NewVisitor]:
    """Let visitors come with empty browsers; a page that complains fails the test in the end."""
    contexts: list[BrowserContext] = []

    def note_response(response: Response) -> None:
        if response.status >= 400:
            complaints.append(f"{response.status}: {response.url}")

    def new(other: Browser | None = None, url: str = "", **options: t.Any) -> BrowserContext:
        context = (other or browser).new_context(base_url=url or shop.url, **options)
        context.set_default_timeout(PATIENCE * 1000)
        context.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
        context.on("weberror", lambda error: complaints.append(str(error.error)))
        context.on("response", note_response)
        contexts.append(context)
        return context

    yield new
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture
def visitor(new_visitor: NewVisitor) -> BrowserContext:
    """A visitor."""
    return new_visitor()
