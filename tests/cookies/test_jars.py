"""What an application does with cookies: set, read, remove, within one request and from one to the next."""

from __future__ import annotations

import typing as t
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from flask import Flask, Response, abort, request, session, stream_with_context
from hypothesis import given
from hypothesis import strategies as st

from flask_stateful import ConfigError, StateClosed, Stateful
from flask_stateful.cookies import header
from flask_stateful.cookies.jar import Jar
from flask_stateful.cookies.options import Options
from flask_stateful.errors import EncodeError
from flask_stateful.serialization import from_url_safe
from flask_stateful.testing import FakeClock
from flask_stateful.wiring import current_cookies, wiring_of

from .conftest import SECRET, Browser, make_app

JARS = ("sealed", "signed", "plain")


def jar_of(state: Stateful, kind: str) -> Jar:
    """Return a jar by its kind."""
    return state.cookies if kind == "sealed" else getattr(state.cookies, kind)


@pytest.fixture(params=JARS)
def jar(request: pytest.FixtureRequest, state: Stateful) -> Jar:
    """One jar after the other."""
    return jar_of(state, request.param)


@pytest.mark.parametrize(
    "value",
    [
        *(None, True, 2**80, 1.5, "text", "", b"\x00\xff", [1, [2]], (1, (2,)), {"a": {1: 2}}, {1, 2}, frozenset("a")),
        *(datetime(2026, 1, 2, tzinfo=UTC), date(2026, 1, 2), timedelta(days=3), Decimal("1.10")),
    ],
)
def test_a_sealed_cookie_keeps_value_and_type(browser: Browser, state: Stateful, value: t.Any) -> None:
    """Whatever a session can hold comes back in the next request, equal and of the same type."""
    browser.visit(lambda: state.cookies.set("seen", value))
    found = browser.ask(lambda: state.cookies["seen"])
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("kind", ["signed", "plain"])
@given(text=st.text(max_size=200))
def test_any_text_comes_back(kind: str, text: str) -> None:
    """Quotes, blanks, separators, control characters and every script survive the way to the browser and back."""
    browser = Browser(app := make_app())
    jar = jar_of(app.extensions["state"], kind)
    browser.visit(lambda: jar.set("word", text))
    assert len(browser.lines) == 1
    assert browser.lines[0].isascii()
    assert browser.lines[0].isprintable()
    # Sent back as it came: Werkzeug's own client would quote it anew.
    sent = browser.lines[0].removeprefix("word=").rpartition("; Path=")[0]
    assert browser.ask(lambda: jar["word"], cookie=f"other=1; word={sent}; last=2") == text


@given(text=st.text(st.characters(exclude_characters="\x1a\x1b\x1c\x1d\x1e\x1f", exclude_categories=["Cs"])))
def test_flask_reads_a_plain_cookie_too(text: str) -> None:
    """``request.cookies`` has the same text, and the plain jar reads what ``response.set_cookie`` wrote."""
    browser = Browser(app := make_app())
    plain = t.cast("Stateful", app.extensions["state"]).cookies.plain
    assert browser.ask(lambda: request.cookies["word"], cookie=f"word={header.quote(text)}") == text
    response = Response()
    response.set_cookie("word", text, max_age=None, path=None)
    assert browser.ask(lambda: plain["word"], cookie=response.headers["Set-Cookie"]) == text


def test_plain_text_stands_as_it_is(browser: Browser, state: Stateful) -> None:
    """What needs no quotes has none, so that scripts and other programs read it."""
    browser.visit(lambda: state.cookies.plain.set("theme", "dark-blue/2"))
    assert browser.sent("theme") == "dark-blue/2"


def test_a_signed_value_can_be_read_by_others(browser: Browser, state: Stateful) -> None:
    """The text stands in the cookie as it is."""
    browser.visit(lambda: state.cookies.signed.set("lang", "de"))
    assert browser.sent("lang").startswith("de.")


def test_a_sealed_value_cannot_be_read_by_others(browser: Browser, state: Stateful) -> None:
    """Nothing of the value, and no two cookies alike, is seen from outside."""
    tokens = set()
    for _ in range(2):
        browser.visit(lambda: state.cookies.set("seen", "a long enough secret"))
        token = from_url_safe(browser.sent("__Host-seen"))
        assert token is not None
        assert b"secret" not in token
        tokens.add(token)
    assert len(tokens) == 2


