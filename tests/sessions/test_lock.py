"""``state.sessions.lock()``: one request at a time, for counters and appends (H1, H7)."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import typing as t
from functools import partial

import pytest
from flask import session

from flask_stateful import LockTimeout, StateConflict, Stateful, signals
from flask_stateful.stores.base import Store
from flask_stateful.testing import FakeClock

from .conftest import MakeApp, MakeVisitor, Serve
from .support import PATIENCE, InterruptedStore, Visitor, session_cookies, stored_key, together

LOCK_TIMEOUT = 5


@pytest.fixture
def interruptible(make_app: MakeApp, make_visitor: MakeVisitor, interrupted: InterruptedStore) -> Visitor:
    """A visitor with a session, in a store that can be interrupted."""
    app = make_app(interrupted, STATEFUL_LOCK_TIMEOUT=LOCK_TIMEOUT)
    for error in (LockTimeout, StateConflict):
        app.register_error_handler(error, lambda error: (f"{type(error).__name__}: {error}", 409))
    visitor = make_visitor(app)
    visitor.visit(lambda: session.update(count=0, list=[]))
    interrupted.reset()
    return visitor


def lock_key(visitor: Visitor) -> str:
    """Return the key of the lock of a visitor's session."""
    return f"{stored_key(visitor)}:lock"


def count_one(state: Stateful) -> None:
    with state.sessions.lock():
        session["count"] += 1


# Counters and appends


def test_appends_of_threads_are_all_kept(
    make_app: MakeApp, make_visitor: MakeVisitor, state: Stateful, store: Store
) -> None:
    """A hundred appends to one list by eight threads are all there, each once."""
    visitor = make_visitor(make_app(store, STATEFUL_LOCK_TIMEOUT=PATIENCE))
    visitor.visit(lambda: session.update(list=[]))

    def append(number: int) -> None:
        with state.sessions.lock():
            session["list"].append(number)

    def append_some(numbers: range) -> None:
        for number in numbers:
            visitor.ask(partial(append, number))

    together(*[partial(append_some, range(first, 100, 8)) for first in range(8)])
    assert sorted(visitor.ask(lambda: session["list"])) == list(range(100))


def test_appends_of_processes_are_all_kept(serve: Serve) -> None:
    """A hundred appends to one list by four threads in each of two processes are all there, each once."""
    server = serve(STATEFUL_LOCK_TIMEOUT=PATIENCE)
    first = server.browser(0)
    first.do("set:start=0")
    browsers = [server.browser(number % 2, cookies_of=first) for number in range(8)]

    def append_some(number: int) -> None:
        for item in range(number, 100, 8):
            assert browsers[number].do("lock", f"append:list={item}").status == 200

    together(*[partial(append_some, number) for number in range(8)])
    assert sorted(map(int, first.do("read:list").json[0])) == list(range(100))


def test_second_waits_for_the_first(interruptible: Visitor, interrupted: InterruptedStore, state: Stateful) -> None:
    """A request that finds the lock taken goes on when it is given back, and sees what its holder has saved."""

    def append(name: str, pause: t.Callable[[], None]) -> None:
        seen = list(session["list"])
        with state.sessions.lock():
            pause()
            session["list"].append((name, seen))

    first = interruptible.start(partial(append, "first"))
    tried = threading.Event()
    interrupted.after("add", tried.set)
    waiting = threading.Thread(target=interruptible.visit, args=[partial(append, "second", lambda: None)])
    waiting.start()
    assert tried.wait(PATIENCE)
    assert first.finish().status_code == 200
    waiting.join(PATIENCE)
    assert interruptible.ask(lambda: session["list"]) == [("first", []), ("second", [])]


# What it reads and saves


def test_entering_reads_again(visitor: Visitor, state: Stateful) -> None:
    """Under the lock a request sees what others have saved since it looked, and its own changes over it."""
    seen: list[object] = []

    def view(pause: t.Callable[[], None]) -> None:
        session["mine"] = 1
        del session["old"]
        pause()
        with state.sessions.lock():
            seen.append(dict(session))

    visitor.visit(lambda: session.update(count=0, old=1))
    late = visitor.start(view)
    visitor.visit(lambda: session.update(count=1, old=2))
    late.finish()
    assert seen == [{"count": 1, "mine": 1}]
    assert visitor.ask(lambda: dict(session)) == {"count": 1, "mine": 1}


def test_leaving_saves(visitor: Visitor, state: Stateful) -> None:
    """On leaving, everything is saved, whatever becomes of the request after that."""
    visitor.visit(lambda: session.update(count=0))
    response = visitor.visit(lambda: (session.update(before=1), count_one(state), session.update(later=1), 1 / 0))
    assert response.status_code == 500
    assert visitor.ask(lambda: dict(session)) == {"count": 1, "before": 1}


