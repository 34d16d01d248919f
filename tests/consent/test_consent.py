"""Consent: what a visitor has not agreed to lives for the request, and in the browser for the page."""

from __future__ import annotations

import typing as t

import pytest
from flask import Flask, render_template_string, request
from flask.testing import FlaskClient

from flask_stateful import CookieState, LocalState, Stateful, field, signals
from flask_stateful.errors import StateClosed
from flask_stateful.stores.memory import MemoryStore
from flask_stateful.testing import FakeBrowser, FaultyStore


class Look(LocalState, purpose="preferences"):
    """Mirrored, for those who agree."""

    dark: bool = False
    notes: str = field("", max_bytes=2000)


class Visits(CookieState, purpose="analytics"):
    """Counted, for those who agree."""

    count: int = 0


class Basket(LocalState):
    """Necessary."""

    size: int = 0


look, visits, basket = Look(), Visits(), Basket()


@pytest.fixture
def store() -> FaultyStore:
    """Where everything is kept."""
    return FaultyStore(MemoryStore())


@pytest.fixture
def app(store: FaultyStore) -> Flask:
    """An application that asks before it keeps."""
    app = Flask(__name__)
    app.config.update(SECRET_KEY="a secret of the tests", STATEFUL_STORE=store, STATEFUL_NAMESPACE="shop", TESTING=True)
    state = Stateful(app, declared=[Look, Visits, Basket])

    @app.get("/")
    def page() -> str:
        return render_template_string("<head>{{ stateful() }}</head>")

    @app.get("/write")
    def write() -> str:
        look.dark, look.notes, visits.count, basket.size = True, "private", visits.count + 1, 3
        state.cookies.set("seen", "much", purpose="marketing")
        return f"{look.dark} {look.notes} {visits.count} {basket.size} {state.cookies['seen']}"

    @app.get("/read")
    def read() -> str:
        return f"{look.dark} {look.notes} {visits.count} {basket.size} {state.cookies.get('seen')}"

    @app.get("/grant")
    def grant() -> str:
        visits.count += 1
        state.consent.grant(*t.cast("t.Any", request.args.getlist("for")))
        return "granted"

    @app.get("/withdraw")
    def withdraw() -> str:
        state.consent.withdraw(*t.cast("t.Any", request.args.getlist("for")))
        return "withdrawn"

    @app.get("/has")
    def has() -> dict[str, bool]:
        return {name: state.consent.has(t.cast("t.Any", name)) for name in request.args.getlist("for")}

    return app


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    """A visitor who was not asked yet."""
    return app.test_client()


ALL = "for=preferences&for=analytics&for=marketing"


def names_set(client: FlaskClient, path: str) -> set[str]:
    """Return the names of the cookies that an answer sets, not of those it removes."""
    lines = client.get(path).headers.getlist("Set-Cookie")
    return {line.partition("=")[0] for line in lines if "Max-Age=0" not in line}


def test_without_consent_nothing_is_kept(client: FlaskClient) -> None:
    """What is not necessary can be read in the request that has written it, and reaches neither browser nor store."""
    answer = client.get("/write")
    assert answer.text == "True private 1 3 much"
    names = {line.partition("=")[0] for line in answer.headers.getlist("Set-Cookie")}
    assert not [name for name in names if "look" in name or name in ("visits", "seen")]
    assert [name for name in names if "basket" in name]
    assert client.get("/read").text == "False  0 3 None"


def test_without_consent_nothing_is_said_to_have_changed(client: FlaskClient) -> None:
    """A change that is not kept is not signalled."""
    heard: list[str] = []

    def listen(sender: object, name: str, **more: object) -> None:
        heard.append(name)

    with signals.state_changed.connected_to(listen):
        client.get("/write")
    assert heard == ["basket.size"]


def test_with_consent_it_is_kept(client: FlaskClient) -> None:
    """Whoever has agreed finds everything again."""
    client.get(f"/grant?{ALL}")
    client.get("/write")
    assert client.get("/read").text == "True private 2 3 much"


def test_a_grant_keeps_what_its_request_has_written(client: FlaskClient) -> None:
    """The request that brings the consent keeps what it has written before."""
    client.get("/grant?for=analytics")
    assert client.get("/read").text == "False  1 0 None"


def test_each_purpose_is_its_own(client: FlaskClient) -> None:
    """Agreeing to one purpose agrees to no other."""
    client.get("/grant?for=preferences")
    client.get("/write")
    assert client.get("/read").text == "True private 0 3 None"
    assert client.get("/has?for=preferences&for=analytics&for=marketing&for=necessary").json == {
        "preferences": True,
        "analytics": False,
        "marketing": False,
        "necessary": True,
    }


