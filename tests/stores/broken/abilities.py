"""Stores that are wrong about what they can do."""

from __future__ import annotations

import typing as t
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from flask_stateful.epochs import Epochs, LocalEpochs, slot_of
from flask_stateful.stores.base import Ttl
from flask_stateful.stores.memory import MemoryStore
from tests.stores.broken.table import breaks
from tests.stores.sound import FileStore, FileSuite, WatchableStore, WatchableSuite


@breaks("test_abilities_are_known")
class NamesAnother(MemoryStore):
    abilities = MemoryStore.abilities | {"fly"}


@breaks("test_missing_ability_says_so")
class HidesWhatItCan(MemoryStore):
    abilities = frozenset({"touch", "incr"})


@breaks("test_missing_epochs_are_not_trusted")
class HidesItsEpochs(MemoryStore):
    abilities = MemoryStore.abilities - {"epochs"}


@breaks("test_missing_epochs_are_not_trusted")
class HasDeafEpochs(MemoryStore):
    abilities = MemoryStore.abilities - {"epochs"}

    def epochs(self, prefix: str) -> Epochs:
        class Deaf(LocalEpochs):
            def changed(self, keys: Iterable[str]) -> None:
                pass

        return Deaf()


@breaks("test_sibling_is_a_store")
class HasNoSibling(MemoryStore):
    def sibling(self, name: str) -> t.Any:
        return None


@breaks("test_check_describes_problems")
class ChecksSilently(MemoryStore):
    def check(self) -> t.Any:
        super().check()


@breaks("test_check_describes_problems")
class LeavesItsProbe(MemoryStore):
    def check(self) -> list[str]:
        self.set("flask-stateful:check", b"")
        return []


@breaks("test_limits_are_numbers")
class DoesNotKnowDurability(MemoryStore):
    durable: t.Any = None


@breaks("test_limits_are_numbers")
class HasNoRoom(MemoryStore):
    def __init__(self, **options: t.Any) -> None:
        super().__init__(max_value_bytes=0)


@breaks("test_scan_lists_every_key_once")
class ScansTwice(MemoryStore):
    def scan(self, prefix: str) -> Iterator[str]:
        yield from super().scan(prefix)
        yield from super().scan(prefix)


@breaks("test_scan_lists_every_key_once")
class ScansEncoded(MemoryStore):
    def scan(self, prefix: str) -> Iterator[str]:
        return (key.encode("ascii", "replace").decode() for key in super().scan(prefix))


@breaks("test_scan_lists_what_is_there")
class ScansExpired(MemoryStore):
    def scan(self, prefix: str) -> Iterator[str]:
        return (key for key, entry in list(self._entries.items()) if key.startswith(prefix) and entry.expires > 0)


@breaks("test_scan_lists_what_is_there")
class ScansDeleted(MemoryStore):
    def __init__(self, **options: t.Any) -> None:
        super().__init__(**options)
        self.deleted: set[str] = set()

    def delete(self, key: str) -> None:
        super().delete(key)
        self.deleted.add(key)

    def scan(self, prefix: str) -> Iterator[str]:
        yield from super().scan(prefix)
        yield from (key for key in self.deleted if key.startswith(prefix))


@breaks("test_scan_lists_thousands")
class ScansOneBatch(MemoryStore):
    def scan(self, prefix: str) -> Iterator[str]:
        return iter(list(super().scan(prefix))[:1000])


@breaks("test_scan_bears_changes_meanwhile")
class ScansItsDictionary(MemoryStore):
    def scan(self, prefix: str) -> Iterator[str]:
        return (key for key, entry in self._entries.items() if key.startswith(prefix) and self.get(key) is not None)


@breaks("test_scan_bears_changes_meanwhile")
class ScansByOffset(MemoryStore):
    def scan(self, prefix: str) -> Iterator[str]:
        offset = 0
        while page := sorted(super().scan(prefix))[offset : offset + 500]:
            yield from page
            offset += 500


@breaks("test_purge_removes_what_has_expired")
class PurgesOneBatch(MemoryStore):
    def purge_expired(self) -> int:
        with self._lock:
            return self._turn_hand(1000)


@breaks("test_purge_removes_what_has_expired")
class PurgesWithoutCounting(MemoryStore):
    def purge_expired(self) -> int:
        super().purge_expired()
        return 0


