"""Whose a browser's entries are, when users come and go by other ways than a login that the browser was told of."""

from __future__ import annotations

import typing as t

import pytest
from flask import Flask, request, session

from flask_stateful import LocalState, Stateful, migrate
from flask_stateful.stores.memory import MemoryStore
from flask_stateful.testing import FakeBrowser
from tests.browser.support import DECLARED, NOW, Tab, encoded, make_app


@pytest.fixture
def tab() -> Tab:
    """A tab of a browser that was never here, of an application whose session tells the user."""
    return Tab(make_app().test_client())


def told_by_header() -> Tab:
    """Return a tab of an application that tells its user by a header, without any login."""
    return Tab(make_app(user_id=lambda: request.headers.get("X-User")).test_client())


def be(tab: Tab, user: str) -> None:
    """Let the tab's requests be this user's."""
    tab.client.environ_base["HTTP_X_USER"] = user


def values(tab: Tab) -> list[t.Any]:
    """Return what Python reads of a mirrored field, one in a record, one of a tab and one that is shared."""
    names = (("Prefs", "theme"), ("Prefs", "draft"), ("Wizard", "step"), ("Look", "dense"))
    return [tab.read(*name) for name in names]


def write_all(tab: Tab) -> None:
    """Have Python write these."""
    for (model, name), value in zip(
        (("Prefs", "theme"), ("Prefs", "draft"), ("Wizard", "step"), ("Look", "dense")),
        ("dark", "mine", 5, True),
        strict=True,
    ):
        tab.write(model, name, value)
    tab.owner = tab.cookie("_u") or ""


DEFAULTS = ["auto", "", 1, True]


def test_a_user_that_the_application_tells_is_told_from_the_next_one() -> None:
    """Nothing signs in or out: the entries are another's as soon as a request looks at them."""
    tab = told_by_header()
    be(tab, "ada")
    write_all(tab)
    assert len(tab.owner) == 8
    assert values(tab) == ["dark", "mine", 5, True]
    be(tab, "bob")
    assert values(tab) == DEFAULTS
    assert tab.cookie("_u") not in (None, tab.owner)
    assert tab.cookie("prefs.theme") is None
    be(tab, "ada")
    assert values(tab) == DEFAULTS


@pytest.mark.parametrize("other", ["bob", ""])
def test_what_another_user_writes_first_is_kept_for_him(other: str) -> None:
    """The request that meets him removes what was before, and nothing of what it writes itself."""
    tab = told_by_header()
    be(tab, "ada")
    write_all(tab)
    tab.client.environ_base.pop("HTTP_X_USER")
    if other:
        be(tab, other)
    tab.write("Prefs", "theme", "light")
    tab.write("Prefs", "draft", "his")
    assert values(tab) == ["light", "his", 1, True]


def test_a_push_of_the_user_before_is_refused_when_another_one_is_told() -> None:
    """A page that still shows the first user's entries cannot give them to the second."""
    tab = told_by_header()
    be(tab, "ada")
    write_all(tab)
    be(tab, "bob")
    answer = tab.sync({"prefs.draft": ["ada's", 0, NOW * 2], "prefs.theme": ["dark", 0, NOW * 2]})
    assert "a" not in answer
    assert answer["u"] == tab.cookie("_u") != tab.owner
    assert values(tab)[:2] == ["auto", ""]


def test_entries_that_are_shared_ask_nobody_who_the_user_is() -> None:
    """To find out may cost the application a query."""
    asked: list[int] = []
    tab = Tab(make_app(user_id=lambda: asked.append(1)).test_client())
    tab.write("Look", "dense", True)
    assert tab.read("Look", "dense") is True
    assert not asked
    tab.read("Prefs", "theme")
    assert asked


@pytest.mark.parametrize("carrier", ["python", "endpoint"])
def test_what_a_user_keeps_goes_although_the_browser_had_nothing_at_the_login(tab: Tab, carrier: str) -> None:
    """The tag comes with the first entry."""
    tab.client.post("/login/ada")
    assert tab.cookie("_u") is None
    if carrier == "python":
        tab.write("Prefs", "draft", "mine")
    else:
        tab.sync({"prefs.draft": ["mine", 0, NOW]})
    assert len(tab.cookie("_u") or "") == 8
    tab.owner = tab.cookie("_u") or ""
    assert tab.read("Prefs", "draft") == "mine"
    tab.client.post("/logout")
    assert tab.read("Prefs", "draft") == ""
    assert tab.cookie("_u") is None


@pytest.mark.parametrize("then", ["/logout", "/login/bob"])
def test_entries_whose_owner_the_browser_was_never_told_go_as_well(then: str) -> None:
    """A script has written them, and no message of its own has reached the server before the user leaves."""
    app, refused = make_app(), ["/_state"]

    @app.before_request
    def refuse() -> t.Any:
        return ("no", 400) if request.path in refused else None

    browser = FakeBrowser(app)
    page = browser.open("/plain")
    browser.client.post("/login/ada")
    assert browser.client.get_cookie("fs.shop._u") is None
    page.local.prefs.theme = "dark"
    page.local.prefs.draft = "ada's"
    page.local.look.dense = True
    browser.client.post(then)
    page.get("/plain")
    refused.clear()
    page = browser.open("/plain")
    assert (page.local.prefs.theme, page.local.prefs.draft, page.local.look.dense) == ("auto", "", True)
    page.local.prefs.draft = "later"
    page.flush()
    read = browser.client.get("/read/Prefs/draft").json
    assert read == {"value": "later", "known": True}
    assert browser.client.get("/read/Prefs/theme").json == {"value": "auto", "known": False}