def test_a_withdrawal_removes_what_was_kept(app: Flask) -> None:
    """Cookies, mirrors, storage and the server's copies of a purpose are gone; those of others stay."""
    browser = FakeBrowser(app)
    tab = browser.open("/")
    tab.get(f"/grant?{ALL}")
    tab.get("/write")
    tab.get("/")
    assert (tab.local.look.dark, tab.local.look.notes, tab.local.basket.size) == (True, "private", 3)
    tab.get("/withdraw?for=preferences&for=analytics")
    tab.get("/")
    assert (tab.local.look.dark, tab.local.look.notes, tab.local.basket.size) == (False, "", 3)
    assert not [name for name in browser.storage if "look" in name]
    assert browser.client.get_cookie("fs.shop.look.dark") is None
    assert browser.client.get_cookie("visits") is None
    assert tab.get("/read").text == "False  0 3 much"


def test_scripts_heed_the_answer(app: Flask) -> None:
    """What a script assigns without consent stays in its page: not in storage, in no cookie, not on the server."""
    browser = FakeBrowser(app)
    tab = browser.open("/")
    tab.local.look.notes = "private"
    tab.local.look.dark = True
    assert tab.local.look.notes == "private"
    assert not [name for name in browser.storage if "look" in name]
    assert tab.get("/read").text == "False  0 0 None"


def test_what_is_pushed_without_consent_is_dropped(app: Flask, client: FlaskClient) -> None:
    """A script that does not heed the answer is not obeyed."""
    push = {"t": "00c0ffee", "p": {"look.notes": ["private", 0, 5], "basket.size": [4, 0, 5]}}
    answer = client.post("/_state", json=push, headers={"X-State": "1", "Sec-Fetch-Site": "same-origin"})
    assert answer.status_code == 200
    assert client.get("/read").text == "False  0 4 None"


def test_what_is_necessary_asks_nobody(client: FlaskClient) -> None:
    """A page that keeps only what is necessary does not read the answer."""
    page = client.get("/")
    assert "Vary" not in page.headers
    assert not page.headers.getlist("Set-Cookie")


@pytest.mark.parametrize("purpose", ["", "necessary", "Analytics", "everything", "analytics.marketing"])
def test_a_wrong_purpose_is_named(app: Flask, purpose: str) -> None:
    """A purpose that nobody can agree to is an error which names those that exist."""
    state = t.cast("Stateful", None)
    with app.test_request_context():
        state = Stateful.__new__(Stateful)
        Stateful.__init__(state)
        for act in (state.consent.grant, state.consent.withdraw):
            with pytest.raises(ValueError, match='write one of "preferences", "analytics", "marketing"'):
                act(t.cast("t.Any", purpose))
            with pytest.raises(ValueError, match="a purpose is missing"):
                act()


FORGED = ["", ".", "...", "necessary", "__proto__", "analytics%00", "é", "a" * 5000, "x.y.z" * 99]


@pytest.mark.parametrize("value", FORGED)
def test_a_forged_answer_is_no_consent(client: FlaskClient, value: str) -> None:
    """A cookie that says something else than purposes grants nothing."""
    header = {"Cookie": f"fs.shop._c={value}".encode().decode("latin-1")}
    assert client.get("/has?for=analytics", headers=header).json == {"analytics": False}
    assert client.get("/write", headers=header).status_code == 200


def test_an_answer_after_the_response_is_refused(app: Flask) -> None:
    """Consent that comes too late to be sent is an error."""
    state = Stateful()
    held: list[t.Callable[[], None]] = []

    @app.get("/late")
    def late() -> t.Any:
        def body() -> t.Iterator[str]:
            yield "a"
            with pytest.raises(StateClosed):
                state.consent.grant("analytics")
            held.append(lambda: None)

        from flask import stream_with_context

        return app.response_class(stream_with_context(body()))

    assert app.test_client().get("/late").text == "a"
    assert held


def test_on_https_only_a_host_cookie_counts(client: FlaskClient) -> None:
    """A subdomain that plants an answer under the plain name is not believed."""
    options: dict[str, t.Any] = {"base_url": "https://localhost"}
    planted = {"Cookie": "fs.shop._c=analytics"}
    assert client.get("/has?for=analytics", headers=planted, **options).json == {"analytics": False}
    client.get("/grant?for=analytics", **options)
    assert client.get("/has?for=analytics", **options).json == {"analytics": True}
    assert client.get_cookie("__Host-fs.shop._c") is not None
