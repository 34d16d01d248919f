"""Stores that are wrong about keys."""

from __future__ import annotations

import typing as t
import unicodedata
from collections.abc import Iterable, Iterator, Mapping

from flask_stateful.stores.base import Ttl, is_key
from flask_stateful.stores.memory import MemoryStore
from tests.stores.broken.table import breaks


class Mangling(MemoryStore):
    """Takes a key for another one."""

    def mangle(self, key: str) -> str:
        raise NotImplementedError

    def _find(self, key: str) -> t.Any:
        return super()._find(self.mangle(key) if is_key(key) else key)

    def _put(self, key: str, entry: t.Any) -> None:
        super()._put(self.mangle(key), entry)


TOLD_APART = breaks("test_keys_are_told_apart", "test_keys_are_told_apart_in_batches")


@TOLD_APART
class FoldsCase(Mangling):
    def mangle(self, key: str) -> str:
        return key.casefold()


@TOLD_APART
class Composes(Mangling):
    def mangle(self, key: str) -> str:
        return unicodedata.normalize("NFC", key)


@TOLD_APART
class FoldsCompatible(Mangling):
    def mangle(self, key: str) -> str:
        return unicodedata.normalize("NFKD", key)


@TOLD_APART
class StopsAtNul(Mangling):
    def mangle(self, key: str) -> str:
        return key.partition("\0")[0]


@TOLD_APART
class TrimsSpace(Mangling):
    def mangle(self, key: str) -> str:
        return key.rstrip(" ")


@TOLD_APART
class CutsLongKeys(Mangling):
    def mangle(self, key: str) -> str:
        return key[:250]


@TOLD_APART
class CutsByCharacters(Mangling):
    def mangle(self, key: str) -> str:
        return key[:1023]


@TOLD_APART
class DropsControlCharacters(Mangling):
    def mangle(self, key: str) -> str:
        return "".join(character for character in key if character not in "\r\n\t")


@TOLD_APART
class Unquotes(Mangling):
    def mangle(self, key: str) -> str:
        return key.replace("%3A", ":")


@TOLD_APART
class WalksFolders(Mangling):
    def mangle(self, key: str) -> str:
        return key.replace("\\", "/").strip("/")


@TOLD_APART
class ReadsNumbers(Mangling):
    def mangle(self, key: str) -> str:
        return str(float(key)) if key.replace(".", "").isdecimal() else key


@breaks("test_key_works_in_every_operation", "test_key_works_in_batches")
class RefusesSpaces(MemoryStore):
    def _new_entry(self, key: str, value: bytes, ttl: Ttl) -> t.Any:
        if is_key(key) and " " in key:
            raise ValueError("a key has no spaces")
        return super()._new_entry(key, value, ttl)


@breaks("test_key_works_in_every_operation", "test_key_works_in_batches")
class RefusesLongKeys(MemoryStore):
    def _new_entry(self, key: str, value: bytes, ttl: Ttl) -> t.Any:
        if is_key(key) and len(key.encode()) > 1000:
            raise ValueError("a key has 1,000 bytes")
        return super()._new_entry(key, value, ttl)


@breaks("test_key_works_in_every_operation")
class CannotCountAtNonAscii(MemoryStore):
    def incr(self, key: str, by: int = 1, ttl: Ttl = None) -> int:
        if is_key(key) and not key.isascii():
            raise ValueError("a key is ASCII")
        return super().incr(key, by, ttl)


@breaks("test_key_works_in_batches", "test_keys_are_told_apart_in_batches")
class ReadsManyByOtherNames(MemoryStore):
    def get_many(self, keys: Iterable[str]) -> dict[str, bytes]:
        return {key.strip(): value for key, value in super().get_many(keys).items()}


@breaks("test_deleting_a_key_leaves_the_others")
class DeletesByCollation(MemoryStore):
    def delete(self, key: str) -> None:
        for other in list(self._entries):
            if is_key(key) and other.casefold() == key.casefold():
                super().delete(other)


@breaks("test_deleting_a_key_leaves_the_others")
class DeletesByBeginning(MemoryStore):
    def delete(self, key: str) -> None:
        for other in list(self._entries):
            if is_key(key) and other.startswith(key):
                super().delete(other)


class RaisesOnOthers(MemoryStore):
    """Raises where there cannot be anything."""

    def check_key(self, key: t.Any) -> None:
        if not is_key(key):
            raise ValueError("this is no key")