def test_what_follows_on_an_unknown_owner_is_handed_on_as_ever(tab: Tab) -> None:
    """The mark keeps nothing back but what was before it."""
    tab.client.post("/login/ada")
    tab.set_cookie("prefs.theme", encoded(["dark", 0, NOW]))
    tab.client.post("/logout")
    assert tab.cookie("_u") == "~"
    tab.owner = "~"
    assert tab.read("Prefs", "theme") == "auto"
    tab.sync({"prefs.draft": ["nobody's", 0, NOW]})
    tab.client.post("/login/bob")
    assert len(tab.cookie("_u") or "") == 8
    assert tab.read("Prefs", "draft") == "nobody's"


def test_a_login_gives_no_tag_to_a_browser_that_has_nothing(tab: Tab) -> None:
    """Other applications of the process may declare classes that this one never uses."""
    response = tab.client.post("/login/ada")
    names = [line.partition("=")[0] for line in response.headers.getlist("Set-Cookie")]
    assert names == ["session"]
    assert [line.partition("=")[0] for line in tab.client.post("/logout").headers.getlist("Set-Cookie")] == ["session"]


def test_a_login_gives_a_tag_to_a_browser_that_has_something(tab: Tab) -> None:
    """A mirror cookie says so, whoever has set it."""
    tab.set_cookie("prefs.theme", encoded(["dark", 0, NOW]))
    tab.client.post("/login/ada")
    assert len(tab.cookie("_u") or "") == 8
    assert tab.read("Prefs", "theme") == "dark"


def test_a_rotation_of_keys_changes_no_owner() -> None:
    """To the browser another tag is another user, so a fallback's stays."""
    store = MemoryStore()
    old = Tab(make_app(store=store).test_client())
    old.client.post("/login/ada")
    write_all(old)
    new = Tab(make_app(store=store, secret="y" * 32, SECRET_KEY_FALLBACKS=["x" * 32]).test_client())
    for name in ("_b", "_u", "prefs.theme"):
        new.set_cookie(name, old.cookie(name) or "")
    new.client.post("/login/ada")
    assert new.cookie("_u") == old.cookie("_u")
    assert values(new)[:2] == ["dark", "mine"]


def test_another_users_values_of_an_earlier_version_are_not_migrated() -> None:
    """Neither the cookies that he has left nor what a page of his still sends."""

    class Pad(LocalState, version=2):
        text: str = ""
        theme: bool = False

    @migrate(Pad, 1)
    def _same(old: dict[str, t.Any]) -> dict[str, t.Any]:
        return old

    tab = Tab(make_app(Pad).test_client())
    tab.set_cookie("pad.theme", encoded([True, 1, 1]))
    tab.client.post("/login/ada")
    adas = tab.cookie("_u") or ""
    tab.client.post("/login/bob")
    assert tab.cookie("pad.theme") is None
    assert tab.read("Pad", "theme") is False
    tab.owner = adas
    tab.outbox({"pad.text": ["ada's", 0, NOW]})
    assert tab.read("Pad", "text") == ""
    tab.sync({"pad.text": ["ada's", 0, NOW]})
    assert tab.read("Pad", "text") == ""


def test_no_cookie_is_removed_whose_name_is_no_registers() -> None:
    """The name of a cookie that a browser sends goes back to it, so it must be harmless."""
    tab = Tab(make_app().test_client())
    tab.client.post("/login/ada")
    header = "; ".join(f"fs.shop.{name}=1" for name in ("prefs.x,y", "prefs.(z)", "prefs.old", "prefs", "prefs.a~b"))
    session_cookie = tab.client.get_cookie("session")
    assert session_cookie is not None
    lines = (
        tab.client.application.test_client(use_cookies=False)
        .post("/logout", headers={"Cookie": f"{header}; session={session_cookie.value}"})
        .headers.getlist("Set-Cookie")
    )
    removed = {line.partition("=")[0] for line in lines if "Max-Age=0" in line}
    assert "fs.shop.prefs.old" in removed
    assert not any("," in name or "(" in name or "~" in name for name in removed)


def test_a_page_that_signs_out_shows_nothing_more_of_the_user() -> None:
    """What is read after the logout in the same request are defaults."""
    app = Flask("shop")
    app.config.update(SECRET_KEY="x" * 32, TESTING=True)
    state = Stateful(app, store={"default": MemoryStore(), "sessions": MemoryStore()}, declared=DECLARED)
    prefs = DECLARED[0]()

    @app.post("/bye")
    def bye() -> t.Any:
        before = prefs.theme, prefs.draft
        state.sessions.logout()
        return [before, (prefs.theme, prefs.draft)]

    @app.post("/hello")
    def hello() -> str:
        state.sessions.login("ada")
        session["x"] = 1
        prefs.theme, prefs.draft = "dark", "mine"
        return ""

    client = app.test_client()
    client.post("/hello")
    assert client.post("/bye").json == [["dark", "mine"], ["auto", ""]]
