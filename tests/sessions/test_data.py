"""What a session can hold, how much, and what happens to what the store holds of it (H15 to H23)."""

from __future__ import annotations

import collections
import copy
import dataclasses
import enum
import gc
import logging
import os
import typing as t
import weakref
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
import pytest
from flask import Flask, Response, flash, get_flashed_messages, session
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from markupsafe import Markup

from flask_stateful import Stateful, ValueTooLarge, signals
from flask_stateful.errors import EncodeError
from flask_stateful.sealing import Keyring
from flask_stateful.serialization import dumps
from flask_stateful.sessions import ids
from flask_stateful.sessions.record import RecordSeal
from flask_stateful.stores.base import Store
from flask_stateful.stores.memory import MemoryStore
from flask_stateful.testing import FakeClock, FaultyStore
from tests.unit import test_ids, test_record
from tests.unit.values import exact, values

from .conftest import MakeApp, MakeVisitor
from .support import Visitor, session_cookies, stored_key

SECRET = "a secret of 32 characters at least"

#: One application serves all examples, and time says nothing about a test.
HYPOTHESIS = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@pytest.fixture
def ada(visitor: Visitor) -> Visitor:
    """A visitor with a session, in one store after the other."""
    visitor.visit(lambda: session.update(name="Ada", cart=[1]))
    return visitor


def rewrite(store: Store, key: str, change: Callable[[bytes], bytes]) -> None:
    """Change what the store holds at a key."""
    data = store.get(key)
    assert data is not None
    store.set(key, change(data), 3600)


def sealed(visitor: Visitor, body: bytes) -> Callable[[bytes], bytes]:
    """Return what puts another body, sealed as we do it, into a visitor's record."""
    assert visitor.cookie
    cipher = Keyring(SECRET).current.cipher("session body", visitor.cookie.split(".")[1].encode())

    def put(data: bytes) -> bytes:
        start = data[: 19 + int.from_bytes(data[17:19], "big")]
        return start + cipher.encrypt(data[5:17], body, start)

    return put


#: An encoded value of a type that does not exist (yet).
UNKNOWN_TYPE = msgspec.msgpack.encode(msgspec.msgpack.Ext(100, b"future"))


# H15: damage