def test_signed_and_plain_jars_take_text_only(state: Stateful, browser: Browser) -> None:
    """Another type is an EncodeError that says what to write, and so is text that UTF-8 cannot carry."""
    for jar in (state.cookies.signed, state.cookies.plain):
        with browser.app.test_request_context():
            with pytest.raises(
                EncodeError, match=r"state\.cookies\.\w+\['n'\] must be str, not int; write str\(\.\.\.\)"
            ):
                jar["n"] = 3
            with pytest.raises(EncodeError, match=r"state\.cookies\.\w+\['n'\] has a lone surrogate"):
                jar["n"] = "\ud800"


def test_a_value_of_another_type_is_refused_at_assignment(state: Stateful, browser: Browser) -> None:
    """The error names the cookie and the part of it."""
    with browser.app.test_request_context(), pytest.raises(EncodeError, match=r"state\.cookies\['form'\]\['x'\]"):
        state.cookies["form"] = {"x": object()}


def test_reading_gives_what_was_written(browser: Browser, jar: Jar) -> None:
    """Within one request, set, get, in, pop and del agree with each other, over what the browser has sent."""
    browser.visit(lambda: jar.set("a", "old"))

    def view() -> list[t.Any]:
        seen: list[t.Any] = [jar["a"], "a" in jar, "b" in jar, jar.get("b"), jar.get("b", 5)]
        jar["a"] = "new"
        seen += [jar["a"], jar.get("a")]
        del jar["a"]
        seen += ["a" in jar, jar.get("a", "gone"), jar.pop("a", "nothing")]
        jar["a"] = "last"
        return [*seen, jar.pop("a"), "a" in jar]

    expected = ["old", True, False, None, 5, "new", "new", False, "gone", "nothing", "last", False]
    assert browser.ask(view) == expected
    assert browser.ask(lambda: "a" in jar) is False


def test_an_absent_cookie_is_a_key_error(browser: Browser, jar: Jar) -> None:
    """``[]``, ``del`` and ``pop`` raise it as a dict does; ``delete`` does not."""
    with browser.app.test_request_context():
        for ask in (lambda: jar["a"], lambda: jar.__delitem__("a"), lambda: jar.pop("a")):
            with pytest.raises(KeyError, match="a"):
                ask()
        jar.delete("a")


def test_a_jar_cannot_be_walked_through(jar: Jar) -> None:
    """Which cookies there are is for the browser to say."""
    with pytest.raises(TypeError, match="not iterable"):
        list(jar)  # type: ignore[call-overload]


def test_a_value_is_decoded_once(browser: Browser, state: Stateful) -> None:
    """All readers of one request get the same object."""
    browser.visit(lambda: state.cookies.set("seen", {"tour": [1]}))
    assert browser.ask(lambda: state.cookies["seen"] is state.cookies["seen"])
    assert browser.ask(lambda: state.cookies["seen"]["tour"].append(2)) is None
    assert browser.ask(lambda: state.cookies["seen"]) == {"tour": [1]}


def test_jars_of_one_name_do_not_mix(browser: Browser, state: Stateful) -> None:
    """Where two jars write one cookie, the browser keeps the later, and the request sees so at once."""

    def view() -> list[bool]:
        state.cookies.signed["x"] = "signed"
        state.cookies.plain["x"] = "plain"
        return ["x" in state.cookies.signed, "x" in state.cookies.plain]

    assert browser.ask(view) == [False, True]
    assert len(browser.lines) == 1
    assert browser.ask(lambda: ["x" in state.cookies.signed, state.cookies.plain["x"]]) == [False, "plain"]


def test_one_name_on_two_paths_is_two_cookies(browser: Browser, state: Stateful) -> None:
    """Both are sent, and each is read where the browser sends it."""
    browser.visit(lambda: [state.cookies.plain.set("x", path, path=path) for path in ("/a", "/b")])
    assert len(browser.lines) == 2
    assert browser.ask(lambda: state.cookies.plain["x"], path="/a") == "/a"
    assert browser.ask(lambda: state.cookies.plain["x"], path="/b") == "/b"


# Whose it is


@pytest.mark.parametrize("kind", ["sealed", "signed"])
def test_a_cookie_with_an_owner_opens_for_nobody_else(browser: Browser, state: Stateful, kind: str) -> None:
    """Neither another owner nor nobody reads it, also in the request that wrote it."""
    jar = jar_of(state, kind)
    ada, eve = jar.with_options(owner="ada"), jar.with_options(owner="eve")

    def found() -> list[t.Any]:
        return [one.get("plan") for one in (ada, eve, jar)]

    assert browser.ask(lambda: [ada.set("plan", "large"), *found()]) == [None, "large", None, None]
    assert browser.ask(found) == ["large", None, None]


