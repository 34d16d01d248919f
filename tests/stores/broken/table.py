"""The table of broken stores: each names the test of the suite that must fail for it."""

from __future__ import annotations

import typing as t
from collections.abc import Callable

from flask_stateful.testing import StoreConformance
from tests.stores.sound import MemorySuite

T = t.TypeVar("T", bound=type)


class Row(t.NamedTuple):
    """A broken store, the suite for its kind, and the test that must notice."""

    test: str
    store: type
    suite: type[StoreConformance]

    @property
    def case(self) -> str:
        """The name of the test class made from it."""
        return f"Test{self.store.__name__}"


TABLE: list[Row] = []


def breaks(*tests: str, suite: type[StoreConformance] = MemorySuite) -> Callable[[T], T]:
    """Enter a broken store in the table, once for each test that must notice it."""

    def enter(store: T) -> T:
        TABLE.extend(Row(test, store, suite) for test in tests)
        return store

    return enter


def rules_of(suite: type) -> set[str]:
    """Return the names of a suite's tests."""
    return {name for name in dir(suite) if name.startswith("test_")}