DAMAGE: dict[str, Callable[[Visitor], Callable[[bytes], bytes]]] = {
    "format": lambda _: lambda data: b"\x7f" + data[1:],
    "length of the header": lambda _: lambda data: data[:17] + b"\xff\xff" + data[19:],
    "no header": lambda _: lambda data: data[:17] + b"\0\0" + data[19:],
    "nonce": lambda _: lambda data: data[:9] + bytes([data[9] ^ 1]) + data[10:],
    "key id": lambda _: lambda data: data[:4] + bytes([data[4] ^ 1]) + data[5:],
    "tag": lambda _: lambda data: data[:-16] + bytes(16),
    "zeros": lambda _: lambda data: bytes(len(data)),
    "text": lambda _: lambda data: b'{"name": "Eve", "_user_id": "1"}',
    "body is a list": lambda visitor: sealed(visitor, dumps(["name", "Eve"])),
    "body is a number": lambda visitor: sealed(visitor, dumps(7)),
    "body has numbers as keys": lambda visitor: sealed(visitor, dumps({1: 2})),
    "body is cut": lambda visitor: sealed(visitor, dumps({"name": "Eve"})[:-1]),
    "body is empty": lambda visitor: sealed(visitor, b""),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
@pytest.mark.parametrize("act", [lambda: dict(session), lambda: session.update(name="Grace")], ids=["reads", "writes"])
def test_h15_damaged_record_is_dropped(
    ada: Visitor,
    store: Store,
    damage: Callable[[Visitor], Callable[[bytes], bytes]],
    act: Callable[[], object],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """H15: whatever is wrong with a record, the visitor gets a fresh session, and one event and one line tell of it."""
    key, cookie = stored_key(ada), ada.cookie
    rewrite(store, key, damage(ada))
    told: list[dict[str, t.Any]] = []
    with (
        signals.session_corrupt.connected_to(lambda _, **details: told.append(details)),
        caplog.at_level(logging.DEBUG, "flask_stateful"),
    ):
        response = ada.visit(act)
        assert response.status_code == 200
        assert store.get(key) is None
        ada.visit(lambda: session.update(name="Grace"))
    assert ada.cookie not in (cookie, None)
    assert ada.ask(lambda: dict(session)) == {"name": "Grace"}
    assert [list(details) for details in told] == [["reference"]]
    lines = [record.getMessage() for record in caplog.records]
    assert lines == [f"dropped the stored session {told[0]['reference']}: it is damaged, forged or swapped"]
    assert key not in lines[0]


def test_h15_every_byte_counts(make_app: MakeApp, make_visitor: MakeVisitor) -> None:
    """H15: there is no byte in a record that may be changed."""
    store = MemoryStore()
    ada = make_visitor(make_app(store))
    ada.visit(lambda: session.update(name="Ada"))
    key = stored_key(ada)
    data = store.get(key)
    assert data
    for at in range(len(data)):
        store.set(key, data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :], 3600)
        assert ada.ask(lambda: dict(session)) == {}
    store.set(key, data, 3600)
    assert ada.ask(lambda: dict(session)) == {"name": "Ada"}


def test_h15_damaged_value_is_found_when_it_is_looked_at(ada: Visitor, store: Store) -> None:
    """H15: a value that cannot be decoded ends the session when somebody looks at it, and no sooner."""
    key = stored_key(ada)
    rewrite(store, key, sealed(ada, b"\x82" + dumps("name") + dumps("Ada") + dumps("cart") + UNKNOWN_TYPE))
    assert ada.ask(lambda: session["name"]) == "Ada"
    assert ada.ask(lambda: ("cart" in session, session.get("cart", "nothing"), dict(session))) == (True, "nothing", {})
    assert store.get(key) is None


@pytest.mark.parametrize("user", [None, "ada"])
def test_h15_damaged_value_does_not_take_what_the_request_did(
    ada: Visitor, store: Store, state: Stateful, user: str | None
) -> None:
    """H15, N4: what a request has assigned, or whom it has logged in, before it meets a damaged value is kept."""
    rewrite(store, stored_key(ada), sealed(ada, b"\x81" + dumps("cart") + UNKNOWN_TYPE))

    def view() -> None:
        session["mine"] = [1]
        if user:
            state.sessions.login(user)
        assert session.get("cart") is None
        session["mine"].append(2)

    response = ada.visit(view)
    assert len(session_cookies(response)) == 1
    assert ada.ask(lambda: (dict(session), state.user_id)) == ({"mine": [1, 2]}, user)


def test_h15_damaged_value_in_a_stream_is_no_error(ada: Visitor, store: Store) -> None:
    """H15: a value that turns out to be damaged after the response was saved reads as missing."""
    rewrite(store, stored_key(ada), sealed(ada, b"\x81" + dumps("cart") + UNKNOWN_TYPE))

    def view() -> Response:
        held = t.cast("t.Any", session)._get_current_object()
        assert "cart" in held

        def body() -> t.Iterator[str]:
            yield held.get("cart", "nothing")

        return Response(body())

    assert ada.visit(view).text == "nothing"


# H16, H17


def test_h16_records_cannot_be_swapped(ada: Visitor, store: Store, make_visitor: MakeVisitor) -> None:
    """H16: a record that is put in another's place, one's own or another user's, opens for neither visitor."""
    eve = make_visitor(ada.app)
    eve.visit(lambda: session.update(name="Eve"))
    adas, eves = store.get(stored_key(ada)), store.get(stored_key(eve))
    assert adas
    assert eves
    store.set(stored_key(ada), eves, 3600)
    store.set(stored_key(eve), adas, 3600)
    assert ada.ask(lambda: dict(session)) == {}
    assert eve.ask(lambda: dict(session)) == {}


def test_h16_halves_cannot_be_swapped(ada: Visitor, store: Store, make_visitor: MakeVisitor, state: Stateful) -> None:
    """H16: another user's header before one's own body makes nobody that user."""
    root = make_visitor(ada.app)
    root.visit(lambda: state.sessions.login("root"))
    theirs, mine = store.get(stored_key(root)), store.get(stored_key(ada))
    assert theirs
    assert mine
    at, of = (3 + int.from_bytes(data[1:3], "big") for data in (theirs, mine))
    store.set(stored_key(ada), theirs[:at] + mine[of:], 3600)
    assert ada.ask(lambda: (state.user_id, dict(session))) == (None, {})


def test_h16_record_of_another_application_is_refused(make_app: MakeApp, store: Store) -> None:
    """H16: a record that is copied to another application's place does not open, though they share key and store."""
    shop, blog = (Visitor(make_app(store, STATEFUL_NAMESPACE=name)) for name in ("shop", "blog"))
    shop.visit(lambda: session.update(name="Ada"))
    assert shop.cookie
    token = shop.cookie.split(".")[1]
    record = store.get(ids.store_key("shop", token))
    assert record
    store.set(ids.store_key("blog", token), record, 3600)
    blog.cookie = shop.cookie
    assert blog.ask(lambda: dict(session)) == {}


# H18 to H20: values

KEPT: dict[str, t.Any] = {
    "none": None,
    "bool": True,
    "int": -1,
    "big int": 2**100,
    "float": -0.0,
    "infinity": float("inf"),
    "nan": float("nan"),
    "str": "häf \0 😀",
    "bytes": bytes(range(256)),
    "list": [1, [2, [3]]],
    "tuple": (1, (2, (3, ()))),
    "set": {1, "a", (2, 3)},
    "frozenset": frozenset({frozenset(), 1}),
    "dict": {"b": 1, "a": {"d": 2, "c": 3}},
    "int keys": {3: "c", -1: "a", 2**70: "b"},
    "mixed keys": {1: "int", "1": "str"},
    "naive datetime": datetime(2024, 10, 27, 2, 30, fold=1),
    "aware datetime": datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Berlin")),
    "UTC": datetime(2024, 1, 1, tzinfo=UTC),
    "offset": datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=-3, minutes=-30))),
    "date": date(2024, 2, 29),
    "time": time(23, 59, 59, 999999, tzinfo=UTC),
    "timedelta": timedelta(days=-1, microseconds=1),
    "Decimal": Decimal("-0.10"),
    "Decimal NaN": Decimal("sNaN"),
    "UUID": UUID(int=2**127),
    "Markup": Markup("<b>&amp;</b>"),
    "nested": [{"a": ({1, 2}, [Markup("x")], {"b": (Decimal(1), b"")})}],
}


