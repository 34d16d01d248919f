"""Requests that overlap in every way, next to a model that says in a hundred lines what must come of them.

Hypothesis begins requests, lets each do something, and ends them, in any order it likes. After every request, every
cookie that was ever sent leads to exactly what the model says.
"""

from __future__ import annotations

import dataclasses
import itertools
import queue
import tempfile
import threading
import typing as t
from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask, session
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from werkzeug.test import TestResponse

from flask_stateful import Stateful
from flask_stateful.stores.memory import MemoryStore
from flask_stateful.testing import FakeClock

from .support import PATIENCE, Visitor, add_view

Data: t.TypeAlias = dict[str, t.Any]

MAX_IN_FLIGHT = 4


@dataclasses.dataclass
class Kept:
    """A session in the store."""

    data: Data
    user: str | None


@dataclasses.dataclass
class Request:
    """What the model knows of a request; its methods are what a view can do."""

    #: The sessions in the store by number; who is not there is dead.
    store: dict[int, Kept]
    numbers: t.Iterator[int]
    #: Which session the cookie names.
    number: int | None
    looked: bool = False
    dead: bool = False
    #: What the store held, what the view sees, and whose it was.
    base: Data = dataclasses.field(default_factory=dict)
    view: Data = dataclasses.field(default_factory=dict)
    bound: str | None = None
    assigned: set[str] = dataclasses.field(default_factory=set)
    deleted: set[str] = dataclasses.field(default_factory=set)
    cleared: bool = False
    rotated: bool = False
    login_as: str | None = None
    #: What the cookie becomes: a session's number, or ``None`` for its end.
    cookie: list[int | None] = dataclasses.field(default_factory=list)

    def look(self) -> None:
        if not self.looked:
            self.looked = True
            self.dead = self.number is not None and self.number not in self.store
            self.go_on()

    def go_on(self) -> None:
        """Begin with what the store holds."""
        kept = self.kept or Kept({}, None)
        self.base, self.view, self.bound = copy(kept.data), copy(kept.data), kept.user
        self.assigned, self.deleted = set(), set()
        self.cleared, self.rotated, self.login_as = False, False, None

    @property
    def kept(self) -> Kept | None:
        """What the store holds now."""
        return self.store.get(self.number) if self.number is not None else None

    @property
    def user(self) -> str | None:
        return self.bound if self.login_as is None and not self.cleared else self.login_as

    def assign(self, key: str, value: t.Any) -> None:
        self.view[key] = value
        self.assigned.add(key)
        self.deleted.discard(key)

    def pop(self, key: str) -> None:
        if key in self.view:
            del self.view[key]
            self.deleted.add(key)

    def append(self, key: str, value: int) -> None:
        if key not in self.view:
            self.assign(key, [])
        self.view[key].append(value)

    def clear(self) -> None:
        self.base, self.view, self.assigned, self.deleted = {}, {}, set(), set()
        self.cleared, self.rotated, self.login_as = True, False, None

    def keep_own(self) -> None:
        own = {key: self.view[key] for key in self.assigned if key in self.view}
        self.clear()
        for key, value in own.items():
            self.assign(key, value)

    def rotate(self) -> None:
        self.rotated = True

    def login(self, user: str) -> None:
        if self.user not in (None, user):
            self.keep_own()
        self.login_as = user

    def logout(self) -> None:
        self.keep_own()
        if self.kept:
            self.end()
        elif not self.dead:
            self.number, self.cookie = None, [None]

    def changed(self) -> Data:
        return {key: value for key, value in self.view.items() if key not in self.base or self.base[key] != value}

    def enter_lock(self) -> None:
        if self.number is None or self.dead or self.cleared:
            return
        changed, deleted, rotated, login_as = self.changed(), self.deleted, self.rotated, self.login_as
        self.dead = self.kept is None
        self.go_on()
        self.rotated, self.login_as = rotated, login_as
        for key, value in changed.items():
            self.assign(key, value)
        for key in deleted:
            self.pop(key)

    def leave_lock(self) -> None:
        self.save()
        if not self.dead:
            self.go_on()

    def save(self) -> None:
        assigned, moves = self.changed(), self.cleared or self.rotated or self.login_as is not None
        if not (assigned or self.deleted or moves):
            return
        old = self.kept
        self.dead = self.dead or (self.number is not None and old is None)
        if self.dead and self.login_as is None:
            return
        items = {key: value for key, value in old.data.items() if key not in self.deleted} if old else {}
        new = Kept(copy(({} if self.cleared else items) | assigned), self.login_as)
        if old and not self.cleared:
            new.user = self.login_as or old.user
        if old and (moves or new == Kept({}, None)):
            self.end()
        if new != Kept({}, None):
            self.keep(new)

    def end(self) -> None:
        del self.store[t.cast("int", self.number)]
        self.number, self.cookie = None, [None]

    def keep(self, new: Kept) -> None:
        if self.number is None or self.dead:
            self.number, self.dead = next(self.numbers), False
            self.cookie = [self.number]
        self.store[self.number] = new


