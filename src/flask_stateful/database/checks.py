"""Whether tables still have the versions that a cached value was made from."""

from __future__ import annotations

import contextlib
import logging
import typing as t
from collections.abc import Generator, Iterable, Iterator, Mapping

from flask import has_request_context, request
from sqlalchemy import Table, inspect

from .levels import level_of
from .tracker import Here, Tracker, here, transaction_of

if t.TYPE_CHECKING:
    from sqlalchemy.engine import Connection
    from sqlalchemy.orm import Mapper, Session

    from .database import Database

logger = logging.getLogger("flask_stateful")

Versions: t.TypeAlias = Mapping[str, Mapping[str, int]]
Verdict: t.TypeAlias = t.Literal["current", "changed", "changing"]

#: Where a request carries what it has asked the databases for.
_ASKED: t.Final = "flask_stateful.table_versions"

#: Of how many tables the versions are asked for at once, though only some are needed.
_MOST_AT_ONCE: t.Final = 32


class _Asked:
    """The versions that one request was told, until a transaction of its own ends."""

    def __init__(self, where: Here) -> None:
        self._here = where
        self._ended = where.ended
        self.versions: dict[str, dict[str, int]] = {}

    def counts(self, where: Here) -> bool:
        """Tell whether it still counts in a thread or task."""
        return self._here is where and self._ended == where.ended


class Checks:
    """Asks the databases of one application for versions.

    :param database: the application's.
    """

    def __init__(self, database: Database) -> None:
        #: The application's.
        self.database: t.Final = database
        #: The tables that values were found to be made from, by engine; the oldest first.
        self._met: dict[str, dict[str, None]] = {}

    def check(self, versions: Versions) -> Verdict:
        """Tell whether tables still have these versions."""
        if any(self._is_changing(name, tags) for name, tags in versions.items()):
            return "changing"
        try:
            are_same = all(self._are_same(name, tags) for name, tags in versions.items())
        except Exception:
            logger.debug("a database was not told whether its tables have changed", exc_info=True)
            return "changed"
        return "current" if are_same else "changed"

    def is_async(self, versions: Versions) -> bool:
        """Tell whether asking has to wait in an event loop."""
        engines = self.database.engines()
        return any(name in engines and engines[name].dialect.is_async for name in versions)

    def _is_changing(self, name: str, tags: Iterable[str]) -> bool:
        """Tell whether the caller has written any of this and not committed it."""
        tracker = self._tracker(name)
        if tracker is None:
            return False
        if any(not transaction_of(each).written.isdisjoint(tags) for each in open_connections(tracker)):
            return True
        session = self.database.adapter.scope()
        return session is not None and not set(tags).isdisjoint(unflushed(session, tracker))

    def _are_same(self, name: str, tags: Mapping[str, int]) -> bool:
        tracker = self._tracker(name)
        if tracker is None:
            return False
        asked = self._asked()
        known = asked.versions.get(name, {}) if asked is not None else {}
        if all(known.get(tag) == version for tag, version in tags.items()):
            return True
        # What was true at the beginning of the request may only ever say yes.
        found = self._ask(name, tracker, tags)
        if found is None:
            return False
        if asked is not None:
            asked.versions[name] = known | found
        return all(found[tag] == version for tag, version in tags.items())

    def _ask(self, name: str, tracker: Tracker, tags: Iterable[str]) -> dict[str, int] | None:
        """Return the versions of some tags, and of others that will be needed; ``None`` where there are none."""
        wanted = dict.fromkeys(tags)
        with self._connection(name, tracker) as (driver, is_strict):
            if not tracker.versions.exist(driver):
                return None
            # In a serializable transaction, whatever is read may make it fail.
            others = () if is_strict else self._meet(name, wanted)
            return tracker.versions.read(driver, {**wanted, **dict.fromkeys(others)})

    def _meet(self, name: str, tags: Iterable[str]) -> list[str]:
        met = self._met.setdefault(name, {})
        for tag in tags:
            if tag not in met and not tag.endswith("]"):
                met[tag] = None
                if len(met) > _MOST_AT_ONCE:
                    with contextlib.suppress(RuntimeError, KeyError, StopIteration):
                        del met[next(iter(met))]
        return list(met)

    def read(self, name: str, tags: Iterable[str]) -> dict[str, int] | None:
        """Return the versions that tags have now; ``None`` where the database has none."""
        tracker = self._tracker(name)
        if tracker is None:
            return None
        with self._connection(name, tracker) as (driver, _):
            return tracker.versions.read(driver, tags) if tracker.versions.exist(driver) else None

    @contextlib.contextmanager
    def _connection(self, name: str, tracker: Tracker) -> Generator[tuple[t.Any, bool]]:
        """Yield the driver's connection to ask over, and whether its transaction is serializable.

        That is the one the caller is in a transaction on, since what it reads next comes from there; otherwise one
        for this moment.
        """
        session = self.database.adapter.scope()
        # What is open beside a session that has no transaction is not its own: an outer application context's, say.
        is_idle = session is not None and not session.in_transaction()
        connection = None if is_idle else next(iter(open_connections(tracker)), None)
        if connection is not None:
            yield connection.connection.dbapi_connection, _is_serializable(connection)
            return
        only = tracker.only_connection()
        if only is not None:
            yield only, False
            return
        engine = self.database.engines()[name]
        # Where a transaction takes exchanges of its own, and elsewhere it is the change of mode that does.
        options = {"isolation_level": "AUTOCOMMIT"} if engine.dialect.name == "postgresql" else {}
        with engine.connect().execution_options(**options) as own:
            yield own.connection.dbapi_connection, False

    def _asked(self) -> _Asked | None:
        """Return what the current request was told; outside of one, nobody remembers anything."""
        if not has_request_context():
            return None
        where = here()
        asked: _Asked | None = request.environ.get(_ASKED)
        if asked is None or not asked.counts(where):
            asked = request.environ[_ASKED] = _Asked(where)
        return asked

    def _tracker(self, name: str) -> Tracker | None:
        return self.database.tracker(name) if name in self.database.engines() else None


def open_connections(tracker: Tracker) -> Iterator[Connection]:
    """Yield the caller's connections of an engine that are in a transaction, the newest first."""
    return (each for each in here().connections() if transaction_of(each).tracker is tracker)


def unflushed(session: Session, tracker: Tracker) -> set[str]:
    """Return the tags of what a session has changed and not sent yet."""
    waiting: list[t.Any] = [*session.new, *session.dirty, *session.deleted]
    changed: set[t.Any] = {each.__class__ for each in waiting}
    return tags_of(changed, tracker)


def tags_of(models: Iterable[t.Any], tracker: Tracker) -> set[str]:
    """Return the tags of the tables that mapped classes are kept in."""
    mappers = (t.cast("Mapper[t.Any]", inspect(model)) for model in models)
    tables: list[t.Any] = [table for mapper in mappers for table in mapper.tables if isinstance(table, Table)]
    return {tracker.statements.tag(table) for table in tables}


def _is_serializable(connection: Connection) -> bool:
    level = level_of(connection) or connection.dialect.default_isolation_level
    return level == "SERIALIZABLE" and connection.dialect.name != "sqlite"
