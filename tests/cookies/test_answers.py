"""What cookies make of a response: it varies by Cookie, is private where one is set, and is never stored for others."""

from __future__ import annotations

import functools
import typing as t
from collections.abc import Callable

import pytest
from flask import Flask, Response, make_response, render_template_string, request, session

from flask_stateful import Stateful

from .conftest import Browser
from .test_jars import JARS, jar_of

View: t.TypeAlias = Callable[..., t.Any]


@pytest.mark.parametrize("kind", JARS)
@pytest.mark.parametrize("how", ["get", "in", "del", "absent"])
def test_reading_adds_vary(browser: Browser, state: Stateful, kind: str, how: str) -> None:
    """Also where the cookie was absent, once, beside what the view varies by itself."""
    jar = jar_of(state, kind)
    ask: dict[str, View] = {
        "get": lambda: jar.get("x"),
        "in": lambda: "x" in jar,
        "del": lambda: jar.delete("x"),
        "absent": lambda: (jar.get("y"), jar.get("z")),
    }
    browser.visit(lambda: jar.set("x", "1"))
    assert browser.visit(ask[how]).headers.getlist("Vary") == ["Cookie"]

    def varied() -> Response:
        ask[how]()
        response = make_response("ok")
        response.vary.add("Accept-Language")
        return response

    assert browser.visit(varied).headers["Vary"] == "Accept-Language, Cookie"


def test_a_session_and_a_cookie_vary_once(browser: Browser, state: Stateful) -> None:
    """Both kinds of state say so, in one header."""
    response = browser.visit(lambda: (session.get("a"), state.cookies.get("b")))
    assert response.headers.getlist("Vary") == ["Cookie"]


@pytest.mark.parametrize("kind", JARS)
def test_setting_makes_private(browser: Browser, state: Stateful, kind: str) -> None:
    """Whatever the view says about its page; no-store stays as it is, and reading alone changes nothing."""
    jar = jar_of(state, kind)

    def public() -> Response:
        jar["x"] = "1"
        response = make_response("ok")
        response.cache_control.public = True
        response.cache_control.s_maxage = 60
        response.cache_control.max_age = 30
        return response

    assert browser.visit(public).headers["Cache-Control"] == "max-age=30, private"

    def unstored() -> Response:
        jar["x"] = "1"
        response = make_response("ok")
        response.cache_control.no_store = True
        return response

    assert browser.visit(unstored).headers["Cache-Control"] == "no-store"
    assert browser.visit(lambda: jar.delete("x")).headers["Cache-Control"] == "private"
    assert "Cache-Control" not in browser.visit(lambda: jar.get("x")).headers


def test_a_request_without_cookies_has_no_header(browser: Browser) -> None:
    """A page that looks at no cookie is nobody's own."""
    response = browser.visit(lambda: None, cookie="x=1")
    assert "Vary" not in response.headers
    assert "Cache-Control" not in response.headers


# The cache


class Cached:
    """A browser's visits to a cached view that does something with cookies."""

    def __init__(self, app: Flask, view: View, vary: tuple[str, ...]) -> None:
        self.made = 0
        state = t.cast("Stateful", app.extensions["state"])

        @app.get("/cached")
        @state.cache.view(ttl=60, vary=vary)
        def cached() -> str:
            self.made += 1
            return str(view())

        self._client = app.test_client(use_cookies=False)

    def get(self, cookie: str = "", *, base_url: str = "https://shop.example") -> t.Any:
        return self._client.get("/cached", base_url=base_url, headers={"Cookie": cookie} if cookie else {})


def token(browser: Browser, does: View) -> str:
    """Return the cookie that a view sets, as it is sent back."""
    browser.visit(does)
    return browser.lines[0].partition(";")[0]


@pytest.mark.parametrize("kind", JARS)
def test_a_view_that_reads_a_cookie_is_not_stored(browser: Browser, state: Stateful, kind: str) -> None:
    """Unless vary covers it: otherwise one visitor would get what was made for another."""
    jar = jar_of(state, kind)
    cached = Cached(browser.app, lambda: jar.get("who"), ())
    ada, eve = (token(browser, functools.partial(jar.set, "who", name)) for name in ("ada", "eve"))
    assert [cached.get(cookie).text for cookie in (ada, eve, "", ada)] == ["ada", "eve", "None", "ada"]
    assert "cookie:who" in cached.get(ada).headers["Cache-Status"]


@pytest.mark.parametrize("kind", JARS)
@pytest.mark.parametrize("base_url", ["https://shop.example", "http://shop.example"])
def test_a_view_that_varies_by_the_cookie_is_stored_for_each(app: Flask, kind: str, base_url: str) -> None:
    """``vary=("cookie:who",)`` means the name on the wire, with a prefix and without."""
    state = t.cast("Stateful", app.extensions["state"])
    jar, browser = jar_of(state, kind), Browser(app, https=base_url.startswith("https"))
    cached = Cached(app, lambda: jar.get("who"), ("cookie:who",))
    ada, eve = (token(browser, functools.partial(jar.set, "who", name)) for name in ("ada", "eve"))
    for _ in range(3):
        # Anything is readable as plain text; the other jars go on to the first cookie that is theirs.
        twins = (f"{eve.partition('=')[0]}=bad; {eve}", "bad" if kind == "plain" else "eve")
        for cookie, expected in ((ada, "ada"), (eve, "eve"), ("", "None"), twins):
            response = cached.get(cookie, base_url=base_url)
            assert response.text == expected
            assert "Cookie" in response.headers["Vary"]
    assert cached.made == 4


@pytest.mark.parametrize("kind", JARS)
@pytest.mark.parametrize("write", ["set", "delete"])
def test_a_view_that_writes_a_cookie_is_not_stored(browser: Browser, state: Stateful, kind: str, write: str) -> None:
    """Whatever it varies by: nobody else may get the cookie, nor go without it."""
    jar = jar_of(state, kind)
    does = (lambda: jar.set("x", "1")) if write == "set" else (lambda: jar.delete("x"))
    cached = Cached(browser.app, does, ("cookie:x", "session", "user"))
    responses = [cached.get() for _ in range(3)]
    assert cached.made == 3
    assert all(len(response.headers.getlist("Set-Cookie")) == 1 for response in responses)
    assert "(written)" in responses[0].headers["Cache-Status"]


def test_a_fragment_that_reads_a_cookie_is_not_stored(browser: Browser, state: Stateful) -> None:
    """Each visitor gets the own one."""
    browser.app.jinja_env.globals["cookies"] = state.cookies
    text = '{% cache "box", ttl=60 %}{{ cookies.plain.get("who") }}{% endcache %}'
    found = [
        browser.ask(lambda: render_template_string(text), cookie=f"who={name}") for name in ("ada", "eve", "ada", "eve")
    ]
    assert found == ["ada", "eve", "ada", "eve"]


def test_flasks_own_cookies_are_still_watched(browser: Browser, state: Stateful) -> None:
    """A view that reads ``request.cookies`` is stored for each value where it varies by it."""
    cached = Cached(browser.app, lambda: request.cookies.get("who"), ("cookie:who",))
    asked = ("who=ada", "who=eve", "who=ada", "who =bad", "", "who=ada; who=eve")
    assert [cached.get(cookie).text for cookie in asked] == ["ada", "eve", "ada", "bad", "None", "ada"]
    assert cached.made == 5