def copy(data: Data) -> Data:
    return {key: list(value) if isinstance(value, list) else value for key, value in data.items()}


class Driven:
    """A real request, whose view does what the test tells it, step by step."""

    def __init__(self, visitor: Visitor, model: Request) -> None:
        self.model = model
        self.had_cookie = visitor.cookie is not None
        self._steps: queue.SimpleQueue[Callable[[], t.Any] | None] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[t.Any] = queue.SimpleQueue()
        self._thread = threading.Thread(target=lambda: self._results.put(visitor.visit(self._view)))
        self._thread.start()
        self.do(lambda: None)

    def _view(self) -> None:
        while (step := self._steps.get(timeout=PATIENCE)) is not None:
            self._results.put(step())

    def do(self, step: Callable[[], t.Any]) -> t.Any:
        self._steps.put(step)
        result = self._results.get(timeout=PATIENCE)
        assert not isinstance(result, TestResponse), result.text
        return result

    def finish(self, *, fails: bool) -> TestResponse:
        self._steps.put((lambda: 1 / 0) if fails else None)
        self._thread.join(PATIENCE)
        return t.cast("TestResponse", self._results.get(timeout=PATIENCE))


KEYS = st.sampled_from(["a", "b"])
LISTS = st.sampled_from(["x", "y"])
USERS = st.sampled_from(["ada", "grace"])
NOTHING = st.just("")

#: What a request can do, and with what.
ACTIONS = st.one_of(
    st.tuples(st.just(name), argument)
    for name, argument in {
        "look": NOTHING,
        "assign": KEYS,
        "pop": KEYS | LISTS,
        "append": LISTS,
        "append_under_lock": LISTS,
        "clear": NOTHING,
        "rotate": NOTHING,
        "login": USERS,
        "logout": NOTHING,
    }.items()
)

#: What happens next; acting is twice as likely as beginning or ending a request.
IN_FLIGHT = st.integers(0, MAX_IN_FLIGHT - 1)
ACT = st.tuples(st.just("act"), IN_FLIGHT, st.lists(ACTIONS, min_size=1, max_size=3))
BEGIN = st.tuples(st.just("begin"), st.booleans())
FINISH = st.tuples(st.just("finish"), IN_FLIGHT, st.sampled_from([False, False, False, True]))
STEPS = st.lists(st.one_of(ACT, ACT, BEGIN, FINISH), min_size=40, max_size=40)


