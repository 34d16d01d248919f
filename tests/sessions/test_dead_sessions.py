"""A session that ended while a request was in flight stays dead, and that request sends no session cookie (N3)."""

from __future__ import annotations

import typing as t
from collections.abc import Callable

import pytest
from flask import abort, session

from flask_stateful import Stateful, signals
from flask_stateful.sessions.record import TOMBSTONE
from flask_stateful.stores.base import Store
from flask_stateful.stores.redis import RedisStore
from flask_stateful.testing import FakeClock

from .conftest import MakeApp, MakeVisitor, Serve
from .support import InterruptedStore, Visitor, session_cookies, stored_key

Act: t.TypeAlias = Callable[[Stateful], object]

IDLE_TIMEOUT = 1000
TOMBSTONE_TTL = 10

#: How a session ends, or moves to a new id, and whether the visitor has one afterwards.
ENDINGS: dict[str, Act] = {
    "login": lambda state: state.sessions.login("Grace"),
    "logout": lambda state: state.sessions.logout(),
    "rotate": lambda state: state.sessions.rotate(),
    "destroy": lambda state: state.sessions.destroy(),
    "clear": lambda state: session.clear(),
    "clear and write": lambda state: (session.clear(), session.update(new=1)),
    "pop": lambda state: (session.pop("name"), session.pop("list"), state.sessions.logout()),
}
MOVES = ("login", "rotate", "clear and write")


def write_under_lock(state: Stateful) -> None:
    with state.sessions.lock():
        session["late"] = 1


#: What the late request does, besides logging in.
LATE_WORK: dict[str, Act] = {
    "read": lambda state: session.get("name"),
    "write": lambda state: session.update(late=1),
    "change in place": lambda state: session.setdefault("list", []).append(2),
    "remove": lambda state: session.pop("name", None),
    "make permanent": lambda state: setattr(session, "permanent", True),
    "force": lambda state: setattr(session, "modified", True),
    "rotate": lambda state: (session.update(late=1), state.sessions.rotate()),
    "clear": lambda state: session.clear(),
    "clear and write": lambda state: (session.clear(), session.update(late=1)),
    "lock": write_under_lock,
}


@pytest.fixture(params=ENDINGS)
def ending(request: pytest.FixtureRequest) -> Act:
    """One way to end a session after the other."""
    return ENDINGS[request.param]


@pytest.fixture
def ada(visitor: Visitor, state: Stateful) -> Visitor:
    """A visitor who is logged in, with some data in a permanent session."""
    visitor.visit(lambda: (session.update(name="Ada", list=[1]), setattr(session, "permanent", True)))
    visitor.visit(lambda: state.sessions.login("ada"))
    return visitor


def whole_state(visitor: Visitor, state: Stateful) -> tuple[object, object, object]:
    """Return everything that a visitor has: the cookie, the data, the user."""
    return visitor.cookie, *visitor.ask(lambda: (dict(session), state.user_id))


# Late requests


@pytest.mark.parametrize("looked_before", [True, False], ids=["looked before", "looked after"])
@pytest.mark.parametrize("work", LATE_WORK.values(), ids=LATE_WORK)
def test_late_request_changes_nothing(
    ada: Visitor, state: Stateful, store: Store, ending: Act, work: Act, looked_before: bool
) -> None:
    """Whatever a request does that is in flight while its session ends, nothing is stored and no cookie is sent."""
    key = stored_key(ada)
    late = ada.start(lambda pause: (looked_before and session["name"], pause(), work(state)))
    ada.visit(lambda: ending(state))
    before, keys = whole_state(ada, state), set(store.scan("tests:"))
    response = late.finish()
    assert response.status_code == 200
    assert session_cookies(response) == []
    assert store.get(key) == TOMBSTONE
    assert set(store.scan("tests:")) == keys
    assert whole_state(ada, state) == before


