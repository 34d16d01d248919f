"""``client.js`` in a browser: registers, carriers, tabs, failures, elements and requests, against a small server."""

from __future__ import annotations

import gzip
import json
import typing as t
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Playwright, Route

from flask_stateful.browser.client import squeezed
from tests.browser.client_server import DECLARED, SOURCE, App, decoded, encoded, serving
from tests.chromium import ARGUMENTS

LOCAL = "fs:app:"


@pytest.fixture
def app() -> t.Iterator[App]:
    """The server."""
    with serving() as app:
        yield app


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
    names = "'use strict'; const {local, tab, on, flush, status} = module;"
    return f"import('/_state/client.js').then(async module => {{ {names} {body} }})"


def run(page: Page, body: str) -> t.Any:
    """Run statements with the module's names in a page."""
    return page.evaluate(script(body))


def value(page: Page, name: str) -> t.Any:
    """Return a value, such as ``local.prefs.theme``."""
    return run(page, f"return {name}")


def wait(page: Page, condition: str) -> None:
    """Wait until an expression with the module's names is true."""
    page.wait_for_function(f"() => {script(f'return {condition}')}")


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


def mirror(page: Page, name: str) -> list[t.Any] | None:
    """Return what a mirror's cookie holds."""
    found = dict(pair.split("=", 1) for pair in page.evaluate("document.cookie").split("; ") if pair)
    text = found.get(f"fs.app.{name}")
    return decoded(text) if text else None


def thrown(page: Page, body: str) -> str:
    """Return the name and text of what statements throw."""
    return run(page, f"try {{ {body} }} catch (error) {{ return `${{error.name}}: ${{error.message}}` }}")


# ---- Values


def test_value_is_read_at_once_and_by_the_next_request(page: Page, app: App) -> None:
    """An assignment is visible right away, and the next request's cookies carry it."""
    run(
        page,
        "local.prefs.draft = 'hello'; local.prefs.theme = 'dark'; setTimeout(() => (location = '/next'))",
    )
    page.wait_for_url("**/next")
    seen = app.last("/next")
    assert seen.outbox["prefs.draft"][0] == "hello" or app.value("prefs.draft") == "hello"
    assert decoded(seen.cookies["fs.app.prefs.theme"])[0] == "dark"
    assert value(page, "[local.prefs.draft, local.prefs.theme]") == ["hello", "dark"]


def test_values_are_confirmed_in_the_background(page: Page, app: App) -> None:
    """What was written arrives without being asked for, and its entry is marked as confirmed."""
    run(page, "local.prefs.draft = 'hello'")
    page.wait_for_function(f"() => !JSON.parse(localStorage['{LOCAL}prefs.draft']).d")
    assert app.value("prefs.draft") == "hello"
    assert page.evaluate("document.cookie") == ""
    assert entry(page, "prefs.draft")["w"] == app.registers["", "prefs.draft"]


def test_write_numbers_rise_with_a_clock_that_stands_still(page: Page) -> None:
    """Two writes within one millisecond, or after a clock was set back, have rising numbers."""
    run(
        page, "Date.now = () => 5; local.prefs.size = 1; local.prefs.size = 2; Date.now = () => 3; local.prefs.size = 3"
    )
    assert entry(page, "prefs.size")["w"][-1] == 5002


