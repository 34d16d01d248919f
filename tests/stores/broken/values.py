"""Stores that are wrong about values."""

from __future__ import annotations

import typing as t

from flask_stateful.stores.base import Ttl
from flask_stateful.stores.memory import MemoryStore
from tests.stores.broken.table import breaks


class Changing(MemoryStore):
    """Keeps something else than the value."""

    def change(self, value: bytes) -> bytes:
        raise NotImplementedError

    def _new_entry(self, key: str, value: bytes, ttl: Ttl) -> t.Any:
        entry = super()._new_entry(key, value, ttl)
        return entry._replace(value=self.change(value))


@breaks("test_value_comes_back")
class CutsValuesAtNul(Changing):
    def change(self, value: bytes) -> bytes:
        return value.partition(b"\0")[0]


@breaks("test_value_comes_back")
class TrimsValues(Changing):
    def change(self, value: bytes) -> bytes:
        return value.strip()


@breaks("test_value_comes_back")
class DecodesValues(Changing):
    def change(self, value: bytes) -> bytes:
        return value.decode(errors="replace").encode()


@breaks("test_value_comes_back")
class ReadsValuesAsNumbers(Changing):
    def change(self, value: bytes) -> bytes:
        return b"%d" % int(value) if value.isdigit() else value


@breaks("test_value_comes_back")
class ReturnsText(MemoryStore):
    def get(self, key: str) -> t.Any:
        found = super().get(key)
        return bytearray(found) if found is not None else None


@breaks("test_large_value_comes_back")
class CutsLongValues(Changing):
    def change(self, value: bytes) -> bytes:
        return value[:500_000]


class Comparing(MemoryStore):
    """Swaps what is nearly the value."""

    def same(self, present: bytes, old: bytes) -> bool:
        raise NotImplementedError

    def swap(self, key: str, old: bytes, new: bytes, ttl: Ttl = None) -> bool:
        present = self.get(key)
        return super().swap(key, present if present and self.same(present, old) else old, new, ttl)


@breaks("test_value_is_compared_whole")
class ComparesFolded(Comparing):
    def same(self, present: bytes, old: bytes) -> bool:
        return present.lower() == old.lower()


@breaks("test_value_is_compared_whole")
class ComparesTrimmed(Comparing):
    def same(self, present: bytes, old: bytes) -> bool:
        return present.rstrip(b" ") == old.rstrip(b" ")


@breaks("test_value_is_compared_whole")
class ComparesBeginnings(Comparing):
    def same(self, present: bytes, old: bytes) -> bool:
        return present.startswith(old)


@breaks("test_too_large_value_is_refused")
class DropsLargeValues(MemoryStore):
    def require_size(self, value: bytes) -> None:
        pass

    def _put(self, key: str, entry: t.Any) -> None:
        if len(entry.value) <= self.max_value_bytes:
            super()._put(key, entry)


@breaks("test_too_large_value_is_refused")
class RefusesOneByteEarly(MemoryStore):
    def require_size(self, value: bytes) -> None:
        super().require_size(value + b"x")


@breaks("test_too_large_value_is_refused")
class ForgetsWhatWasThere(MemoryStore):
    def set(self, key: str, value: bytes, ttl: Ttl = None) -> None:
        self.delete(key)
        super().set(key, value, ttl)


class Accepting(MemoryStore):
    """Writes what is not bytes."""

    accepts: type | tuple[type, ...]

    def _new_entry(self, key: str, value: t.Any, ttl: Ttl) -> t.Any:
        if isinstance(value, self.accepts):
            value = str(value).encode()
        return super()._new_entry(key, value, ttl)


@breaks("test_only_bytes_are_values")
class AcceptsText(Accepting):
    accepts = str


@breaks("test_only_bytes_are_values")
class AcceptsNumbers(Accepting):
    accepts = int


@breaks("test_only_bytes_are_values")
class AcceptsBuffers(Accepting):
    accepts = (bytearray, memoryview)


@breaks("test_empty_value_is_a_value")
class TakesEmptyForAbsent(MemoryStore):
    def get(self, key: str) -> bytes | None:
        return super().get(key) or None


@breaks("test_empty_value_is_a_value")
class AddsOverEmpty(MemoryStore):
    def add(self, key: str, value: bytes, ttl: Ttl = None) -> bool:
        return self.swap(key, b"", value, ttl) or super().add(key, value, ttl)


@breaks("test_empty_value_is_a_value")
class TakesAbsentForEmpty(MemoryStore):
    def swap(self, key: str, old: bytes, new: bytes, ttl: Ttl = None) -> bool:
        return super().swap(key, old, new, ttl) or (old == b"" and self.add(key, new, ttl))