def test_late_request_works_in_memory(ada: Visitor, state: Stateful, ending: Act) -> None:
    """A request whose session has ended reads back what it writes, until it ends itself."""
    seen: list[object] = []
    late = ada.start(lambda pause: (pause(), session.update(late=1), seen.append(dict(session))))
    ada.visit(lambda: ending(state))
    late.finish()
    assert seen == [{"late": 1}]


def test_late_request_lets_the_cookie_be_renewed_by_others(clock: FakeClock, ada: Visitor, state: Stateful) -> None:
    """A reader of a permanent session that is due for renewal does not put its cookie in place of a login's."""
    late = ada.start(lambda pause: (session["name"], pause()))
    clock.advance(ada.app.permanent_session_lifetime / 2)
    ada.visit(lambda: state.sessions.login("ada"))
    assert session_cookies(late.finish()) == []
    assert ada.ask(lambda: state.user_id) == "ada"


@pytest.mark.parametrize("looked_before", [True, False], ids=["looked before", "looked after"])
def test_late_login_stands(ada: Visitor, state: Stateful, ending: Act, looked_before: bool) -> None:
    """A request that logs in itself gets a session of its own, with nothing of the one that has ended."""
    late = ada.start(
        lambda pause: (looked_before and session["name"], pause(), session.update(late=1), state.sessions.login("Mary"))
    )
    ada.visit(lambda: ending(state))
    other = ada.cookie
    assert len(session_cookies(late.finish())) == 1
    assert ada.cookie not in (None, other)
    data, user_id = ada.ask(lambda: (dict(session), state.user_id))
    assert user_id == "Mary"
    assert data["late"] == 1
    assert "name" not in data


def test_late_login_leaves_the_other_session_alone(ada: Visitor, state: Stateful, make_visitor: MakeVisitor) -> None:
    """Of two logins at the same time each has a session; the browser keeps the cookie that came last."""
    late = ada.start(lambda pause: (session["name"], pause(), state.sessions.login("Mary")))
    ada.visit(lambda: state.sessions.login("ada"))
    first = make_visitor(ada.app, cookies_of=ada)
    late.finish()
    assert first.ask(lambda: (session["name"], state.user_id)) == ("Ada", "ada")
    assert ada.ask(lambda: state.user_id) == "Mary"


def test_late_request_of_another_process(serve: Serve, subtests: pytest.Subtests) -> None:
    """A process whose request is in flight while another process ends the session keeps its hands off."""
    server = serve()
    for number, ending in enumerate(("login:grace", "logout", "rotate", "destroy", "clear")):
        with subtests.test(ending):
            first = server.browser(0)
            first.do("set:name=Ada", "login:ada")
            second = server.browser(1, cookies_of=first)
            pause = server.make_pause(f"late{number}")
            first.send(f"/do/read:name/pause:late{number}/set:late=1/show")
            pause.wait()
            assert second.do(ending).status == 200
            cookies, held = dict(second.cookies), second.do("show", "user").json
            pause.go()
            answer = first.receive()
            assert answer.status == 200
            assert answer.session_cookies == []
            assert answer.json[-1] == {"name": "Ada", "late": "1"}
            assert (second.cookies, second.do("show", "user").json) == (cookies, held)
            first.close()
            second.close()


# The tombstone


def test_old_id_is_dead_at_once(ada: Visitor, state: Stateful, make_visitor: MakeVisitor, ending: Act) -> None:
    """Who kept a copy of the cookie has nothing from the moment on in which the session ended."""
    thief = make_visitor(ada.app, cookies_of=ada)
    assert thief.ask(lambda: state.user_id) == "ada"
    ada.visit(lambda: ending(state))
    assert thief.ask(lambda: (dict(session), state.user_id, state.sessions.current)) == ({}, None, None)