def test_writes_of_one_millisecond_are_all_sent(page: Page, app: App) -> None:
    """Fields with the same write number are told apart, also when one was answered before the other is written."""
    settle(page)
    run(
        page,
        "const now = Date.now(); Date.now = () => now; "
        "local.prefs.size = 1; await flush(); local.prefs.draft = 'x'; await flush()",
    )
    assert [app.value("prefs.size"), app.value("prefs.draft")] == [1, "x"]


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
        run(
            each,
            "window.heard = []; on('prefs.draft', (...said) => heard.push(said)); "
            "on('*', (v, name) => heard.push(name))",
        )
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
        const off = on('prefs.size', size => heard.push(size)); local.prefs.size = 1;
        off(); local.prefs.size = 2; return heard""",
    )
    assert heard == [1]


# ---- Carriers


def test_a_large_outbox_takes_the_newest(page: Page, app: App) -> None:
    """What does not fit the outbox cookie is left to the background; the newest is in it."""
    page.route("**/_state", lambda route: route.abort())
    run(
        page,
        "local.prefs.draft = 'x'.repeat(3000); local.prefs.tags = ['old']; local.prefs.size = 12; tab.wizard.step = 2",
    )
    outbox = run(page, "return document.cookie.split('; ').find(pair => pair.startsWith('fs.app._q.'))")
    assert len(outbox) - 1 <= 3500
    assert set(decoded(outbox.partition("=")[2])["p"]) == {"wizard.step", "prefs.size", "prefs.tags"}
    page.unroute("**/_state")
    settle(page)
    assert app.value("prefs.draft") == "x" * 3000
    assert page.evaluate("document.cookie") == ""


def test_an_outbox_leaves_room_for_other_cookies(page: Page) -> None:
    """With many cookies there already, the outbox is smaller or there is none: servers refuse too long a header."""
    page.route("**/_state", lambda route: route.abort())
    page.evaluate("for (const name of ['a', 'b']) document.cookie = `${name}=${'x'.repeat(2500)}`")
    run(page, "dispatchEvent(new Event('focus')); local.prefs.tags = ['x'.repeat(1500)]; local.prefs.size = 1")
    assert 5000 < page.evaluate("document.cookie.length") <= 6600


def test_more_than_a_body_holds_arrives(page: Page, app: App) -> None:
    """Values that are too large together for one request are sent in several."""
    run(page, "local.prefs.draft = 'd'.repeat(50000); local.prefs.tags = ['t'.repeat(50000)]; await flush()")
    assert [len(app.value("prefs.draft")), len(app.value("prefs.tags")[0])] == [50000, 50000]
    assert len(app.posts()) >= 2


def test_one_request_is_in_flight_at_a_time(page: Page, app: App) -> None:
    """What is written while a request is under way waits for its end, and is sent then."""
    held: list[Route] = []
    settle(page)
    page.route("**/_state", lambda route: route.continue_() if held else held.append(route))
    with page.expect_request("**/_state"):
        run(page, "local.prefs.size = 1")
    run(page, "local.prefs.size = 2; window.done = flush()")
    wait(page, "document.cookie.includes('_q')")
    assert len(held) == 1
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
    page.wait_for_function(f"() => !JSON.parse(localStorage['{LOCAL}prefs.draft']).d")
    assert app.value("prefs.draft") == "written under way"


def test_failures_are_tried_again_later_and_later(app: App, visitor: BrowserContext) -> None:
    """After a failure the next attempt comes by itself, and the one after that later."""
    page = visitor.new_page()
    page.goto("/")
    settle(page)
    page.route("**/_state", lambda route: route.abort())
    page.evaluate(
        "window.delays = []; const wait = setTimeout; "
        "window.setTimeout = (work, delay) => wait(work, delays.push(delay) && 0); 0"
    )
    run(page, "local.prefs.size = 1")
    wait(page, "delays.length > 6")
    page.evaluate("window.setTimeout = () => 0")
    delays = page.evaluate("delays.slice(0, 7)")
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
    page.goto("/")
    settle(page)
    run(page, "window.setTimeout = () => 0; local.prefs.draft = 'at the last moment'")
    page.goto("about:blank")
    app.wait_for(lambda: app.value("prefs.draft") == "at the last moment")


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


# ---- Mirrors


def test_a_mirror_is_issued_again_by_the_server(page: Page, app: App) -> None:
    """A mirrored value is in its cookie at once, and has the server's revision after the push."""
    page.route("**/_state", lambda route: route.abort())
    run(page, "local.prefs.theme = 'dark'")
    found = mirror(page, "prefs.theme")
    assert found is not None
    assert found[:2] == ["dark", 0]
    page.unroute("**/_state")
    settle(page)
    assert mirror(page, "prefs.theme") == app.registers["", "prefs.theme"]
    assert entry(page, "prefs.theme")["w"] == app.registers["", "prefs.theme"]


def test_a_mirror_is_followed(page: Page, app: App) -> None:
    """A mirror that any answer has set is applied, here after a fetch, and heard of."""
    run(page, "window.heard = []; on('prefs.theme', theme => heard.push(theme))")
    app.cookies = [f"fs.app.prefs.theme={encoded(['dark', 7, 0])}; Path=/"]
    run(page, "await module.fetch('/api')")
    assert page.evaluate("heard") == ["dark"]
    app.cookies = [f"fs.app.prefs.theme={encoded([8, 0])}; Path=/"]
    run(page, "await module.fetch('/api')")
    assert page.evaluate("heard") == ["dark", "auto"]


@pytest.mark.parametrize("stale", [encoded(["light", 7, 0]), "no base64 at all", encoded({"w": 1}), encoded("ab")])
def test_a_mirror_that_is_behind_is_written_again(page: Page, app: App, stale: str) -> None:
    """A mirror that is older, or nonsense, gets the browser's value back; what is pending is pushed."""
    run(page, "local.prefs.theme = 'dark'; await flush()")
    app.cookies = [f"fs.app.prefs.theme={stale}; Path=/"]
    run(page, "await module.fetch('/api')")
    assert mirror(page, "prefs.theme") == entry(page, "prefs.theme")["w"]
    assert value(page, "local.prefs.theme") == "dark"


def test_a_mirror_that_is_gone_is_written_again(page: Page, visitor: BrowserContext) -> None:
    """Storage brings back the mirror after cookies were cleared."""
    run(page, "local.prefs.theme = 'dark'; await flush()")
    visitor.clear_cookies()
    page.goto("/next")
    assert mirror(page, "prefs.theme") == entry(page, "prefs.theme")["w"]


def test_a_mirror_brings_storage_back(page: Page) -> None:
    """The cookie brings back the value after storage was cleared."""
    run(page, "local.prefs.theme = 'dark'; await flush(); localStorage.clear()")
    page.goto("/next")
    assert value(page, "local.prefs.theme") == "dark"


# ---- Patches


