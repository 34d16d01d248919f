"""What cached values are made from: which tables a computation reads, and whether they have changed since.

The version of a table is read before the table itself is, on the same connection, so that what is kept is never older
than the version it is kept with. A commit after that changes the version, so that the value does not count any more.
"""

from __future__ import annotations

import contextlib
import contextvars
import logging
import typing as t
from collections.abc import Callable, Collection, Generator, Iterable, Mapping

from .carried import Carried
from .checks import Checks, Verdict, Versions
from .dependencies import Tags, require_known, resolve
from .tags import EVERYTHING
from .tracker import Tracker, reader, track, transaction_of

if t.TYPE_CHECKING:
    from sqlalchemy.engine import Connection

    from .statements import Statement

logger = logging.getLogger("flask_stateful")

_UNKNOWN: t.Final = (
    "it read from the database with SQL whose tables cannot be told; write memoize(depends_on=[...]),"
    ' or consistency="ttl"'
)

_FOREIGN: t.Final = (
    'it read from a database that is none of those in db=; write consistency="ttl" if that needs not be exact'
)


class Reading:
    """What one computation has read.

    :param declared: what the value depends on, by engine, where the application says so.
    :param exact: whether the application says that it is made from the database.
    """

    def __init__(self, reads: TableReads, declared: Tags | None, *, exact: bool = False) -> None:
        self._reads = reads
        self._declared = declared
        self._exact = exact
        self._versions: dict[str, dict[str, int]] = {}
        #: The versions that each connection has told.
        self._known: list[tuple[Connection, dict[str, int]]] = []
        #: What was loaded before, and of which no statement may tell.
        self._carried = Carried(reads.database)
        self._refusal: str | None = None
        #: The tags of all that was read, whatever the application says; ``None`` where that cannot be told.
        self.found: set[str] | None = set()

    @property
    def versions(self) -> Versions:
        """The versions of the tables that were read, from before they were."""
        return self._versions

    @property
    def refusal(self) -> str | None:
        """Why the value is for this caller alone; ``""`` where nobody need be told."""
        if self._refusal is None and (self._is_unproven() or self._carried.may_be_old(self._versions)):
            return ""
        return self._refusal

    def finds(self, key: t.Any) -> None:
        """Take note of an object that a session has found without a statement."""
        self._carried.find(key)

    def refuse(self, why: str = "") -> None:
        """Let the value be for this caller alone."""
        self._refusal = self._refusal or why

    def reads(self, tracker: Tracker, connection: Connection, statement: Statement) -> None:
        """Take note of a statement before it is executed."""
        self.saw(statement.reads)
        tags = self._wanted(tracker, statement)
        if not tags:
            return
        name = self._reads.name_of(tracker)
        if name is None:
            self.refuse(_FOREIGN)
            return
        written = transaction_of(connection).written
        if not written.isdisjoint(tags):
            self.refuse()
        known = self._known_to(connection)
        missing = tags - known.keys()
        if missing:
            found = self._read(tracker, connection, missing)
            known.update(found)
            self.note(name, found)

    def note(self, name: str, found: Mapping[str, int]) -> None:
        """Note the versions of some tables. Where two were read, nobody can say which of them the value has."""
        versions = self._versions.setdefault(name, {}) if found else {}
        for tag, version in found.items():
            if versions.setdefault(tag, version) != version:
                self.refuse()

    def saw(self, tags: Collection[str] | None) -> None:
        """Note the tags of what was read; ``None`` where that cannot be told."""
        self.found = None if self.found is None or tags is None else self.found.union(tags)

    def include(self, other: Recording) -> None:
        """Note that what another computation has made is part of this one."""
        for name, found in other.versions.items():
            self.note(name, found)
        if isinstance(other, Reading):
            self.saw(other.found)
            for key in other._carried.found:
                self.finds(key)
        refusal = other._refusal if isinstance(other, Reading) else other.refusal
        if refusal is not None:
            self.refuse(refusal)

    def _is_unproven(self) -> bool:
        """Tell whether it cannot be known which versions of its tables the value is made from."""
        if self._declared is None:
            is_silent = self._exact and not self._versions and bool(self._carried)
            return is_silent or self._carried.lead_past(self._versions)
        return any(name not in self._versions and not self._reads.are_missing(name) for name in self._declared)

    def _wanted(self, tracker: Tracker, statement: Statement) -> set[str]:
        """Return the tags whose versions are to be read before a statement is executed."""
        if self._declared is None:
            if statement.reads is None:
                self.refuse(_UNKNOWN)
            return {*statement.reads, EVERYTHING} if statement.reads else set()
        if statement.reads is not None and not statement.reads:
            return set()
        name = self._reads.name_of(tracker)
        return {*self._declared.get(name, ()), EVERYTHING} if name in self._declared else set()

    def _known_to(self, connection: Connection) -> dict[str, int]:
        for each, known in self._known:
            if each is connection:
                return known
        self._known.append((connection, {}))
        return self._known[-1][1]

    def _read(self, tracker: Tracker, connection: Connection, tags: set[str]) -> dict[str, int]:
        driver = connection.connection.dbapi_connection
        try:
            return tracker.versions.read(driver, tags) if tracker.versions.exist(driver) else {}
        except Exception:
            # The statement itself is about to tell what is wrong.
            tracker.versions.look_again()
            self.refuse()
            return {}


