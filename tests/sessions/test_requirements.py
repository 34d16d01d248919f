"""Requirements of OWASP ASVS 5.0, the OWASP Session Management Cheat Sheet and NIST SP 800-63B, by their numbers here.

Some have their tests elsewhere: R8 and R9 in ``test_time``, R25 and R29 in ``test_http``, R28 in ``test_failure``. The
last test here sees to it that none is without.
"""

from __future__ import annotations

import ast
import base64
import hmac
import itertools
import logging
import pickle
import re
import traceback
import typing as t
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flask import render_template_string, session

import flask_stateful
from flask_stateful import Stateful, signals
from flask_stateful.sealing import Keyring
from flask_stateful.sessions.ids import Identities
from flask_stateful.stores.base import Store
from flask_stateful.stores.memory import MemoryStore
from flask_stateful.testing import FakeClock, FaultyStore

from .conftest import MakeApp, MakeVisitor
from .support import Visitor, session_cookies, stored_key
from .test_http import HOSTILE, Sender

#: The requirements that are met by what is built so far.
REQUIREMENTS = {*range(1, 7), 8, 9, 12, *range(19, 26), 28, 29}


@pytest.fixture
def ada(visitor: Visitor) -> Visitor:
    """A visitor with an anonymous session, in one store after the other."""
    visitor.visit(lambda: session.update(name="Ada"))
    return visitor


def nobody(visitor: Visitor, cookie: str | None) -> bool:
    """Tell whether a cookie opens nothing, for whoever sends it."""
    assert cookie
    thief = Visitor(visitor.app)
    thief.cookie = cookie
    found: dict[str, t.Any] = thief.ask(lambda: dict(session))
    return found == {}


# R1, R2: the id


def test_r01_ids_do_not_repeat_in_a_million() -> None:
    """R1: of a million ids no two are the same."""
    identities = Identities(Keyring("secret"), "shop")
    assert len({identities.issue().token for _ in range(1_000_000)}) == 1_000_000


def test_r01_ids_have_256_random_bits() -> None:
    """R1: every bit of an id is set in half of them, and no two bits agree more often than chance has it."""
    identities = Identities(Keyring("secret"), "shop")
    count = 5_000
    ids = [int.from_bytes(base64.urlsafe_b64decode(identities.issue().token + "="), "big") for _ in range(count)]
    nine_sigma = 9 * (count**0.5) / 2
    for bit in range(256):
        ones = sum(number >> bit & 1 for number in ids)
        same_as_next = sum((number >> bit ^ number >> (bit + 1) % 256) & 1 for number in ids)
        same_as_before = sum((one >> bit ^ other >> bit) & 1 for one, other in itertools.pairwise(ids))
        for found in (ones, same_as_next, same_as_before):
            assert abs(found - count / 2) < nine_sigma


def test_r02_id_carries_nothing(ada: Visitor, state: Stateful, make_visitor: MakeVisitor) -> None:
    """R2: the cookie does not change with what the session holds, and shares nothing with another's but the key."""
    before = ada.cookie
    ada.visit(lambda: session.update(user="ada", admin=True, cart=list(range(100))))
    assert ada.cookie == before
    twin = make_visitor(ada.app)
    twin.visit(lambda: session.update(name="Ada"))
    assert ada.cookie
    assert twin.cookie
    (key, *mine), (same_key, *theirs) = ada.cookie.split("."), twin.cookie.split(".")
    assert key == same_key
    assert not set(mine) & set(theirs)
    assert len(ada.cookie) == len(twin.cookie)


def test_r02_cookie_name_tells_nothing(ada: Visitor) -> None:
    """R2: by default the cookie's name says neither what made it nor what it runs on."""
    assert ada.client.get_cookie("session") is not None
    assert len(ada.client._cookies) == 1  # type: ignore[arg-type]


# R3, R4: ids that others made