def test_an_island_is_applied_and_cannot_roll_back(page: Page, app: App) -> None:
    """A page's island is applied; the same page later, from a cache, changes nothing that is newer."""
    app.write("prefs.draft", "from python")
    app.pages["/old"] = app.island("00000000")
    page.goto("/old")
    assert value(page, "local.prefs.draft") == "from python"
    run(page, "local.prefs.draft = 'later'; await flush()")
    page.goto("/")
    page.goto("/old")
    assert value(page, "local.prefs.draft") == "later"
    settle(page)
    assert app.value("prefs.draft") == "later"


def test_back_to_stale_html_rolls_nothing_back(page: Page, app: App) -> None:
    """Back without the back-forward cache shows old HTML; what it says is not taken."""
    app.write("prefs.draft", "old")
    app.pages["/old"] = app.island("00000000") + "<p data-state-bind='prefs.draft'>old</p>"
    page.goto("/old")
    run(page, "local.prefs.draft = 'new'; await flush()")
    page.goto("/next")
    page.go_back()
    assert value(page, "local.prefs.draft") == "new"
    assert page.text_content("p") == "new"


def test_another_tabs_island(page: Page, app: App) -> None:
    """Of an island for another tab, what belongs to the browser is taken and what belongs to the tab is not."""
    app.write("wizard.step", 5, tab="00000000")
    app.write("prefs.size", 7)
    app.pages["/foreign"] = app.island("00000000")
    page.goto("/foreign")
    assert value(page, "[tab.wizard.step, local.prefs.size]") == [1, 7]
    app.write("wizard.step", 6, tab=tab_of(page))
    app.pages["/own"] = app.island(tab_of(page))
    page.goto("/own")
    assert value(page, "tab.wizard.step") == 6


def test_another_users_island_is_not_taken(page: Page, app: App) -> None:
    """An island that was rendered for somebody else is ignored."""
    app.write("prefs.draft", "hers")
    app.pages["/hers"] = app.island("00000000", u="herself0")
    app.registers.clear()
    page.goto("/hers")
    assert value(page, "local.prefs.draft") == ""


@pytest.mark.parametrize(
    "island", ["{", "null", "[]", '{"p": {"prefs.draft": "no"}}', '{"p": 5, "a": {"prefs.draft": 1}}']
)
def test_a_damaged_island_is_none(page: Page, app: App, island: str) -> None:
    """What cannot be used of an island is passed over; the page works."""
    app.pages["/damaged"] = f'<script type="application/json" id="fs-state">{island}</script>'
    page.goto("/damaged")
    assert run(page, "local.prefs.draft = 'works'; await flush(); return local.prefs.draft") == "works"


def test_a_lost_replica_is_filled_again(page: Page, app: App) -> None:
    """What the server holds no longer is offered to it again, as the same write."""
    run(page, "local.prefs.draft = 'kept'; await flush()")
    write = entry(page, "prefs.draft")["w"][-1]
    app.registers.clear()
    app.pages["/empty"] = app.island("00000000")
    page.goto("/empty")
    settle(page)
    assert app.value("prefs.draft") == "kept"
    assert app.registers["", "prefs.draft"][-1] == write


def test_what_waits_is_pulled(page: Page, app: App) -> None:
    """A page without an island that sees the waiting cookie asks for everything and removes the cookie."""
    settle(page)
    revision = app.write("prefs.draft", "waiting")[1]
    app.cookies = [f"fs.app._p={revision}; Path=/"]
    page.goto("/next")
    wait(page, "local.prefs.draft === 'waiting' && !document.cookie.includes('_p')")
    assert app.posts()[-1]["g"] == 1


def test_an_island_answers_what_waits(page: Page, app: App) -> None:
    """Where the island brings what the waiting cookie announces, nothing is asked for."""
    settle(page)
    posts = len(app.posts())
    revision = app.write("wizard.step", 4, tab=tab_of(page))[1]
    app.pages["/island"] = app.island(tab_of(page))
    app.cookies = [f"fs.app._p.{tab_of(page)}={revision}; Path=/"]
    page.goto("/island")
    assert value(page, "[tab.wizard.step, document.cookie.includes('_p')]") == [4, False]
    assert len(app.posts()) == posts


def test_what_was_too_large_for_a_carrier_is_pulled(page: Page, app: App) -> None:
    """A name under "x" in a patch is asked for."""
    settle(page)
    app.write("prefs.draft", "too large")
    app.pages["/x"] = app.island("00000000", p={}, h={}, x=["prefs.draft"])
    page.goto("/x")
    wait(page, "local.prefs.draft === 'too large'")


def test_a_later_revision_is_asked_for(page: Page, app: App) -> None:
    """Where the server says that it holds a later revision than it sent, it is asked for it."""
    settle(page)
    app.write("prefs.draft", "later")
    app.pages["/h"] = app.island("00000000", p={})
    page.goto("/h")
    wait(page, "local.prefs.draft === 'later'")


# ---- Storage


def fill_storage(page: Page) -> None:
    """Leave no room in local storage."""
    page.evaluate(
        "for (let size = 2 ** 20; size >= 1; size /= 2) for (let at = 0; ; at++)"
        " try { localStorage[`full${size}.${at}`] = 'x'.repeat(size) } catch { break }"
    )


