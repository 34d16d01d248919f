"""The rules on what a store can do beyond the required calls: it says so, and then it does it."""

# ruff: noqa: S101 - these are tests

from __future__ import annotations

import threading
import typing as t

import pytest

from ...epochs import Epochs, Marks, slot_of
from ...errors import UnsupportedOperation
from ...stores.base import Store
from .crowd import eventually
from .expiry import DAY
from .keys import KEYS
from .suite import Later, Suite, need

ABILITIES = frozenset({"touch", "incr", "many", "scan", "purge_expired", "watch", "epochs"})

#: Beginnings of keys that a pattern, a comparison or a collation would take for more than the text they are.
PREFIXES = ("cache:", "cache*", "cache?", "cache[2]", "cache_", "cache%", "Cache:", "caf\u00e9:", "cache\x00", "c", "")


class AbilityRules(Suite):
    """What is named works; what is not named says so."""

    def test_abilities_are_known(self, store: Store) -> None:
        """A store names abilities of the contract, and no others."""
        assert store.abilities <= ABILITIES

    @pytest.mark.parametrize("ability", ["scan", "purge_expired", "watch"])
    def test_missing_ability_says_so(self, store: Store, ability: str) -> None:
        """What the store does not name raises UnsupportedOperation, and no empty answer is given."""
        if ability in store.abilities:
            pytest.skip(f"names {ability!r}")
        calls: dict[str, t.Callable[[], object]] = {
            "scan": lambda: list(store.scan("")),
            "purge_expired": store.purge_expired,
            "watch": lambda: store.watch("", lambda key: None),
        }
        with pytest.raises(UnsupportedOperation):
            calls[ability]()

    def test_missing_epochs_are_not_trusted(self, store: Store) -> None:
        """A store that cannot tell which keys were changed has epochs by which no copy is ever true."""
        if "epochs" in store.abilities:
            pytest.skip("names 'epochs'")
        epochs = store.epochs("")
        marks = epochs.marks(["key"])
        epochs.changed(["key"])
        assert not epochs.live
        assert not epochs.is_unchanged(marks)
        epochs.close()

    def test_sibling_is_a_store(self, store: Store) -> None:
        """A store for another kind of state works, beside the store or as the store itself."""
        sibling = store.sibling("other")
        sibling.set("theirs", b"1")
        store.set("ours", b"2")
        assert (sibling.get("theirs"), store.get("ours")) == (b"1", b"2")
        sibling.close()

    def test_check_describes_problems(self, store: Store) -> None:
        """A check of a store that works returns sentences, and leaves nothing behind."""
        problems = store.check()
        assert isinstance(problems, list)
        assert all(isinstance(problem, str) for problem in problems)
        if "scan" in store.abilities:
            assert list(store.scan("")) == []

    def test_limits_are_numbers(self, store: Store) -> None:
        """A store says how long a value may be, whether it keeps everything, and for whom."""
        assert store.max_value_bytes >= 1024
        assert {type(flag) for flag in (store.durable, store.shared, store.persistent, store.remote)} == {bool}


class ScanRules(Suite):
    """Listing the keys that begin with a text."""

    def test_scan_lists_every_key_once(self, store: Store) -> None:
        """A scan yields each key exactly as it was written."""
        need(store, "scan")
        store.set_many(dict.fromkeys(KEYS.values(), b"x"))
        assert sorted(store.scan("")) == sorted(KEYS.values())

    @pytest.mark.parametrize("prefix", PREFIXES)
    def test_scan_keeps_to_its_prefix(self, store: Store, prefix: str) -> None:
        """A prefix is plain text: no pattern, no folding, and no neighbour whose name merely starts alike."""
        need(store, "scan")
        names = [*PREFIXES, "cache", "cache2:", "cache:2:", "cach", "CACHE:", "cafe\u0301:", "cafe:", "xcache:"]
        keys = [name + end for name in names for end in ("", "1", "two")]
        keys = [key for key in dict.fromkeys(keys) if key]
        store.set_many(dict.fromkeys(keys, b"x"))
        assert sorted(store.scan(prefix)) == sorted(key for key in keys if key.startswith(prefix))

    def test_scan_lists_what_is_there(self, store: Store, later: Later) -> None:
        """A scan leaves out what was deleted or has expired."""
        need(store, "scan")
        store.set_many({"key:timed": b"x", "key:renewed": b"x"}, 60)
        store.set_many({"key:deleted": b"x", "key:kept": b"x"})
        store.delete("key:deleted")
        store.touch("key:renewed", 1000)
        later(60)
        assert sorted(store.scan("key:")) == ["key:kept", "key:renewed"]

    def test_scan_lists_thousands(self, store: Store) -> None:
        """A scan goes on beyond one batch of the server."""
        need(store, "scan")
        keys = {f"key:{number}" for number in range(3000)}
        store.set_many(dict.fromkeys(keys, b"x"))
        found = list(store.scan("key:"))
        assert len(found) == len(keys)
        assert set(found) == keys

    def test_scan_bears_changes_meanwhile(self, store: Store) -> None:
        """Keys can be deleted and written while a scan goes on; what stays is listed once."""
        need(store, "scan")
        keys = {f"key:{number}" for number in range(2000)}
        store.set_many(dict.fromkeys(keys, b"x"))
        found: list[str] = []
        for key in store.scan("key:"):
            found.append(key)
            store.delete(key)
            store.set(f"other:{key}", b"x")
        assert len(found) == len(keys)
        assert set(found) == keys
        assert list(store.scan("key:")) == []


