"""What was measured to be wrong with the session extension in use today, each as a test: B1 to B25.

Those that are about other kinds of stores (B13, B17 and B19 in part, B18's server) and the listing of sessions (B23 in
part) are not here.
"""

from __future__ import annotations

import json
import os
import pickle
import typing as t
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from http.cookies import SimpleCookie
from uuid import UUID

import pytest
import redis
from flask import Flask, Response, request, session, stream_with_context
from markupsafe import Markup
from werkzeug.test import TestResponse

from flask_stateful import ConfigError, StateClosed, Stateful, ValueTooLarge, signals
from flask_stateful.errors import EncodeError
from flask_stateful.sessions.record import TOMBSTONE
from flask_stateful.stores.base import Store
from flask_stateful.stores.redis import RedisStore
from flask_stateful.testing import FakeClock
from tests.services import Launch, Redis

from .conftest import MakeApp, MakeVisitor
from .support import InterruptedStore, Visitor, session_cookies, stored_key


@pytest.fixture
def ada(visitor: Visitor, state: Stateful) -> Visitor:
    """A visitor who is logged in, in a permanent session, whose cookie is refreshed as Flask does by default."""
    visitor.visit(
        lambda: (session.update(name="Ada"), setattr(session, "permanent", True), state.sessions.login("ada"))
    )
    return visitor


# Requests that race


def test_b01_two_requests_write_different_keys(ada: Visitor) -> None:
    """B1: both keys are kept."""
    late = ada.start(lambda pause: (session["name"], pause(), session.update(a=1)))
    ada.visit(lambda: session.update(b=1))
    late.finish()
    assert ada.ask(lambda: (session["a"], session["b"])) == (1, 1)


def test_b02_slow_reader(ada: Visitor) -> None:
    """B2: a slow request that only reads does not undo another one's write."""
    late = ada.start(lambda pause: (session["name"], pause()))
    ada.visit(lambda: session.update(name="Grace"))
    late.finish()
    assert ada.ask(lambda: session["name"]) == "Grace"


def test_b03_slow_request_that_never_touches_the_session(ada: Visitor) -> None:
    """B3: a slow request that has nothing to do with the session does not undo another one's write."""
    late = ada.start(lambda pause: pause())
    ada.visit(lambda: session.update(name="Grace"))
    late.finish()
    assert ada.ask(lambda: session["name"]) == "Grace"


@pytest.mark.parametrize("work", [lambda: None, lambda: session.update(late=1)], ids=["reads", "writes"])
def test_b04_logout_while_a_request_is_in_flight(
    ada: Visitor, state: Stateful, make_visitor: MakeVisitor, work: t.Callable[[], None]
) -> None:
    """B4: the session is not resurrected, and its cookie not sent again."""
    copy = make_visitor(ada.app, cookies_of=ada)
    late = ada.start(lambda pause: (session["name"], pause(), work()))
    ada.visit(lambda: state.sessions.logout())
    assert session_cookies(late.finish()) == []
    assert ada.cookie is None
    assert copy.ask(lambda: (dict(session), state.user_id)) == ({}, None)


@pytest.mark.parametrize("work", [lambda: None, lambda: session.update(late=1)], ids=["reads", "writes"])
def test_b05_login_while_a_request_is_in_flight(
    ada: Visitor, state: Stateful, make_visitor: MakeVisitor, work: t.Callable[[], None]
) -> None:
    """B5: the old id is not created again, and the browser keeps the new one."""
    copy = make_visitor(ada.app, cookies_of=ada)
    late = ada.start(lambda pause: (session["name"], pause(), work()))
    ada.visit(lambda: state.sessions.login("ada"))
    cookie = ada.cookie
    assert cookie != copy.cookie
    assert session_cookies(late.finish()) == []
    assert ada.cookie == cookie
    assert copy.ask(lambda: (dict(session), state.user_id)) == ({}, None)
    assert ada.ask(lambda: (session["name"], state.user_id)) == ("Ada", "ada")