def test_what_is_written_after_the_lock_is_saved(visitor: Visitor, state: Stateful) -> None:
    """A request goes on with its session after the lock, also with the lists that it holds."""

    def view() -> None:
        with state.sessions.lock():
            items = session["list"]
            items.append(1)
        items.append(2)
        session["later"] = 1

    visitor.visit(lambda: session.update(list=[]))
    visitor.visit(view)
    assert visitor.ask(lambda: dict(session)) == {"list": [1, 2], "later": 1}


def test_exception_saves_nothing(interruptible: Visitor, interrupted: InterruptedStore, state: Stateful) -> None:
    """Leaving by an exception saves nothing and gives the lock back."""

    def view() -> None:
        with state.sessions.lock():
            session["count"] += 1
            raise RuntimeError

    assert interruptible.visit(view).status_code == 500
    assert interrupted.get(lock_key(interruptible)) is None
    assert interruptible.ask(lambda: session["count"]) == 0


def test_nested_lock_does_nothing(interruptible: Visitor, interrupted: InterruptedStore, state: Stateful) -> None:
    """A lock inside the same request's lock neither waits for itself, nor saves, nor gives the lock back."""

    def view() -> None:
        with state.sessions.lock():
            with state.sessions.lock():
                session["count"] += 1
            assert interrupted.get(lock_key(interruptible))
            assert interrupted.calls["swap"] == 0
            session["count"] += 1

    assert interruptible.visit(view).status_code == 200
    assert interrupted.calls["add"] == 1
    assert interrupted.get(lock_key(interruptible)) is None
    assert interruptible.ask(lambda: session["count"]) == 2


def test_lock_of_a_new_session(visitor: Visitor, state: Stateful) -> None:
    """A visitor without a session has one after the lock, nested or not, whatever becomes of the request."""

    def view() -> None:
        with state.sessions.lock():
            with state.sessions.lock():
                session["count"] = 1
            session["count"] += 1
        raise RuntimeError

    response = visitor.visit(view)
    assert response.status_code == 500
    assert len(session_cookies(response)) == 1
    assert visitor.ask(lambda: session["count"]) == 2


@pytest.mark.parametrize("move", ["login", "rotate", "clear"])
def test_moves_under_the_lock(visitor: Visitor, state: Stateful, move: str) -> None:
    """A session that moves to a new id under the lock has moved, and its cookie is sent, also by a 5xx."""
    moves: dict[str, t.Callable[[], None]] = {
        "login": lambda: state.sessions.login("ada"),
        "rotate": lambda: state.sessions.rotate(),
        "clear": lambda: session.clear(),
    }

    def view() -> None:
        with state.sessions.lock():
            moves[move]()
            session["count"] = 1
        raise RuntimeError

    visitor.visit(lambda: session.update(count=0))
    cookie = visitor.cookie
    assert visitor.visit(view).status_code == 500
    assert visitor.cookie not in (None, cookie)
    assert visitor.ask(lambda: session["count"]) == 1


# What was looked up before


def test_unchanged_list_stays_the_same(visitor: Visitor, state: Stateful) -> None:
    """A list that was looked up before the lock can be changed under it, if nobody else has changed it."""

    def view() -> None:
        items = session["list"]
        with state.sessions.lock():
            items.append(1)
            assert session["list"] is items

    visitor.visit(lambda: session.update(list=[]))
    assert visitor.visit(view).status_code == 200
    assert visitor.ask(lambda: session["list"]) == [1]


@pytest.mark.parametrize("where", ["under the lock", "after the lock", "after two locks"])
def test_list_that_others_have_changed(interruptible: Visitor, state: Stateful, where: str) -> None:
    """Who looks a list up before the lock and changes it later, while another request has changed it, is told so."""

    def view(pause: t.Callable[[], None]) -> None:
        items = session["list"]
        pause()
        with state.sessions.lock():
            if where == "under the lock":
                items.append("lost")
        if where == "after two locks":
            with state.sessions.lock():
                session["count"] += 1
        items.append("lost")

    late = interruptible.start(view)
    interruptible.visit(lambda: session["list"].append("other"))
    response = late.finish()
    assert response.status_code == 409
    assert response.text.startswith("StateConflict: session['list'] was looked up before the lock")
    assert interruptible.ask(lambda: session["list"]) == ["other"]