def test_h18_every_type_comes_back_as_it_was(visitor: Visitor) -> None:
    """H18: a value of each type, also inside others, is the same in the next request, and so is a copy of it."""
    visitor.visit(lambda: session.update(KEPT))
    assert exact(visitor.ask(lambda: dict(session))) == exact(KEPT)
    visitor.visit(lambda: session.update({f"{key} again": session[key] for key in KEPT}))
    found = visitor.ask(lambda: dict(session))
    assert all(exact(found[f"{key} again"]) == exact(value) for key, value in KEPT.items())


@settings(HYPOTHESIS, max_examples=50)
@given(value=values())
def test_h18_any_value_comes_back_as_it_was(app_in_memory: Flask, value: t.Any) -> None:
    """H18: whatever is made of these types comes back as it was, and reading it is not changing it."""
    visitor = Visitor(app_in_memory)
    visitor.visit(lambda: session.update(value=value))
    found = visitor.ask(lambda: (session["value"], session.modified))
    assert exact(found) == exact((value, False))


@pytest.fixture
def app_in_memory(make_app: MakeApp) -> Flask:
    """An application with a store in memory."""
    return make_app("memory://")


class Lazy(str):
    """Text in the visitor's language, as libraries for translations make it."""


class Lazier:
    def __str__(self) -> str:
        return "hello"


class LazyHtml(Lazier):
    def __html__(self) -> str:
        return "<b>hello</b>"


class Token(dict[str, t.Any]):
    """What an OAuth library puts into the session."""


class Role(str, enum.Enum):  # noqa: UP042 (whose str() is its name)
    ADMIN = "admin"


class Level(enum.IntEnum):
    HIGH = 3


class Share(float):
    def __float__(self) -> float:
        return -1.0


class Point(t.NamedTuple):
    x: int
    y: Level


@dataclasses.dataclass
class Address:
    street: str
    lines: list[Role]


