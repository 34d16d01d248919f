"""Requests that work on one session at the same time: whatever each of them did is kept (N1, N2)."""

from __future__ import annotations

from functools import partial

import pytest
from flask import session

from flask_stateful import StateConflict, Stateful
from flask_stateful.sessions.records import MAX_ROUNDS
from flask_stateful.stores.base import Store
from flask_stateful.testing import FakeClock

from .conftest import MakeApp, MakeVisitor, Serve
from .support import InterruptedStore, Visitor, session_cookies, stored_key, together

IDLE_TIMEOUT = 1000


def data(visitor: Visitor) -> dict[str, object]:
    """Return what a visitor's session holds."""
    held: dict[str, object] = visitor.ask(lambda: dict(session))
    return held


@pytest.fixture
def interruptible(make_app: MakeApp, make_visitor: MakeVisitor, interrupted: InterruptedStore) -> Visitor:
    """A visitor with a session, in a store that can be interrupted."""
    app = make_app(interrupted, STATEFUL_SESSION_IDLE_TIMEOUT=IDLE_TIMEOUT)
    app.register_error_handler(StateConflict, lambda error: ("", 409))
    visitor = make_visitor(app)
    visitor.visit(lambda: session.update(start=0))
    interrupted.reset()
    return visitor


# Several writers


@pytest.mark.parametrize("count", [2, 8])
def test_different_keys_are_all_kept(visitor: Visitor, count: int) -> None:
    """Requests that have all read the session before the first of them saves keep every change."""
    visitor.visit(lambda: session.update(start=0))

    def change(number: int, pause: object) -> None:
        assert session["start"] == 0
        pause()  # type: ignore[operator]
        session[f"key {number}"] = number

    late = [visitor.start(partial(change, number)) for number in range(count)]
    for request in late:
        assert request.finish().status_code == 200
    assert data(visitor) == {"start": 0} | {f"key {number}": number for number in range(count)}


def test_threads_that_race_are_all_kept(visitor: Visitor) -> None:
    """Requests that save at the same instant keep every change."""
    visitor.visit(lambda: session.update(start=0))

    def change(number: int) -> None:
        session[f"key {number}"] = number

    together(*[partial(visitor.ask, partial(change, number)) for number in range(8)])
    assert data(visitor) == {"start": 0} | {f"key {number}": number for number in range(8)}


@pytest.mark.parametrize("count", [2, 8])
def test_different_keys_of_processes_are_all_kept(serve: Serve, count: int) -> None:
    """Two processes whose requests have all read the session before the first of them saves keep every change."""
    server = serve()
    first = server.browser(0)
    first.do("set:start=0")
    browsers = [server.browser(number % 2, cookies_of=first) for number in range(count)]
    pauses = [server.make_pause(str(number)) for number in range(count)]
    for number, browser in enumerate(browsers):
        browser.send(f"/do/read:start/pause:{number}/set:key{number}={number}")
    for pause in pauses:
        pause.wait()
    for pause in pauses:
        pause.go()
    assert [browser.receive().status for browser in browsers] == [200] * count
    assert first.do("show").json == [{"start": "0"} | {f"key{number}": str(number) for number in range(count)}]


def test_same_key_the_later_save_wins(visitor: Visitor) -> None:
    """Of two requests that change one key, the one that saves later has the last word, not the one that began later."""
    visitor.visit(lambda: session.update(name=""))
    early = visitor.start(lambda pause: (session.update(name="began first"), pause()))
    later = visitor.start(lambda pause: (session.update(name="began second"), pause()))
    later.finish()
    early.finish()
    assert data(visitor) == {"name": "began first"}


def test_same_key_of_processes_the_later_save_wins(serve: Serve) -> None:
    """Of two processes' requests that change one key, the one that saves later has the last word."""
    server = serve()
    first = server.browser(0)
    first.do("set:name=nobody")
    second = server.browser(1, cookies_of=first)
    pause = server.make_pause("first")
    first.send("/do/set:name=first/pause:first")
    pause.wait()
    second.do("set:name=second")
    pause.go()
    first.receive()
    assert second.do("read:name").json == ["first"]


def test_removed_key_stays_removed(visitor: Visitor) -> None:
    """A request that removes a key, and one that changes another, both get their way."""
    visitor.visit(lambda: session.update(old=1, kept=1))
    late = visitor.start(lambda pause: (session["old"], pause(), session.update(kept=2)))
    visitor.visit(lambda: session.pop("old"))
    late.finish()
    assert data(visitor) == {"kept": 2}