def test_tombstone_goes_after_ten_seconds(
    clock: FakeClock, ada: Visitor, state: Stateful, store: Store, make_visitor: MakeVisitor, ending: Act
) -> None:
    """After 10 seconds the old id is as good as any unknown one: what is written then has a new id and no old data."""
    key = stored_key(ada)
    copy = make_visitor(ada.app, cookies_of=ada)
    old = copy.cookie
    ada.visit(lambda: ending(state))
    clock.advance(TOMBSTONE_TTL - 1)
    assert session_cookies(copy.visit(lambda: session.update(late=1))) == []
    assert store.get(key) == TOMBSTONE
    clock.advance(1)
    let_pass(store, key)
    assert store.get(key) is None
    assert copy.ask(lambda: (dict(session), state.user_id)) == ({}, None)
    copy.visit(lambda: session.update(late=1))
    assert copy.cookie not in (None, old, ada.cookie)
    assert copy.ask(lambda: (dict(session), state.user_id)) == ({"late": 1}, None)


def let_pass(store: Store, key: str) -> None:
    """Let a tombstone go from a server that has a clock of its own, if it is to stay no longer than it should."""
    if isinstance(store, RedisStore):
        remaining = store._link.call("PTTL", key.encode())
        assert 0 < remaining <= TOMBSTONE_TTL * 1000
        store.delete(key)


@pytest.mark.parametrize("work", LATE_WORK.values(), ids=LATE_WORK)
def test_request_outlasts_the_tombstone(ada: Visitor, state: Stateful, store: Store, ending: Act, work: Act) -> None:
    """A request that has seen the session alive changes nothing either when even the tombstone has gone."""
    key = stored_key(ada)
    late = ada.start(lambda pause: (session["name"], pause(), work(state)))
    ada.visit(lambda: ending(state))
    store.delete(key)
    before, keys = whole_state(ada, state), set(store.scan("tests:"))
    assert session_cookies(late.finish()) == []
    assert set(store.scan("tests:")) == keys
    assert whole_state(ada, state) == before


def test_session_expires_in_flight(
    clock: FakeClock, make_app: MakeApp, store: Store, make_visitor: MakeVisitor
) -> None:
    """A session that expires between a request's look and its save stays expired."""
    visitor = make_visitor(make_app(store, STATEFUL_SESSION_IDLE_TIMEOUT=IDLE_TIMEOUT))
    visitor.visit(lambda: session.update(name="Ada"))
    key = stored_key(visitor)
    late = visitor.start(lambda pause: (session["name"], pause(), session.update(late=1)))
    clock.advance(IDLE_TIMEOUT)
    if isinstance(store, RedisStore):
        store.delete(key)
    assert session_cookies(late.finish()) == []
    assert store.get(key) is None
    assert visitor.ask(lambda: dict(session)) == {}


def test_lifetime_is_over_in_flight(
    clock: FakeClock, make_app: MakeApp, store: Store, make_visitor: MakeVisitor, state: Stateful
) -> None:
    """A session whose lifetime is over before it is saved ends, also where it was about to move to a new id."""
    visitor = make_visitor(make_app(store, STATEFUL_SESSION_LIFETIME=IDLE_TIMEOUT))
    visitor.visit(lambda: session.update(name="Ada"))
    key, cookie = stored_key(visitor), visitor.cookie
    late = visitor.start(lambda pause: (session["name"], pause(), state.sessions.rotate()))
    clock.advance(IDLE_TIMEOUT)
    assert late.finish().status_code == 200
    assert visitor.cookie in (None, cookie)
    assert store.get(key) in (None, TOMBSTONE)
    assert set(store.scan("tests:session:")) <= {key}


# In the very moment of saving


@pytest.fixture
def interruptible(make_app: MakeApp, make_visitor: MakeVisitor, interrupted: InterruptedStore) -> Visitor:
    """A visitor with a session, in a store that can be interrupted."""
    visitor = make_visitor(make_app(interrupted))
    visitor.visit(lambda: session.update(name="Ada", list=[1]))
    return visitor