class World:
    """One browser with several requests at a time, each of them next to its model."""

    def __init__(self, folder: str) -> None:
        app = Flask(__name__, instance_path=str(Path(folder, "instance")))
        app.config.update(SECRET_KEY="a secret of 32 characters at least")
        self.state = Stateful(app, store=MemoryStore())
        add_view(app)
        self.app = app
        self.browser = Visitor(app)
        self.requests: list[Driven] = []
        self.store: dict[int, Kept] = {}
        self.numbers = itertools.count()
        self.values = itertools.count()
        #: Every cookie that was ever sent, and the session that it names.
        self.cookies: dict[str, int] = {}

    def begin(self, looks: bool) -> None:
        if len(self.requests) < MAX_IN_FLIGHT:
            number = self.cookies[self.browser.cookie] if self.browser.cookie is not None else None
            self.requests.append(Driven(self.browser, Request(self.store, self.numbers, number)))
            if looks:
                self.act(len(self.requests) - 1, [("look", "")])

    def act(self, index: int, actions: list[tuple[str, str]]) -> None:
        if self.requests:
            request = self.requests[index % len(self.requests)]
            for name, argument in actions:
                request.model.look()
                getattr(self, name)(request, argument)

    def finish(self, index: int, fails: bool) -> None:
        if self.requests:
            request = self.requests.pop(index % len(self.requests))
            before = self.browser.cookie
            response = request.finish(fails=fails)
            assert response.status_code == (500 if fails else 200)
            if request.model.looked and not fails:
                request.model.save()
            self.compare_cookie(request, response, before)
            self.compare_sessions()

    def compare_cookie(self, request: Driven, response: TestResponse, before: str | None) -> None:
        match request.model.cookie:
            case [None]:
                assert self.browser.cookie == (None if request.had_cookie else before)
            case [int(number)]:
                assert self.browser.cookie is not None
                assert self.cookies.setdefault(self.browser.cookie, number) == number
            case _:
                assert self.browser.cookie == before
                assert "Set-Cookie" not in response.headers

    def compare_sessions(self) -> None:
        """Look behind every cookie."""
        for cookie, number in self.cookies.items():
            visitor = Visitor(self.app)
            visitor.cookie = cookie
            kept = self.store.get(number, Kept({}, None))
            assert visitor.ask(lambda: (dict(session), self.state.user_id)) == (kept.data, kept.user)

    def look(self, request: Driven, _: str) -> None:
        seen = request.do(lambda: (dict(session), self.state.user_id))
        assert seen == (request.model.view, request.model.user)

    def assign(self, request: Driven, key: str) -> None:
        value = next(self.values)
        request.model.assign(key, value)
        request.do(lambda: session.update({key: value}))

    def pop(self, request: Driven, key: str) -> None:
        request.model.pop(key)
        request.do(lambda: session.pop(key, None))

    def append(self, request: Driven, key: str) -> None:
        value = next(self.values)
        request.model.append(key, value)
        request.do(lambda: session.setdefault(key, []).append(value))

    def append_under_lock(self, request: Driven, key: str) -> None:
        value = next(self.values)

        def append() -> None:
            with self.state.sessions.lock():
                session.setdefault(key, []).append(value)

        request.model.enter_lock()
        request.model.append(key, value)
        request.model.leave_lock()
        request.do(append)

    def clear(self, request: Driven, _: str) -> None:
        request.model.clear()
        request.do(lambda: session.clear())

    def rotate(self, request: Driven, _: str) -> None:
        request.model.rotate()
        request.do(self.state.sessions.rotate)

    def login(self, request: Driven, user: str) -> None:
        request.model.login(user)
        request.do(lambda: self.state.sessions.login(user))

    def logout(self, request: Driven, _: str) -> None:
        request.model.logout()
        request.do(self.state.sessions.logout)


@pytest.mark.timeout(900)  # A failure is made small before it is reported, which takes minutes.
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(user=st.none() | USERS, steps=STEPS)
def test_overlapping_requests(user: str | None, steps: list[tuple[t.Any, ...]]) -> None:
    """Whatever overlaps, every cookie leads to what the model says, and each request sees what it should."""
    login = [("login", user)] if user is not None else []
    with FakeClock(), tempfile.TemporaryDirectory() as folder:
        world = World(folder)
        try:
            world.begin(looks=False)
            world.act(0, [("assign", "a"), ("append", "x"), *login])
            world.finish(0, fails=False)
            for name, *arguments in steps:
                getattr(world, name)(*arguments)
        finally:
            for request in world.requests:
                request.finish(fails=False)