# Ids and cookies


def test_b06_clear_then_rotate(ada: Visitor, state: Stateful, make_visitor: MakeVisitor) -> None:
    """B6: a session that is cleared, rotated and written to has a new id, and the old one is dead."""
    copy = make_visitor(ada.app, cookies_of=ada)
    ada.visit(lambda: (session.clear(), state.sessions.rotate(), session.update(user=1)))
    assert ada.cookie not in (None, copy.cookie)
    assert ada.ask(lambda: session["user"]) == 1
    assert copy.ask(lambda: dict(session)) == {}


def cookie_options(response: TestResponse) -> dict[str, object]:
    """Return what the one Set-Cookie header of a response says, but for the value and the expiry."""
    (header,) = response.headers.getlist("Set-Cookie")
    ((name, morsel),) = SimpleCookie(header.replace("; Partitioned", "")).items()
    said = {key: value for key, value in morsel.items() if value and key not in ("expires", "max-age")}
    return {"name": name, "partitioned": "; Partitioned" in header, **said}


COOKIE = {
    "SESSION_COOKIE_NAME": "__Host-id",
    "SESSION_COOKIE_SECURE": True,
    "SESSION_COOKIE_SAMESITE": "None",
    "SESSION_COOKIE_PARTITIONED": True,
}


@pytest.mark.parametrize("config", [COOKIE, COOKIE | {"SESSION_COOKIE_PARTITIONED": False}, {}])
def test_b07_cookie_is_removed_as_it_was_set(
    make_app: MakeApp, make_visitor: MakeVisitor, store: Store, config: dict[str, t.Any]
) -> None:
    """B7: the removal has every option of the cookie, without which a browser ignores it."""
    visitor = make_visitor(make_app(store, **config))
    set_by = visitor.visit(lambda: session.update(name="Ada"), base_url="https://localhost")
    removed_by = visitor.visit(lambda: session.clear(), base_url="https://localhost")
    assert cookie_options(removed_by) == cookie_options(set_by)
    assert "Max-Age=0" in removed_by.headers["Set-Cookie"]


def test_b08_partitioned_cookie(make_app: MakeApp, make_visitor: MakeVisitor, store: Store) -> None:
    """B8: SESSION_COOKIE_PARTITIONED is honoured, along with the others."""
    visitor = make_visitor(make_app(store, **COOKIE))
    response = visitor.visit(lambda: session.update(name="Ada"), base_url="https://localhost")
    assert cookie_options(response) == {
        "name": "__Host-id",
        "path": "/",
        "secure": True,
        "httponly": True,
        "samesite": "None",
        "partitioned": True,
    }


# What the store holds


class Gadget:
    """Something that runs when it is unpickled."""

    def __reduce__(self) -> tuple[t.Any, ...]:
        return os.mkdir, (self.path,)

    def __init__(self, path: str) -> None:
        self.path = path