def test_full_storage(page: Page, app: App) -> None:
    """With storage full a value lives in memory, the server is told, and the next page has it from there."""
    settle(page)
    run(page, "local.prefs.draft = 'older'; await flush()")
    fill_storage(page)
    run(page, "local.prefs.draft = 'd'.repeat(5000)")
    assert value(page, "[module.status, local.prefs.draft.length]") == ["memory", 5000]
    settle(page)
    assert app.posts()[-1]["q"] == 1
    page.goto("/next")
    wait(page, "local.prefs.draft.length === 5000")


def test_denied_storage(app: App, visitor: BrowserContext) -> None:
    """With storage denied everything works for as long as the page lives, and the server keeps it for the next."""
    deny = "{get() { throw new DOMException('denied', 'SecurityError') }}"
    visitor.add_init_script(
        f"for (const area of ['localStorage', 'sessionStorage']) Object.defineProperty(window, area, {deny})"
    )
    page = opened(visitor)
    run(page, "local.prefs.draft = 'mine'; tab.wizard.step = 2; local.prefs.theme = 'dark'; await flush()")
    assert value(page, "[module.status, local.prefs.draft, tab.wizard.step]") == ["memory", "mine", 2]
    assert app.posts()[-1]["q"] == 1
    page.goto("/next")
    assert value(page, "local.prefs.theme") == "dark"
    wait(page, "local.prefs.draft === 'mine'")


def test_a_sandboxed_frame(page: Page, app: App) -> None:
    """A sandboxed frame, where cookies and storage throw, has state for itself, and complains to nobody."""
    app.pages["/outer"] = '<iframe sandbox="allow-scripts" src="/inner"></iframe>'
    app.pages["/inner"] = '<input data-state-model="prefs.draft"><b data-state-bind="prefs.draft">?</b>'
    page.goto("/outer")
    inner = page.frame_locator("iframe")
    inner.locator("b", has_not_text="?").wait_for(state="attached")
    inner.locator("input").fill("inside")
    inner.locator("b", has_text="inside").wait_for()


HOSTILE = [
    *(
        "",
        "{",
        "null",
        "5",
        '"x"',
        "[]",
        "{}",
        '{"w": 5}',
        '{"w": []}',
        '{"w": ["x"]}',
        '{"w": "ab"}',
        '{"w": [1, -1, 1]}',
    ),
    *(
        '{"w": ["x", "1", "2"]}',
        '{"w": ["x", null, null]}',
        '{"w": ["x", 1.5, 1]}',
        '{"w": {"length": 3}}',
        '{"w": [[], {}, 1]}',
    ),
    *('{"w": ["\\ud800", 1, 1], "d": 1}', '{"d": 1}', '{"w": ["x", 1, 1], "e": 1}', '{"__proto__": 1}'),
]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_storage(page: Page, app: App, text: str) -> None:
    """Whatever somebody puts into storage is dropped, and the field works."""
    page.evaluate(f"text => localStorage['{LOCAL}prefs.draft'] = text", text)
    page.evaluate(f"text => sessionStorage['{LOCAL}_t'] = text", text)
    page.goto("/next")
    assert value(page, "local.prefs.draft") == ""
    run(page, "local.prefs.draft = 'mine'; await flush()")
    assert app.value("prefs.draft") == "mine"


def test_counters_beyond_all_numbers(page: Page, app: App) -> None:
    """A counter that somebody drove to the end stays there, and the field still takes values."""
    page.evaluate(f"localStorage['{LOCAL}prefs.draft'] = JSON.stringify({{w: ['x', 1, 1e300], d: 0}})")
    run(page, "local.prefs.draft = 'mine'")
    assert entry(page, "prefs.draft")["w"] == ["mine", 1, 2**53 - 1]


def test_storage_cleared_by_another_tab(page: Page, app: App, visitor: BrowserContext) -> None:
    """After another tab has cleared storage, mirrors come back from cookies and the rest from the server."""
    run(page, "local.prefs.theme = 'dark'; local.prefs.draft = 'kept'; await flush()")
    other = opened(visitor, "/other")
    other.evaluate("localStorage.clear()")
    wait(page, f"localStorage['{LOCAL}prefs.draft'] && local.prefs.draft === 'kept' && local.prefs.theme === 'dark'")


def test_storage_cleared_between_pages(page: Page, app: App) -> None:
    """A browser that has dropped its storage, and kept its cookies, gets its values back from the server."""
    run(page, "local.prefs.draft = 'kept'; await flush(); localStorage.clear()")
    page.goto("/next")
    wait(page, "local.prefs.draft === 'kept'")


def test_old_versions_are_pushed_once_as_they_are(page: Page, app: App) -> None:
    """Entries of an older version go to the server as they are and go; newer and foreign ones stay."""
    settle(page)
    page.evaluate(
        f"""for (const name of ['look.dark', 'look.mode', 'look.mode~3', 'gone.field'])
            localStorage['{LOCAL}' + name] = JSON.stringify({{w: [true, 3, 4], d: 0}})"""
    )
    page.goto("/next")
    settle(page)
    assert app.registers["", "look.dark"][0] is True
    assert app.registers["", "look.mode"][0] is True
    left = page.evaluate("Object.keys(localStorage)")
    assert {f"{LOCAL}look.mode~3", f"{LOCAL}gone.field"} <= set(left)
    assert not {f"{LOCAL}look.dark", f"{LOCAL}look.mode"} & set(left)
    posts = len(app.posts())
    page.goto("/third")
    settle(page)
    assert len(app.posts()) == posts
    assert value(page, "local.look.mode") == "plain"


