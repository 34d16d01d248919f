"""Encoded values that are decoded when looked at, and that know what was changed."""

from __future__ import annotations

import typing as t
from collections.abc import Callable, Collection, Mapping

from .errors import StateConflict, StateError
from .serialization import FROZEN, Raw


class Codec(t.Protocol):
    """How the values at each key are encoded, and what errors call them."""

    def encode(self, key: str, value: t.Any) -> bytes:
        """Return the encoding of a value, which is the same for equal values."""
        ...

    def decode(self, key: str, raw: Raw) -> t.Any:
        """Return an encoded value, or raise :exc:`~flask_stateful.errors.DecodeError`."""

    def require_room(self, key: str, encoded: bytes) -> None:
        """Raise :exc:`~flask_stateful.errors.ValueTooLarge` where an assigned value takes too much of it."""

    def check(self, key: str, value: t.Any) -> None:
        """Raise where a value that was changed in place is none that may stand at its key."""

    def is_steady(self, key: str) -> bool:
        """Tell whether equal values of a key encode to equal bytes in every process."""
        ...

    def conflict(self, key: str) -> str:
        """Return what to say where a value was changed that is no longer the one at its key."""
        ...


class TrackedItems:
    """The keys and values of some state while a request works on them.

    A value that can change in place, a list or a dict, is encoded once more when changes are asked for; if the bytes
    differ from what was stored, it was changed. A value that cannot is known to be changed only by being assigned.

    :param stored: the encoded values, as they are kept.
    """

    __slots__ = (
        "_assigned",
        "_codec",
        "_orphans",
        "_seen",
        "_viewed",
        "defaults",
        "deleted",
        "stored",
        "values",
    )

    def __init__(self, stored: Mapping[str, Raw], codec: Codec) -> None:
        self._codec = codec
        #: Keys and values looked up before :meth:`rebase` replaced them, with the encodings they had.
        self._orphans: list[tuple[str, t.Any, bytes]] = []
        self._begin(stored)

    def _begin(self, stored: Mapping[str, Raw]) -> None:
        self.stored = stored
        #: Live values, and encoded ones that nobody has looked at.
        self.values: dict[str, t.Any] = dict(stored)
        #: Keys that were removed, also those that were assigned again after that: they have moved to the end.
        self.deleted: set[str] = set()
        #: Keys that were assigned, with the encoding of the value where that cannot change in place.
        self._assigned: dict[str, bytes | None] = {}
        #: Keys whose value was looked at and can change in place.
        self._viewed: set[str] = set()
        #: What stored values encode to here, where that may differ from what is stored.
        self._seen: dict[str, bytes] = {}
        #: Values handed out for keys that have none, and the encodings they had.
        self.defaults: dict[str, tuple[t.Any, bytes]] = {}

    def decode(self, key: str, raw: Raw) -> t.Any:
        """Return the value of a key that nobody has looked at yet.

        :raises DecodeError: if it is not an encoded value.
        """
        value = self.values[key] = self._codec.decode(key, raw)
        if type(value) not in FROZEN:
            self._viewed.add(key)
            if not self._codec.is_steady(key):
                self._seen[key] = self._codec.encode(key, value)
        return value

    def default(self, key: str, make: t.Callable[[], t.Any]) -> t.Any:
        """Return the default of a key that has no value. It becomes the value once it is changed in place.

        :param make: returns a default of its own each time.
        """
        known = self.defaults.get(key)
        if known is not None:
            return known[0]
        value = make()
        if type(value) not in FROZEN:
            self.defaults[key] = value, self._codec.encode(key, value)
        return value

    def adopt_defaults(self) -> None:
        """Let each default that was changed in place be the value of its key."""
        for key, (value, before) in list(self.defaults.items()):
            if self._codec.encode(key, value) != before:
                self.assign(key, value)

    def assign(self, key: str, value: t.Any) -> None:
        """Set a value. Where that fails, nothing has changed.

        :raises EncodeError: if it cannot be encoded.
        :raises ValueTooLarge: if its encoding is longer than its codec allows.
        """
        encoded = self._codec.encode(key, value)
        self._codec.require_room(key, encoded)
        self.values[key] = value
        self._assigned[key] = encoded if type(value) in FROZEN else None
        self.defaults.pop(key, None)

    def delete(self, key: str) -> None:
        """Remove a key, or raise :exc:`KeyError`."""
        del self.values[key]
        self.deleted.add(key)

    def reset(self, key: str) -> None:
        """Remove a key, where it is there, and the default that was handed out for it."""
        self.defaults.pop(key, None)
        if key in self.values:
            self.delete(key)

    def discard(self, key: str) -> None:
        """Let a key be as if it had neither been stored nor looked at."""
        self.stored = {name: raw for name, raw in self.stored.items() if name != key}
        for known in (self.values, self._assigned, self._seen, self.defaults):
            known.pop(key, None)
        for noted in (self.deleted, self._viewed):
            noted.discard(key)

    def assigned_values(self) -> dict[str, t.Any]:
        """Return what was assigned, whether or not it differs from what is stored."""
        self.adopt_defaults()
        return {key: self.values[key] for key in self._assigned.keys() & self.values.keys()}

    def changes(self) -> dict[str, bytes]:
        """Return the encodings of those values that differ from what is stored, or stand in another place.

        :raises EncodeError: if a value was changed in place to something that cannot be encoded.
        :raises StateConflict: if a value that :meth:`rebase` has replaced was changed.
        """
        if self.defaults:
            self.adopt_defaults()
        if not (self._assigned or self._viewed or self._orphans):
            return {}
        if self._orphans:
            self._require_no_orphan_changes()
        changed, moved = self._encodings(), self._moved()
        for key, encoded in list(changed.items()):
            if self._is_stored(key, encoded) and key not in moved:
                del changed[key]
            elif self._assigned.get(key) is None:
                self._codec.check(key, self.values[key])
        return changed

    def removed(self) -> set[str]:
        """Return the stored keys that are gone, or stand in another place."""
        if not self.deleted:
            return set()
        return {key for key in self.deleted & self.stored.keys() if key not in self.values} | self._moved()

    def _moved(self) -> set[str]:
        """Return the keys that were removed and assigned again, if that has changed the order of keys."""
        if not self.deleted:
            return set()
        again = self.deleted & self.values.keys() & self.stored.keys()
        if not again:
            return again
        kept = [key for key in self.stored if key in self.values]
        added = [key for key in self.values if key not in self.stored]
        return set() if list(self.values) == kept + added else again

    def rebase(self, stored: Mapping[str, Raw], *, keep_changes: bool) -> None:
        """Go on from what is stored now.

        A live value stays the same object where it is still true, so that whoever holds a list can go on changing it.

        :param keep_changes: lay the changes made so far over it, to be saved later.
        """
        self.adopt_defaults()
        before, values, deleted, defaults = self._encodings(), self.values, self.deleted, self.defaults
        changed = self.changes().keys() if keep_changes else set[str]()
        self._begin(stored)
        if keep_changes:
            for key in deleted & stored.keys():
                self.delete(key)
        for key, encoded in before.items():
            if key in changed:
                self.assign(key, values[key])
            elif self._is_stored(key, encoded):
                self.values[key] = values[key]
                self._viewed.add(key)
            else:
                self._orphans.append((key, values[key], encoded))
        for key, (value, encoded) in defaults.items():
            if key in self.values:
                self._orphans.append((key, value, encoded))
            else:
                self.defaults[key] = value, encoded

    def remember(self, decode: Callable[[str, Raw], t.Any] | None = None) -> Callable[[], None]:
        """Return what makes the changes there are now all the changes again.

        :param decode: returns a value from what its encoding is here, where that is not how values are stored.
        """
        stored, changed, removed = self.stored, self.changes(), self.removed()
        return lambda: self.restore(stored, changed, removed, decode)

    def restore(
        self,
        stored: Mapping[str, Raw],
        changed: Mapping[str, bytes],
        removed: Collection[str],
        decode: Callable[[str, Raw], t.Any] | None = None,
    ) -> None:
        """Let these be all the changes, to what is stored now."""
        try:
            self.rebase(stored, keep_changes=False)
        except (StateError, TypeError, ValueError):
            # A value was changed in place to what cannot be encoded; nobody can tell any more what it was.
            self._begin(stored)
        for key in removed:
            if key in self.values:
                self.delete(key)
        for key, encoded in changed.items():
            self.assign(key, (decode or self._codec.decode)(key, Raw(encoded)))

    def _is_stored(self, key: str, encoded: bytes) -> bool:
        """Tell whether an encoding is that of the stored value."""
        stored = self.stored.get(key)
        return stored is not None and encoded in (bytes(stored), self._seen.get(key))

    def _encodings(self) -> dict[str, bytes]:
        """Return the encodings that all values which may have changed have now, in the order of their keys."""
        assigned, viewed, encode = self._assigned, self._viewed, self._codec.encode
        return {
            key: assigned.get(key) or encode(key, value)
            for key, value in self.values.items()
            if key in assigned or key in viewed
        }

    def _require_no_orphan_changes(self) -> None:
        for key, value, before in self._orphans:
            if self._codec.encode(key, value) != before:
                raise StateConflict(self._codec.conflict(key))
