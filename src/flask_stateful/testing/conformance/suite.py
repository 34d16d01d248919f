"""What a test class says about its store, and what every group of tests uses."""

from __future__ import annotations

import functools
import typing as t
from pathlib import Path

import pytest

from ...stores.base import Store
from ..clock import FakeClock

#: Lets seconds pass for the store under test.
Later: t.TypeAlias = t.Callable[[float], None]


class Suite:
    """The hooks of :class:`~flask_stateful.testing.StoreConformance`, which a subclass fills in."""

    #: Whether another process sees what one process wrote. A store that lives in one process says ``False``.
    across_processes: bool = True

    #: Real seconds after which a thread or process of a test counts as stuck.
    patience: float = 30.0

    def make_store(self, tmp_path: Path) -> Store:
        """Return a new, empty store, with a timeout that a slow test machine keeps.

        Where more than a folder is needed, such as the address of a server, override the fixture :meth:`store`.

        :param tmp_path: an empty folder of this test.
        """
        raise NotImplementedError(f"{type(self).__name__} needs make_store(self, tmp_path) or a fixture named store")

    def reopen(self, store: Store) -> Store:
        """Return a store that holds the same data, opened once more, as another process does it.

        By default the same object, which a forked process has inherited.
        """
        return store

    def advance(self, store: Store, seconds: float) -> None:
        """Let time pass for the store: by default on a :class:`~flask_stateful.testing.FakeClock`.

        A server has its own clock. There, shorten every remaining ttl, and remove what has none left.
        """
        self.clock.advance(seconds)

    def make_with_client(self, tmp_path: Path) -> tuple[Store, t.Callable[[], object]] | None:
        """Return a store that was *given* a ready client, and a function that fails if that client is closed.

        ``None`` where a store cannot be given one.
        """
        return None

    def make_unreachable(self, tmp_path: Path) -> Store | None:
        """Return a store whose server does not answer; ``None`` where there is no server."""
        return None

    @pytest.fixture
    def store(self, tmp_path: Path) -> t.Iterator[Store]:
        """Return the store under test, and close it after the test."""
        store = self.make_store(tmp_path)
        yield store
        store.close()

    @pytest.fixture
    def later(self, store: Store) -> t.Iterator[Later]:
        """Return a function that lets seconds pass; tests that do not use it run on the system's clock."""
        with FakeClock() as self.clock:
            yield functools.partial(self.advance, store)

    def many(self, store: Store, count: int) -> list[Store]:
        """Return that many ways to the same data: the store itself in turn with one opened anew."""
        other = self.reopen(store)
        return [store if number % 2 == 0 else other for number in range(count)]


def need(store: Store, ability: str) -> None:
    """Skip the test where the store does not name an ability."""
    if ability not in store.abilities:
        pytest.skip(f"does not name {ability!r}")


def call_all(store: Store, key: str, value: bytes) -> t.Iterator[tuple[str, t.Callable[[], object]]]:
    """Yield the name of each operation that a store has, and one call of it."""
    yield "get", lambda: store.get(key)
    yield "set", lambda: store.set(key, value)
    yield "add", lambda: store.add(key, value)
    yield "swap", lambda: store.swap(key, value, value)
    yield "delete", lambda: store.delete(key)
    yield "touch", lambda: store.touch(key, 60)
    yield "incr", lambda: store.incr(key)
    yield "get_many", lambda: store.get_many([key])
    yield "set_many", lambda: store.set_many({key: value})
    yield "delete_many", lambda: store.delete_many([key])
    yield "check", lambda: store.check()
    if "scan" in store.abilities:
        yield "scan", lambda: list(store.scan(key))
    if "purge_expired" in store.abilities:
        yield "purge_expired", lambda: store.purge_expired()
    if "watch" in store.abilities:
        yield "watch", lambda: store.watch(key, lambda changed: None)