def test_versions_are_in_the_names(page: Page, app: App) -> None:
    """A field of a later version of its model has the version in its register's name, and nowhere else."""
    assert run(page, "local.look.mode = 'fancy'; await flush(); return local.look.mode") == "fancy"
    assert entry(page, "look.mode~2")["w"][0] == "fancy"
    assert app.value("look.mode~2") == "fancy"


# ---- Tabs


def test_tabs_keep_their_own(page: Page, app: App, visitor: BrowserContext) -> None:
    """Two tabs have two ids, and a value each."""
    other = opened(visitor, "/other")
    run(page, "tab.wizard.step = 2; await flush()")
    run(other, "tab.wizard.step = 3; await flush()")
    assert tab_of(page) != tab_of(other)
    assert [app.value("wizard.step", tab_of(each)) for each in (page, other)] == [2, 3]
    assert [value(each, "tab.wizard.step") for each in (page, other)] == [2, 3]


def test_a_tab_keeps_its_id(page: Page, app: App) -> None:
    """A tab's next page has its id, and says so in the request for it."""
    before = tab_of(page)
    run(page, "tab.wizard.step = 2; await flush(); setTimeout(() => (location = '/next'))")
    page.wait_for_url("**/next")
    assert value(page, "tab.wizard.step") == 2
    assert tab_of(page) == before
    assert app.last("/next").cookies["fs.app._t"] == before


@pytest.mark.parametrize("markup", ["<a href='/next'>go</a>", "<form action='/next'><button>go</button></form>"])
def test_links_and_forms_say_which_tab(page: Page, app: App, markup: str) -> None:
    """A click on a link and a form that is sent name the tab."""
    app.pages["/form"] = markup
    page.goto("/form")
    page.get_by_text("go").click()
    page.wait_for_url("**/next*")
    assert app.last("/next").cookies["fs.app._t"] == tab_of(page)


def test_a_new_tab_takes_the_id_that_the_server_made_up(app: App, visitor: BrowserContext) -> None:
    """A tab without an id takes the one of an island that says it is new, and only of such a one."""
    app.write("wizard.step", 9, tab="0badcafe")
    app.pages["/new"] = app.island("0badcafe", new=1)
    app.pages["/foreign"] = app.island("0badcafe")
    new, foreign = opened(visitor, "/new"), opened(visitor, "/foreign")
    assert [tab_of(new), value(new, "tab.wizard.step")] == ["0badcafe", 9]
    assert [tab_of(foreign) == "0badcafe", value(foreign, "tab.wizard.step")] == [False, 1]


def test_a_duplicated_tab(page: Page, app: App) -> None:
    """A copy of a tab begins with its values under an id of its own, and they go separate ways."""
    run(page, "tab.wizard.step = 2; await flush()")
    with page.expect_popup() as popup:
        page.evaluate("window.open('/copy'); 0")
    copy = popup.value
    wait(copy, "tab.wizard.step === 2")
    settle(copy)
    run(copy, "tab.wizard.step = 3; await flush()")
    assert tab_of(copy) != tab_of(page)
    assert [app.value("wizard.step", tab_of(each)) for each in (page, copy)] == [2, 3]
    assert value(page, "tab.wizard.step") == 2


@pytest.fixture(scope="module")
def keeping(playwright: Playwright, chromium: Path) -> t.Iterator[Browser]:
    """Chromium with its back-forward cache."""
    browser = playwright.chromium.launch(
        executable_path=chromium, args=ARGUMENTS, ignore_default_args=["--disable-back-forward-cache"]
    )
    yield browser
    browser.close()


def test_back_from_the_back_forward_cache(app: App, keeping: Browser) -> None:
    """A page that comes back as it was reads storage and cookies again and takes the tab's id back."""
    context = keeping.new_context(base_url=app.url)
    app.pages["/"] = "<p data-state-bind='prefs.draft'>?</p>"
    page = opened(context)
    run(page, "window.heard = []; on('*', (value, name) => heard.push(name)); tab.wizard.step = 2; await flush()")
    page.evaluate("addEventListener('pageshow', event => window.persisted = event.persisted)")
    identity = tab_of(page)
    page.goto("/next")
    run(page, "local.prefs.draft = 'meanwhile'; local.prefs.theme = 'dark'; tab.wizard.step = 3; await flush()")
    page.evaluate("setTimeout(() => history.back()); 0")
    page.wait_for_function("() => window.persisted")
    assert sorted(page.evaluate("heard")) == ["prefs.draft", "prefs.theme", "wizard.step", "wizard.step"]
    assert page.text_content("p") == "meanwhile"
    run(page, "tab.wizard.step = 4; await flush()")
    assert app.value("wizard.step", identity) == 4
    context.close()