def test_a_plain_cookie_has_no_owner(browser: Browser, state: Stateful) -> None:
    """What nothing seals is bound to nobody: the error says which jars to use."""
    with (
        browser.app.test_request_context(),
        pytest.raises(ValueError, match=r"owner= needs a seal; use state\.cookies"),
    ):
        state.cookies.plain.set("x", "1", owner="ada")


# How long


def test_a_cookie_without_max_age_goes_with_the_browser_session(browser: Browser, jar: Jar) -> None:
    """It has neither Max-Age nor Expires."""
    browser.visit(lambda: jar.set("x", "1"))
    assert "Max-Age" not in browser.lines[0]
    assert "Expires" not in browser.lines[0]


@pytest.mark.parametrize("kind", ["sealed", "signed"])
def test_the_expiry_is_kept_by_the_server_too(browser: Browser, state: Stateful, clock: FakeClock, kind: str) -> None:
    """A copy of the cookie, sent after its time, is not there; until then it is."""
    jar = jar_of(state, kind)
    browser.visit(lambda: jar.set("x", "1", max_age=timedelta(minutes=1)))
    assert "; Max-Age=60" in browser.lines[0]
    copy = browser.lines[0].partition(";")[0]
    clock.advance(59)
    assert browser.ask(lambda: jar.get("x"), cookie=copy) == "1"
    clock.advance(2)
    assert browser.ask(lambda: jar.get("x"), cookie=copy) is None


# Saved with the request, or not at all


def test_a_failed_request_sets_no_cookie(browser: Browser, jar: Jar) -> None:
    """What was written before a 5xx is not sent; that the response depends on cookies is said all the same."""
    response = browser.visit(lambda: (jar.get("b"), jar.set("a", "1"), abort(503)))
    assert response.status_code == 503
    assert browser.lines == []
    assert response.headers["Vary"] == "Cookie"
    assert browser.ask(lambda: "a" in jar) is False


def test_kept_on_error_when_the_setting_says_so() -> None:
    """With STATEFUL_KEEP_ON_ERROR a 5xx sends its cookies, as it saves its session."""
    browser = Browser(app := make_app(STATEFUL_KEEP_ON_ERROR=True))
    browser.visit(lambda: (app.extensions["state"].cookies.set("a", 1), abort(503)))
    assert browser.names == {"__Host-a"}


def test_after_a_failed_request_reading_gives_what_the_browser_has(browser: Browser, state: Stateful) -> None:
    """What was discarded was never written."""
    seen: list[t.Any] = []

    def body() -> t.Iterator[str]:
        seen.append(state.cookies.plain["a"])
        yield "failed"

    def view() -> Response:
        state.cookies.plain["a"] = "new"
        return Response(stream_with_context(body()), 500)

    assert browser.visit(view, cookie="a=old").text == "failed"
    assert seen == ["old"]


def test_a_failed_save_sends_no_cookie(browser: Browser, state: Stateful) -> None:
    """Where what is saved before the cookies fails, none is set: the error page says what is true."""

    def view() -> None:
        state.cookies["a"] = 1
        state.cookies.plain.set("b", "x" * 4000)

    assert browser.visit(view).status_code == 500
    assert browser.lines == []


@pytest.mark.parametrize("write", ["set", "delete"])
def test_writing_after_the_response_was_saved_is_an_error(browser: Browser, jar: Jar, write: str) -> None:
    """A body that is made while it is sent can read cookies, and writing one is StateClosed."""
    seen: list[t.Any] = []

    def body() -> t.Iterator[str]:
        seen.append(jar.get("a"))
        with pytest.raises(StateClosed, match=r"state\.cookies.*\['a'\] was written after the response had been saved"):
            jar.set("a", "2") if write == "set" else jar.delete("a")
        yield "done"

    def view() -> Response:
        jar["a"] = "1"
        return Response(stream_with_context(body()))

    assert browser.visit(view).text == "done"
    assert seen == ["1"]


def test_first_touched_after_the_response_was_saved(browser: Browser, state: Stateful) -> None:
    """A request that looks at its cookies only then reads what the browser sent, and cannot write."""

    def body() -> t.Iterator[str]:
        yield str(state.cookies.plain.get("a"))
        with pytest.raises(StateClosed):
            state.cookies.plain["a"] = "2"

    def view() -> Response:
        session["touched"] = True
        return Response(stream_with_context(body()))

    assert browser.visit(view, cookie="a=1").text == "1"


