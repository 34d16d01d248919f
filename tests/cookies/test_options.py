"""How cookies are set and removed: names, prefixes and attributes are those that browsers obey."""

from __future__ import annotations

import typing as t
from datetime import timedelta

import pytest

from flask_stateful import Stateful
from flask_stateful.cookies.options import MAX_AGE, Options

from .conftest import Browser, make_app


@pytest.fixture
def insecure(browser: Browser) -> Browser:
    """A browser that comes by plain HTTP."""
    return Browser(browser.app, https=False)


def refused(browser: Browser, **options: t.Any) -> str:
    """Return the text of the error that setting a cookie with these options raises."""
    cookies = t.cast("Stateful", browser.app.extensions["state"]).cookies
    name = options.pop("name", "x")
    jar = options.pop("jar", "")
    with browser.app.test_request_context(base_url=options.pop("base_url", "https://shop.example")):
        with pytest.raises((TypeError, ValueError)) as caught:
            (getattr(cookies, jar) if jar else cookies).set(name, "1", **options)
        return str(caught.value)


def test_the_sealed_jar_over_https(browser: Browser, state: Stateful) -> None:
    """Sealed, HttpOnly, SameSite=Lax, Secure, for the whole site and this host alone, and the name says so."""
    browser.visit(lambda: state.cookies.set("seen", 1))
    assert browser.lines[0].endswith("; Path=/; SameSite=Lax; HttpOnly; Secure")
    assert browser.names == {"__Host-seen"}


def test_the_sealed_jar_over_http(insecure: Browser, state: Stateful) -> None:
    """Without HTTPS neither the prefix nor Secure works, so neither is sent."""
    insecure.visit(lambda: state.cookies.set("seen", 1))
    assert insecure.lines[0].endswith("; Path=/; SameSite=Lax; HttpOnly")
    assert insecure.names == {"seen"}
    assert insecure.ask(lambda: state.cookies["seen"]) == 1


def test_signed_and_plain_keep_the_name(browser: Browser, state: Stateful) -> None:
    """Signed cookies are HttpOnly; plain ones are for scripts as well."""
    browser.visit(lambda: state.cookies.signed.set("a", "1"))
    assert browser.lines[0].startswith("a=")
    assert browser.lines[0].endswith("; Path=/; SameSite=Lax; HttpOnly; Secure")
    browser.visit(lambda: state.cookies.plain.set("b", "1"))
    assert browser.lines == ["b=1; Path=/; SameSite=Lax; Secure"]


def test_over_https_only_the_prefixed_name_is_read(browser: Browser, insecure: Browser, state: Stateful) -> None:
    """A cookie that a neighbour, or somebody on the line, has put under the bare name is never believed."""
    insecure.visit(lambda: state.cookies.set("seen", 1))
    bare = insecure.sent("seen")
    assert browser.ask(lambda: state.cookies.get("seen"), cookie=f"seen={bare}") is None
    assert browser.ask(lambda: state.cookies.get("seen"), cookie=f"__Host-seen={bare}") is None
    browser.visit(lambda: state.cookies.set("seen", 2))
    hosts = browser.sent("__Host-seen")
    assert browser.ask(lambda: state.cookies.get("seen"), cookie=f"seen={bare}; __Host-seen={hosts}") == 2
    assert insecure.ask(lambda: state.cookies.get("seen"), cookie=f"seen={bare}; __Host-seen={hosts}") == 1


@pytest.mark.parametrize("options", [{"path": "/admin"}, {"domain": "shop.example"}])
def test_path_or_domain_take_the_prefix_away(browser: Browser, state: Stateful, options: dict[str, t.Any]) -> None:
    """The standard allows no prefix there; the jar with these options reads what it wrote."""
    jar = state.cookies.with_options(**options)
    browser.visit(lambda: jar.set("seen", 1))
    assert browser.names == {"seen"}
    assert browser.ask(lambda: jar.get("seen"), path="/admin/users") == 1
    assert browser.ask(lambda: state.cookies.get("seen"), path="/admin/users") is None


def test_all_attributes(browser: Browser, state: Stateful) -> None:
    """Each option is written as the standard has it."""
    browser.visit(
        lambda: state.cookies.plain.set(
            *("x", "1"),
            max_age=timedelta(days=2),
            path="/a%20b",
            domain=".Bücher.example",
            secure=True,
            httponly=True,
            samesite="None",
            partitioned=True,
        )
    )
    assert browser.lines == [
        "x=1; Path=/a%20b; Domain=xn--bcher-kva.example; Max-Age=172800; SameSite=None; HttpOnly; Partitioned; Secure"
    ]


