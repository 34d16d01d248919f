"""Encoded values that are decoded when looked at, and that know what was changed."""

from __future__ import annotations

import typing as t
from collections.abc import Mapping

from ..errors import StateConflict, ValueTooLarge
from ..serialization import FROZEN, Raw, dumps, loads


class TrackedItems:
    """The keys and values of a session while a request works on them.

    A value that can change in place, a list or a dict, is encoded once more when changes are asked for; if the bytes
    differ from what was stored, it was changed. A value that cannot is known to be changed only by being assigned.

    :param stored: the encoded values, as the store holds them.
    """

    __slots__ = ("_assigned", "_encoded", "_orphans", "_viewed", "deleted", "stored", "values")

    def __init__(self, stored: Mapping[str, Raw]) -> None:
        self.stored = stored
        #: Live values, and encoded ones that nobody has looked at.
        self.values: dict[str, t.Any] = dict(stored)
        #: Keys that were removed, also those that were assigned again after that: they have moved to the end.
        self.deleted: set[str] = set()
        self._assigned: set[str] = set()
        #: Keys whose value was looked at and can change in place.
        self._viewed: set[str] = set()
        #: The encodings of assigned values that cannot change in place.
        self._encoded: dict[str, bytes] = {}
        #: Keys and values looked up before :meth:`rebase` replaced them, with the encodings they had.
        self._orphans: list[tuple[str, t.Any, bytes]] = []

    def decode(self, key: str, raw: Raw) -> t.Any:
        """Return the value of a key that nobody has looked at yet.

        :raises DecodeError: if it is not an encoded value.
        """
        value = self.values[key] = loads(raw)
        if type(value) not in FROZEN:
            self._viewed.add(key)
        return value

    def assign(self, key: str, value: t.Any, *, max_bytes: int | None = None) -> None:
        """Set a value. Where that fails, nothing has changed.

        :param max_bytes: how long its encoding may be.
        :raises EncodeError: if it cannot be encoded.
        :raises ValueTooLarge: if its encoding is longer.
        """
        encoded = _encode(key, value)
        if max_bytes is not None and len(encoded) > max_bytes:
            raise ValueTooLarge(
                f"session[{key!r}] takes {len(encoded):,} bytes and STATEFUL_SESSION_MAX_BYTES allows {max_bytes:,}"
            )
        self.values[key] = value
        self._assigned.add(key)
        if type(value) in FROZEN:
            self._encoded[key] = encoded
        else:
            self._encoded.pop(key, None)

    def delete(self, key: str) -> None:
        """Remove a key, or raise :exc:`KeyError`."""
        del self.values[key]
        self.deleted.add(key)

    def assigned_values(self) -> dict[str, t.Any]:
        """Return what was assigned, whether or not it differs from what is stored."""
        return {key: self.values[key] for key in self._assigned & self.values.keys()}

    def changes(self) -> dict[str, bytes]:
        """Return the encodings of those values that differ from what is stored, or stand in another place.

        :raises EncodeError: if a value was changed in place to something that cannot be encoded.
        :raises StateConflict: if a value that :meth:`rebase` has replaced was changed.
        """
        if not (self._assigned or self._viewed or self._orphans):
            return {}
        self._require_no_orphan_changes()
        moved = self._moved()
        return {
            key: encoded
            for key, encoded in self._encodings().items()
            if key not in self.stored or key in moved or bytes(self.stored[key]) != encoded
        }

    def removed(self) -> set[str]:
        """Return the stored keys that are gone, or stand in another place."""
        if not self.deleted:
            return set()
        return {key for key in self.deleted & self.stored.keys() if key not in self.values} | self._moved()

    def _moved(self) -> set[str]:
        """Return the keys that were removed and assigned again, if that has changed the order of keys."""
        again = self.deleted & self.values.keys() & self.stored.keys()
        if not again:
            return again
        kept = [key for key in self.stored if key in self.values]
        added = [key for key in self.values if key not in self.stored]
        return set() if list(self.values) == kept + added else again

    def rebase(self, stored: Mapping[str, Raw], *, keep_changes: bool) -> None:
        """Go on from what the store holds now.

        A live value stays the same object where it is still true, so that whoever holds a list can go on changing it.

        :param keep_changes: lay the changes made so far over it, to be saved later.
        """
        before, values, deleted, orphans = self._encodings(), self.values, self.deleted, self._orphans
        changed = self.changes().keys() if keep_changes else set[str]()
        self.__init__(stored)  # type: ignore[misc]
        self._orphans = orphans
        if keep_changes:
            for key in deleted & stored.keys():
                self.delete(key)
        for key, encoded in before.items():
            if key in changed:
                self.assign(key, values[key])
            elif key in stored and bytes(stored[key]) == encoded:
                self.values[key] = values[key]
                self._viewed.add(key)
            else:
                self._orphans.append((key, values[key], encoded))

    def _encodings(self) -> dict[str, bytes]:
        """Return the encodings that all values which may have changed have now, in the order of their keys."""
        suspects = self._assigned | self._viewed
        return {
            key: self._encoded.get(key) or _encode(key, value) for key, value in self.values.items() if key in suspects
        }

    def _require_no_orphan_changes(self) -> None:
        for key, value, before in self._orphans:
            if _encode(key, value) != before:
                raise StateConflict(
                    f"session[{key!r}] was looked up before the lock, changed by another request, and then changed"
                    " here; look it up inside `with state.sessions.lock():`"
                )


def _encode(key: str, value: t.Any) -> bytes:
    return dumps(value, where=f"session[{key!r}]")