def test_removed_and_assigned_again(visitor: Visitor) -> None:
    """A request that assigns what another one has removed meanwhile keeps it: its save was the later one."""
    visitor.visit(lambda: session.update(key=1, kept=1))
    late = visitor.start(lambda pause: (session.update(key=2), pause()))
    visitor.visit(lambda: session.pop("key"))
    late.finish()
    assert data(visitor) == {"key": 2, "kept": 1}


def test_change_inside_a_list_is_merged_by_key(visitor: Visitor) -> None:
    """A change inside a list is a change of its key, and leaves the others to other requests."""
    visitor.visit(lambda: session.update(cart=[1], name="Ada"))
    late = visitor.start(lambda pause: (session["cart"], pause(), session["cart"].append(2)))
    visitor.visit(lambda: session.update(name="Grace"))
    late.finish()
    assert data(visitor) == {"cart": [1, 2], "name": "Grace"}


# Readers


@pytest.mark.parametrize("permanent", [False, True])
@pytest.mark.parametrize("reads", [False, True])
def test_reader_writes_nothing(
    interruptible: Visitor, interrupted: InterruptedStore, reads: bool, permanent: bool
) -> None:
    """A slow request that only reads the session, or never touches it, leaves another one's write alone."""
    interruptible.visit(lambda: setattr(session, "permanent", permanent))
    late = interruptible.start(lambda pause: (reads and session["start"], pause()))
    interruptible.visit(lambda: session.update(start=1))
    interrupted.reset()
    response = late.finish()
    assert session_cookies(response) == []
    assert not interrupted.calls
    assert interruptible.ask(lambda: session["start"]) == 1


def test_untouched_session_is_not_read(interruptible: Visitor, interrupted: InterruptedStore) -> None:
    """A request that does not touch the session costs no call of the store, and no header."""
    response = interruptible.visit(lambda: "static")
    assert not interrupted.calls
    assert "Set-Cookie" not in response.headers
    assert "Vary" not in response.headers


def test_use_renews_once_per_tenth(
    clock: FakeClock, interruptible: Visitor, interrupted: InterruptedStore, state: Stateful
) -> None:
    """A session that is only read is written when a tenth of the idle timeout has passed, and then not for as long."""
    read = partial(interruptible.visit, lambda: session["start"])
    writes = []
    for seconds in (99, 1, 0, 99, 1):
        clock.advance(seconds)
        interrupted.reset()
        read()
        writes.append(interrupted.calls["swap"])
    assert writes == [0, 1, 0, 0, 1]
    seen, expires = interruptible.ask(
        lambda: (state.sessions.current.last_seen_at, state.sessions.current.expires_at)  # type: ignore[union-attr]
    )
    assert (seen.timestamp(), expires.timestamp()) == pytest.approx((clock.now(), clock.now() + IDLE_TIMEOUT))


def test_readers_that_race_renew_once(clock: FakeClock, interruptible: Visitor, store: Store) -> None:
    """Of several readers that are due to renew the session at the same time, one writes."""
    clock.advance(IDLE_TIMEOUT / 2)
    late = [interruptible.start(lambda pause: (session["start"], pause())) for _ in range(3)]
    held = [store.get(stored_key(interruptible))]
    for request in late:
        assert request.finish().status_code == 200
        held.append(store.get(stored_key(interruptible)))
    assert held[0] != held[1]
    assert held[1] == held[2] == held[3]


def test_renewal_leaves_a_write_alone(clock: FakeClock, interruptible: Visitor, interrupted: InterruptedStore) -> None:
    """A write that comes between a reader's look and its renewal survives the renewal."""
    clock.advance(IDLE_TIMEOUT / 2)
    interrupted.before("swap", lambda: interruptible.visit(lambda: session.update(start=1)))
    interruptible.visit(lambda: session["start"])
    assert interrupted.left == 0
    assert data(interruptible) == {"start": 1}


# First visits