def test_options_said_once(browser: Browser, state: Stateful) -> None:
    """A jar with options uses them for all its cookies, and a cookie can still say otherwise."""
    jar = state.cookies.signed.with_options(max_age=60, samesite="Strict")
    browser.visit(lambda: (jar.set("a", "1"), jar.set("b", "1", max_age=120)))
    assert "; Max-Age=60; SameSite=Strict" in browser.lines[0]
    assert "; Max-Age=120; SameSite=Strict" in browser.lines[1]
    again = jar.with_options(path="/a")
    browser.visit(lambda: again.set("a", "1"))
    assert "; Path=/a; Max-Age=60; SameSite=Strict" in browser.lines[0]


# Removing


@pytest.mark.parametrize("kind", ["sealed", "signed"])
@pytest.mark.parametrize("how", ["del", "delete", "pop"])
def test_a_cookie_is_removed_as_it_was_set(browser: Browser, state: Stateful, kind: str, how: str) -> None:
    """Path, domain and partition come from the cookie itself, in a later request as well: the browser obeys."""
    jar = state.cookies.with_options(domain="shop.example") if kind == "sealed" else state.cookies.signed
    options: dict[str, t.Any] = {"path": "/a", "domain": "shop.example", "partitioned": True, "samesite": "None"}
    browser.visit(lambda: jar.set("x", "1", max_age=60, **options))

    def remove() -> None:
        if how == "del":
            del jar["x"]
        else:
            getattr(jar, how)("x")

    browser.visit(remove, path="/a")
    assert browser.lines == [
        "x=; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Path=/a; Domain=shop.example; SameSite=None; HttpOnly;"
        " Partitioned; Secure"
    ]
    assert browser.ask(lambda: "x" in jar, path="/a") is False


def test_a_prefixed_cookie_is_removed_under_its_name(browser: Browser, state: Stateful) -> None:
    """With all that the prefix demands, or the browser would ignore it."""
    browser.visit(lambda: state.cookies.set("x", 1))
    browser.visit(lambda: state.cookies.delete("x"))
    removed = "__Host-x=; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Path=/; SameSite=Lax; HttpOnly; Secure"
    assert browser.lines == [removed]
    assert browser.ask(lambda: "x" in state.cookies) is False


def test_a_plain_cookie_is_removed_as_it_is_said(browser: Browser, state: Stateful) -> None:
    """It says nothing of itself, so its options are said again, or were said in the same request."""
    browser.visit(lambda: state.cookies.plain.set("x", "1", path="/a"))
    browser.visit(lambda: state.cookies.plain.delete("x", path="/a", domain=None, partitioned=False), path="/a")
    assert "; Path=/a;" in browser.lines[0]
    assert browser.ask(lambda: "x" in state.cookies.plain, path="/a") is False
    browser.visit(lambda: (state.cookies.plain.set("x", "1", path="/b"), state.cookies.plain.delete("x")))
    (line,) = browser.lines
    assert line.startswith("x=; Max-Age=0")
    assert "; Path=/b;" in line


def test_what_is_set_and_removed_at_once_goes_out_as_a_removal(browser: Browser, state: Stateful) -> None:
    """One line for one cookie, the last that was said."""
    browser.visit(lambda: (state.cookies.set("x", 1), state.cookies.pop("x")))
    assert len(browser.lines) == 1
    assert "Max-Age=0" in browser.lines[0]
    browser.visit(lambda: (state.cookies.delete("x"), state.cookies.set("x", 2)))
    assert len(browser.lines) == 1
    assert browser.ask(lambda: state.cookies["x"]) == 2


# What browsers refuse


@pytest.mark.parametrize("name", ["", "a b", "a=b", "a;b", "a,b", 'a"b', "ä", "a\n", "a/b", "x" * 5000])
@pytest.mark.parametrize("jar", ["", "signed", "plain"])
def test_a_name_must_be_one(browser: Browser, name: str, jar: str) -> None:
    """Writing another is an error that says what names are made of; reading finds nothing."""
    assert "a cookie's name is made of letters, digits" in refused(browser, name=name, jar=jar)
    state = t.cast("Stateful", browser.app.extensions["state"])
    assert browser.ask(lambda: [state.cookies.get(name), name in state.cookies.plain]) == [None, False]


def test_a_name_must_be_text(browser: Browser) -> None:
    """Another type is a TypeError."""
    assert refused(browser, name=3) == "a cookie's name must be str, not int"