@breaks("test_malformed_key_is_not_found", "test_malformed_key_is_not_found_in_batches")
class RaisesInGet(RaisesOnOthers):
    def get(self, key: str) -> bytes | None:
        self.check_key(key)
        return super().get(key)


@breaks("test_malformed_key_is_not_found")
class RaisesInTouch(RaisesOnOthers):
    def touch(self, key: str, ttl: Ttl = None) -> bool:
        self.check_key(key)
        return super().touch(key, ttl)


@breaks("test_malformed_key_is_not_found", "test_malformed_key_is_not_found_in_batches")
class RaisesInDelete(RaisesOnOthers):
    def delete(self, key: str) -> None:
        self.check_key(key)
        super().delete(key)


@breaks("test_malformed_key_is_not_found_in_batches")
class ReadsManyOrNone(MemoryStore):
    def get_many(self, keys: Iterable[str]) -> dict[str, bytes]:
        keys = list(keys)
        return super().get_many(keys) if all(map(is_key, keys)) else {}


@breaks("test_malformed_key_is_not_found")
class ConvertsKeys(MemoryStore):
    def delete(self, key: str) -> None:
        super().delete(key.decode() if isinstance(key, bytes) else key)


class TakesAnyKey(MemoryStore):
    """Writes under what cannot be a key."""

    def _new_entry(self, key: str, value: bytes, ttl: Ttl) -> t.Any:
        return super()._new_entry("key", value, ttl)


@breaks("test_malformed_key_cannot_be_written", "test_malformed_key_cannot_be_written_in_batches")
class SetsAnyKey(TakesAnyKey):
    def set(self, key: str, value: bytes, ttl: Ttl = None) -> None:
        super().set(str(key), value, ttl)


@breaks("test_malformed_key_cannot_be_written")
class AddsNowhere(MemoryStore):
    def add(self, key: str, value: bytes, ttl: Ttl = None) -> bool:
        return is_key(key) and super().add(key, value, ttl)


@breaks("test_malformed_key_cannot_be_written")
class SwapsNowhere(MemoryStore):
    def swap(self, key: str, old: bytes, new: bytes, ttl: Ttl = None) -> bool:
        return is_key(key) and super().swap(key, old, new, ttl)


@breaks("test_malformed_key_cannot_be_written")
class CountsNowhere(MemoryStore):
    def incr(self, key: str, by: int = 1, ttl: Ttl = None) -> int:
        return super().incr(key, by, ttl) if is_key(key) else by


@breaks("test_malformed_key_cannot_be_written_in_batches")
class SkipsOthersInBatches(MemoryStore):
    def set_many(self, values: Mapping[str, bytes], ttl: Ttl = None) -> None:
        super().set_many({key: value for key, value in values.items() if is_key(key)}, ttl)


class MatchesPrefix(MemoryStore):
    """Takes a prefix for something else than plain text."""

    def matches(self, key: str, prefix: str) -> bool:
        raise NotImplementedError

    def scan(self, prefix: str) -> Iterator[str]:
        return (key for key in super().scan("") if self.matches(key, prefix))


@breaks("test_scan_keeps_to_its_prefix")
class ScansByPattern(MatchesPrefix):
    def matches(self, key: str, prefix: str) -> bool:
        import fnmatch

        return fnmatch.fnmatchcase(key, prefix + "*")


@breaks("test_scan_keeps_to_its_prefix")
class ScansByLike(MatchesPrefix):
    def matches(self, key: str, prefix: str) -> bool:
        import re

        pattern = re.escape(prefix).replace("_", ".").replace("%", ".*")
        return re.match(pattern, key, re.DOTALL) is not None


@breaks("test_scan_keeps_to_its_prefix")
class ScansFolded(MatchesPrefix):
    def matches(self, key: str, prefix: str) -> bool:
        return key.casefold().startswith(prefix.casefold())


@breaks("test_scan_keeps_to_its_prefix")
class ScansNeighbours(MatchesPrefix):
    def matches(self, key: str, prefix: str) -> bool:
        return key.startswith(prefix.rstrip(":"))


@breaks("test_scan_keeps_to_its_prefix")
class ScansBelow(MatchesPrefix):
    def matches(self, key: str, prefix: str) -> bool:
        return key.startswith(prefix) and key != prefix