@pytest.mark.parametrize("kind", ["unknown", "expired", "malformed", "forged", "chosen by an attacker"])
def test_r03_foreign_id_is_never_adopted(
    clock: FakeClock, make_app: MakeApp, make_visitor: MakeVisitor, kind: str
) -> None:
    """R3: an id that does not open a session is replaced by a new one when one begins, and reported."""
    store = MemoryStore()
    app = make_app(store, STATEFUL_SESSION_IDLE_TIMEOUT=100)
    ada = make_visitor(app)
    ada.visit(lambda: session.update(name="Ada"))
    assert ada.cookie
    match kind:
        case "unknown":
            store.delete(stored_key(ada))
        case "expired":
            clock.advance(100)
        case "malformed":
            ada.cookie = "x" * 20
        case "forged":
            ada.cookie = ada.cookie[:-1] + ("0" if ada.cookie[-1] != "0" else "1")
        case _:
            ada.cookie = Identities(Keyring("the attacker's key"), "tests").cookie_value(
                Identities(Keyring("x"), "tests").issue()
            )
    presented, told = ada.cookie, []
    with signals.session_id_invalid.connected_to(lambda _, **details: told.append(details["reason"])):
        ada.visit(lambda: session.update(name="new"))
    assert told == ["unknown" if kind in ("unknown", "expired") else "forged"]
    assert ada.cookie not in (None, presented)
    assert not set((ada.cookie or "").split(".")[1:]) & set(presented.split("."))
    assert nobody(ada, presented)


@pytest.mark.parametrize("value", HOSTILE.values(), ids=HOSTILE)
def test_r04_id_is_checked_before_the_store_is_asked(
    make_app: MakeApp, store: Store, value: str, caplog: pytest.LogCaptureFixture
) -> None:
    """R4: whatever length and characters an id has, one of others' making costs no call, no error and no log line."""
    counted = FaultyStore(store)
    eve = Sender(make_app(counted), f"session={value}")
    with caplog.at_level(logging.INFO):
        assert eve.ask(lambda: dict(session)) == {}
    assert not counted.calls
    assert not caplog.records


# R5, R6: new ids

MOVES: dict[str, Callable[[Stateful], object]] = {
    "login": lambda state: state.sessions.login("ada"),
    "login again": lambda state: (state.sessions.login("ada"), state.sessions.login("ada")),
    "other user": lambda state: (state.sessions.login("bob"), state.sessions.login("ada")),
    "more rights": lambda state: state.sessions.rotate(),
    "clear and login": lambda state: (session.clear(), state.sessions.login("ada")),
    "clear, rotate and write": lambda state: (session.clear(), state.sessions.rotate(), session.update(user=1)),
    "clear and write": lambda _: (session.clear(), session.update(user=1)),
    "rotate after write": lambda state: (session.update(user=1), state.sessions.rotate()),
    "logout and write": lambda state: (state.sessions.logout(), session.update(user=1)),
    "destroy and login": lambda state: (state.sessions.destroy(), state.sessions.login("ada")),
}


@pytest.mark.parametrize("move", MOVES.values(), ids=MOVES)
@pytest.mark.parametrize("start", ["anonymous", "logged in"])
def test_r05_r06_id_is_new_and_the_old_one_dead(
    ada: Visitor, state: Stateful, move: Callable[[Stateful], object], start: str
) -> None:
    """R5, R6: at a login, when rights change, at a logout and after clear() the id is new, and the old one dead."""
    if start == "logged in":
        ada.visit(lambda: state.sessions.login("ada"))
    old = ada.cookie
    ada.visit(lambda: move(state))
    assert ada.cookie
    assert old
    assert ada.cookie.split(".")[1] != old.split(".")[1]
    assert nobody(ada, old)
    assert not nobody(ada, ada.cookie) or ada.ask(lambda: state.user_id) == "ada"


def test_r06_empty_session_gets_a_new_id_too(visitor: Visitor, state: Stateful) -> None:
    """R6: a visitor who has no session, or one that holds nothing but its user, has a new id after the login."""
    visitor.visit(lambda: state.sessions.login("ada"))
    first = visitor.cookie
    visitor.visit(lambda: state.sessions.login("ada"))
    assert visitor.cookie not in (None, first)
    assert visitor.ask(lambda: state.user_id) == "ada"
    thief = Visitor(visitor.app)
    thief.cookie = first
    assert thief.ask(lambda: state.user_id) is None


