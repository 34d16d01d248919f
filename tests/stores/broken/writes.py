"""Stores whose operations do the wrong thing."""

from __future__ import annotations

import typing as t
from collections.abc import Iterable, Mapping

from flask_stateful.errors import StoreError
from flask_stateful.stores.base import Ttl
from flask_stateful.stores.memory import MemoryStore
from tests.stores.broken.table import breaks


@breaks("test_new_store_is_empty")
class FindsEmptyValues(MemoryStore):
    def get(self, key: str) -> bytes:
        return super().get(key) or b""


@breaks("test_new_store_is_empty")
class NamesAbsentKeys(MemoryStore):
    def get_many(self, keys: Iterable[str]) -> dict[str, t.Any]:
        return {key: self.get(key) for key in keys}


@breaks("test_set_writes_whatever_was_there")
class SetSaysTrue(MemoryStore):
    def set(self, key: str, value: bytes, ttl: Ttl = None) -> t.Any:
        super().set(key, value, ttl)
        return True


@breaks("test_set_writes_whatever_was_there")
class SetAdds(MemoryStore):
    def set(self, key: str, value: bytes, ttl: Ttl = None) -> None:
        self.add(key, value, ttl)


@breaks("test_add_writes_only_where_there_is_nothing")
class AddSets(MemoryStore):
    def add(self, key: str, value: bytes, ttl: Ttl = None) -> bool:
        self.set(key, value, ttl)
        return True


@breaks("test_add_writes_only_where_there_is_nothing")
class AddOfEqualWins(MemoryStore):
    def add(self, key: str, value: bytes, ttl: Ttl = None) -> bool:
        return super().add(key, value, ttl) or self.get(key) == value


@breaks("test_add_writes_only_where_there_is_nothing")
class AddSaysTrueAndDrops(MemoryStore):
    def add(self, key: str, value: bytes, ttl: Ttl = None) -> bool:
        return self.get(key) is None


@breaks("test_add_loses_against_any_write")
class AddWinsOverCounters(MemoryStore):
    def add(self, key: str, value: bytes, ttl: Ttl = None) -> bool:
        if key == "incr":
            self.delete(key)
        return super().add(key, value, ttl)


@breaks("test_add_loses_against_any_write")
class AddRemembersDeleted(MemoryStore):
    def __init__(self, **options: t.Any) -> None:
        super().__init__(**options)
        self.deleted: set[str] = set()

    def delete(self, key: str) -> None:
        self.deleted.add(key)
        super().delete(key)

    def add(self, key: str, value: bytes, ttl: Ttl = None) -> bool:
        return key not in self.deleted and super().add(key, value, ttl)


@breaks("test_swap_replaces_what_is_unchanged")
class SwapNeverSays(MemoryStore):
    def swap(self, key: str, old: bytes, new: bytes, ttl: Ttl = None) -> t.Any:
        super().swap(key, old, new, ttl)


@breaks("test_swap_replaces_what_is_unchanged")
class SwapDrops(MemoryStore):
    def swap(self, key: str, old: bytes, new: bytes, ttl: Ttl = None) -> bool:
        return self.get(key) == old


@breaks("test_swap_leaves_what_was_changed")
class SwapsBlindly(MemoryStore):
    def swap(self, key: str, old: bytes, new: bytes, ttl: Ttl = None) -> bool:
        present = self.get(key)
        return present is not None and super().swap(key, present, new, ttl)


@breaks("test_swap_leaves_what_was_changed")
class SwapsAndSaysFalse(MemoryStore):
    def swap(self, key: str, old: bytes, new: bytes, ttl: Ttl = None) -> bool:
        if super().swap(key, old, new, ttl):
            return True
        if self.get(key) is not None:
            self.set(key, new, ttl)
        return False


@breaks("test_swap_never_creates")
class SwapCreates(MemoryStore):
    def swap(self, key: str, old: bytes, new: bytes, ttl: Ttl = None) -> bool:
        return super().swap(key, old, new, ttl) or self.add(key, new, ttl)


@breaks("test_swap_never_creates")
class SwapRestores(MemoryStore):
    def __init__(self, **options: t.Any) -> None:
        super().__init__(**options)
        self.deleted: dict[str, bytes] = {}

    def delete(self, key: str) -> None:
        self.deleted[key] = self.get(key) or b""
        super().delete(key)

    def swap(self, key: str, old: bytes, new: bytes, ttl: Ttl = None) -> bool:
        return super().swap(key, old, new, ttl) or (self.deleted.get(key) == old and self.add(key, new, ttl))


@breaks("test_swap_of_equal_values_succeeds")
class CountsChangedRows(MemoryStore):
    def swap(self, key: str, old: bytes, new: bytes, ttl: Ttl = None) -> bool:
        return super().swap(key, old, new, ttl) and old != new


@breaks("test_delete_removes")
class DeleteSaysTrue(MemoryStore):
    def delete(self, key: str) -> t.Any:
        super().delete(key)
        return True


@breaks("test_delete_removes")
class DeleteEmpties(MemoryStore):
    def delete(self, key: str) -> None:
        if self.get(key) is not None:
            self.set(key, b"")


@breaks("test_delete_removes")
class DeleteOfNothingFails(MemoryStore):
    def delete(self, key: str) -> None:
        if self.get(key) is None:
            raise StoreError("there is nothing to delete")
        super().delete(key)