@pytest.mark.parametrize("moves", [False, True], ids=["save", "move"])
def test_session_ends_while_it_is_saved(
    interruptible: Visitor, interrupted: InterruptedStore, state: Stateful, ending: Act, moves: bool
) -> None:
    """A session that ends between a save's look and its write is not written; a move leaves no record behind."""
    tab = interruptible
    left: list[object] = []

    def end() -> None:
        tab.visit(lambda: ending(state))
        left.append((tab.cookie, set(interrupted.scan("tests:"))))

    # A move has written the new record when it comes to the old one, which must be gone again afterwards.
    interrupted.before("set" if moves else "swap", end)
    response = tab.visit(lambda: (session.update(late=1), moves and state.sessions.rotate()))
    assert interrupted.left == 0
    assert session_cookies(response) == []
    assert left == [(tab.cookie, set(interrupted.scan("tests:")))]


def test_session_ends_while_its_visitor_logs_in(
    interruptible: Visitor, interrupted: InterruptedStore, state: Stateful, ending: Act
) -> None:
    """A login stands though the session ends while it is being saved; the data of the dead session stays dead."""
    interrupted.before("swap", lambda: interruptible.visit(lambda: ending(state)))
    response = interruptible.visit(lambda: (session.update(late=1), state.sessions.login("ada")))
    assert interrupted.left == 0
    assert len(session_cookies(response)) == 1
    assert interruptible.ask(lambda: (dict(session), state.user_id)) == ({"late": 1}, "ada")


def test_expired_session_that_another_request_renews(
    clock: FakeClock, make_app: MakeApp, make_visitor: MakeVisitor, interrupted: InterruptedStore
) -> None:
    """A request that finds the session expired does not remove what another one has just saved."""
    visitor = make_visitor(make_app(interrupted, STATEFUL_SESSION_IDLE_TIMEOUT=IDLE_TIMEOUT))
    visitor.visit(lambda: session.update(name="Ada"))
    late = visitor.start(lambda pause: (session["name"], pause(), session.update(late=1)))
    clock.advance(IDLE_TIMEOUT - 1)

    def save_and_be_late() -> None:
        late.finish()
        clock.advance(1)

    interrupted.after("get", save_and_be_late)
    assert visitor.ask(lambda: dict(session)) == {}
    assert visitor.ask(lambda: dict(session)) == {"name": "Ada", "late": 1}


# Requests that fail


@pytest.mark.parametrize("move", MOVES)
@pytest.mark.parametrize("fail", [lambda: 1 / 0, lambda: abort(503)], ids=["exception", "503"])
def test_failed_request_does_not_move(ada: Visitor, state: Stateful, move: str, fail: Callable[[], object]) -> None:
    """A login, a rotation and a cleared session do nothing when the response is a 5xx."""
    before = whole_state(ada, state)
    response = ada.visit(lambda: (session.update(late=1), ENDINGS[move](state), fail()))
    assert response.status_code >= 500
    assert session_cookies(response) == []
    assert whole_state(ada, state) == before


@pytest.mark.parametrize("end", ["logout", "destroy"])
@pytest.mark.parametrize("fail", [lambda: 1 / 0, lambda: abort(503)], ids=["exception", "503"])
def test_failed_request_stays_logged_out(
    ada: Visitor, state: Stateful, make_visitor: MakeVisitor, end: str, fail: Callable[[], object]
) -> None:
    """A logout is a logout, also when the response is a 5xx: the session is dead and the cookie removed."""
    thief = make_visitor(ada.app, cookies_of=ada)
    response = ada.visit(lambda: (session.update(late=1), ENDINGS[end](state), session.update(later=1), fail()))
    assert response.status_code >= 500
    assert len(session_cookies(response)) == 1
    assert ada.cookie is None
    assert ada.ask(lambda: (dict(session), state.user_id)) == ({}, None)
    assert thief.ask(lambda: (dict(session), state.user_id)) == ({}, None)


