"""Stores behave like a dictionary with a clock, whatever is done to them in whatever order."""

from __future__ import annotations

import contextlib
import math
import tempfile
import typing as t
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from flask_stateful import clock
from flask_stateful.errors import StoreError
from flask_stateful.stores.base import Store
from flask_stateful.stores.memory import MemoryStore
from flask_stateful.stores.sqlite import SQLiteStore
from flask_stateful.testing import FakeClock

#: Few enough that operations meet, and such that some begin alike or differ in case, accents and ends.
KEYS = ["a", "a:1", "a:2", "A:1", "a:1\0", "a:1 ", "caf\u00e9", "cafe\u0301", "\U0001f36a" * 256]

keys = st.sampled_from(KEYS)
values = st.sampled_from([b"", b"0", b"1", b"-7", b"x", b"x\0", bytes(range(256))]) | st.binary(max_size=20)
ttls = st.none() | st.sampled_from([0.5, 1, 2, 10, 60, 3600, 10.0**9])
spans = st.sampled_from([0.25, 0.5, 1, 5, 60, 3600, 86400])


class StoreMachine(RuleBasedStateMachine):
    """A store and a model of it: the value at each key, and when it expires."""

    def __init__(self, make_store: t.Callable[[Path], Store]) -> None:
        super().__init__()
        self.resources = contextlib.ExitStack()
        self.time = self.resources.enter_context(FakeClock(1e9))
        folder = self.resources.enter_context(tempfile.TemporaryDirectory())
        self.store = make_store(Path(folder))
        self.resources.callback(self.store.close)
        self.model: dict[str, tuple[bytes, float]] = {}

    def teardown(self) -> None:
        self.resources.close()

    def live(self) -> dict[str, bytes]:
        """Return what the store must hold now."""
        return {key: value for key, (value, expires) in self.model.items() if expires > clock.now()}

    def write(self, key: str, value: bytes, ttl: float | None) -> None:
        self.model[key] = value, math.inf if ttl is None else clock.now() + ttl

    def forget(self, key: str) -> None:
        # What has expired may be there until it is purged, deleted or not.
        if key in self.live():
            del self.model[key]

    @rule(span=spans)
    def time_passes(self, span: float) -> None:
        self.time.advance(span)

    @rule(key=keys, value=values, ttl=ttls)
    def set(self, key: str, value: bytes, ttl: float | None) -> None:
        self.store.set(key, value, ttl)
        self.write(key, value, ttl)

    @rule(key=keys, value=values, ttl=ttls)
    def add(self, key: str, value: bytes, ttl: float | None) -> None:
        free = key not in self.live()
        assert self.store.add(key, value, ttl) is free
        if free:
            self.write(key, value, ttl)

    @rule(key=keys, old=values, new=values, ttl=ttls, hit=st.booleans())
    def swap(self, key: str, old: bytes, new: bytes, ttl: float | None, hit: bool) -> None:
        present = self.live().get(key)
        old = present if hit and present is not None else old
        assert self.store.swap(key, old, new, ttl) is (present == old)
        if present == old:
            self.write(key, new, ttl)

    @rule(key=keys)
    def delete(self, key: str) -> None:
        self.store.delete(key)
        self.forget(key)

    @rule(key=keys, ttl=ttls)
    def touch(self, key: str, ttl: float | None) -> None:
        present = self.live().get(key)
        assert self.store.touch(key, ttl) is (present is not None)
        if present is not None:
            self.write(key, present, ttl)

    @rule(key=keys, by=st.integers(-(10**6), 10**6), ttl=ttls)
    def incr(self, key: str, by: int, ttl: float | None) -> None:
        present = self.live().get(key)
        if present is None:
            assert self.store.incr(key, by, ttl) == by
            self.write(key, b"%d" % by, ttl)
        elif is_number(present):
            count = int(present) + by
            assert self.store.incr(key, by, ttl) == count
            self.model[key] = b"%d" % count, self.model[key][1]
        else:
            with pytest.raises(StoreError):
                self.store.incr(key, by, ttl)

    @rule(some=st.dictionaries(keys, values), ttl=ttls)
    def set_many(self, some: dict[str, bytes], ttl: float | None) -> None:
        self.store.set_many(some, ttl)
        for key, value in some.items():
            self.write(key, value, ttl)

    @rule(some=st.lists(keys))
    def delete_many(self, some: list[str]) -> None:
        self.store.delete_many(iter(some))
        for key in some:
            self.forget(key)

    @rule(some=st.lists(keys))
    def get_many(self, some: list[str]) -> None:
        live = self.live()
        assert self.store.get_many(iter(some)) == {key: live[key] for key in some if key in live}

    @rule(prefix=st.sampled_from(["", "a", "a:", "A", "caf", "a:1"]))
    def scan(self, prefix: str) -> None:
        assert sorted(self.store.scan(prefix)) == sorted(key for key in self.live() if key.startswith(prefix))

    @rule()
    def purge_expired(self) -> None:
        # Some may be gone already, and some be left for a later purge; that all that lives stays is looked at below.
        assert 0 <= self.store.purge_expired() <= len(self.model) - len(self.live())

    @invariant()
    def holds_what_the_model_holds(self) -> None:
        live = self.live()
        assert {key: value for key in KEYS if (value := self.store.get(key)) is not None} == live


def is_number(value: bytes) -> bool:
    """Tell whether a counter can go on from a value."""
    try:
        int(value)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize(
    ("make_store", "examples"),
    [
        pytest.param(lambda folder: MemoryStore(), 200, id="memory"),
        pytest.param(lambda folder: SQLiteStore(folder / "store.db", timeout=30), 50, id="sqlite"),
    ],
)
def test_store_behaves_like_its_model(make_store: t.Callable[[Path], Store], examples: int) -> None:
    """After any sequence of operations the store holds what the model holds, and has answered as the model says."""
    run_state_machine_as_test(
        lambda: StoreMachine(make_store),
        settings=settings(max_examples=examples, stateful_step_count=40, deadline=None),
    )
