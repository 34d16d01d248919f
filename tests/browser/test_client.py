"""``client.js`` in a browser: registers, carriers, tabs, failures, elements and requests, against a small server."""

from __future__ import annotations

import gzip
import json
import typing as t
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Error, Page, Playwright, Route, sync_playwright

from tests.browser.client_server import DECLARED, SOURCE, App, decoded, encoded, serving, stripped

ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]

LOCAL = "fs:app:"


@pytest.fixture(scope="module")
def playwright() -> t.Iterator[Playwright]:
    """What drives the browsers."""
    with sync_playwright() as playwright:
        yield playwright


@pytest.fixture(scope="module")
def browser(playwright: Playwright, chromium: Path) -> t.Iterator[Browser]:
    """Chromium."""
    browser = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
    yield browser
    browser.close()


@pytest.fixture
def app() -> t.Iterator[App]:
    """The server."""
    with serving() as app:
        yield app


@pytest.fixture
def complaints() -> list[str]:
    """Errors that no page has caught."""
    return []


@pytest.fixture
def visitor(browser: Browser, app: App, complaints: list[str]) -> t.Iterator[BrowserContext]:
    """An empty browser; a page that fails fails the test."""
    context = browser.new_context(base_url=app.url)
    context.set_default_timeout(20_000)
    context.on("weberror", lambda error: complaints.append(str(error.error)))
    yield context
    context.close()
    assert complaints == []


@pytest.fixture
def page(visitor: BrowserContext) -> Page:
    """A page that has started."""
    return opened(visitor)


def opened(context: BrowserContext, path: str = "/") -> Page:
    """Open a page in a new tab."""
    page = context.new_page()
    page.goto(path)
    return page


def script(body: str) -> str:
    """Return an expression that runs statements with the module's names."""
    return f"import('/_state/client.js').then(async module => {{ const {{local, tab, on, flush, status}} = module; {body} }})"


def run(page: Page, body: str) -> t.Any:
    """Run statements with the module's names in a page."""
    return page.evaluate(script(body))


def value(page: Page, name: str) -> t.Any:
    """Return a value, such as ``local.prefs.theme``."""
    return run(page, f"return {name}")


def wait(page: Page, condition: str) -> None:
    """Wait until an expression with the module's names is true."""
    page.wait_for_function(script(f"return {condition}"))


def settle(page: Page) -> None:
    """Wait until the server has confirmed everything."""
    run(page, "await flush()")


def entry(page: Page, name: str, area: str = "localStorage") -> dict[str, t.Any]:
    """Return what storage holds for a field."""
    return json.loads(page.evaluate(f"{area}.getItem('{LOCAL}{name}')"))


def tab_of(page: Page) -> str:
    """Return a tab's id."""
    found = page.evaluate(f"sessionStorage.getItem('{LOCAL}_t')")
    assert isinstance(found, str)
    return found


def thrown(page: Page, body: str) -> str:
    """Return the name and text of what statements throw."""
    return run(page, f"try {{ {body} }} catch (error) {{ return `${{error.name}}: ${{error.message}}` }}")


# ---- Values


def test_value_is_read_at_once_and_by_the_next_request(page: Page, app: App) -> None:
    """An assignment is visible right away, and the next request's cookies carry it."""
    run(page, "local.prefs.draft = 'hello'; local.prefs.theme = 'dark'; window.sent = local.prefs.draft; location = '/next'")
    page.wait_for_url("**/next")
    seen = app.last("/next")
    assert seen.outbox["prefs.draft"][0] == "hello" or app.value("prefs.draft") == "hello"
    assert decoded(seen.cookies["fs.app.prefs.theme"])[0] == "dark"
    assert value(page, "[local.prefs.draft, local.prefs.theme]") == ["hello", "dark"]


def test_values_are_confirmed_in_the_background(page: Page, app: App) -> None:
    """What was written arrives without being asked for, and its entry is marked as confirmed."""
    run(page, "local.prefs.draft = 'hello'")
    page.wait_for_function(f"!JSON.parse(localStorage['{LOCAL}prefs.draft']).d")
    assert app.value("prefs.draft") == "hello"
    assert page.evaluate("document.cookie") == ""
    assert entry(page, "prefs.draft")["w"] == app.registers["", "prefs.draft"]


def test_write_numbers_rise_with_a_clock_that_stands_still(page: Page) -> None:
    """Two writes within one millisecond, or after a clock was set back, have rising numbers."""
    run(page, "Date.now = () => 5; local.prefs.size = 1; local.prefs.size = 2; Date.now = () => 3; local.prefs.size = 3")
    assert entry(page, "prefs.size")["w"][-1] == 5002


