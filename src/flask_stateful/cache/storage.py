"""What the cache keeps: values in memory over values in a store."""

from __future__ import annotations

import itertools
import typing as t
from collections.abc import Iterable, Mapping

import msgspec

from .. import clock
from ..epochs import ANY, Mark
from ..errors import DecodeError, StoreError
from ..signals import cache_hit
from ..stores.base import Store, Ttl
from .call import A_VALUE, Call
from .debts import Debts
from .entries import Entry, Slot, from_bytes, to_bytes
from .events import Events
from .found import Found, Read, tags_of
from .layer import Held, Layer, hold
from .tables import Tables, Versions
from .tags import EVERYTHING, Tags

#: Of how many values it is remembered which tags they have.
_MOST_REMEMBERED: t.Final = 4096


class CacheStorage:
    """The cached values of one application.

    :param namespace: prefixes every store key.
    :param layer: what memory holds of them.
    :param events: counts what happens.
    :param tables: the application's tables.
    """

    def __init__(
        self, store: Store, *, namespace: str, layer: Layer, events: Events, tables: Tables | None = None
    ) -> None:
        self.store = store
        #: The application's tables, where values may be made from such.
        self.tables = tables
        self.namespace = namespace
        self.layer = layer
        self.tags = Tags(store, namespace, layer)
        self.events = events
        #: The keys of tags that values had when they were last read, beyond those that their calls name.
        self._tag_keys: dict[str, list[str]] = {}
        self._owed_keys = Debts()
        self._owed_tags = Debts()

    def renew(self) -> None:
        """Begin anew in a forked child: a thread that it does not have may hold a lock."""
        self._owed_keys.renew_lock()
        self._owed_tags.renew_lock()
        if self.layer.memory is not None:
            self.layer.memory.renew_lock()

    # Reading

    def recall(self, key: str, name: str = A_VALUE) -> Held | None:
        """Return what memory holds, if it is fresh and true, and neither to be refreshed yet nor to be asked for again.

        :param name: what log lines call it.
        """
        # Written out here, since to call what does it would take longer than doing it.
        layer, events = self.layer, self.events
        node = layer.nodes.get(key)
        if node is not None and node.value.newest == layer.table[ANY]:
            node.visited = True
            held = node.value
        else:
            found = layer.get(key)
            if found is None:
                return None
            held = found
        if clock.monotonic() >= held.ask_at:
            return None
        events.recalled += 1
        if cache_hit.receivers:
            events.tell("hits_memory", name)
        return held

    def find(self, calls: Iterable[Call]) -> dict[str, Held]:
        """Return the fresh values of those calls that have one, by key; where the store fails, what memory has."""
        found, missing = dict[str, Held](), list[Call]()
        for call in calls:
            held = self.recall(call.key, call.name)
            if held is not None:
                found[call.key] = held
            else:
                missing.append(call)
        if missing:
            try:
                looked = self.look_many(missing)
            except StoreError:
                self.events.note("store_errors", A_VALUE)
                return found
            for call in missing:
                held = self._fresh(call, looked.get(call.key))
                if held is not None:
                    found[call.key] = held
        return found

    def find_one(self, call: Call) -> Held | None:
        """Return the fresh value of a call that memory does not have, if there is one and the store does not fail."""
        try:
            return self._fresh(call, self._look(call)[2])
        except StoreError:
            self.events.note("store_errors", call.name)
            return None

    def is_current(self, versions: Versions) -> bool:
        """Tell whether the tables that a value was made from are as they were."""
        return not versions or (self.tables is not None and self.tables.check(versions) == "current")

    def _fresh(self, call: Call, held: Held | None) -> Held | None:
        """Return what there was, unless it is stale, and count which it was."""
        is_fresh = held is not None and clock.monotonic() < held.fresh_until and self.is_current(held.entry.tables)
        self.events.note("hits_store" if is_fresh else "misses", call.name)
        return held if is_fresh else None

    def look(self, call: Call) -> Found:
        """Ask the store: one exchange for the value and the versions of the call's tags.

        :raises StoreError: if the store fails.
        """
        data, slot, held, known = self._look(call)
        return Found(data, slot, held, known)

    def _look(self, call: Call) -> tuple[bytes | None, Slot | None, Held | None, Mapping[str, bytes]]:
        self.pay()
        tag_keys = self.tags.keys(call.tags)
        if call.key in self._tag_keys:
            tag_keys = tuple(dict.fromkeys((*tag_keys, *self._tag_keys[call.key])))
        marks, known = self.tags.fetch_one(call.key, tag_keys)
        data, held = known.get(call.key), None
        slot = self._slot(call, data)
        if isinstance(slot, Entry):
            unknown = [tag_key for tag_key in map(self.tags.key, slot.tags) if tag_key not in tag_keys]
            if unknown:
                self._remember_tags(call.key, unknown)
                more_marks, more_known = self.tags.fetch((), unknown)
                marks, known = [*marks, *more_marks.values()], known | more_known
            held = self._hold(call, slot, known, marks)
        return data, slot, held, known

    def look_many(self, calls: Iterable[Call]) -> dict[str, Held]:
        """Return those values that the store has, by key.

        :raises StoreError: if the store fails.
        """
        calls = list(calls)
        read, held = self._read(calls), dict[str, Held]()
        for call in calls:
            entry = read.slots[call.key]
            if isinstance(entry, Entry):
                marks = [read.marks[key] for key in (call.key, *map(self.tags.key, entry.tags))] if read.marks else []
                value = self._hold(call, entry, read.known, marks)
                if value is not None:
                    held[call.key] = value
        return held

    def _read(self, calls: list[Call]) -> Read:
        """Ask the store for values and the versions of their tags.

        That is one exchange, and a second one where a value turns out to have tags that nobody has named: those are
        remembered for the next time.
        """
        self.pay()
        remembered = (key for call in calls for key in self._tag_keys.get(call.key, ()))
        asked = dict.fromkeys([self.tags.key(EVERYTHING), *remembered])
        marks, known = self.tags.fetch([call.key for call in calls], asked)
        slots = {call.key: self._slot(call, known.get(call.key)) for call in calls}
        more = dict[str, None]()
        for key, slot in slots.items():
            unknown = [tag_key for tag_key in map(self.tags.key, tags_of(slot)) if tag_key not in asked]
            if unknown:
                self._remember_tags(key, unknown)
                more |= dict.fromkeys(unknown)
        if more:
            # The marks of the values stay those from before they were read.
            more_marks, more_known = self.tags.fetch((), more)
            marks, known = more_marks | marks, known | more_known
        return Read(slots, marks, known)

    def _remember_tags(self, key: str, tag_keys: list[str]) -> None:
        if len(self._tag_keys) >= _MOST_REMEMBERED:
            self._tag_keys.clear()
        self._tag_keys[key] = tag_keys

    def _slot(self, call: Call, data: bytes | None) -> Slot | None:
        """Return what the store's bytes say, or ``None`` where they are nothing of ours."""
        if not data:
            return None
        try:
            return from_bytes(data, call.key)
        except DecodeError:
            self.events.note("undecodable", call.name)
            return None

    def _hold(self, call: Call, entry: Entry, known: Mapping[str, bytes], marks: list[Mark]) -> Held | None:
        """Keep in memory what the store has, unless it is over or a tag has invalidated it.

        :param known: the versions of its tags, by key.
        :param marks: where it and its tags stood before they were read.
        """
        if not self.tags.are_current(entry.tags, known):
            return None
        try:
            held = hold(entry, call.codec, tuple(marks), trusted_for=self.layer.epochs.trusted_for)
        except DecodeError:
            self.events.note("undecodable", call.name)
            return None
        if held.stale_until <= clock.monotonic():
            return None
        self.layer.put(held)
        return held

    # Writing

    def set(
        self, call: Call, value: t.Any, versions: Mapping[str, bytes] | None = None, tables: Versions | None = None
    ) -> None:
        """Write a value, whatever was there. Whoever is computing it will not write.

        :param versions: those that its tags had before it was computed; by default those that they have now.
        :param tables: those of the tables that it was made from.
        """
        self.pay()
        if versions is None:
            versions = self.tags.read((EVERYTHING, *call.tags))
        self.put(call, to_bytes(self.entry(call, value, versions, tables=tables)), replaces=None)

    def set_many(self, calls: Mapping[Call, t.Any]) -> None:
        """Write several values that have the same times and tags, in two exchanges."""
        self.pay()
        for call in itertools.islice(calls, 1):
            versions = self.tags.read((EVERYTHING, *call.tags))
            entries = {call.key: to_bytes(self.entry(call, value, versions)) for call, value in calls.items()}
            self.store.set_many(entries, call.lasts)
            self.layer.changed(entries)

    def add(self, call: Call, value: t.Any) -> bool:
        """Write a value only where there is none that counts."""
        found = self.look(call)
        if found.held is not None and self.is_current(found.held.entry.tables):
            return False
        versions = self.tags.versions((EVERYTHING, *call.tags), found.versions)
        data = to_bytes(self.entry(call, value, versions))
        if found.data is None:
            added = self.store.add(call.key, data, call.lasts)
        else:
            added = self.store.swap(call.key, found.data, data, call.lasts)
        self.layer.changed([call.key])
        return added

    def touch(self, call: Call) -> bool:
        """Give a value another ttl, from now on."""
        while (found := self.look(call)).held is not None and found.data is not None:
            entry = msgspec.structs.replace(found.held.entry, **call.times())
            if self.store.swap(call.key, found.data, to_bytes(entry), call.lasts):
                self.layer.changed([call.key])
                return True
        return False

    def incr(self, key: str, by: int, ttl: Ttl) -> int:
        """Add to a counter."""
        count = self.store.incr(key, by, ttl)
        self.layer.changed([key])
        return count

    @staticmethod
    def entry(
        call: Call,
        value: t.Any,
        versions: Mapping[str, bytes],
        *,
        cost: float = 0.0,
        tables: Versions | None = None,
    ) -> Entry:
        """Return the entry for a value that is written now.

        :raises EncodeError: if the value cannot be encoded.
        """
        payload = call.codec.encode(value)
        made_from = {name: dict(tags) for name, tags in (tables or {}).items()}
        return Entry(key=call.key, cost=cost, tags=dict(versions), payload=payload, tables=made_from, **call.times())

    def put(self, call: Call, data: bytes, *, replaces: bytes | None) -> None:
        """Write what lies under a call's key from now on.

        :param replaces: what must lie there still; ``None`` overwrites anything.
        :raises StoreError: if the store fails.
        """
        if replaces is None:
            self.store.set(call.key, data, call.lasts)
        elif not self.store.swap(call.key, replaces, data, call.lasts):
            # The key was forgotten, or another took over: this value may be older than what follows.
            self.events.note("overtaken", call.name)
            return
        self.layer.changed([call.key])

    # Invalidating

    def forget(self, keys: Iterable[str]) -> None:
        """Remove values. Whoever is computing one of them will not write it.

        :raises StoreError: if the store fails; it is done before this process next reads from the store.
        """
        keys = list(keys)
        self._owed_keys.add(keys)
        self.layer.changed(keys)
        self.pay()

    def invalidate(self, tags: Iterable[str]) -> None:
        """Invalidate every value that has one of these tags.

        :raises StoreError: if the store fails; it is done before this process next reads from the store.
        """
        tags = list(tags)
        self._owed_tags.add(tags)
        self.layer.changed(map(self.tags.key, tags))
        self.pay()

    def owe(self, key: str) -> None:
        """Remember to remove a value before this process next reads from the store: what lies there is not known."""
        self._owed_keys.add([key])

    def pay(self) -> None:
        """Tell the store what it does not know yet.

        :raises StoreError: if it fails again.
        """
        if self._owed_keys or self._owed_tags:
            keys, tags = self._owed_keys.all(), self._owed_tags.all()
            self.store.delete_many(keys)
            self.tags.invalidate(tags)
            self.layer.changed([*keys, *map(self.tags.key, tags)])
            self._owed_keys.settle(keys)
            self._owed_tags.settle(tags)