def test_failed_login_after_a_logout(ada: Visitor, state: Stateful) -> None:
    """A request that logs out, logs another user in and fails leaves nobody logged in."""
    ada.visit(lambda: (state.sessions.logout(), state.sessions.login("Grace"), 1 / 0))
    assert ada.cookie is None
    assert ada.ask(lambda: state.user_id) is None


@pytest.mark.parametrize("move", MOVES)
def test_refused_request_moves(ada: Visitor, state: Stateful, move: str) -> None:
    """A response of 4xx is no failure: what the request did to the session is kept."""
    cookie = ada.cookie
    assert ada.visit(lambda: (ENDINGS[move](state), abort(403))).status_code == 403
    assert ada.cookie not in (None, cookie)


@pytest.mark.parametrize("move", MOVES)
def test_failed_request_is_kept_on_demand(
    make_app: MakeApp, make_visitor: MakeVisitor, store: Store, state: Stateful, move: str
) -> None:
    """With STATEFUL_KEEP_ON_ERROR a 5xx keeps what the request did."""
    visitor = make_visitor(make_app(store, STATEFUL_KEEP_ON_ERROR=True))
    visitor.visit(lambda: session.update(name="Ada"))
    cookie = visitor.cookie
    assert visitor.visit(lambda: (ENDINGS[move](state), 1 / 0)).status_code == 500
    assert visitor.cookie not in (None, cookie)


def test_failed_request_forgets_what_it_did(ada: Visitor, state: Stateful) -> None:
    """After a 5xx the session shows what is stored to whoever still looks at it."""
    with ada.client:
        ada.visit(lambda: (session.update(late=1), session["list"].append(2), 1 / 0))
        assert dict(session) == {"name": "Ada", "list": [1], "_permanent": True}


# One request that ends a session and goes on


def test_clear_unbinds_the_user(ada: Visitor, state: Stateful) -> None:
    """What is written after clear() begins a session that nobody is logged in to, with nothing of the old one."""
    cookie = ada.cookie
    ada.visit(lambda: (session.clear(), session.update(new=1)))
    assert ada.cookie not in (None, cookie)
    assert ada.ask(lambda: (dict(session), state.user_id)) == ({"new": 1}, None)


def test_logout_and_write_begins_another_session(ada: Visitor, state: Stateful) -> None:
    """What a request writes after a logout is kept, under a new id and without the old data."""
    cookie = ada.cookie
    ada.visit(lambda: (state.sessions.logout(), session.update(message="bye")))
    assert ada.cookie not in (None, cookie)
    assert ada.ask(lambda: (dict(session), state.user_id)) == ({"message": "bye"}, None)


def test_login_and_logout_is_a_logout(ada: Visitor, state: Stateful) -> None:
    """The last word counts in a request that logs in and out."""
    response = ada.visit(lambda: (state.sessions.login("Grace"), state.sessions.logout()))
    assert len(session_cookies(response)) == 1
    assert ada.cookie is None


def test_logout_and_login_is_a_login(ada: Visitor, state: Stateful) -> None:
    """The last word counts in a request that logs out and in."""
    ada.visit(lambda: (state.sessions.logout(), state.sessions.login("Grace")))
    assert ada.ask(lambda: (dict(session), state.user_id)) == ({}, "Grace")


def test_endings_are_reported_once(ada: Visitor, state: Stateful, ending: Act) -> None:
    """An ending sends one signal, and the late request that meets it none."""
    late = ada.start(lambda pause: (session["name"], pause(), session.update(late=1)))
    sent: list[str] = []

    def note(_: object, **details: object) -> None:
        sent.append(str(details.get("reason")))

    with signals.session_destroyed.connected_to(note), signals.session_rotated.connected_to(note):
        ada.visit(lambda: ending(state))
        late.finish()
    assert len(sent) == 1