def test_a_page_that_is_rendered_ahead_waits(app: App, visitor: BrowserContext) -> None:
    """A prerendered page claims no tab and sends nothing until somebody sees it."""
    visitor.add_init_script(
        "let ahead = true; Object.defineProperty(Document.prototype, 'prerendering', {get: () => ahead});"
        "window.show = () => { ahead = false; document.dispatchEvent(new Event('prerenderingchange')) }"
    )
    app.pages["/"] = app.island("00000000", p={"prefs.draft": ["ahead", 7, 0]}, h={"prefs.draft": 7})
    page = opened(visitor)
    run(page, "local.prefs.size = 3")
    assert page.evaluate(f"sessionStorage.getItem('{LOCAL}_t')") is None
    assert app.posts() == []
    assert value(page, "local.prefs.draft") == ""
    page.evaluate("show()")
    settle(page)
    assert [value(page, "local.prefs.draft"), app.value("prefs.size")] == ["ahead", 3]


# ---- Owner and consent


def test_another_users_entries_are_dropped(page: Page, app: App, visitor: BrowserContext) -> None:
    """What was written before signing in stays; at a change of users only what is shared stays, in every tab."""
    other = opened(visitor, "/other")
    run(page, "local.prefs.draft = 'anonymous'; local.look.mode = 'fancy'; await flush()")
    run(other, "tab.wizard.step = 2; await flush()")
    app.cookies = ["fs.app._u=ada00000; Path=/"]
    page.goto("/signed-in")
    assert value(page, "local.prefs.draft") == "anonymous"
    run(other, "dispatchEvent(new Event('focus'))")
    assert value(other, "tab.wizard.step") == 2
    page.route("**/_state", lambda route: route.abort())
    run(page, "local.prefs.draft = 'a secret of Ada'")
    app.registers.clear()
    app.cookies = ["fs.app._u=grace000; Path=/"]
    page.unroute("**/_state")
    page.goto("/signed-in")
    assert value(page, "[local.prefs.draft, local.look.mode]") == ["", "fancy"]
    assert "secret" not in page.evaluate("JSON.stringify(localStorage)")
    run(page, "await flush()")
    assert "_q." not in page.evaluate("document.cookie")
    run(other, "dispatchEvent(new Event('focus'))")
    assert value(other, "tab.wizard.step") == 1


def test_entries_of_an_owner_who_was_never_told_are_dropped_once(page: Page, app: App) -> None:
    """A tag that begins with a tilde says so; what is written after it stays, also when it is followed by a user's."""
    run(page, "local.prefs.draft = 'a secret of Ada'; local.look.mode = 'fancy'; await flush()")
    app.registers.clear()
    app.cookies = ["fs.app._u=~; Path=/"]
    page.goto("/signed-out")
    assert value(page, "[local.prefs.draft, local.look.mode]") == ["", "fancy"]
    run(page, "local.prefs.draft = 'anonymous'; await flush()")
    page.goto("/signed-out")
    app.cookies = ["fs.app._u=grace000; Path=/"]
    page.goto("/signed-in")
    assert value(page, "local.prefs.draft") == "anonymous"


def test_without_consent_nothing_is_kept(page: Page, app: App) -> None:
    """Without consent a value lives in the page: nothing in storage, no cookie, no push; with it, it is kept."""
    run(page, "local.stats.visits = 3; local.stats.source = 'ad'; local.prefs.size = 2; await flush()")
    assert value(page, "[local.stats.visits, local.stats.source]") == [3, "ad"]
    assert "stats" not in page.evaluate("Object.keys(localStorage).join() + document.cookie")
    assert not [name for push in app.posts() for name in push.get("p", {}) if name.startswith("stats")]
    page.evaluate("document.cookie = 'fs.app._c=marketing.analytics; Path=/'")
    run(page, "dispatchEvent(new Event('focus')); await flush()")
    assert [app.value("stats.visits"), app.value("stats.source")] == [3, "ad"]
    assert entry(page, "stats.visits")["w"][0] == 3
    assert "fs.app.stats.source=" in page.evaluate("document.cookie")


def test_consent_withdrawn_removes_what_is_stored(page: Page, app: App) -> None:
    """What is stored for a purpose goes when consent to it is gone."""
    page.evaluate("document.cookie = 'fs.app._c=analytics; Path=/'")
    run(page, "dispatchEvent(new Event('focus')); local.stats.visits = 3; local.stats.source = 'ad'; await flush()")
    page.evaluate("document.cookie = 'fs.app._c=; Path=/; Max-Age=0'")
    page.goto("/next")
    assert value(page, "local.stats.visits") == 0
    assert "stats" not in page.evaluate("Object.keys(localStorage).join() + document.cookie")


# ---- Requests


def test_fetch(page: Page, app: App) -> None:
    """Fetch says what is pending and applies what comes back, with addresses, `Request`s and `Headers`."""
    page.route("**/_state", lambda route: route.abort())
    run(page, "local.prefs.size = 2; tab.wizard.step = 3")
    app.headers = {"X-State": encoded({"t": tab_of(page), "p": {"prefs.draft": ["answer", 8, 0]}})}
    for call in (
        "'/api/1', {headers: {'X-Mine': '1'}}",
        "new URL('/api/2', location), {headers: new Headers({'X-Mine': '1'})}",
        "new Request('/api/3', {method: 'POST', body: 'text', headers: {'X-Mine': '1'}})",
        "'api/4', {method: 'POST', body: new FormData(), headers: [['X-Mine', '1']]}",
    ):
        with page.expect_request("**/api/*") as sent:
            run(page, f"await module.fetch({call})")
        assert sent.value.headers["x-mine"] == "1"
        push = decoded(sent.value.headers["x-state"])
        assert {name: wire[0] for name, wire in push["p"].items()} == {"prefs.size": 2, "wizard.step": 3}
        assert push["t"] == tab_of(page)
    assert value(page, "local.prefs.draft") == "answer"