def test_r05_planted_id_gains_nothing(visitor: Visitor, state: Stateful, make_visitor: MakeVisitor) -> None:
    """R5: who plants a valid id of one's own in a victim's browser is not logged in when the victim logs in."""
    attacker = make_visitor(visitor.app)
    attacker.visit(lambda: session.update(planted=True))
    visitor.cookie = attacker.cookie
    visitor.visit(lambda: state.sessions.login("victim"))
    assert attacker.ask(lambda: (state.user_id, dict(session))) == (None, {})
    assert visitor.ask(lambda: state.user_id) == "victim"


# R12: logout


@pytest.mark.parametrize("end", ["logout", "destroy", "clear"])
def test_r12_logout_ends_the_session_on_the_server(ada: Visitor, state: Stateful, store: Store, end: str) -> None:
    """R12: after a logout nothing of the session is left in the store, and its cookie opens nothing."""
    ada.visit(lambda: state.sessions.login("ada"))
    old, key = ada.cookie, stored_key(ada)
    ends: dict[str, Callable[[], object]] = {
        "logout": lambda: state.sessions.logout(),
        "destroy": lambda: state.sessions.destroy(),
        "clear": lambda: session.clear(),
    }
    response = ada.visit(ends[end])
    assert "Max-Age=0" in session_cookies(response)[0]
    assert len(store.get(key) or b"") <= 1
    assert all(nobody(ada, old) for _ in range(3))


def test_r12_logout_wins_against_requests_in_flight(ada: Visitor, state: Stateful) -> None:
    """R12: a request that began before the logout does not bring the session back, nor its cookie."""
    ada.visit(lambda: state.sessions.login("ada"))
    old = ada.cookie
    late = ada.start(lambda pause: (state.user_id, pause(), session.update(late=1), state.sessions.rotate()))
    ada.visit(lambda: state.sessions.logout())
    assert session_cookies(late.finish()) == []
    assert nobody(ada, old)


# R19, R20: the cookie


def attributes(header: str) -> set[str]:
    """Return the attributes of a Set-Cookie header."""
    return {part.strip() for part in header.split(";")[1:]}


def test_r19_cookie_is_as_closed_as_it_can_be(make_app: MakeApp, make_visitor: MakeVisitor, state: Stateful) -> None:
    """R19: on https: Secure, HttpOnly, an explicit SameSite, the whole path, no domain; removed with the same."""
    visitor = make_visitor(make_app("memory://", SESSION_COOKIE_NAME="__Host-session", SESSION_COOKIE_SECURE=True))
    expected = {"Secure", "HttpOnly", "SameSite=Lax", "Path=/"}
    for view in (lambda: session.update(a=1), lambda: state.sessions.login("ada")):
        response = visitor.visit(view, base_url="https://localhost")
        assert attributes(response.headers["Set-Cookie"]) == expected
    removed = visitor.visit(lambda: state.sessions.logout(), base_url="https://localhost")
    extra = {"Max-Age=0", "Expires=Thu, 01 Jan 1970 00:00:00 GMT"}
    assert attributes(removed.headers["Set-Cookie"]) == expected | extra


@pytest.mark.parametrize("size", [0, 1000, 900_000])
def test_r20_cookie_is_small_whatever_the_session_holds(visitor: Visitor, state: Stateful, size: int) -> None:
    """R20: name and value are far from the 4,096 bytes that browsers keep, whatever the session and the user are."""
    response = visitor.visit(lambda: (session.update(data=bytes(size)), state.sessions.login("u" * 1024)))
    [header] = session_cookies(response)
    assert len(header.partition(";")[0]) == len("session=") + 69


# R21: nothing tells the id


@pytest.fixture
def everything_said(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], str]]:
    """Note every log line of any level, and every signal, of everybody."""
    told: list[object] = []

    def note(sender: object, **details: object) -> None:
        told.append((sender, details))

    named = [value for value in vars(signals).values() if hasattr(value, "connect")]
    for signal in named:
        signal.connect(note)
    with caplog.at_level(logging.DEBUG):
        yield lambda: caplog.text + repr(told) + repr([record.args for record in caplog.records])
    assert told