class OwnChanges:
    """Sees that a value which lasts until its ttl is not made from what its caller has yet to commit.

    :param outer: what is computed with the value as a part of it.
    """

    def __init__(self, outer: Recording | None) -> None:
        self._outer = outer
        self.versions: Versions = {}
        self.refusal: str | None = None

    def refuse(self, why: str = "") -> None:
        """Let the value be for this caller alone."""
        self.refusal = why

    def reads(self, tracker: Tracker, connection: Connection, statement: Statement) -> None:
        """Take note of a statement before it is executed."""
        written = transaction_of(connection).written
        if written and (statement.reads is None or not written.isdisjoint(statement.reads)):
            self.refuse()
        if self._outer is not None:
            self._outer.reads(tracker, connection, statement)

    def finds(self, key: t.Any) -> None:
        """Leave that to who wants to know it."""
        if self._outer is not None:
            self._outer.finds(key)

    def note(self, name: str, found: Mapping[str, int]) -> None:
        """Leave the versions of tables to who wants to know them."""
        if self._outer is not None:
            self._outer.note(name, found)

    def saw(self, tags: Collection[str] | None) -> None:
        """Leave that to who wants to know it."""
        if self._outer is not None:
            self._outer.saw(tags)

    def include(self, other: Recording) -> None:
        """Note that what another computation has made is part of this one."""
        if other.refusal is not None:
            self.refuse(other.refusal)


#: What notes what a computation reads.
Recording: t.TypeAlias = Reading | OwnChanges

_innermost: contextvars.ContextVar[Recording | None] = contextvars.ContextVar("flask_stateful_reading", default=None)


@contextlib.contextmanager
def _listening(reading: Recording) -> Generator[None]:
    """Let what is read in a block be noted."""
    outer = _innermost.get()
    tokens = _innermost.set(reading), reader.set(reading)
    try:
        yield
    finally:
        _innermost.reset(tokens[0])
        reader.reset(tokens[1])
        if outer is not None:
            outer.include(reading)


class TableReads(Checks):
    """Tells the cache of one application what values are made from, and whether that has changed.

    :param database: the application's.
    """

    @contextlib.contextmanager
    def reading(
        self,
        depends_on: Iterable[t.Any] | None = None,
        arguments: Callable[[], Mapping[str, t.Any]] | None = None,
        *,
        exact: bool = False,
    ) -> Generator[Reading]:
        """Note what is read in a block.

        :param depends_on: what the value depends on, instead of what it is found to read.
        :param arguments: returns what the function was called with.
        :param exact: whether the application says that the value is made from the database.
        """
        declared = None
        if depends_on is not None:
            declared = resolve(self.database, depends_on, arguments() if arguments is not None else {})
        reading = Reading(self, declared, exact=exact)
        for name, tags in (declared or {}).items():
            # A connection that is in an older transaction is asked again, before anything is read from it.
            if not self.is_async({name: {}}):
                reading.note(name, self.read(name, {*tags, EVERYTHING}) or {})
        with _listening(reading):
            yield reading
            require_known(self.database, depends_on or (), reading.found)

    @contextlib.contextmanager
    def committed(self) -> Generator[OwnChanges]:
        """Note whether what is read in a block is committed, and nothing else."""
        reading = OwnChanges(_innermost.get())
        with _listening(reading):
            yield reading

    def current(self) -> Recording | None:
        """Return what the innermost such block has read so far."""
        return _innermost.get()

    def used(self, versions: Versions) -> None:
        """Note that a cached value has become part of what is computed in such a block."""
        reading = _innermost.get()
        if reading is not None:
            for name, found in versions.items():
                reading.note(name, found)
                reading.saw(found)

    def are_missing(self, name: str) -> bool:
        """Tell whether a database was found to have no table for versions."""
        return self.database.tracker(name).versions.are_missing

    def name_of(self, tracker: Tracker) -> str | None:
        """Return the name of a tracker's engine; ``None`` where it is none of the application's."""
        return next((name for name, engine in self.database.engines().items() if track(engine) is tracker), None)

    async def check_async(self, versions: Versions) -> Verdict:
        """Tell, in an event loop, whether tables still have these versions."""
        if not self.is_async(versions):
            return self.check(versions)
        from sqlalchemy.util import greenlet_spawn

        return await greenlet_spawn(self.check, versions)