def test_fetch_of_other_origins(page: Page, app: App) -> None:
    """A request to another origin is left as it is, and its answer too."""
    settle(page)
    page.evaluate("window.sent = []; window.fetch = (...what) => (sent.push(what), Promise.resolve(new Response())); 0")
    run(page, "window.request = new Request('https://example.com/a'); await module.fetch(request, {cache: 'reload'})")
    run(page, "await module.fetch('https://example.com/b')")
    assert (
        page.evaluate("sent[0][0] === request && sent[0][1].cache === 'reload' && sent[1][0]")
        == "https://example.com/b"
    )


def test_headers_keep_their_limit(page: Page) -> None:
    """A header has 3,000 octets at most; what is newest is in it."""
    page.route("**/_state", lambda route: route.abort())
    with page.expect_request("**/api") as sent:
        run(page, "local.prefs.draft = 'x'.repeat(2900); local.prefs.size = 2; await module.fetch('/api')")
    header = sent.value.headers["x-state"]
    assert len(header) <= 3000
    assert list(decoded(header)["p"]) == ["prefs.size"]


HTMX = {
    2: """const detail = {headers: {}, path: '/api/htmx', verb: 'get'};
        document.body.dispatchEvent(new CustomEvent('htmx:configRequest', {bubbles: true, detail}));
        const xhr = new XMLHttpRequest(); xhr.open('GET', detail.path);
        for (const name in detail.headers) xhr.setRequestHeader(name, detail.headers[name]);
        await new Promise(done => { xhr.onload = done; xhr.send() });
        document.body.dispatchEvent(new CustomEvent('htmx:afterRequest', {bubbles: true, detail: {xhr}}));""",
    4: """const ctx = {request: {headers: {}, action: '/api/htmx', method: 'GET'}};
        document.body.dispatchEvent(new CustomEvent('htmx:config:request', {bubbles: true, detail: {ctx}}));
        const raw = await window.fetch(ctx.request.action, {headers: ctx.request.headers});
        ctx.response = {raw, status: raw.status, headers: raw.headers};
        document.body.dispatchEvent(new CustomEvent('htmx:after:request', {bubbles: true, detail: {ctx}}));""",
}


@pytest.mark.parametrize("version", HTMX)
def test_htmx(page: Page, app: App, version: int) -> None:
    """A request of htmx 2 or 4 says what is pending, and its answer's patch is applied."""
    page.route("**/_state", lambda route: route.abort())
    app.headers = {"X-State": encoded({"t": tab_of(page), "p": {"wizard.step": [5, 8, 0]}})}
    run(page, f"local.prefs.size = 2; {HTMX[version]}")
    header = app.last("/api/htmx").header
    assert header is not None
    assert header["p"]["prefs.size"][0] == 2
    assert value(page, "tab.wizard.step") == 5


@pytest.mark.parametrize("version", HTMX)
def test_htmx_of_other_origins(page: Page, app: App, version: int) -> None:
    """A request of htmx to another origin is told nothing."""
    config = HTMX[version].partition("dispatchEvent")[0].replace("'/api/htmx'", "'https://example.com/'")
    event = {
        2: "'htmx:configRequest', {bubbles: true, detail}",
        4: "'htmx:config:request', {bubbles: true, detail: {ctx}}",
    }
    config += f"dispatchEvent(new CustomEvent({event[version]}));"
    assert (
        run(page, f"local.prefs.size = 2; {config} return {({2: 'detail', 4: 'ctx.request'})[version]}.headers") == {}
    )


# ---- Elements

CONTROLS = """
<b data-state-bind="prefs.draft">?</b>
<input id="text" data-state-model="prefs.draft">
<textarea data-state-model="prefs.draft"></textarea>
<input id="number" type="number" data-state-model="prefs.size">
<input id="optional" type="number" data-state-model="prefs.limit">
<input id="check" type="checkbox" data-state-model="prefs.sidebar">
<input id="light" type="radio" name="theme" value="light" data-state-model="prefs.theme">
<input id="dark" type="radio" name="theme" value="dark" data-state-model="prefs.theme">
<select id="one" data-state-model="prefs.size"><option>10</option><option>20</option></select>
<select id="many" multiple data-state-model="prefs.tags"><option>a</option><option>b</option><option>c</option></select>
"""


@pytest.fixture
def controls(page: Page, app: App) -> Page:
    """A page with an element of each kind."""
    app.pages["/controls"] = CONTROLS
    page.goto("/controls")
    return page