#: What is assigned, and what there is in the next request.
PLAINER: dict[str, tuple[t.Any, t.Any]] = {
    "lazy text": (Lazy("hello"), "hello"),
    "lazy text that knows HTML": (LazyHtml(), Markup("<b>hello</b>")),
    "OAuth token": (Token(access_token="a", scopes=["b"]), {"access_token": "a", "scopes": ["b"]}),
    "defaultdict": (collections.defaultdict(list, {"a": [1]}), {"a": [1]}),
    "OrderedDict": (collections.OrderedDict({Role.ADMIN: 1, Level.HIGH: 2}), {"admin": 1, 3: 2}),
    "named tuple": (Point(1, Level.HIGH), (1, 3)),
    "member of a text enumeration": (Role.ADMIN, "admin"),
    "member of a number enumeration": (Level.HIGH, 3),
    "kind of float": (Share(1.5), 1.5),
    "dataclass": (Address("Main", [Role.ADMIN]), {"street": "Main", "lines": ["admin"]}),
    "nested": ([{"a": (Token(b={True, 1.5}),)}], [{"a": ({"b": {True, 1.5}},)}]),
}

NEST: list[t.Any] = []
NEST.append(NEST)

UNSTORABLE: dict[str, t.Any] = {
    "object": object(),
    "class": Lazy,
    "function": test_ids.issued,
    "lazier text": Lazier(),
    "class of markup": Markup,
    "contains itself": NEST,
    "bytearray": bytearray(b"x"),
    "generator": (number for number in ()),
    "exception": ValueError("x"),
    "module": os,
    "surrogate": "\ud800",
    "inside": [1, {"a": (object(),)}],
    "key": {None: 1},
}


@pytest.mark.parametrize("value", UNSTORABLE.values(), ids=UNSTORABLE)
def test_h18_what_cannot_be_kept_is_refused_when_it_is_assigned(ada: Visitor, value: t.Any) -> None:
    """H18, H20, N4: the assignment itself raises and names the key; the old value stays, and so does the rest."""

    def view() -> None:
        for assign in (
            lambda: session.__setitem__("cart", value),
            lambda: session.update(cart=value),
            lambda: session.setdefault("other", value),
            lambda: session.__ior__({"cart": value}),
        ):
            with pytest.raises(EncodeError, match=r"session\['(cart|other)'\]"):
                assign()
        session["name"] = "Grace"

    assert ada.visit(view).status_code == 200
    assert ada.ask(lambda: dict(session)) == {"name": "Grace", "cart": [1]}


@pytest.mark.parametrize(("value", "kept"), PLAINER.values(), ids=PLAINER)
def test_h18_what_flask_keeps_as_something_plainer_is_kept_so(visitor: Visitor, value: t.Any, kept: t.Any) -> None:
    """H18, W3: kinds of what can be kept become that, as with Flask's own session, on which extensions rely."""
    visitor.visit(lambda: session.update(value=value))
    assert exact(visitor.ask(lambda: (session["value"], session.modified))) == exact((kept, False))


def test_h18_a_change_inside_such_a_value_is_kept(visitor: Visitor) -> None:
    """H18: what is assigned is what the request goes on with, so that what it changes in it is saved too."""

    def view() -> None:
        session["token"] = token = Token(access_token="a")
        token["access_token"] = "b"
        assert session["token"] is token

    visitor.visit(view)
    assert visitor.ask(lambda: session["token"]) == {"access_token": "b"}


@pytest.mark.parametrize("key", [1, None, b"name", ("a",), True, Lazy("name")], ids=lambda key: type(key).__name__)
def test_h18_keys_are_text(ada: Visitor, key: t.Any) -> None:
    """H18: a key of another type raises TypeError and says what to write; nothing has changed."""

    def view() -> None:
        with pytest.raises(TypeError, match=r"a session key must be str, not .*; write session\[str\(key\)\]"):
            session[key] = 1

    ada.visit(view)
    assert ada.ask(lambda: dict(session)) == {"name": "Ada", "cart": [1]}


@pytest.mark.parametrize("key", ["", " ", "a.b", "ä😀", "\0", "_permanent2", "x" * 5000, "session['a']"])
def test_h18_any_text_is_a_key(visitor: Visitor, key: str) -> None:
    """H18: whatever text the key is, its value comes back under it."""
    visitor.visit(lambda: session.__setitem__(key, 1))
    assert visitor.ask(lambda: dict(session)) == {key: 1}