def test_r21_id_is_said_nowhere(
    clock: FakeClock,
    make_app: MakeApp,
    make_visitor: MakeVisitor,
    state: Stateful,
    everything_said: Callable[[], str],
) -> None:
    """R21: through a whole life with all its mishaps no id or store key is in a log, signal, repr, page or URL."""
    store = FaultyStore(MemoryStore())
    app = make_app(store, STATEFUL_SESSION_IDLE_TIMEOUT=1000)
    ada = make_visitor(app)
    secrets: set[str] = set()
    said: list[str] = []

    def visit(view: Callable[[], t.Any]) -> None:
        try:
            said.append(ada.visit(lambda: str(view())).text)
        finally:
            if ada.cookie:
                secrets.update((*ada.cookie.split(".")[1:], stored_key(ada).rpartition(":")[2]))

    def look() -> str:
        here = t.cast("t.Any", session)._get_current_object()
        things = (here, state, state.sessions, state.sessions.current, here.records, here.records.identities)
        page = render_template_string("{{ session }} {{ url_for('view', _external=True) }} {{ request.url }}")
        return f"{things!r} {page} {here.entry} {here.entry.id}"

    visit(lambda: session.update(name="Ada"))
    visit(look)
    visit(lambda: state.sessions.login("ada"))
    visit(look)
    visit(lambda: state.sessions.rotate())
    visit(lambda: session.update(bad=object()))
    visit(lambda: session.update(big=bytes(2**21)))
    store.fail("unavailable")
    visit(lambda: session["name"])
    store.mend()
    store.set(stored_key(ada), b"damaged", 60)
    visit(lambda: session.get("name"))
    visit(lambda: session.update(name="Ada"))
    clock.advance(1000)
    visit(lambda: session.get("name"))
    visit(lambda: session.update(name="Ada"))
    visit(lambda: state.sessions.logout())
    assert len(secrets) > 10
    for text in (everything_said(), *said):
        for secret in secrets:
            assert secret not in text


def test_r21_errors_hold_no_id_in_their_traceback(ada: Visitor) -> None:
    """R21: what an error about a session prints, its traceback included, names neither id nor store key."""
    errors: list[str] = []

    def view() -> None:
        for wrong in (lambda: session.update(a=object()), lambda: session.update(a=bytes(2**21)), lambda: session["b"]):
            try:
                wrong()
            except Exception:
                errors.append(traceback.format_exc())

    ada.visit(view)
    assert len(errors) == 3
    assert ada.cookie
    for secret in (*ada.cookie.split(".")[1:], stored_key(ada).rpartition(":")[2]):
        assert secret not in "".join(errors)


def test_r21_reference_is_keyed(make_app: MakeApp, make_visitor: MakeVisitor) -> None:
    """R21: what logs call a session is the same throughout its life under one id, and differs with the key."""
    told: list[str] = []
    references: set[str] = set()
    for key in ("one key of at least 32 characters", "another key of at least 32 chars."):
        store = MemoryStore()
        visitor = make_visitor(make_app(store, SECRET_KEY=key))
        with signals.session_created.connected_to(lambda _, reference: told.append(reference)):
            visitor.visit(lambda: session.update(name="Ada"))
        with signals.session_destroyed.connected_to(lambda _, reference, **__: references.add(reference)):
            visitor.visit(lambda: session.pop("name"))
    assert references == set(told)
    assert len(references) == 2
    assert all(re.fullmatch(r"[0-9a-f]{12}", reference) for reference in references)


# R22, R23: what the store holds


def test_r22_store_holds_no_usable_id(ada: Visitor, store: Store, state: Stateful) -> None:
    """R22: nothing in the store, in whatever form it is sent as a cookie, opens a session."""
    ada.visit(lambda: (session.update(more=1), state.sessions.login("ada")))
    assert ada.cookie
    key_id, token, tag = ada.cookie.split(".")
    for key in store.scan("tests:"):
        record = store.get(key) or b""
        assert token.encode() not in key.encode() + record
        digest = key.rpartition(":")[2]
        for attempt in (key, digest, f"{key_id}.{digest}.{tag}", f"{key_id}.{token[:-1]}.{tag}", record.hex()[:69]):
            assert nobody(ada, attempt)