def test_list_that_others_have_changed_can_be_left_alone(interruptible: Visitor, state: Stateful) -> None:
    """Who looks a list up before the lock and only reads it has no conflict; under the lock there is the new one."""
    seen: list[object] = []

    def view(pause: t.Callable[[], None]) -> None:
        items = session["list"]
        pause()
        with state.sessions.lock():
            seen.extend((list(items), list(session["list"])))
            session["list"].append("mine")

    late = interruptible.start(view)
    interruptible.visit(lambda: session["list"].append("other"))
    assert late.finish().status_code == 200
    assert seen == [[], ["other"]]
    assert interruptible.ask(lambda: session["list"]) == ["other", "mine"]


# Locks that are not free, or get lost


def test_lock_timeout(clock: FakeClock, interruptible: Visitor, store: Store, state: Stateful) -> None:
    """A lock that is not free in time is a LockTimeout, which names the setting; nothing has been changed."""
    store.set(lock_key(interruptible), b"another", 3600)
    began = clock.monotonic()
    response = interruptible.visit(lambda: count_one(state))
    assert response.status_code == 409
    assert "STATEFUL_LOCK_TIMEOUT" in response.text
    assert clock.monotonic() - began == pytest.approx(LOCK_TIMEOUT, abs=0.1)
    assert store.get(lock_key(interruptible)) == b"another"
    assert interruptible.ask(lambda: session["count"]) == 0


def lose(clock: FakeClock, store: Store, key: str) -> None:
    """Let a lock's lease end, also in a server that has a clock of its own."""
    clock.advance(LOCK_TIMEOUT)
    store.delete(key)


@pytest.mark.parametrize("held_by_another", [False, True])
def test_lost_lock(
    clock: FakeClock, interruptible: Visitor, store: Store, state: Stateful, held_by_another: bool
) -> None:
    """A request that held the lock for too long saves all the same, if nobody has written; and disturbs nobody."""
    key = lock_key(interruptible)

    def view() -> None:
        with state.sessions.lock():
            session["count"] += 1
            lose(clock, store, key)
            if held_by_another:
                store.set(key, b"another", 3600)

    assert interruptible.visit(view).status_code == 200
    assert store.get(key) == (b"another" if held_by_another else None)
    assert interruptible.ask(lambda: session["count"]) == 1


def test_lost_lock_and_another_writer(clock: FakeClock, interruptible: Visitor, store: Store, state: Stateful) -> None:
    """A request that held the lock for too long, while another one wrote, is told; what the other wrote is kept."""
    key = lock_key(interruptible)

    def view() -> None:
        with state.sessions.lock():
            session["count"] += 1
            lose(clock, store, key)
            interruptible.visit(lambda: count_one(state))

    response = interruptible.visit(view)
    assert response.status_code == 409
    assert response.text.startswith("StateConflict")
    assert interruptible.ask(lambda: session["count"]) == 1


def test_lost_lock_that_was_granted_slowly(
    clock: FakeClock, interruptible: Visitor, interrupted: InterruptedStore, state: Stateful
) -> None:
    """The time of a lock counts from when it was asked for, since the answer may have taken long."""
    key = lock_key(interruptible)

    def view() -> None:
        with state.sessions.lock():
            session["count"] += 1
            clock.advance(LOCK_TIMEOUT * 0.4)
            interrupted.delete(key)
            interruptible.visit(lambda: count_one(state))

    interrupted.after("add", lambda: clock.advance(LOCK_TIMEOUT * 0.6))
    assert interruptible.visit(view).status_code == 409
    assert interruptible.ask(lambda: session["count"]) == 1


def test_lock_that_is_free_at_the_last_moment(
    clock: FakeClock, interruptible: Visitor, interrupted: InterruptedStore, state: Stateful
) -> None:
    """Who waits for a lock asks once more when the time is over, so that a slow answer is no LockTimeout."""
    key = lock_key(interruptible)
    interrupted.set(key, b"killed", 3600)

    def slow_answer() -> None:
        clock.advance(LOCK_TIMEOUT)
        interrupted.delete(key)

    interrupted.after("add", slow_answer)
    assert interruptible.visit(lambda: count_one(state)).status_code == 200
    assert interruptible.ask(lambda: session["count"]) == 1


def test_lock_held_for_long(clock: FakeClock, interruptible: Visitor, state: Stateful) -> None:
    """A lock that is still held after most of its time lets other writers in who do not ask for it, and merges."""

    def view() -> None:
        with state.sessions.lock():
            session["count"] += 1
            clock.advance(LOCK_TIMEOUT - 1)
            interruptible.visit(lambda: session.update(other=1))

    assert interruptible.visit(view).status_code == 200
    assert interruptible.ask(lambda: dict(session)) == {"count": 1, "list": [], "other": 1}


