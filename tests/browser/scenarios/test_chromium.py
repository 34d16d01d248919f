"""What only a real browser can do to an application."""

from __future__ import annotations

import re

from tests.browser.scenarios.chromium import World
from tests.browser.scenarios.stories import opened

REGISTER = """
() => navigator.serviceWorker.register("/worker.js").then(() => navigator.serviceWorker.ready).then(() => {
    if (!navigator.serviceWorker.controller) {
        return new Promise(done => navigator.serviceWorker.addEventListener("controllerchange", () => done()));
    }
})
"""


def test_oversized_cookie(world: World) -> None:
    """A cookie that the browser would drop is an error that names it and its size, and nothing else is lost."""
    browser = world.browser()
    tab = opened(browser)
    tab.submit("/write", name="notice.text", value='"kept"')
    tab.set("local.prefs.theme", "dark")
    tab.flush()
    with tab.page.expect_response(lambda response: response.request.method == "POST") as answer:
        tab.submit("/write", name="notice.text", value=f'"{"x" * 5000}"')
    assert answer.value.status == 500
    assert "Set-Cookie" not in answer.value.headers
    assert re.search(r"CookieTooLarge: .*notice.* 4,096", world.log)
    assert "xxxx" not in world.log
    tab.page.goto("/")
    assert (tab.seen()["notice.text"], tab.seen()["prefs.theme"]) == ("kept", "dark")


def test_page_of_a_service_worker(world: World) -> None:
    """A page that a service worker has kept, island and all, takes nothing back, and is told what is new."""
    tab = opened(world.browser(csp=False))
    tab.submit("/write", name="prefs.draft", value='"old"')
    tab.page.evaluate(REGISTER)
    tab.submit("/write", name="prefs.title", value='"by Python"', then="/blind")
    tab.set("local.prefs.draft", "new")
    tab.flush()
    tab.open("/")
    assert tab.page.evaluate("performance.getEntriesByType('navigation')[0].workerStart") > 0
    assert tab.seen()["prefs.draft"] == "old"
    assert (tab.get("local.prefs.draft"), tab.get("local.prefs.title")) == ("new", "by Python")
    assert tab.fetch()["prefs.draft"] == "new"