@breaks("test_touch_keeps_the_value")
class TouchCreates(MemoryStore):
    def touch(self, key: str, ttl: Ttl = None) -> bool:
        return super().touch(key, ttl) or self.add(key, b"", ttl)


@breaks("test_touch_keeps_the_value")
class TouchNeverSays(MemoryStore):
    def touch(self, key: str, ttl: Ttl = None) -> t.Any:
        super().touch(key, ttl)


@breaks("test_touch_keeps_the_value")
class TouchEmpties(MemoryStore):
    def touch(self, key: str, ttl: Ttl = None) -> bool:
        return self.get(key) is not None and (self.set(key, b"", ttl) or True)


@breaks("test_get_many_finds_what_is_there")
class ReadsManyTwice(MemoryStore):
    def get_many(self, keys: Iterable[str]) -> dict[str, bytes]:
        values = [self.get(key) for key in keys]
        return {key: value for key, value in zip(keys, values, strict=False) if value is not None}


@breaks("test_get_many_finds_what_is_there")
class ReadsManyOrFails(MemoryStore):
    def get_many(self, keys: Iterable[str]) -> dict[str, bytes]:
        return {key: self._find(key).value for key in keys}


@breaks("test_many_can_be_thousands")
class ReadsNoThousands(MemoryStore):
    def get_many(self, keys: Iterable[str]) -> dict[str, bytes]:
        keys = list(keys)
        if len(keys) > 999:
            raise StoreError("too many SQL variables")
        return super().get_many(keys)


@breaks("test_many_can_be_thousands")
class DeletesFirstThousand(MemoryStore):
    def delete_many(self, keys: Iterable[str]) -> None:
        super().delete_many(list(keys)[:1000])


@breaks("test_many_can_be_thousands")
class WritesFirstThousand(MemoryStore):
    def set_many(self, values: Mapping[str, bytes], ttl: Ttl = None) -> None:
        super().set_many(dict(list(values.items())[:1000]), ttl)


@breaks("test_set_many_writes_each")
class AddsMany(MemoryStore):
    def set_many(self, values: Mapping[str, bytes], ttl: Ttl = None) -> None:
        for key, value in values.items():
            self.add(key, value, ttl)


@breaks("test_set_many_writes_each")
class CannotWriteNone(MemoryStore):
    def set_many(self, values: Mapping[str, bytes], ttl: Ttl = None) -> None:
        if not values:
            raise StoreError("wrong number of arguments")
        super().set_many(values, ttl)


@breaks("test_delete_many_removes_each")
class DeletesManyUntilAbsent(MemoryStore):
    def delete_many(self, keys: Iterable[str]) -> None:
        for key in keys:
            if self.get(key) is None:
                return
            self.delete(key)


@breaks("test_delete_many_removes_each")
class CannotDeleteNone(MemoryStore):
    def delete_many(self, keys: Iterable[str]) -> None:
        keys = list(keys)
        if not keys:
            raise StoreError("wrong number of arguments")
        super().delete_many(keys)


@breaks("test_incr_counts_from_nothing")
class CountsFromOne(MemoryStore):
    def incr(self, key: str, by: int = 1, ttl: Ttl = None) -> int:
        self.add(key, b"1", ttl)
        return super().incr(key, by, ttl)


@breaks("test_incr_counts_from_nothing")
class CountsByOne(MemoryStore):
    def incr(self, key: str, by: int = 1, ttl: Ttl = None) -> int:
        return super().incr(key, 1, ttl)


@breaks("test_incr_counts_from_nothing")
class StopsAtZero(MemoryStore):
    def incr(self, key: str, by: int = 1, ttl: Ttl = None) -> int:
        return super().incr(key, max(by, -int(self.get(key) or 0)), ttl)


@breaks("test_incr_is_decimal_text")
class CountsInBinary(MemoryStore):
    def incr(self, key: str, by: int = 1, ttl: Ttl = None) -> int:
        count = int.from_bytes(self.get(key) or b"", signed=True) + by
        self.set(key, count.to_bytes(8, signed=True), ttl)
        return count


@breaks("test_incr_is_decimal_text")
class PadsCounters(MemoryStore):
    def incr(self, key: str, by: int = 1, ttl: Ttl = None) -> int:
        count = super().incr(key, by, ttl)
        self.set(key, b"%4d" % count, ttl)
        return count


@breaks("test_incr_is_exact")
class CountsInFloats(MemoryStore):
    def incr(self, key: str, by: int = 1, ttl: Ttl = None) -> int:
        count = int(float(self.get(key) or 0) + by)
        self.set(key, b"%d" % count, ttl)
        return count


@breaks("test_incr_of_something_else_is_an_error")
class CountsAnything(MemoryStore):
    def incr(self, key: str, by: int = 1, ttl: Ttl = None) -> int:
        try:
            return super().incr(key, by, ttl)
        except StoreError:
            self.set(key, b"%d" % by, ttl)
            return by


@breaks("test_incr_of_something_else_is_an_error")
class CountsEmpty(MemoryStore):
    def incr(self, key: str, by: int = 1, ttl: Ttl = None) -> int:
        self.swap(key, b"", b"0")
        return super().incr(key, by, ttl)