def test_h18_key_that_utf8_cannot_carry_is_refused(ada: Visitor) -> None:
    """H18: a key with a lone surrogate is an error where it is assigned."""

    def view() -> None:
        with pytest.raises(EncodeError, match="a session key has a lone surrogate"):
            session["\ud800"] = 1

    ada.visit(view)
    assert ada.ask(lambda: dict(session)) == {"name": "Ada", "cart": [1]}


def test_h19_flashed_markup_stays_markup(visitor: Visitor) -> None:
    """H19: flashed Markup is Markup on the next page, so that it is not escaped there, and flashed text is."""
    visitor.visit(lambda: (flash(Markup("<b>bold</b>"), "info"), flash("<i>")))
    messages = visitor.ask(lambda: get_flashed_messages(with_categories=True))
    assert exact(messages) == exact([("info", Markup("<b>bold</b>")), ("message", "<i>")])


def test_h19_flashed_lazy_text_is_kept(visitor: Visitor) -> None:
    """H19: text that is made when it is looked at is kept as it is in the request that flashes it."""
    visitor.visit(lambda: (flash(t.cast("str", LazyHtml())), flash(Lazy("two"))))
    assert exact(visitor.ask(get_flashed_messages)) == exact([Markup("<b>hello</b>"), "two"])


def test_h19_flashed_text_that_cannot_be_kept_is_refused_at_once(ada: Visitor) -> None:
    """H19: what Flask could not keep either is refused by flash() itself, with the conversion to write."""

    def view() -> None:
        with pytest.raises(
            EncodeError, match=r"session\['_flashes'\]\[1\]\[1\] is of type .*Lazier, which cannot be stored"
        ) as caught:
            flash(t.cast("str", Lazier()))
        raise caught.value

    ada.visit(lambda: flash("one"))
    assert ada.visit(view).status_code == 500
    assert ada.ask(lambda: get_flashed_messages()) == ["one"]


def test_h20_change_in_place_that_cannot_be_saved_fails_once(
    make_app: MakeApp, make_visitor: MakeVisitor, clock: FakeClock
) -> None:
    """H20: what became impossible inside a list fails when it is saved: once, named, through the error handlers."""
    store = FaultyStore(MemoryStore())
    handled: list[str] = []

    def handler(error: EncodeError) -> tuple[str, int]:
        handled.append(str(error))
        return "sorry", 500

    app = make_app(store, prepare=lambda app: app.register_error_handler(EncodeError, handler))
    ada = make_visitor(app)
    ada.visit(lambda: session.update(name="Ada", cart=[1]))
    store.reset()
    response = ada.visit(lambda: (session.update(name="Grace"), session["cart"].append({"x": object()})))
    assert (response.status_code, response.text) == (500, "sorry")
    assert len(handled) == 1
    assert handled[0].startswith("session['cart'][1]['x'] is of type object")
    assert session_cookies(response) == []
    assert store.calls == {"get": 1}
    assert ada.ask(lambda: dict(session)) == {"name": "Ada", "cart": [1]}


# H21: sizes

BOTTOM = 1024 * 1024


@pytest.mark.parametrize("size", [0, 1, 4096, 65_536, BOTTOM - 1000])
def test_h21_sizes_within_the_limit(visitor: Visitor, size: int) -> None:
    """H21: from nothing to nearly 1 MiB, what was put in comes out."""
    data = os.urandom(size)
    visitor.visit(lambda: session.update(data=data))
    assert visitor.ask(lambda: session["data"] == data)


def test_h21_limit_is_exact(make_app: MakeApp, make_visitor: MakeVisitor, store: Store) -> None:
    """H21: a record of as many bytes as STATEFUL_SESSION_MAX_BYTES is saved, and one byte more is an error."""
    visitor = make_visitor(make_app(store))
    visitor.visit(lambda: session.update(data=bytes(60_000)))
    length = len(store.get(stored_key(visitor)) or b"")
    for limit, status in ((length, 200), (length - 1, 500)):
        other = make_visitor(make_app(store, STATEFUL_SESSION_MAX_BYTES=limit))
        response = other.visit(lambda: session.update(data=bytes(60_000)))
        assert response.status_code == status
        assert len(session_cookies(response)) == (status == 200)