def test_killed_holder_blocks_nobody_for_long(serve: Serve) -> None:
    """The lock of a process that was killed is free when its time is over; what was not saved is lost."""
    server = serve(STATEFUL_LOCK_TIMEOUT=1)
    first = server.browser(0)
    first.do("set:name=Ada", "count:count")
    second = server.browser(1, cookies_of=first)
    pause = server.make_pause("holder")
    first.send("/do/lock/count:count/set:name=lost/pause:holder")
    pause.wait()
    os.kill(server.pids()[0], signal.SIGKILL)
    answer = second.do("lock", "count:count", "show")
    assert answer.status == 200
    assert answer.json == [{"name": "Ada", "count": 2}]


def test_lock_is_not_held_while_streaming(serve: Serve) -> None:
    """A response that is still being streamed does not keep others from the lock that its view has had."""
    server = serve(STATEFUL_LOCK_TIMEOUT=PATIENCE * 2)
    first = server.browser(0)
    first.do("set:name=Ada")
    second = server.browser(1, cookies_of=first)
    pause = server.make_pause("stream")
    first.send("/stream/stream")
    pause.wait()
    assert second.do("lock", "read:streams").json == [1]
    pause.go()
    assert first.receive().text == "firstsecond"


# Sessions that end


@pytest.mark.parametrize("end", ["logout", "rotate"])
def test_session_that_ends_before_the_lock(interruptible: Visitor, state: Stateful, end: str) -> None:
    """A request that comes to the lock when its session has ended works in memory, without the lock's price."""
    seen: list[object] = []

    def view(pause: t.Callable[[], None]) -> None:
        pause()
        with state.sessions.lock():
            session["count"] = session.get("count", 10) + 1
        seen.append(session["count"])

    late = interruptible.start(view)
    interruptible.visit(getattr(state.sessions, end))
    response = late.finish()
    assert (response.status_code, session_cookies(response), seen) == (200, [], [11])


def test_logout_under_the_lock(interruptible: Visitor, interrupted: InterruptedStore, state: Stateful) -> None:
    """A logout under the lock is one, and the lock is given back."""
    key, ended = lock_key(interruptible), []

    def view() -> None:
        with state.sessions.lock():
            state.sessions.logout()

    with signals.session_destroyed.connected_to(lambda _, **details: ended.append(details["reason"])):
        assert interruptible.visit(view).status_code == 200
    assert ended == ["logout"]
    assert interruptible.cookie is None
    assert interrupted.get(key) is None


# An exception that the view catches


@pytest.mark.parametrize("stored", [False, True])
def test_caught_exception_undoes_the_block(visitor: Visitor, state: Stateful, stored: bool) -> None:
    """What a block has changed is gone once an exception left it; what the request did before and after is saved."""
    if stored:
        visitor.visit(lambda: session.update(list=[1], old=1))

    def view() -> dict[str, t.Any]:
        session["before"] = [1]
        session["list"] = [*session.get("list", []), 2]
        with contextlib.suppress(ZeroDivisionError), state.sessions.lock():
            session["before"].append(2)
            session["list"].append(3)
            session["inside"] = 1
            session.pop("old", None)
            state.sessions.login("ada")
            raise ZeroDivisionError
        session["after"] = 1
        return dict(session)

    expected = {"old": 1, "list": [1, 2]} if stored else {"list": [2]}
    expected |= {"before": [1], "after": 1}
    assert visitor.ask(view) == expected
    assert visitor.ask(lambda: (dict(session), state.user_id)) == (expected, None)


def test_caught_exception_undoes_an_inner_block_only(visitor: Visitor, state: Stateful) -> None:
    """An exception that is caught between two blocks takes back the inner one, and the outer one is saved."""
    visitor.visit(lambda: session.update(list=[]))

    def view() -> None:
        with state.sessions.lock():
            session["list"].append(1)
            with contextlib.suppress(ZeroDivisionError), state.sessions.lock():
                session["list"].append(2)
                raise ZeroDivisionError
            session["list"].append(3)

    visitor.visit(view)
    assert visitor.ask(lambda: session["list"]) == [1, 3]


def test_caught_exception_after_clear(visitor: Visitor, state: Stateful) -> None:
    """A session that was cleared before the block stays cleared, one that was cleared in it is as it was."""
    visitor.visit(lambda: session.update(name="Ada"))

    def clear_inside() -> None:
        with contextlib.suppress(ZeroDivisionError), state.sessions.lock():
            session.clear()
            raise ZeroDivisionError

    visitor.visit(clear_inside)
    assert visitor.ask(lambda: dict(session)) == {"name": "Ada"}

    def clear_before() -> None:
        session.clear()
        session["new"] = 1
        with contextlib.suppress(ZeroDivisionError), state.sessions.lock():
            session["new"] = 2
            raise ZeroDivisionError

    visitor.visit(clear_before)
    assert visitor.ask(lambda: dict(session)) == {"new": 1}