class PurgeRules(Suite):
    """Removing what has expired."""

    def test_purge_removes_what_has_expired(self, store: Store, later: Later) -> None:
        """A purge removes every expired value and counts them; a second one finds nothing."""
        need(store, "purge_expired")
        store.set_many({f"key:{number}": b"x" for number in range(2500)}, 60)
        later(DAY)
        assert store.purge_expired() == 2500
        assert store.purge_expired() == 0

    def test_purge_leaves_what_lives(self, store: Store, later: Later) -> None:
        """A purge leaves values without a ttl, those whose ttl is not over, and those that were renewed."""
        need(store, "purge_expired")
        store.set("for ever", b"1")
        store.set("long", b"1", 3 * DAY)
        store.set_many({"touched": b"1", "set": b"0", "swapped": b"0", "expired": b"1"}, 60)
        store.touch("touched")
        store.set("set", b"1", 3 * DAY)
        store.swap("swapped", b"0", b"1")
        later(DAY)
        assert store.purge_expired() == 1
        keys = ["for ever", "long", "touched", "set", "swapped"]
        assert store.get_many([*keys, "expired"]) == dict.fromkeys(keys, b"1")


class Watcher:
    """Hears of changes, and can wait for one."""

    def __init__(self, patience: float) -> None:
        self.patience = patience
        self.heard: list[str | None] = []
        self._changed = threading.Condition()

    def __call__(self, key: str | None) -> None:
        """Remember a change."""
        with self._changed:
            self.heard.append(key)
            self._changed.notify_all()

    def hears(self, key: str) -> bool:
        """Wait until a change of a key was told, or that some may have been missed."""
        with self._changed:
            return self._changed.wait_for(lambda: key in self.heard or None in self.heard, self.patience)


class WatchRules(Suite):
    """Hearing of changes made elsewhere."""

    def test_watch_tells_changes(self, store: Store) -> None:
        """Each way to change a key under the prefix is told, whoever does it."""
        need(store, "watch")
        other = self.reopen(store)
        writes: dict[str, t.Callable[[str], object]] = {
            "set": lambda key: other.set(key, b"1"),
            "add": lambda key: other.add(key, b"1"),
            "incr": other.incr,
            "set_many": lambda key: other.set_many({key: b"1"}),
            "swap": lambda key: other.swap(key, b"0", b"1"),
            "delete": other.delete,
            "delete_many": lambda key: other.delete_many([key]),
        }
        for present in ("swap", "delete", "delete_many"):
            store.set(f"app:{present}", b"0")
        for name, write in writes.items():
            watcher = Watcher(self.patience)
            stop = store.watch("app:", watcher)
            write(f"app:{name}")
            assert watcher.hears(f"app:{name}"), f"a change by {name} was not told"
            stop()

    def test_watch_keeps_to_its_prefix(self, store: Store) -> None:
        """A change of a key that does not begin with the prefix is not told."""
        need(store, "watch")
        watcher = Watcher(self.patience)
        stop = store.watch("app:", watcher)
        for key in ("app2:key", "app", "App:key", "other:key"):
            store.set(key, b"x")
        store.set("app:last", b"x")
        assert watcher.hears("app:last")
        assert set(watcher.heard) <= {"app:last", None}
        stop()

    def test_watch_ends(self, store: Store) -> None:
        """After the watch was ended nothing is told any more; to end it twice is no error."""
        need(store, "watch")
        ended, fence = Watcher(self.patience), Watcher(self.patience)
        stop = store.watch("app:", ended)
        stop()
        stop()
        heard = list(ended.heard)
        stop_fence = store.watch("app:", fence)
        store.set("app:key", b"x")
        assert fence.hears("app:key")
        assert ended.heard == heard
        stop_fence()


class EpochRules(Suite):
    """Hearing which keys were changed elsewhere, by a table."""

    def test_epochs_tell_changes(self, store: Store) -> None:
        """A key that anybody changes is not what it was before, for all who use the store, each time."""
        need(store, "epochs")
        other = self.reopen(store)
        mine, others = live_epochs(store, self.patience), live_epochs(other, self.patience)
        for changed in (["key", "second"], ["key"], ["second"]):
            before = [(epochs, self.settled_marks(epochs, [key])) for epochs in (mine, others) for key in changed]
            change(other, others, changed)
            assert all(self.hears(epochs, marks) for epochs, marks in before)
        mine.close()
        others.close()

    def test_epochs_leave_other_keys(self, store: Store) -> None:
        """A key of another slot stays what it was; a mark of several keys is as old as the one that was changed."""
        need(store, "epochs")
        epochs = live_epochs(store, self.patience)
        assert slot_of("key") != slot_of("other")
        key, other, both = (epochs.marks(keys) for keys in (["key"], ["other"], ["other", "key"]))
        change(store, epochs, ["key"])
        assert self.hears(epochs, key)
        assert epochs.is_unchanged(other)
        assert not epochs.is_unchanged(both)
        epochs.close()

    def settled_marks(self, epochs: Epochs, keys: list[str]) -> Marks:
        """Return marks that are true, once what is heard late of earlier changes has passed."""
        marks = epochs.marks(keys)

        def settled() -> bool:
            nonlocal marks
            before, marks = marks, epochs.marks(keys)
            return epochs.is_unchanged(before)

        assert eventually(settled, self.patience)
        return marks

    def hears(self, epochs: Epochs, marks: Marks) -> bool:
        """Wait until it is known that a key behind some marks was changed."""
        return eventually(lambda: not epochs.is_unchanged(marks), self.patience)


def live_epochs(store: Store, patience: float) -> Epochs:
    """Return a store's epochs once they tell of changes, for which some have to be asked first."""
    epochs = store.epochs("")
    epochs.marks(["key"])
    assert eventually(lambda: epochs.live, patience)
    return epochs


def change(store: Store, epochs: Epochs, keys: list[str]) -> None:
    """Change some keys, and say so."""
    store.set_many(dict.fromkeys(keys, b"changed"))
    epochs.changed(keys)