def test_h21_too_large_value_is_refused_when_it_is_assigned(ada: Visitor) -> None:
    """H21, N4: a value that can never fit raises where it is assigned, and the session stays as it was."""

    def view() -> None:
        for size in (BOTTOM + 1, 16 * BOTTOM):
            with pytest.raises(ValueTooLarge, match=r"session\['data'\] takes .* STATEFUL_SESSION_MAX_BYTES allows"):
                session["data"] = bytes(size)
        assert "data" not in session

    assert ada.visit(view).status_code == 200
    assert ada.ask(lambda: dict(session)) == {"name": "Ada", "cart": [1]}


def test_h21_session_that_grew_too_large_names_its_biggest_keys(
    make_app: MakeApp, make_visitor: MakeVisitor, store: Store
) -> None:
    """H21: where only the sum is too much, the error names the three biggest keys; no cookie is sent for nothing."""
    errors: list[str] = []

    def handler(error: ValueTooLarge) -> tuple[str, int]:
        errors.append(str(error))
        return "too much", 413

    app = make_app(store, prepare=lambda app: app.register_error_handler(ValueTooLarge, handler))
    visitor = make_visitor(app)
    sizes = {"a": 100, "b": 400_000, "c": 300_000, "d": 350_000, "e": 200}
    response = visitor.visit(lambda: session.update({key: bytes(size) for key, size in sizes.items()}))
    assert (response.status_code, response.text) == (413, "too much")
    assert session_cookies(response) == []
    assert "its biggest keys, in bytes: 'b' (400,005), 'd' (350,005), 'c' (300,005)" in errors[0]
    assert list(store.scan("tests:")) == []


def test_h21_growth_inside_a_list_is_limited_too(ada: Visitor) -> None:
    """H21: a list that grows too large in place is an error when it is saved, and the stored one stays."""
    response = ada.visit(lambda: session["cart"].append(bytes(BOTTOM)))
    assert response.status_code == 500
    assert ada.ask(lambda: session["cart"]) == [1]


def test_h21_limit_can_be_raised(make_app: MakeApp, make_visitor: MakeVisitor, store: Store) -> None:
    """H21: with a higher limit 16 MiB are kept, by each store."""
    visitor = make_visitor(make_app(store, STATEFUL_SESSION_MAX_BYTES=17 * BOTTOM))
    data = os.urandom(16 * BOTTOM)
    assert visitor.visit(lambda: session.update(data=data)).status_code == 200
    assert visitor.ask(lambda: session["data"] == data)


def test_h21_limit_of_the_store_counts_too(make_app: MakeApp, make_visitor: MakeVisitor) -> None:
    """H21: a record that the store does not take is an error, not a silent loss."""
    store = MemoryStore(max_value_bytes=1000)
    visitor = make_visitor(make_app(store))
    visitor.visit(lambda: session.update(name="Ada"))
    response = visitor.visit(lambda: session.update(data=bytes(1000)))
    assert response.status_code == 500
    assert visitor.ask(lambda: dict(session)) == {"name": "Ada"}


# H22: changes inside values

START: dict[str, t.Any] = {
    "list": [3, 1, 2],
    "dict": {"a": 1, "b": {"c": [1]}},
    "set": {1},
    "tuple": ([1], {"a": 1}),
    "deep": [[[{"x": [()]}]]],
    "text": "abc",
}

CHANGES: dict[str, tuple[Callable[[], object], Callable[[t.Any], object]]] = {
    "append": (lambda: session["list"].append(4), lambda start: start["list"].append(4)),
    "sort": (lambda: session["list"].sort(), lambda start: start["list"].sort()),
    "delete": (lambda: session["list"].clear(), lambda start: start["list"].clear()),
    "insert": (lambda: session["list"].insert(0, 9), lambda start: start["list"].insert(0, 9)),
    "new key": (lambda: session["dict"].update(z=1), lambda start: start["dict"].update(z=1)),
    "order of keys": (
        lambda: session["dict"].update(a=session["dict"].pop("a")),
        lambda start: start["dict"].update(a=start["dict"].pop("a")),
    ),
    "in a dict": (lambda: session["dict"]["b"]["c"].append(2), lambda start: start["dict"]["b"]["c"].append(2)),
    "set": (lambda: session["set"].add(2), lambda start: start["set"].add(2)),
    "in a tuple": (lambda: session["tuple"][0].append(2), lambda start: start["tuple"][0].append(2)),
    "dict in a tuple": (lambda: session["tuple"][1].clear(), lambda start: start["tuple"][1].clear()),
    "deep": (lambda: session["deep"][0][0][0]["x"].append(1), lambda start: start["deep"][0][0][0]["x"].append(1)),
    "type only": (
        lambda: session["list"].__setitem__(1, True),
        lambda start: start["list"].__setitem__(1, True),
    ),
}