def test_outside_a_request_there_are_no_cookies(browser: Browser, jar: Jar) -> None:
    """Flask says so itself, with and without an application."""
    with pytest.raises(RuntimeError, match="Working outside of"):
        jar.get("a")
    with browser.app.app_context(), pytest.raises(RuntimeError, match="Working outside of request context"):
        jar["a"] = "1"


@pytest.mark.parametrize("kind", ["sealed", "signed"])
def test_two_applications_do_not_read_each_others(browser: Browser, state: Stateful, kind: str) -> None:
    """Two applications with one secret key on one host take each other's cookies for forged ones."""
    other = Browser(make_app(name="office"))
    here, there = jar_of(state, kind), jar_of(other.app.extensions["state"], kind)
    browser.visit(lambda: here.set("x", "1"))
    sent = browser.lines[0].partition(";")[0]
    assert browser.ask(lambda: here.get("x"), cookie=sent) == "1"
    assert other.ask(lambda: there.get("x"), cookie=sent) is None


def test_one_stateful_serves_two_applications() -> None:
    """The jars find the application of the request, and an application without one says what to write."""
    state = Stateful()
    apps = [Flask("shop"), Flask("office")]
    for app in apps:
        app.config.update(SECRET_KEY=SECRET, STATEFUL_STORE="memory://")
        state.init_app(app)
        app.add_url_rule("/", view_func=lambda: (state.cookies.set("x", 1), "ok")[1])
    sent = [app.test_client().get("/").headers["Set-Cookie"] for app in apps]
    assert sent[0] != sent[1]
    with Flask("bare").test_request_context(), pytest.raises(ConfigError, match="has no Stateful; write"):
        state.cookies.get("x")


def test_a_jar_shows_its_kind_and_no_values(state: Stateful) -> None:
    """That is what its repr is for."""
    assert [repr(jar_of(state, kind)) for kind in JARS] == ["<Cookies sealed>", "<Jar signed>", "<Jar plain>"]


# Consent


def test_without_consent_a_cookie_lasts_for_the_request_alone(browser: Browser, state: Stateful) -> None:
    """A purpose that is not allowed can be written and read back, and nothing of it is sent; removing always is."""
    wiring_of(browser.app).cookie_service().allowed = lambda purpose: purpose == "necessary"

    def view() -> t.Any:
        state.cookies.set("ad", 1, purpose="marketing")
        state.cookies["cart"] = 2
        state.cookies.with_options(purpose="marketing").delete("old")
        return state.cookies["ad"]

    assert browser.ask(view) == 1
    assert browser.names == {"__Host-cart", "__Host-old"}


def test_without_consent_a_cookie_is_not_sent_anew(browser: Browser, state: Stateful) -> None:
    """After a change of the key, what the cookie is for is known from itself."""
    wiring_of(browser.app).cookie_service().allowed = lambda purpose: True
    browser.visit(lambda: (state.cookies.set("ad", 1, purpose="marketing"), state.cookies.set("cart", 2)))
    sent = "; ".join(line.partition(";")[0] for line in browser.lines)
    later = Browser(make_app(SECRET_KEY="next", SECRET_KEY_FALLBACKS=[SECRET]))
    wiring_of(later.app).cookie_service().allowed = "necessary".__eq__
    jar = t.cast("Stateful", later.app.extensions["state"]).cookies
    assert later.ask(lambda: [jar["ad"], jar["cart"]], cookie=sent) == [1, 2]
    assert later.names == {"__Host-cart"}


def test_the_purpose_is_asked_for_when_the_response_is_saved(browser: Browser, state: Stateful) -> None:
    """Consent that is given later in the same request counts."""
    granted: set[str] = set()
    wiring_of(browser.app).cookie_service().allowed = granted.__contains__
    browser.visit(lambda: (state.cookies.set("ad", 1, purpose="marketing"), granted.add("marketing")))
    assert browser.names == {"__Host-ad"}


# What others of the package need


def test_a_jar_with_another_prefix(browser: Browser) -> None:
    """A signed cookie under ``__Host-Http-``, for what no script may write, keeps its own name on HTTP."""
    jar = Jar(current_cookies, "signed", Options(prefix=header.HOST_HTTP))
    browser.visit(lambda: jar.set("id", "1"))
    assert browser.names == {"__Host-Http-id"}
    assert browser.ask(lambda: jar.get("id"), cookie=browser.lines[0].partition(";")[0]) == "1"
    insecure = Browser(browser.app, https=False)
    insecure.visit(lambda: jar.set("id", "1"))
    assert insecure.names == {"id"}