def test_reset_brings_the_default_back(page: Page, app: App) -> None:
    """`delete` resets a field here and at the server."""
    run(page, "local.prefs.size = 3; await flush(); delete local.prefs.size; await flush()")
    assert value(page, "local.prefs.size") == 10
    assert len(app.registers["", "prefs.size"]) == 2


def test_objects_behave(page: Page) -> None:
    """Models can be listed, tested, copied, printed and awaited like any object."""
    assert value(page, "Object.keys(local.prefs)") == list(DECLARED["local"]["prefs"]["f"])
    assert value(page, "['theme' in local.prefs, 'thme' in local.prefs, 'prefs' in local]") == [True, False, True]
    assert json.loads(value(page, "JSON.stringify(local.look)")) == {"mode": "plain"}
    assert value(page, "({...local.look})") == {"mode": "plain"}
    assert value(page, "[String(local.look), await local.look === local.look]") == ["[object Object]", True]


@pytest.mark.parametrize(
    ("statement", "text"),
    [
        ("local.prefs.thme", "theme"),
        ("local.prefs.thme = 'dark'", "theme"),
        ("delete local.prefs.thme", "theme"),
        ("local.perfs", "prefs"),
        ("tab.wizrd", "wizard"),
        ("on('prefs.thme', () => {})", "prefs.theme"),
        ("local.prefs.coupon = 'mine'", "sealed"),
        ("local.prefs = {}", "prefs"),
    ],
)
def test_unknown_and_sealed_names_throw(page: Page, statement: str, text: str) -> None:
    """What nobody declared throws and names the nearest; so does an assignment to a sealed field or to a model."""
    assert thrown(page, statement).startswith("TypeError")
    assert text in thrown(page, statement)


@pytest.mark.parametrize(
    "bad",
    [
        *("undefined", "NaN", "Infinity", "1n", "() => 1", "Symbol('x')", "new Date()", "new Map()", "[undefined]"),
        *("[[[{a: undefined}]]]", "'\\ud800'", "({'\\ud800': 1})", "new (class A {})()", "document"),
    ],
)
def test_what_json_cannot_hold_throws(page: Page, bad: str) -> None:
    """An assignment of what JSON would lose or change throws, names the field, and changes nothing."""
    assert thrown(page, f"local.prefs.tags = {bad}").startswith("TypeError: prefs.tags")
    assert value(page, "local.prefs.tags") == []


def test_a_circle_throws(page: Page) -> None:
    """A value that holds itself throws."""
    assert "Error" in thrown(page, "const a = []; a.push(a); local.prefs.tags = a")


def test_what_is_too_large_throws(page: Page) -> None:
    """An assignment beyond a field's limit throws and names the sizes; a mirror's limit is a cookie's."""
    assert thrown(page, "local.prefs.draft = 'x'.repeat(70000)").startswith("RangeError: prefs.draft: 70002")
    assert thrown(page, "local.prefs.theme = 'x'.repeat(300)").startswith("RangeError: prefs.theme: 302")


def test_values_are_frozen_copies(page: Page) -> None:
    """What is read cannot be changed, defaults included, and what was assigned can be without effect."""
    assert thrown(page, "local.prefs.tags.push(1)").startswith("TypeError")
    assert thrown(page, "tab.wizard.answers.x = 1").startswith("TypeError")
    assert thrown(page, "local.prefs.tags = [{a: [1]}]; local.prefs.tags[0].a.push(2)").startswith("TypeError")
    assert run(page, "const mine = [1]; local.prefs.tags = mine; mine.push(2); return local.prefs.tags") == [1]
    assert value(page, "local.prefs.tags === local.prefs.tags") is True


def test_a_value_expires(app: App, visitor: BrowserContext) -> None:
    """A field with a lifetime is its default again afterwards, and its value is gone from storage."""
    page = visitor.new_page()
    page.clock.install()
    page.goto("/")
    run(page, "local.prefs.note = 'secret'")
    assert value(page, "local.prefs.note") == "secret"
    page.clock.fast_forward(3_601_000)
    assert value(page, "local.prefs.note") == ""
    assert "secret" not in page.evaluate(f"localStorage['{LOCAL}prefs.note']")


def test_a_server_says_how_long_a_value_lives(app: App, visitor: BrowserContext) -> None:
    """The seconds in a patch set the expiry by the browser's own clock."""
    app.pages["/island"] = app.island("00000000", p={"prefs.note": ["soon", 7, 0, 60]}, h={"prefs.note": 7})
    page = opened(visitor, "/island")
    assert value(page, "local.prefs.note") == "soon"
    assert 0 < entry(page, "prefs.note")["e"] - page.evaluate("Date.now()") <= 60_000