@pytest.mark.parametrize(("change", "expected"), CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("through", ["item", "get", "values", "items"])
def test_h22_changes_inside_values_are_saved(
    visitor: Visitor, change: Callable[[], object], expected: Callable[[t.Any], object], through: str
) -> None:
    """H22: a value that is changed in place is saved, however deep and however it was looked up before."""
    looks: dict[str, Callable[[], object]] = {
        "item": lambda: None,
        "get": lambda: [session.get(key) for key in START],
        "values": lambda: list(session.values()),
        "items": lambda: dict(session.items()),
    }
    start = fresh_start()
    visitor.visit(lambda: session.update(fresh_start()))
    visitor.visit(lambda: (looks[through](), change()))
    expected(start)
    assert exact(visitor.ask(lambda: dict(session))) == exact(start)


def fresh_start() -> dict[str, t.Any]:
    """Return values that are shared with nobody."""
    return copy.deepcopy(START)


def test_h22_looking_writes_nothing(make_app: MakeApp, make_visitor: MakeVisitor) -> None:
    """H22, N2: values that are looked at, copied, or changed and changed back, are not written."""
    store = FaultyStore(MemoryStore())
    visitor = make_visitor(make_app(store))
    visitor.visit(lambda: session.update(fresh_start()))
    store.reset()
    visitor.visit(lambda: (exact(dict(session)), session.copy(), sorted(session["list"])))
    visitor.visit(lambda: (session["list"].append(4), session["list"].pop()))
    visitor.visit(lambda: session.update(list=[3, 1, 2], text="abc"))
    visitor.visit(lambda: (session["set"].discard(1), session["set"].add(1)))
    assert store.calls == {"get": 4}


def test_h22_value_under_two_keys_is_saved_under_both(visitor: Visitor) -> None:
    """H22: one list that was assigned to two keys is changed under both while the request lasts, then they part."""

    def view() -> None:
        session["a"] = session["b"] = cart = [1]
        cart.append(2)

    visitor.visit(view)
    visitor.visit(lambda: session["a"].append(3))
    assert visitor.ask(lambda: dict(session)) == {"a": [1, 2, 3], "b": [1, 2]}


def test_h22_modified_tells_of_changes_inside(visitor: Visitor) -> None:
    """H22: ``session.modified`` sees a change inside a list, and that it was taken back."""
    visitor.visit(lambda: session.update(cart=[1]))

    def view() -> list[bool]:
        told = [session.modified]
        session["cart"].append(2)
        told.append(session.modified)
        session["cart"].pop()
        return [*told, session.modified]

    assert visitor.ask(view) == [False, True, False]


# The session is a dict

KEYS = st.sampled_from(["a", "b", "c", "_permanent"])
VALUES = st.one_of(st.integers(0, 2), st.lists(st.integers(0, 1), max_size=2))
OPERATIONS = st.one_of(
    st.tuples(st.just("set"), KEYS, VALUES),
    st.tuples(st.just("delete"), KEYS),
    st.tuples(st.just("pop"), KEYS),
    st.tuples(st.just("popitem")),
    st.tuples(st.just("setdefault"), KEYS, VALUES),
    st.tuples(st.just("update"), st.dictionaries(KEYS, VALUES, max_size=3)),
    st.tuples(st.just("ior"), st.dictionaries(KEYS, VALUES, max_size=3)),
    st.tuples(st.just("clear")),
    st.tuples(st.just("append"), KEYS, st.integers(0, 1)),
    st.tuples(st.just("read"), KEYS),
)


def operate(target: t.Any, operation: tuple[t.Any, ...]) -> object:
    """Do something to a session or to a dict, and return what it says."""
    match operation:
        case ("set", key, value):
            target[key] = list(value) if isinstance(value, list) else value
        case ("delete", key):
            if key in target:
                del target[key]
        case ("pop", key):
            return target.pop(key, "nothing")
        case ("popitem",):
            return target.popitem() if target else None
        case ("setdefault", key, value):
            return target.setdefault(key, list(value) if isinstance(value, list) else value)
        case ("update", more):
            target.update({key: list(value) if isinstance(value, list) else value for key, value in more.items()})
        case ("ior", more):
            target.__ior__({key: list(value) if isinstance(value, list) else value for key, value in more.items()})
        case ("clear",):
            target.clear()
        case ("append", key, value):
            if isinstance(target.get(key), list):
                target[key].append(value)
        case ("read", key):
            return key in target, target.get(key), len(target), list(target), list(reversed(target)), bool(target)
    return None


@settings(HYPOTHESIS, max_examples=60)
@given(requests=st.lists(st.lists(OPERATIONS, max_size=6), max_size=6))
def test_session_behaves_as_a_dict(app_in_memory: Flask, requests: list[list[tuple[t.Any, ...]]]) -> None:
    """Whatever requests do to it one after the other, a session says and holds what a dict would, in its order."""
    visitor, expected = Visitor(app_in_memory), dict[str, t.Any]()
    for operations in requests:

        def view() -> None:
            for operation in operations:  # noqa: B023
                assert exact(operate(session, operation)) == exact(operate(expected, operation))
                assert exact(dict(session)) == exact(expected)

        visitor.ask(view)
        if not expected.keys() - {"_permanent"}:
            expected.clear()  # a session without any other key is not kept
        assert exact(visitor.ask(lambda: dict(session))) == exact(expected)


# H23: formats


def test_h23_first_format_is_read_by_this_version(
    make_app: MakeApp, make_visitor: MakeVisitor, clock: FakeClock
) -> None:
    """H23: a cookie and a record as the first version wrote them are a session, and go on to be one."""
    clock.set(1_700_000_100)
    store = MemoryStore()
    app = make_app(store, SECRET_KEY=test_ids.SECRET, STATEFUL_NAMESPACE="shop")
    visitor = make_visitor(app)
    visitor.cookie = test_ids.COOKIE
    store.set(test_ids.STORE_KEY, FIRST_RECORD, 3600)
    assert visitor.ask(lambda: dict(session)) == test_record.ITEMS
    visitor.visit(lambda: session.update(more=1))
    assert visitor.ask(lambda: dict(session)) == {**test_record.ITEMS, "more": 1}


#: The record of :mod:`tests.unit.test_record`, at the place of the cookie of :mod:`tests.unit.test_ids`.
FIRST_RECORD = bytes.fromhex(
    "01e3a27d70000102030405060708090a0b005136c0b47301fd6af9cdb8fefa01277a9a54ec2b8cdb4f5545b29d01769c21c3"
    "80164ec1d01c74142a741032c53484bcbaa7a69717a582624f9287e994df4e00a222a285007776dd61179f4a5c3ccf93f254"
    "f88e471c3b0aace0be214ee2405a87d3c8ba5606c7ed1794b90acb9faed0dfa9900d5efe8b640416110799bf28b819e5053f"
    "f9"
)


def test_h23_first_record_is_what_is_written_today(monkeypatch: pytest.MonkeyPatch) -> None:
    """H23: the record in this file is one, sealed for that cookie's token."""
    monkeypatch.setattr("flask_stateful.sessions.record.os.urandom", lambda length: bytes(range(length)))
    seal = RecordSeal(Keyring(test_ids.SECRET), token=test_ids.TOKEN, key=test_ids.STORE_KEY)
    assert seal.seal(test_record.HEADER, test_record.encoded(test_record.ITEMS)) == FIRST_RECORD


@pytest.mark.parametrize(
    "view", [lambda: session["seen"], lambda: session.update(seen=session["seen"] + 1)], ids=["read", "write"]
)
def test_nothing_of_a_session_waits_for_the_garbage_collector(visitor: Visitor, view: Callable[[], object]) -> None:
    """What a session held is freed as soon as its request has ended."""
    visitor.ask(lambda: session.update(seen=1))
    visitor.ask(view)  # the first time, a server is asked what it understands
    gc.collect()
    gc.disable()
    try:
        known = visitor.ask(lambda: (view(), weakref.ref(t.cast("t.Any", session)._get_current_object()))[1])
        assert known() is None
    finally:
        gc.enable()
