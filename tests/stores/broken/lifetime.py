"""Stores that are wrong about closing, or say too much."""

from __future__ import annotations

import typing as t
from pathlib import Path

from flask_stateful.errors import StoreError, StoreUnavailable
from flask_stateful.stores.base import Store, Ttl, is_key
from flask_stateful.stores.memory import MemoryStore
from flask_stateful.testing import FaultyStore
from tests.stores.broken.table import breaks
from tests.stores.sound import ClientStore, ClientSuite, FileStore, FileSuite


@breaks("test_close_twice")
class ClosesOnce(MemoryStore):
    def close(self) -> None:
        self._require_open()
        super().close()


@breaks("test_closed_store_says_so")
class NeverCloses(MemoryStore):
    def close(self) -> None:
        pass


@breaks("test_closed_store_says_so")
class ScansWhenClosed(MemoryStore):
    def scan(self, prefix: str) -> t.Any:
        return iter([]) if self._closed else super().scan(prefix)


@breaks("test_closed_store_says_so")
class FailsOtherwiseWhenClosed(MemoryStore):
    def _require_open(self) -> None:
        if self._closed:
            raise AttributeError("'NoneType' object has no attribute 'execute'")


@breaks("test_close_leaves_other_stores", suite=FileSuite)
class ClosesAll(FileStore):
    ended: t.ClassVar[set[Path]] = set()

    def close(self) -> None:
        self.ended.add(self.path)

    def _rows(self) -> t.Any:
        if self.path in self.ended:
            raise StoreError("this FileStore was closed")
        return super()._rows()


@breaks("test_close_leaves_a_given_client_open", suite=ClientSuite)
class ClosesItsClient(ClientStore):
    def close(self) -> None:
        super().close()
        self.client.close()


@breaks("test_close_leaves_a_given_client_open", suite=ClientSuite)
class CannotCloseWithClient(ClientStore):
    def close(self) -> None:
        if self.client is None:
            super().close()


class Unreachable(FaultyStore):
    """A store whose server is away, and which is wrong about it."""

    def __init__(self) -> None:
        super().__init__(MemoryStore())

    def failure(self, key: str) -> Exception:
        raise NotImplementedError

    def _call(self, operation: str, keys: t.Iterable[str], work: t.Any) -> t.Any:
        raise self.failure(next(iter(keys), "")) from OSError("refused")


class UnreachableSuite(ClientSuite):
    """The suite for stores whose server is away."""

    def make_store(self, tmp_path: Path) -> Store:
        """Return a store that is there."""
        return MemoryStore()

    def make_unreachable(self, tmp_path: Path) -> Store:
        """Return the store that is wrong."""
        return t.cast("type[Store]", self.Store)()


@breaks("test_outage_is_store_unavailable", suite=UnreachableSuite)
class LetsClientErrorsOut(Unreachable):
    def failure(self, key: str) -> Exception:
        return ConnectionRefusedError("refused")


@breaks("test_outage_is_store_unavailable", suite=UnreachableSuite)
class TakesOutagesForFaults(Unreachable):
    def failure(self, key: str) -> Exception:
        return StoreError("failed")


@breaks("test_outage_is_store_unavailable", suite=UnreachableSuite)
class HidesTheCause(Unreachable):
    def _call(self, operation: str, keys: t.Iterable[str], work: t.Any) -> t.Any:
        raise StoreUnavailable("refused")


@breaks("test_outage_is_store_unavailable", suite=UnreachableSuite)
class TellsKeysInOutages(Unreachable):
    def failure(self, key: str) -> Exception:
        return StoreUnavailable(f"no answer for {key}")


@breaks("test_outage_is_store_unavailable", suite=UnreachableSuite)
class SwallowsOutages(Unreachable):
    def delete(self, key: str) -> None:
        pass


@breaks("test_errors_tell_no_secret")
class TellsKeys(MemoryStore):
    def _new_entry(self, key: str, value: bytes, ttl: Ttl) -> t.Any:
        if not is_key(key):
            raise ValueError(f"not a key: {key!r}")
        return super()._new_entry(key, value, ttl)


@breaks("test_errors_tell_no_secret")
class TellsValues(MemoryStore):
    def incr(self, key: str, by: int = 1, ttl: Ttl = None) -> int:
        value = self.get(key)
        try:
            return super().incr(key, by, ttl)
        except StoreError:
            raise StoreError(f"not a whole number: {value!r}") from None


@breaks("test_errors_tell_no_secret")
class TellsByTheCause(MemoryStore):
    def incr(self, key: str, by: int = 1, ttl: Ttl = None) -> int:
        try:
            return int(self.get(key) or 0)
        except ValueError as error:
            raise StoreError("not a whole number") from error


@breaks("test_errors_tell_no_secret")
class TellsKeysWhenClosed(MemoryStore):
    def get(self, key: str) -> bytes | None:
        if self._closed:
            raise StoreError(f"closed, so {key} cannot be read")
        return super().get(key)


@breaks("test_repr_tells_no_secret")
class ShowsWhatItHolds(MemoryStore):
    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._entries}>"


@breaks("test_repr_tells_no_secret")
class HasNoName(MemoryStore):
    def __repr__(self) -> str:
        return "<Store>"
