"""Objects that a session had loaded before a computation began, which may use them without asking the database."""

from __future__ import annotations

import typing as t
import weakref

from .adapter import DEFAULT
from .checks import Versions, open_connections, tags_of
from .tracker import reader, transaction_of

if t.TYPE_CHECKING:
    from .database import Database


class Carried:
    """The objects that a session had loaded before a computation began.

    They may be older than what it reads. One that is found by its primary key leads to others that were loaded with it.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        session = database.adapter.scope()
        loaded = [] if session is None else [state for state in session.identity_map.all_states() if not state.expired]
        self._models = {state.class_ for state in loaded}
        self._keys = {state.key for state in loaded}
        #: The keys of those that were found.
        self.found: set[t.Any] = set()
        # What a session keeps over its commits may have been loaded at any time.
        self._is_bounded = session is not None and session.expire_on_commit
        if session is not None and loaded:
            _tell_of_finds(session.identity_map)

    def __bool__(self) -> bool:
        """Tell whether there are any."""
        return bool(self._models)

    def find(self, key: t.Any) -> None:
        """Note that an object was found by its key."""
        if key in self._keys:
            self.found.add(key)

    def lead_past(self, versions: Versions) -> bool:
        """Tell whether some were found, and they or what they lead to are from a table that was not read."""
        if not self.found:
            return False
        read = {tag.partition("[")[0] for found in versions.values() for tag in found}
        return not tags_of(self._models, self._database.tracker(DEFAULT)) <= read

    def may_be_old(self, versions: Versions) -> bool:
        """Tell whether a table that was read may have changed since such objects were loaded from it."""
        if not self._models:
            return False
        for name, found in versions.items():
            tracker = self._database.tracker(name)
            tables = tags_of(self._models, tracker)
            began = min((transaction_of(each).began for each in open_connections(tracker)), default=-1.0)
            for tag, version in found.items():
                if tag.partition("[")[0] not in tables:
                    continue
                if not self._is_bounded or not tracker.versions.was_so(tag, version, began):
                    return True
        return False


def _tell_of_finds(identity_map: t.Any) -> None:
    """Let whoever notes what is read hear of the objects that a session finds without a statement."""
    if "get" in vars(identity_map):
        return
    held: weakref.ref[t.Any] = weakref.ref(identity_map)
    get: t.Callable[..., t.Any] = t.cast("t.Any", type(identity_map)).get

    def find(key: t.Any, default: t.Any = None) -> t.Any:
        found: t.Any = get(held(), key, default)
        reading = reader.get()
        if found is not None and reading is not None:
            reading.finds(key)
        return found

    identity_map.get = find