def test_burst_of_first_visits(make_visitor: MakeVisitor, visitor: Visitor, store: Store) -> None:
    """Five first requests of one browser, none with a cookie yet, all succeed and leave a session each, no more."""
    late = [
        visitor.start(lambda pause, number=number: (session.update(number=number), pause()))  # type: ignore[misc]
        for number in range(5)
    ]
    before = set(store.scan("tests:session:"))
    responses = [request.finish() for request in late]
    assert [response.status_code for response in responses] == [200] * 5
    assert [len(session_cookies(response)) for response in responses] == [1] * 5
    assert len(set(store.scan("tests:session:")) - before) == 5
    assert data(visitor) == {"number": 4}


def test_burst_of_first_visits_to_processes(serve: Serve) -> None:
    """First requests without a cookie, to two processes, all succeed; the browser ends with one of the sessions."""
    server = serve()
    first = server.browser(0)
    browsers = [first, *(server.browser(number % 2, cookies_of=first) for number in range(1, 6))]
    pauses = [server.make_pause(str(number)) for number in range(6)]
    for number, browser in enumerate(browsers):
        browser.send(f"/do/set:number={number}/pause:{number}")
    for pause in pauses:
        pause.wait()
    for pause in pauses:
        pause.go()
    answers = [browser.receive() for browser in browsers]
    assert [(answer.status, len(answer.session_cookies)) for answer in answers] == [(200, 1)] * 6
    assert first.do("read:number").json == ["5"]


# Conflicts in the very moment of saving


def test_conflict_is_merged(interruptible: Visitor, interrupted: InterruptedStore) -> None:
    """A save that another one has overtaken reads again and lays its change over what it finds."""
    interrupted.before("swap", lambda: interruptible.visit(lambda: session.update(other=1)))
    interruptible.visit(lambda: session.update(mine=1))
    assert interrupted.left == 0
    assert data(interruptible) == {"start": 0, "other": 1, "mine": 1}


def test_conflict_while_moving_is_merged(
    interruptible: Visitor, interrupted: InterruptedStore, state: Stateful
) -> None:
    """A change that another request saves while this one moves the session to a new id moves along."""
    interrupted.before("swap", lambda: interruptible.visit(lambda: session.update(other=1)))
    interruptible.visit(lambda: (state.sessions.rotate(), session.update(mine=1)))
    assert interrupted.left == 0
    assert data(interruptible) == {"start": 0, "other": 1, "mine": 1}


def test_rotation_of_a_session_that_another_request_fills(
    interruptible: Visitor, interrupted: InterruptedStore, state: Stateful
) -> None:
    """A request that empties the session and asks for a new id gets one, for what another has just put in."""
    cookie = interruptible.cookie
    interrupted.before("swap", lambda: interruptible.visit(lambda: session.update(other=1)))
    interruptible.visit(lambda: (session.pop("start"), state.sessions.rotate()))
    assert interrupted.left == 0
    assert interruptible.cookie not in (None, cookie)
    assert data(interruptible) == {"other": 1}


@pytest.mark.parametrize("moves", [False, True])
def test_conflict_storm_is_weathered(
    interruptible: Visitor, interrupted: InterruptedStore, state: Stateful, moves: bool
) -> None:
    """A save that was overtaken again and again gets through in its last round, and has lost nothing."""
    others = MAX_ROUNDS - 1

    def overtake() -> None:
        interruptible.visit(lambda: session.update({f"other {interrupted.left}": 1}))

    interrupted.before("swap", overtake, times=others)
    response = interruptible.visit(lambda: (session.update(mine=1), moves and state.sessions.rotate()))
    assert response.status_code == 200
    assert interrupted.left == 0
    assert data(interruptible) == {"start": 0, "mine": 1} | {f"other {number}": 1 for number in range(others)}


@pytest.mark.parametrize("moves", [False, True])
def test_conflict_storm_ends(
    interruptible: Visitor, interrupted: InterruptedStore, state: Stateful, store: Store, moves: bool
) -> None:
    """A save that is overtaken in every round is a StateConflict; it has saved nothing and left nothing behind."""
    keys = set(store.scan("tests:session:"))

    def overtake() -> None:
        interruptible.visit(lambda: session.update(other=interrupted.left))

    interrupted.before("swap", overtake, times=MAX_ROUNDS)
    response = interruptible.visit(lambda: (session.update(mine=1), moves and state.sessions.rotate()))
    assert response.status_code == 409
    assert session_cookies(response) == []
    assert data(interruptible) == {"start": 0, "other": 0}
    assert set(store.scan("tests:session:")) == keys
