"""The rules on closing, on failing, and on what errors say."""

# ruff: noqa: S101 - these are tests

from __future__ import annotations

import traceback
import typing as t
from pathlib import Path

import pytest

from ...errors import StoreError, StoreUnavailable
from ...stores.base import Store
from .suite import Suite, call_all

#: Put together here so that a source line in a traceback does not contain it.
SECRET_KEY, SECRET_VALUE = "-".join(["key", "nobody", "may", "see"]), b"-".join([b"value", b"nobody", b"may", b"see"])


def leaks(error: BaseException) -> list[str]:
    """Return which of the secrets a traceback, with all its causes, would print."""
    text = "".join(traceback.format_exception(error))
    return [secret for secret in (SECRET_KEY, SECRET_VALUE.decode()) if secret in text]


class LifetimeRules(Suite):
    """Closing."""

    def test_close_twice(self, store: Store) -> None:
        """A closed store can be closed again."""
        store.set("key", b"x")
        store.close()
        store.close()

    def test_closed_store_says_so(self, store: Store) -> None:
        """Every call after close raises StoreError."""
        store.set("key", b"x")
        calls = dict(call_all(store, "key", b"x"))
        store.close()
        for name, call in calls.items():
            try:
                call()
            except StoreError:
                continue
            pytest.fail(f"{name} works on a closed store")

    def test_close_leaves_other_stores(self, store: Store) -> None:
        """Closing a store does not close another one with the same data."""
        other = self.reopen(store)
        if other is store:
            pytest.skip("reopen() returns the store itself")
        store.set("key", b"1")
        other.close()
        assert store.get("key") == b"1"

    def test_close_leaves_a_given_client_open(self, store: Store, tmp_path: Path) -> None:
        """A store closes what it opened, never what it was given."""
        given = self.make_with_client(tmp_path)
        if given is None:
            pytest.skip("make_with_client() returns None")
        own, use_client = given
        own.set("key", b"1")
        own.close()
        use_client()
        with pytest.raises(StoreError):
            own.get("key")


class FailureRules(Suite):
    """Failing, and what is said then."""

    def test_outage_is_store_unavailable(self, store: Store, tmp_path: Path) -> None:
        """Where the server does not answer, every operation raises StoreUnavailable, with the cause chained."""
        unreachable = self.make_unreachable(tmp_path)
        if unreachable is None:
            pytest.skip("make_unreachable() returns None")
        calls = {name: call for name, call in call_all(unreachable, SECRET_KEY, SECRET_VALUE) if name != "watch"}
        for name, call in calls.items():
            with pytest.raises(StoreUnavailable) as raised:
                call()
            assert raised.value.__cause__ is not None, f"{name} hides why it failed"
            assert leaks(raised.value) == [], f"{name} tells a secret"
        unreachable.close()

    def test_errors_tell_no_secret(self, store: Store) -> None:
        """No error contains a key or a value."""
        store.set(SECRET_KEY, SECRET_VALUE)
        wrong: t.Any = SECRET_VALUE.decode()
        calls: list[t.Callable[[], object]] = [
            lambda: store.incr(SECRET_KEY),
            lambda: store.set(SECRET_KEY * 100, SECRET_VALUE),
            lambda: store.add(SECRET_KEY * 100, SECRET_VALUE),
            lambda: store.swap(SECRET_KEY * 100, SECRET_VALUE, SECRET_VALUE),
            lambda: store.set(SECRET_KEY + "\ud800", SECRET_VALUE),
            lambda: store.set(SECRET_KEY, SECRET_VALUE, 0),
            lambda: store.set(SECRET_KEY, wrong),
            lambda: store.swap(SECRET_KEY, SECRET_VALUE, wrong),
        ]
        if store.max_value_bytes < 2**26:
            calls.append(lambda: store.set(SECRET_KEY, SECRET_VALUE * store.max_value_bytes))
        closed = dict(call_all(store, SECRET_KEY, SECRET_VALUE))
        assert [leaks(error) for error in map(failure_of, calls)] == [[]] * len(calls)
        store.close()
        assert [leaks(error) for error in map(failure_of, closed.values())] == [[]] * len(closed)

    def test_repr_tells_no_secret(self, store: Store) -> None:
        """The text of a store contains no key and no value."""
        store.set(SECRET_KEY, SECRET_VALUE)
        store.get(SECRET_KEY)
        text = repr(store)
        assert type(store).__name__ in text
        assert SECRET_KEY not in text
        assert SECRET_VALUE.decode() not in text


def failure_of(call: t.Callable[[], object]) -> BaseException:
    """Return what a call raises."""
    with pytest.raises(Exception) as raised:  # noqa: PT011 - which one is another test's question
        call()
    return raised.value