@breaks("test_purge_removes_what_has_expired")
class CountsWithoutPurging(MemoryStore):
    def purge_expired(self) -> int:
        return sum(self.get(key) is None for key in self._entries)


@breaks("test_purge_leaves_what_lives")
class PurgesWhatWasEverTimed(MemoryStore):
    def __init__(self, **options: t.Any) -> None:
        super().__init__(**options)
        self.timed: set[str] = set()

    def set_many(self, values: t.Any, ttl: Ttl = None) -> None:
        super().set_many(values, ttl)
        self.timed.update(values if ttl is not None else ())

    def purge_expired(self) -> int:
        for key in self.timed:
            self.delete(key)
        return 1


@breaks("test_purge_leaves_what_lives")
class PurgesWhatHasNoTtl(MemoryStore):
    def purge_expired(self) -> int:
        self.delete("for ever")
        return super().purge_expired()


watched = WatchableSuite


class TellsLess(WatchableStore):
    """Does not tell every change."""

    silent = False

    def _put(self, key: str, entry: t.Any) -> None:
        watches = self._watches
        self._watches = {} if self.silent else watches
        super()._put(key, entry)
        self._watches = watches

    def silently(self, call: Callable[[], t.Any]) -> t.Any:
        self.silent = True
        try:
            return call()
        finally:
            self.silent = False


@breaks("test_watch_tells_changes", suite=watched)
class TellsNoDelete(TellsLess):
    def delete(self, key: str) -> None:
        self.silently(lambda: WatchableStore.delete(self, key))


@breaks("test_watch_tells_changes", suite=watched)
class TellsNoSwap(TellsLess):
    def swap(self, key: str, old: bytes, new: bytes, ttl: Ttl = None) -> bool:
        return self.silently(lambda: WatchableStore.swap(self, key, old, new, ttl))


@breaks("test_watch_keeps_to_its_prefix", suite=watched)
class TellsNeighbours(WatchableStore):
    def watch(self, prefix: str, changed: Callable[[str | None], None]) -> Callable[[], None]:
        return super().watch(prefix.rstrip(":"), changed)


@breaks("test_watch_ends", suite=watched)
class WatchNeverEnds(WatchableStore):
    def _unwatch(self, watch: object) -> None:
        pass


@breaks("test_watch_ends", suite=watched)
class WatchEndsOnce(WatchableStore):
    def _unwatch(self, watch: object) -> None:
        del self._watches[watch]


@breaks("test_epochs_tell_changes")
class TellsOnlyTheFirstChange(MemoryStore):
    def epochs(self, prefix: str) -> Epochs:
        class First(LocalEpochs):
            def changed(self, keys: Iterable[str]) -> None:
                for slot in map(slot_of, keys):
                    self.table[slot] = 1

        self._epochs = self._epochs if type(self._epochs).__name__ == "First" else First()
        return self._epochs


@breaks("test_epochs_tell_changes")
class TellsTheFirstKey(MemoryStore):
    def epochs(self, prefix: str) -> Epochs:
        epochs = super().epochs(prefix)
        epochs.changed = lambda keys: LocalEpochs.changed(epochs, list(keys)[:1])  # type: ignore[method-assign]
        return epochs


@breaks("test_epochs_tell_changes", suite=FileSuite)
class KeepsEpochsToItself(FileStore):
    def epochs(self, prefix: str) -> Epochs:
        return LocalEpochs()


@breaks("test_epochs_leave_other_keys")
class TellsEveryKey(MemoryStore):
    def epochs(self, prefix: str) -> Epochs:
        epochs = super().epochs(prefix)
        epochs.marks = lambda keys: LocalEpochs.marks(epochs, ["key"] * len(list(keys)))  # type: ignore[method-assign]
        return epochs


@breaks("test_epochs_leave_other_keys")
class LooksAtOneKey(MemoryStore):
    def epochs(self, prefix: str) -> Epochs:
        epochs = super().epochs(prefix)
        epochs.marks = lambda keys: LocalEpochs.marks(epochs, list(keys)[:1])  # type: ignore[method-assign]
        return epochs


@breaks("test_epochs_tell_changes_of_other_processes", suite=FileSuite)
class KeepsEpochsToItsProcess(FileStore):
    tables: t.ClassVar[dict[Path, Epochs]] = {}

    def epochs(self, prefix: str) -> Epochs:
        return self.tables.setdefault(self.path, LocalEpochs())