@pytest.mark.parametrize("prefix", ["__Host-", "__HOST-", "__host-Http-", "__Secure-", "__http-"])
@pytest.mark.parametrize("jar", ["", "signed", "plain"])
def test_a_prefix_given_by_hand_needs_https(browser: Browser, prefix: str, jar: str) -> None:
    """In upper and lower case alike, as browsers see it; over HTTPS it is set, and never doubled."""
    text = refused(browser, name=f"{prefix}x", jar=jar, base_url="http://shop.example")
    assert f"browsers take the name '{prefix}x' only with Secure; serve it by HTTPS" in text
    state = t.cast("Stateful", browser.app.extensions["state"])
    target = getattr(state.cookies, jar) if jar else state.cookies
    browser.visit(lambda: target.set(f"{prefix}x", "1", httponly=True))
    assert browser.names == {f"{prefix}x"}
    assert browser.ask(lambda: target.get(f"{prefix}x"), cookie=browser.lines[0].partition(";")[0]) == "1"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"name": "__Host-x", "path": "/a"}, 'only with path="/" and without domain='),
        ({"name": "__hOST-x", "domain": "a.example"}, 'only with path="/" and without domain='),
        ({"name": "__Host-Http-x", "path": "/a"}, 'only with path="/" and without domain='),
        ({"name": "__Http-x", "httponly": False}, "only with httponly=True"),
        ({"name": "__Host-Http-x", "jar": "plain"}, "only with httponly=True"),
        ({"name": "__Secure-x", "secure": False}, "only with Secure"),
        ({"secure": False}, "browsers take the name '__Host-x' only with Secure"),
        ({"samesite": "None", "secure": False, "jar": "plain"}, 'samesite="None" only with Secure'),
        ({"partitioned": True, "base_url": "http://a.example"}, "partitioned=True and"),
        ({"max_age": 0}, "to remove the cookie, write delete(name)"),
        ({"max_age": -1}, "must be more than 0"),
        ({"max_age": float("nan")}, "must be more than 0"),
        ({"max_age": timedelta(days=400, seconds=1)}, "at most 400 days (34,560,000 seconds)"),
        ({"max_age": MAX_AGE + 1}, "at most 400 days"),
        ({"max_age": "60"}, "max_age= must be seconds, a timedelta or None, not str"),
        ({"max_age": True}, "max_age= must be seconds, a timedelta or None, not bool"),
        ({"path": "a"}, 'path= must begin with "/"'),
        ({"path": "/a; Secure"}, "path= must"),
        ({"path": "/a\r\nX: 1"}, "path= must"),
        ({"path": "/ä"}, "percent-encoded"),
        ({"path": None}, "path= must"),
        ({"path": "/" + "x" * 1024}, "at most 1,024 characters"),
        ({"domain": "https://a.example"}, 'write domain="example.com"'),
        ({"domain": "a.example:80"}, 'write domain="example.com"'),
        ({"domain": "a; Path=/"}, "domain= must be a domain"),
        ({"domain": ""}, "domain= must be a domain"),
        ({"domain": 5}, "domain= must be a domain"),
        ({"samesite": "lax"}, "samesite= must be 'Lax', 'Strict' or 'None'"),
        ({"samesite": None}, "samesite= must be"),
        ({"secure": 1}, "secure= must be None, True or False"),
        ({"httponly": None}, "httponly= must be True or False"),
        ({"overflow": "chunk"}, "overflow= must be 'error' or 'spill'"),
        ({"overflow": "spill", "jar": "signed"}, 'overflow="spill" hides the value in the store; use state.cookies'),
        ({"owner": 7}, "owner= must be str, not int; write owner=str(...)"),
        ({"purpose": None}, "purpose= must be 'necessary'"),
        ({"maxage": 7}, "maxage= is no option of a cookie; did you mean max_age=?"),
        ({"prefix": "x"}, "prefix= is no option of a cookie"),
        ({"q": 7}, "q= is no option of a cookie; there are max_age, path"),
    ],
)
def test_what_browsers_refuse_is_an_error(browser: Browser, options: dict[str, t.Any], text: str) -> None:
    """The text names the option and says what to write."""
    assert text in refused(browser, **options)


def test_the_limits_themselves_are_allowed() -> None:
    """400 days, an attribute of 1,024 octets, and the shortest time, which is one second."""
    assert Options().but({"max_age": timedelta(days=400)}).max_age == MAX_AGE
    assert len(Options().but({"path": "/" + "x" * 1023}).path) == 1024
    assert Options().but({"max_age": 0.1}).max_age == 1


def test_secure_can_be_said_where_a_proxy_hides_https(insecure: Browser, state: Stateful) -> None:
    """The request looks like HTTP, so the name has no prefix, and the cookie is Secure all the same."""
    insecure.visit(lambda: state.cookies.set("x", 1, secure=True))
    assert insecure.names == {"x"}
    assert insecure.lines[0].endswith("; Secure")


def test_session_settings_do_not_reach_these_cookies() -> None:
    """``SESSION_COOKIE_*`` and ``APPLICATION_ROOT`` are for the session: ours have the path ``/`` unless said."""
    settings = {"SESSION_COOKIE_PATH": "/s", "SESSION_COOKIE_DOMAIN": "s.example", "APPLICATION_ROOT": "/root"}
    browser = Browser(app := make_app(SESSION_COOKIE_SAMESITE="Strict", **settings))
    browser.visit(lambda: app.extensions["state"].cookies.plain.set("x", "1"))
    assert browser.lines == ["x=1; Path=/; SameSite=Lax; Secure"]