DAMAGE: dict[str, t.Callable[[bytes], bytes]] = {
    "random bytes": lambda data: os.urandom(len(data)),
    "nothing": lambda data: b"",
    "one byte": lambda data: data[:1],
    "cut": lambda data: data[: len(data) // 2],
    "longer": lambda data: data + b"\0",
    "flipped bit in the header": lambda data: data[:30] + bytes([data[30] ^ 1]) + data[31:],
    "flipped bit in the body": lambda data: data[:-1] + bytes([data[-1] ^ 1]),
    "cut JSON": lambda data: json.dumps({"name": "Ada"}).encode()[:-3],
    "JSON list": lambda data: b'["name", "Ada"]',
    "MessagePack number": lambda data: b"\x07",
    "cut pickle": lambda data: pickle.dumps({"name": "Ada"})[:-3],
    "unknown class": lambda data: (
        b"\x80\x04\x95\x11\x00\x00\x00\x00\x00\x00\x00\x8c\x03nix\x94\x8c\x03Nix\x94\x93\x94."
    ),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_b09_damaged_record(ada: Visitor, store: Store, damage: t.Callable[[bytes], bytes]) -> None:
    """B9: the visitor gets a fresh session, the record goes, and one signal tells of it."""
    key, cookie = stored_key(ada), ada.cookie
    data = store.get(key)
    assert data is not None
    store.set(key, damage(data), 60)
    told: list[object] = []
    with signals.session_corrupt.connected_to(lambda _, **details: told.append(details)):
        assert ada.ask(lambda: dict(session)) == {}
        assert store.get(key) is None
        ada.visit(lambda: session.update(name="Grace"))
    assert len(told) == 1
    assert ada.cookie != cookie
    assert ada.ask(lambda: dict(session)) == {"name": "Grace"}


def test_b10_pickle_in_the_store(ada: Visitor, store: Store, tmp_path: t.Any) -> None:
    """B10: pickled bytes in the store are not run."""
    trap = tmp_path / "sprung"
    store.set(stored_key(ada), pickle.dumps({"name": Gadget(str(trap))}), 60)
    assert ada.ask(lambda: dict(session)) == {}
    assert not trap.exists()


VALUES = {
    "tuple": (1, ("two", b"three")),
    "set": {1, 2},
    "frozenset": frozenset({(1,)}),
    "bytes": b"\x00\xff",
    "naive": datetime(2026, 3, 29, 2, 30),
    "aware": datetime(2026, 3, 29, 2, 30, 0, 1, tzinfo=UTC),
    "date": date(2026, 3, 29),
    "timedelta": timedelta(days=1, microseconds=1),
    "decimal": Decimal("1.10"),
    "uuid": UUID(int=1),
    "markup": Markup("<b>"),
    "big": 2**64,
    "negative": -(2**70),
    "int keys": {1: "one", 2: {3: "three"}},
    "nested": [{"a": (1, [Decimal("2")])}],
    "none": None,
}


def test_b11_values_come_back_as_they_were(visitor: Visitor) -> None:
    """B11: every value has the type it had, nested values too, and the keys their order."""
    visitor.visit(lambda: session.update(VALUES, nan=float("nan")))
    found = visitor.ask(lambda: dict(session))
    nan = found.pop("nan")
    assert type(nan) is float
    assert nan != nan
    assert found == VALUES
    assert repr(found) == repr(VALUES)


def test_b12_value_that_cannot_be_stored(
    clock: FakeClock, make_app: MakeApp, make_visitor: MakeVisitor, interrupted: InterruptedStore
) -> None:
    """B12: the error is raised where the value is assigned, names the key, and costs neither a wait nor a call."""
    visitor = make_visitor(make_app(interrupted))
    errors: list[EncodeError] = []

    def view() -> None:
        with pytest.raises(EncodeError) as caught:
            session["cart"] = [1, object()]
        errors.append(caught.value)
        raise caught.value

    began = clock.monotonic()
    response = visitor.visit(view)
    assert response.status_code == 500
    assert "session['cart'][1]" in str(errors[0])
    assert clock.monotonic() == began
    assert not interrupted.calls
    assert session_cookies(response) == []


def test_b12_value_that_cannot_be_stored_any_more(
    clock: FakeClock, make_app: MakeApp, make_visitor: MakeVisitor, interrupted: InterruptedStore
) -> None:
    """B12: a change in place that cannot be stored is an error that names the place, and nothing is saved."""
    app = make_app(interrupted)
    app.register_error_handler(EncodeError, lambda error: (str(error), 500))
    visitor = make_visitor(app)
    visitor.visit(lambda: session.update(cart=[1], name="Ada"))
    interrupted.reset()
    began = clock.monotonic()
    response = visitor.visit(lambda: (session.update(name="Grace"), session["cart"].append(object())))
    assert response.status_code == 500
    assert "session['cart'][1]" in response.text
    assert clock.monotonic() == began
    assert interrupted.calls == {"get": 1}
    assert visitor.ask(lambda: dict(session)) == {"cart": [1], "name": "Ada"}


# What the store is asked


def test_b14_requests_that_do_not_use_the_session(
    make_app: MakeApp, make_visitor: MakeVisitor, interrupted: InterruptedStore
) -> None:
    """B14: ten requests and ten static files, with a session's cookie, call no store and set no cookie."""
    visitor = make_visitor(make_app(interrupted))
    visitor.visit(lambda: (session.update(name="Ada"), setattr(session, "permanent", True)))
    interrupted.reset()
    for _ in range(10):
        responses = [visitor.visit(lambda: "page"), visitor.client.get("/static/missing.css")]
        for response in responses:
            assert "Set-Cookie" not in response.headers
            assert "Vary" not in response.headers
    assert not interrupted.calls


def test_b15_store_is_down(make_app: MakeApp, make_visitor: MakeVisitor, interrupted: InterruptedStore) -> None:
    """B15: with a store that is down, a page that does not use the session works; one that does answers 503."""
    visitor = make_visitor(make_app(interrupted))
    visitor.visit(lambda: session.update(name="Ada"))
    interrupted.fail("unavailable")
    assert visitor.visit(lambda: "page").text == "page"
    assert visitor.client.get("/static/missing.css").status_code == 404
    assert visitor.visit(lambda: session["name"]).status_code == 503
    assert visitor.visit(lambda: session.update(name="Grace")).status_code == 503


def test_b15_redis_is_killed(make_app: MakeApp, make_visitor: MakeVisitor, launch: Launch) -> None:
    """B15: with a Redis that was killed, a page that does not use the session works; one that does answers 503."""
    server = launch(Redis)
    visitor = make_visitor(make_app(server.url))
    visitor.visit(lambda: session.update(name="Ada"))
    server.kill()
    assert visitor.visit(lambda: "page").text == "page"
    assert visitor.visit(lambda: session["name"]).status_code == 503


HOSTILE = {
    "300 characters": "a" * 300,
    "8 KiB": "a" * 8192,
    "space": "a b",
    "NUL": "a\0b",
    "line break": "a\r\nb",
    "UTF-8": "ä€😀",
    "quotes": '"a\'b"',
    "percent": "%00%0d",
    "dots": "..",
    "right shape": "00000000.{}.{}".format("a" * 43, "0" * 16),
    "nothing": "",
}


@pytest.mark.parametrize("value", HOSTILE.values(), ids=HOSTILE)
def test_b16_b18_hostile_cookie(
    make_app: MakeApp, make_visitor: MakeVisitor, interrupted: InterruptedStore, value: str
) -> None:
    """B16, B18: a cookie that is not of our making costs no call and no error, and the visitor gets a new id."""
    visitor = make_visitor(make_app(interrupted))
    # A client that keeps cookies would send its own header, none at all, in place of this one.
    visitor.client = visitor.app.test_client(use_cookies=False)
    cookie = {"HTTP_COOKIE": f"session={value}".encode().decode("latin-1")}
    assert visitor.ask(lambda: request.environ["HTTP_COOKIE"], environ_overrides=cookie) == cookie["HTTP_COOKIE"]
    assert visitor.ask(lambda: dict(session), environ_overrides=cookie) == {}
    assert not interrupted.calls
    response = visitor.visit(lambda: session.update(name="Ada"), environ_overrides=cookie)
    assert response.status_code == 200
    assert len(session_cookies(response)) == 1


def test_b17_session_of_two_megabytes(make_app: MakeApp, make_visitor: MakeVisitor, store: Store) -> None:
    """B17: a session that is too large is an error that names its biggest key, and the stored one stays."""
    app = make_app(store)
    app.register_error_handler(ValueTooLarge, lambda error: (str(error), 500))
    visitor = make_visitor(app)
    visitor.visit(lambda: session.update(name="Ada"))
    half = "x" * (1024 * 1024 - 1000)
    at_once = visitor.visit(lambda: session.update(big=half * 2))
    together = visitor.visit(lambda: session.update(big=half, bigger=half + "x" * 100))
    assert (at_once.status_code, together.status_code) == (500, 500)
    assert "session['big']" in at_once.text
    assert "'bigger'" in together.text
    assert session_cookies(together) == []
    assert visitor.ask(lambda: dict(session)) == {"name": "Ada"}


def test_b19_unknown_id(ada: Visitor, store: Store) -> None:
    """B19: an id of our making that the store does not know is no error, and is not adopted."""
    cookie = ada.cookie
    store.delete(stored_key(ada))
    assert ada.ask(lambda: dict(session)) == {}
    ada.visit(lambda: session.update(name="Grace"))
    assert ada.cookie not in (None, cookie)


def test_b20_many_users(make_visitor: MakeVisitor, app: Flask) -> None:
    """B20: the sessions of 520 users are all there, the first too."""
    visitors = [make_visitor(app) for _ in range(520)]
    for number, visitor in enumerate(visitors):
        visitor.visit(lambda: session.update(number=number))  # noqa: B023
    assert [visitor.ask(lambda: session["number"]) for visitor in visitors] == list(range(520))


def test_b21_client_that_was_given(make_app: MakeApp, make_visitor: MakeVisitor, redis_server: Redis) -> None:
    """B21: a Redis client that was given is the one that is used, and is left open."""
    with redis.Redis(port=redis_server.port, db=7) as client:
        client.flushdb()
        store = RedisStore(client)
        visitor = make_visitor(make_app(store))
        visitor.visit(lambda: session.update(name="Ada"))
        assert client.exists(stored_key(visitor)) == 1
        store.close()
        assert client.ping() is True


@pytest.mark.parametrize("client", [object(), {}, None, "localhost"])
def test_b21_client_that_is_none(client: object) -> None:
    """B21: what is no client is an error, and nobody is connected to the local machine instead."""
    with pytest.raises(ConfigError):
        RedisStore(client)


def test_b22_dump_of_the_store(ada: Visitor, store: Store, make_visitor: MakeVisitor) -> None:
    """B22: who holds the store has no cookie that works, and reads neither data nor users."""
    ada.visit(lambda: session.update(secret="xyzzy"))
    dump = b"".join(key.encode() + (store.get(key) or b"") for key in store.scan("tests:session:"))
    assert ada.cookie is not None
    assert dump
    for part in (*ada.cookie.split("."), "xyzzy", "secret", "ada", "Ada", "127.0.0.1"):
        assert part.encode() not in dump
    for key in store.scan("tests:session:"):
        thief = make_visitor(ada.app)
        thief.cookie = key.removeprefix("tests:session:")
        assert thief.ask(lambda: dict(session)) == {}


# Time


def test_b23_absolute_lifetime(
    clock: FakeClock, make_app: MakeApp, make_visitor: MakeVisitor, store: Store, state: Stateful
) -> None:
    """B23: a session ends when its lifetime is over, however much it is used, and a new id does not prolong it."""
    app = make_app(store, STATEFUL_SESSION_IDLE_TIMEOUT=60, STATEFUL_SESSION_LIFETIME=100)
    visitor = make_visitor(app)
    visitor.visit(lambda: session.update(name="Ada"))
    clock.advance(50)
    visitor.visit(lambda: state.sessions.rotate())
    clock.advance(49)
    assert visitor.ask(lambda: session["name"]) == "Ada"
    clock.advance(1)
    assert visitor.ask(lambda: dict(session)) == {}


def test_b23_what_is_known_of_a_session(clock: FakeClock, visitor: Visitor, state: Stateful) -> None:
    """B23: a session knows its user, its times, and where it was last used."""
    began = datetime.fromtimestamp(clock.now(), UTC)
    visitor.visit(lambda: state.sessions.login("ada"))
    info = visitor.ask(lambda: state.sessions.current)
    assert (info.user_id, info.ip, info.current) == ("ada", "127.0.0.1", True)
    assert info.user_agent.startswith("Werkzeug/")
    assert (info.created_at, info.last_seen_at) == (began, began)
    assert info.expires_at == began + visitor.app.permanent_session_lifetime


def test_b23_events(visitor: Visitor, state: Stateful) -> None:
    """B23: the life of a session can be followed by its signals, under names that open nothing."""
    told: list[tuple[str, dict[str, str]]] = []

    def listen(name: str) -> t.Any:
        return getattr(signals, name).connected_to(lambda _, **details: told.append((name, details)))

    with listen("session_created"), listen("session_rotated"), listen("session_destroyed"):
        visitor.visit(lambda: session.update(name="Ada"))
        first = visitor.cookie
        visitor.visit(lambda: state.sessions.login("ada"))
        second = visitor.cookie
        visitor.visit(lambda: state.sessions.logout())
    (created, rotated, destroyed) = told
    assert [name for name, _ in told] == ["session_created", "session_rotated", "session_destroyed"]
    assert created[1]["reference"] == rotated[1]["previous"]
    assert rotated[1]["reference"] == destroyed[1]["reference"]
    assert destroyed[1]["reason"] == "logout"
    for details in (created[1], rotated[1], destroyed[1]):
        for value in details.values():
            assert value not in (first or "")
            assert value not in (second or "")


@pytest.mark.parametrize("permanent", [False, True])
@pytest.mark.parametrize("lifetime", [timedelta(0), timedelta(seconds=0.5), timedelta(seconds=-1)])
def test_b24_lifetime_below_a_second(
    clock: FakeClock,
    make_app: MakeApp,
    make_visitor: MakeVisitor,
    store: Store,
    lifetime: timedelta,
    permanent: bool,
) -> None:
    """B24: a PERMANENT_SESSION_LIFETIME below one second is no error; the session has gone when it is over."""
    visitor = make_visitor(make_app(store, PERMANENT_SESSION_LIFETIME=lifetime))
    response = visitor.visit(lambda: (session.update(name="Ada"), setattr(session, "permanent", permanent)))
    assert response.status_code == 200
    clock.advance(0.5)
    assert visitor.ask(lambda: dict(session)) == {}


class RunningClock(FakeClock):
    """A clock on which time passes while it is asked."""

    def now(self) -> float:
        self.advance(0.001)
        return super().now()


def test_b24_lifetime_that_is_over_at_once(make_app: MakeApp, make_visitor: MakeVisitor, store: Store) -> None:
    """B24: a session whose lifetime is over before it is written is no error."""
    with RunningClock():
        visitor = make_visitor(make_app(store, PERMANENT_SESSION_LIFETIME=timedelta(0)))
        assert visitor.visit(lambda: session.update(name="Ada")).status_code == 200
        assert visitor.visit(lambda: session.update(name="Grace")).status_code == 200


@pytest.mark.parametrize("looked_before", [False, True])
def test_b25_write_in_a_streamed_body(visitor: Visitor, looked_before: bool) -> None:
    """B25: a write in a streamed body is an error; what the view has written before is saved."""

    def view() -> Response:
        if looked_before:
            session["before"] = 1

        def body() -> t.Iterator[str]:
            yield "first"
            session["inside"] = 1
            yield "second"

        return Response(stream_with_context(body()))

    response = visitor.visit(view, buffered=False)
    with pytest.raises(StateClosed, match="before the view returns"):
        response.get_data()
    assert visitor.ask(lambda: dict(session)) == ({"before": 1} if looked_before else {})


def test_store_of_an_ended_session_is_small(ada: Visitor, store: Store, state: Stateful) -> None:
    """What stays of a session that has ended is one byte, which says so."""
    key = stored_key(ada)
    ada.visit(lambda: state.sessions.logout())
    assert store.get(key) == TOMBSTONE
    assert len(TOMBSTONE) == 1