def test_elements_show_values(controls: Page) -> None:
    """Every kind of control, and text, shows what its field holds, at once and after each change."""
    assert controls.text_content("b") == ""
    assert controls.is_checked("#check")
    run(
        controls,
        "local.prefs.draft = '<b>x'; local.prefs.size = 20; local.prefs.limit = 4; local.prefs.sidebar = false",
    )
    run(controls, "local.prefs.theme = 'dark'; local.prefs.tags = ['a', 'c']")
    assert controls.text_content("b") == "<b>x"
    assert [controls.input_value(name) for name in ("#text", "textarea", "#number", "#optional", "#one")] == [
        *("<b>x", "<b>x", "20", "4", "20")
    ]
    assert [controls.is_checked(name) for name in ("#check", "#light", "#dark")] == [False, False, True]
    assert controls.evaluate("Array.from(many.selectedOptions, option => option.value)") == ["a", "c"]


def test_controls_write_values(controls: Page) -> None:
    """What a visitor enters is assigned, with the type of the field."""
    controls.fill("#text", "typed")
    controls.fill("#number", "12")
    controls.fill("#optional", "3")
    controls.uncheck("#check")
    controls.check("#dark")
    controls.select_option("#many", ["b", "c"])
    names = ["draft", "size", "limit", "sidebar", "theme", "tags"]
    assert [value(controls, f"local.prefs.{name}") for name in names] == ["typed", 12, 3, False, "dark", ["b", "c"]]
    controls.select_option("#one", "20")
    controls.fill("textarea", "more")
    controls.fill("#optional", "")
    assert value(controls, "[local.prefs.size, local.prefs.draft, local.prefs.limit]") == [20, "more", None]
    assert controls.input_value("#number") == "20"


def test_typing_keeps_the_caret(controls: Page) -> None:
    """A control that a visitor is typing into is not written by its own change."""
    controls.fill("#text", "ac")
    controls.press("#text", "ArrowLeft")
    controls.press("#text", "b")
    assert controls.evaluate("[text.value, text.selectionStart]") == ["abc", 2]


def test_an_element_that_says_so_already_is_left_alone(controls: Page) -> None:
    """What a page was rendered with stays as it is, text and all, when the page is shown."""
    run(controls, "local.prefs.draft = 'there'; window.text = document.querySelector('b').firstChild")
    controls.evaluate("dispatchEvent(new Event('pageshow')); 0")
    assert controls.evaluate("[text.data, text === document.querySelector('b').firstChild]") == ["there", True]


def test_elements_that_come_later_are_bound(controls: Page) -> None:
    """What is swapped in later shows its field and writes it."""
    run(controls, "local.prefs.draft = 'there'")
    controls.evaluate(
        """const added = document.createElement('p'), input = document.createElement('input');
        input.dataset.stateModel = 'prefs.draft'; input.id = 'late'; added.append(input); document.body.append(added)"""
    )
    wait(controls, "document.getElementById('late').value === 'there'")
    controls.fill("#late", "from the new one")
    assert value(controls, "local.prefs.draft") == "from the new one"


def test_an_unknown_name_in_a_page_is_reported(app: App, browser: Browser) -> None:
    """An element with a name that nobody declared is an error in the console; the others work."""
    context = browser.new_context(base_url=app.url)
    app.pages["/typo"] = "<i data-state-bind='prefs.drft'>?</i><b data-state-bind='prefs.size'>?</b>"
    page = context.new_page()
    with context.expect_event("weberror") as error:
        page.goto("/typo")
    assert "prefs.draft" in str(error.value.error)
    assert page.text_content("b") == "10"
    context.close()


# ---- Promises


def test_works_under_a_strict_policy(page: Page, app: App) -> None:
    """Under `script-src 'self'` and Trusted Types nothing is refused (every page of these tests is served so)."""
    policy = page.goto("/")
    assert policy is not None
    assert "require-trusted-types-for 'script'" in policy.headers["content-security-policy"]
    page.evaluate(
        "window.refused = []; "
        "addEventListener('securitypolicyviolation', event => refused.push(event.violatedDirective)); 0"
    )
    run(page, "local.prefs.draft = 'x'; await flush(); await module.fetch('/api')")
    assert page.evaluate("refused") == []


def test_secure_cookies_have_their_prefix(app: App, visitor: BrowserContext, monkeypatch: pytest.MonkeyPatch) -> None:
    """On https every cookie is a `__Host-` one, and no other is read."""
    monkeypatch.setitem(DECLARED, "secure", True)
    page = opened(visitor)
    run(page, "local.prefs.theme = 'dark'; await flush()")
    found = {cookie["name"]: cookie for cookie in visitor.cookies()}
    assert found["__Host-fs.app.prefs.theme"]["secure"]
    page.evaluate(f"document.cookie = 'fs.app.prefs.theme={encoded(['tossed', 2**52, 0])}; Path=/'")
    page.goto("/next")
    assert value(page, "local.prefs.theme") == "dark"


def test_the_module_is_small() -> None:
    """As it is served, the module has 5,120 octets at most after gzip."""
    assert len(gzip.compress(squeezed(SOURCE.read_text()).encode(), 9)) <= 5_120


def test_comments_are_lines_of_their_own(page: Page) -> None:
    """No line of code ends in a comment, so that the ones that are served have none."""
    lines = squeezed(SOURCE.read_text()).splitlines()
    assert not [line for line in lines if "/*" in line or "//" in line.replace("://", "")]