# ---- Who is told


def test_listeners_hear_each_change_once(page: Page, visitor: BrowserContext, app: App) -> None:
    """`on` is called once per changed value, in every tab; a confirmation of the same value is no change."""
    other = opened(visitor, "/other")
    for each in (page, other):
        run(each, "window.heard = []; on('prefs.draft', (...said) => heard.push(said)); on('*', (v, name) => heard.push(name))")
    run(page, "local.prefs.draft = 'one'; local.prefs.draft = 'one'; await flush()")
    run(page, "local.prefs.draft = 'two'; await flush(); local.prefs.size = 11")
    wait(other, "local.prefs.size === 11 && heard.includes('prefs.size')")
    expected = [["one", "prefs.draft"], "prefs.draft", ["two", "prefs.draft"], "prefs.draft", "prefs.size"]
    assert page.evaluate("heard") == expected
    assert other.evaluate("heard") == expected


def test_listening_ends(page: Page) -> None:
    """The function that `on` returns ends it, and one that throws keeps nobody from being told."""
    run(page, "window.addEventListener('error', event => event.preventDefault())")
    heard = run(
        page,
        """const heard = []; on('prefs.size', () => { throw new Error('mine') });
        const off = on('prefs.size', size => heard.push(size)); local.prefs.size = 1; off(); local.prefs.size = 2; return heard""",
    )
    assert heard == [1]


# ---- Carriers


def test_a_large_outbox_takes_the_newest(page: Page, app: App) -> None:
    """What does not fit the outbox cookie is left to the background; the newest is in it."""
    page.route("**/_state", lambda route: route.abort())
    run(page, "local.prefs.draft = 'x'.repeat(3000); local.prefs.tags = ['old']; local.prefs.size = 12; tab.wizard.step = 2")
    outbox = run(page, "return document.cookie.split('; ').find(pair => pair.startsWith('fs.app._q.'))")
    assert len(outbox) - 1 <= 3500
    assert list(decoded(outbox.partition("=")[2])["p"]) == ["wizard.step", "prefs.size", "prefs.tags"]
    page.unroute("**/_state")
    settle(page)
    assert app.value("prefs.draft") == "x" * 3000
    assert page.evaluate("document.cookie") == ""


def test_an_outbox_leaves_room_for_other_cookies(page: Page) -> None:
    """With many cookies there already, the outbox is smaller or there is none: servers refuse too long a header."""
    page.route("**/_state", lambda route: route.abort())
    page.evaluate("for (const name of ['a', 'b']) document.cookie = `${name}=${'x'.repeat(2500)}`")
    run(page, "local.prefs.tags = ['x'.repeat(1500)]; local.prefs.size = 1")
    assert 5000 < page.evaluate("document.cookie.length") <= 6600


def test_more_than_a_body_holds_arrives(page: Page, app: App) -> None:
    """Values that are too large together for one request are sent in several."""
    run(page, "local.prefs.draft = 'd'.repeat(50000); local.prefs.tags = ['t'.repeat(50000)]; await flush()")
    assert [len(app.value("prefs.draft")), len(app.value("prefs.tags")[0])] == [50000, 50000]
    assert len(app.posts()) >= 2


def test_one_request_is_in_flight_at_a_time(page: Page, app: App) -> None:
    """What is written while a request is under way waits for its end, and is sent then."""
    held: list[Route] = []
    page.route("**/_state", held.append)
    with page.expect_request("**/_state"):
        run(page, "local.prefs.size = 1")
    run(page, "local.prefs.size = 2; window.done = flush()")
    page.wait_for_function("document.cookie.includes('_q')")
    assert len(held) == 1
    page.unroute("**/_state")
    held[0].continue_()
    page.evaluate("done")
    assert app.value("prefs.size") == 2
    assert [push["p"]["prefs.size"][0] for push in app.posts() if "prefs.size" in push.get("p", {})] == [1, 2]


def test_offline_and_back(page: Page, app: App, visitor: BrowserContext) -> None:
    """Offline, writes stay and `flush` rejects; back online they are sent at once."""
    visitor.set_offline(True)
    run(page, "local.prefs.draft = 'written under way'")
    assert "Error" in thrown(page, "await flush()")
    visitor.set_offline(False)
    page.wait_for_function(f"!JSON.parse(localStorage['{LOCAL}prefs.draft']).d")
    assert app.value("prefs.draft") == "written under way"