def test_r22_tags_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """R22: what an attacker may try again and again is compared by a function that takes the same time for each."""
    compared: list[tuple[bytes, bytes]] = []
    compare = hmac.compare_digest

    def spy(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return compare(one, other)

    monkeypatch.setattr("flask_stateful.sessions.ids.hmac.compare_digest", spy)
    identities = Identities(Keyring("secret"), "shop")
    value = identities.cookie_value(identities.issue())
    forged = value[:-1] + ("0" if value[-1] != "0" else "1")
    assert identities.recognise(forged) is None
    assert identities.recognise(value) is not None
    assert len(compared) == 2


@pytest.mark.parametrize("attack", ["swap", "roll into a new id", "other key"])
def test_r23_records_are_bound_to_their_id_and_key(
    make_app: MakeApp, make_visitor: MakeVisitor, store: Store, state: Stateful, attack: str
) -> None:
    """R23: a record that is put at another id's place, or was sealed with a key that is not listed, does not open."""
    app = make_app(store)
    victim, attacker = make_visitor(app), make_visitor(app)
    victim.visit(lambda: state.sessions.login("victim"))
    attacker.visit(lambda: session.update(name="attacker"))
    record = store.get(stored_key(victim))
    assert record
    match attack:
        case "swap":
            store.set(stored_key(attacker), record, 60)
        case "roll into a new id":
            attacker.visit(lambda: state.sessions.rotate())
            store.set(stored_key(attacker), record, 60)
        case _:
            elsewhere = make_visitor(make_app(store, SECRET_KEY="another secret, of another app...."))
            elsewhere.visit(lambda: state.sessions.login("victim"))
            store.set(stored_key(attacker), store.get(stored_key(elsewhere)) or b"", 60)
    assert attacker.ask(lambda: (state.user_id, dict(session))) == (None, {})


# R24: no code from data

#: What would run code, or call what data names.
FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "marshal", "shelve", "jsonpickle", "yaml", "cloudpickle"}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__"}


def dangers(tree: ast.AST) -> Iterator[str]:
    """Yield what a module imports, or calls by name, that can run code from data."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from FORBIDDEN_MODULES & {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield from FORBIDDEN_MODULES & {(node.module or "").partition(".")[0]}
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield from FORBIDDEN_CALLS & {node.func.id}


def test_r24_package_has_no_decoder_that_runs_code() -> None:
    """R24: nothing in the package imports a module that can run what it decodes, or evaluates text."""
    files = list(Path(flask_stateful.__file__).parent.rglob("*.py"))
    found = {path.name: list(dangers(ast.parse(path.read_text(encoding="utf-8")))) for path in files}
    assert {name: names for name, names in found.items() if names} == {}
    assert list(dangers(ast.parse("import pickle.x; from yaml import load; eval('1')"))) == ["pickle", "yaml", "eval"]


class Bomb:
    """What leaves a trace when it is unpickled."""

    def __reduce__(self) -> tuple[t.Any, ...]:
        return pytest.fail, ("code from the store has run",)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_r24_pickled_records_are_not_run(ada: Visitor, store: Store, protocol: int) -> None:
    """R24: pickled bytes in the place of a record are dropped and not run, whatever protocol they are in."""
    store.set(stored_key(ada), pickle.dumps({"name": Bomb()}, protocol), 60)
    assert ada.ask(lambda: dict(session)) == {}
    assert store.get(stored_key(ada)) is None


def test_each_requirement_has_a_test() -> None:
    """Each requirement that is met by what is built so far is named by at least one test."""
    named: set[int] = set()
    for path in Path(__file__).parent.glob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                head = (ast.get_docstring(node) or "").partition(":")[0]
                named.update(int(number) for number in re.findall(r"\bR(\d+)\b", head))
    assert REQUIREMENTS - named == set()