def test_failures_are_tried_again_later_and_later(app: App, visitor: BrowserContext) -> None:
    """After a failure the next attempt comes by itself, and the one after that later."""
    page = visitor.new_page()
    page.clock.install()
    page.goto("/")
    settle(page)
    page.route("**/_state", lambda route: route.abort())
    page.evaluate("window.delays = []; const wait = setTimeout; setTimeout = (work, delay) => wait(work, delays.push(delay) && 0)")
    run(page, "local.prefs.size = 1")
    for attempt in range(2, 8):
        page.clock.run_for(1)
        page.wait_for_function(f"delays.length >= {attempt}")
    delays = page.evaluate("delays")
    assert delays[0] == 50
    assert all(250 * 2**power <= delay <= 750 * 2**power for power, delay in enumerate(delays[1:]))


def test_a_lost_answer_is_asked_for_again(page: Page, app: App) -> None:
    """A push whose answer was lost is repeated, and the server's later value wins."""
    app.lost_answers = 1
    with page.expect_request_finished(lambda request: request.url.endswith("/_state")) as second:
        run(page, "local.prefs.draft = 'mine'")
    assert second.value.response() is not None
    wait(page, "document.cookie === ''")
    assert len({json.dumps(push["p"]["prefs.draft"]) for push in app.posts() if "prefs.draft" in push["p"]}) == 1
    assert entry(page, "prefs.draft") == {"w": app.registers["", "prefs.draft"], "d": 0}


def test_a_lost_answer_then_a_write_of_the_server(page: Page, app: App) -> None:
    """Where the server has written since the push whose answer was lost, its value is taken."""
    page.route("**/_state", lambda route: (route.fetch(), app.write("prefs.draft", "python's"), route.abort())[0])
    run(page, "local.prefs.draft = 'mine'")
    wait(page, "document.cookie.includes('_q')")
    assert "Error" in thrown(page, "await flush()")
    page.unroute("**/_state")
    settle(page)
    assert value(page, "local.prefs.draft") == "python's"


def test_leaving_sends_what_is_pending(app: App, visitor: BrowserContext) -> None:
    """A page that goes away before its timer has fired sends what is pending all the same."""
    page = visitor.new_page()
    page.clock.install()
    page.goto("/")
    settle(page)
    with page.expect_request("**/_state") as sent:
        run(page, "setTimeout = () => 0; local.prefs.draft = 'at the last moment'; location = 'about:blank'")
    assert json.loads(sent.value.post_data or "")["p"]["prefs.draft"][0] == "at the last moment"


def test_what_is_too_large_for_leaving_arrives_with_the_next_page(app: App, visitor: BrowserContext) -> None:
    """What a closing page may not send is in storage, and the next page sends it."""
    page = opened(visitor)
    settle(page)
    page.route("**/_state", lambda route: route.abort())
    run(page, "local.prefs.draft = 'd'.repeat(60000); local.prefs.tags = ['t'.repeat(60000)]")
    page.unroute("**/_state")
    page.goto("/next")
    settle(page)
    assert [len(app.value("prefs.draft")), len(app.value("prefs.tags")[0])] == [60000, 60000]


def test_two_tabs_may_push_the_same_entry(page: Page, app: App, visitor: BrowserContext) -> None:
    """An entry that both tabs have sent ends up confirmed, in both."""
    page.route("**/_state", lambda route: route.abort())
    run(page, "local.prefs.draft = 'shared'")
    other = opened(visitor, "/other")
    settle(other)
    page.unroute("**/_state")
    run(page, "local.prefs.size = 2; await flush()")
    assert entry(other, "prefs.draft") == {"w": app.registers["", "prefs.draft"], "d": 0}
    assert [value(each, "local.prefs.draft") for each in (page, other)] == ["shared", "shared"]


def test_without_cookies_headers_and_bodies_carry_everything(app: App, visitor: BrowserContext) -> None:
    """With cookies off, mirrored fields included, a fetch says what is pending and the background confirms it."""
    visitor.add_init_script("Object.defineProperty(Document.prototype, 'cookie', {get: () => '', set() {}})")
    page = opened(visitor)
    page.route("**/_state", lambda route: route.abort())
    run(page, "local.prefs.theme = 'dark'; local.prefs.draft = 'hi'; await module.fetch('/api')")
    header = app.last("/api").header
    assert header is not None
    assert {name: wire[0] for name, wire in header["p"].items()} == {"prefs.theme": "dark", "prefs.draft": "hi"}
    page.unroute("**/_state")
    settle(page)
    assert app.value("prefs.theme") == "dark"
    posts = len(app.posts())
    run(page, "dispatchEvent(new Event('focus')); await module.fetch('/api')")
    assert len(app.posts()) == posts
