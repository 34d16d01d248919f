"""A store in a database: PostgreSQL, MariaDB, MySQL or SQLite, through SQLAlchemy's Core."""

from __future__ import annotations

import contextlib
import itertools
import logging
import typing as t

from sqlalchemy import Engine, text

from ... import clock
from ...errors import StateConflict, StateError, StoreError
from ..base import Store, Ttl, is_key, parse_counter, require_key, ttl_seconds
from . import statements
from .engines import engine_at, engine_beside, engine_in_memory, is_in_memory
from .errors import failures
from .place import Place
from .tables import VALUES, create_tables

if t.TYPE_CHECKING:
    from sqlalchemy import Connection, CursorResult, Executable, Select

    from .dialects import Database

logger = logging.getLogger("flask_stateful")

T = t.TypeVar("T")

Parameters: t.TypeAlias = dict[str, t.Any]

#: Our table is not one of those that an application translates to the schema of a tenant.
_OPTIONS: t.Final = {"schema_translate_map": None, "preserve_rowcount": True}

#: After so many writes a store removes up to :data:`~statements.CHUNK` of what has expired: more than was written.
_WRITES_PER_PURGE: t.Final = 250

#: How often a counter that others add to as well is tried.
_TRIES: t.Final = 1000

#: Later than this, in milliseconds, is for ever.
_FOR_EVER: t.Final = 2**62

#: From how many seconds on a server's clock is reported as wrong.
_MAX_CLOCK_SKEW: t.Final = 5

#: UTF-8 has no such byte, so all keys that begin with a text come before the text with this one.
_AFTER_ALL: t.Final = b"\xff"


class SQLStore(Store):
    """A store in the table ``state_value`` of a database.

    Each call is one statement on a short connection of its own, in no transaction of the application's, unless it is
    made inside :meth:`joined`.

    :param engine: the application's, or a function that returns it, which is called at first use. It is not closed,
        and its pool is left alone: connections are opened as it opens them.
    :param timeout: seconds that a call may take; ``None`` leaves that to the server, and to SQLite's five seconds.
    :param create_table: tells whether to create the table where it is missing. Else that is an error, which names
        ``flask state db create``.
    :param give_way: called before each call on a connection of our own, with whether it writes, so that a transaction
        of the application's in the same thread can let it. It returns the connection of one that cannot, and which is
        used instead.
    """

    abilities = frozenset({"touch", "incr", "many", "scan", "purge_expired"})
    #: A swap carries two values, each as hexadecimal digits: four times this is what MariaDB takes in one statement.
    max_value_bytes = 3 * 1024 * 1024

    def __init__(
        self,
        engine: Engine | t.Callable[[], Engine],
        *,
        timeout: float | None = 0.25,
        create_table: t.Callable[[], bool] = lambda: False,
        give_way: t.Callable[[bool], Connection | None] = lambda writes: None,
    ) -> None:
        if not isinstance(engine, Engine) and not callable(engine):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError("SQLStore takes an Engine, or a function that returns one; for a URL write open_store(url)")
        given: t.Callable[[], Engine] = engine if callable(engine) else lambda: engine
        #: Returns the application's engine; ``None`` where the database is the store's own.
        self._given: t.Callable[[], Engine] | None = given
        self._place = Place(lambda: _engine_for(given(), timeout), create_table, give_way)
        self._writes = 0

    @classmethod
    def from_url(cls, url: str, *, timeout: float = 0.25) -> SQLStore:
        """Open a database by its address; see :func:`~flask_stateful.stores.open_store`.

        :param timeout: seconds to connect, and for each answer.
        """

        def open_engine() -> Engine:
            return engine_at(url, timeout)

        open_engine()  # says at once what is wrong with the address
        store = cls(open_engine)
        store._given, store._place = None, Place(open_engine, lambda: False)
        vars(store)["remote"] = True
        return store

    @property
    def shared(self) -> bool:  # type: ignore[override]
        """Whether other machines can share it, as they cannot share a file of SQLite's."""
        return self._given is None or self._given().dialect.name != "sqlite"

    @property
    def is_given(self) -> bool:
        """Whether it was given an engine of the application's, and was not opened by a URL."""
        return self._given is not None

    @property
    def can_join(self) -> bool:
        """Whether it is in the application's own database, and :meth:`joined` works.

        Not for a store that was opened by a URL, nor where the application's database is in memory, on one connection
        that all share (SQLAlchemy's ``StaticPool``): there a store has another database in memory, beside it.
        """
        return self._given is not None and not is_in_memory(self._given())

    @contextlib.contextmanager
    def joined(self, connection: Connection, *, lock: str | None = None) -> t.Generator[None]:
        """Let the calls of this context be part of a transaction of the application's.

        They never commit, roll back or flush. What is written is kept or lost with the transaction. An error of the
        database leaves as :exc:`~flask_stateful.errors.StoreError`, with SQLAlchemy's as its cause.

        :param connection: such as ``db.session.connection()``.
        :param lock: a key whose row is locked when it is read, until the transaction ends.
        :raises StateError: if it leads to another database.
        """
        if self._given is None or not self.can_join or connection.engine.pool is not self._given().pool:
            raise StateError(
                'this connection does not lead to the database that the store is in: write store="db", and use the'
                ' bind "default"'
            )
        with contextlib.ExitStack() as stack:
            with failures:
                stack.enter_context(self._place.join(connection, lock))
            yield

    def create_table(self) -> list[str]:
        """Create the table where it is missing; may be run again at any time.

        :return: the names of the tables that were missing.
        """
        with failures:
            return self._place.create_tables()

    # The contract

    def get(self, key: str) -> bytes | None:
        """Return the value at a key, or ``None`` where there is none."""
        if not is_key(key):
            return None
        row = self._rows(statements.GET, {"at": key.encode(), "now": _now()}, [key])
        return row[0][0] if row else None

    def set(self, key: str, value: bytes, ttl: Ttl = None) -> None:
        """Write a value and its ttl, whatever was there."""
        self._set([self._row(key, value, ttl)])

    def add(self, key: str, value: bytes, ttl: Ttl = None) -> bool:
        """Write a value only where there is none."""
        row = {**self._row(key, value, ttl), "now": _now()}
        with self._connection() as (connection, database):
            added = database.added(connection.execute(database.add, row, execution_options=_OPTIONS))
        return self._settled(added, key)

    def swap(self, key: str, old: bytes, new: bytes, ttl: Ttl = None) -> bool:
        """Replace a value, and its ttl, only if it still equals ``old``."""
        row = self._row(key, new, ttl)
        changed = self._changed(statements.SWAP, {**row, "at": row["new_key"], "old": old, "now": _now()})
        return self._settled(changed > 0, key)

    def delete(self, key: str) -> None:
        """Remove a value; where there is none, do nothing."""
        self.delete_many([key])

    def touch(self, key: str, ttl: Ttl = None) -> bool:
        """Give an existing value a new ttl."""
        expires = _expires(ttl)
        if not is_key(key):
            return False
        return self._changed(statements.TOUCH, {"at": key.encode(), "new_expires": expires, "now": _now()}) > 0

    def incr(self, key: str, by: int = 1, ttl: Ttl = None) -> int:
        """Add to a counter; an existing one keeps its ttl."""
        at, expires = require_key(key).encode(), ttl_seconds(ttl)
        for _ in range(_TRIES):
            value = self.get(key)
            count = parse_counter(value) + by
            if value is None:
                added = self.add(key, b"%d" % count, expires)
            else:
                row = {"at": at, "old": value, "new_value": b"%d" % count, "now": _now()}
                added = self._settled(self._changed(statements.COUNT, row) > 0, key)
            if added:
                return count
        raise StateConflict("a counter was rewritten too often to add to it")

    def get_many(self, keys: t.Iterable[str]) -> dict[str, bytes]:
        """Return the values of those keys that have one."""
        found: dict[str, bytes] = {}
        for chunk in _chunks(filter(is_key, keys)):
            these = {"these": [key.encode() for key in chunk], "now": _now()}
            found.update((key.decode(), value) for key, value in self._rows(statements.GET_MANY, these, chunk))
        return found

    def set_many(self, values: t.Mapping[str, bytes], ttl: Ttl = None) -> None:
        """Write several values with one ttl."""
        # In one order, so that two who write the same rows do not wait for each other.
        rows = sorted((self._row(key, value, ttl) for key, value in values.items()), key=lambda row: row["new_key"])
        for chunk in _chunks(rows):
            self._set(chunk)

    def delete_many(self, keys: t.Iterable[str]) -> None:
        """Remove several values."""
        for chunk in _chunks(filter(is_key, keys)):
            self._changed(statements.DELETE, {"these": [key.encode() for key in chunk]})

    def scan(self, prefix: str) -> t.Iterator[str]:
        """Yield the keys that begin with a text; those written meanwhile may be missed."""
        if prefix and not is_key(prefix):
            return
        first = prefix.encode()
        bounds, after = {"first": first, "last": first + _AFTER_ALL}, b""
        while rows := self._rows(statements.SCAN, {**bounds, "after": after, "now": _now()}):
            yield from (row[0].decode() for row in rows)
            after = rows[-1][0]

    def purge_expired(self) -> int:
        """Remove what has expired, in small batches; a store that is written does the same as it goes.

        :return: how many values were removed by this call.
        """
        return sum(iter(self._purge, 0))

    def check(self) -> list[str]:
        """Read a row, and describe what an operator should mend."""
        super().check()
        with self._connection() as (connection, database):
            if not database.clock:
                return []
            ahead = float(connection.execute(text(database.clock)).scalar_one()) - clock.now()
        if abs(ahead) <= _MAX_CLOCK_SKEW:
            return []
        return [f"the clock of the database is {ahead:+.0f} s off this machine's: let both follow the same time (NTP)"]

    def close(self) -> None:
        """Close the connections of its own; the application's engine stays open."""
        self._place.close()

    # Executing

    @contextlib.contextmanager
    def _connection(self, *, writes: bool = True) -> t.Generator[tuple[Connection, Database]]:
        with failures, self._place.connection(writes=writes) as lent:
            yield lent

    def _rows(
        self, statement: Select[*tuple[t.Any, ...]], parameters: Parameters, keys: t.Collection[str] = ()
    ) -> t.Sequence[t.Any]:
        """Return the rows that a statement finds; those of keys that were lost, as they are now."""
        joined = self._place.joined
        if joined is not None and not joined.lost.isdisjoint(keys):
            statement = statement.with_for_update()
        with self._connection(writes=False) as (connection, _):
            return connection.execute(statement, parameters, execution_options=_OPTIONS).all()

    def _changed(self, statement: Executable, parameters: Parameters) -> int:
        """Execute a statement; return how many rows it changed."""
        with self._connection() as (connection, _):
            result = connection.execute(statement, parameters, execution_options=_OPTIONS)
            changed = t.cast("CursorResult[t.Any]", result).rowcount
        self._wrote(1)
        return changed

    def _set(self, rows: list[Parameters]) -> None:
        """Write rows, whatever was there."""
        with self._connection() as (connection, database):
            connection.execute(database.set, rows if len(rows) > 1 else rows[0], execution_options=_OPTIONS)
        self._wrote(len(rows))

    def _settled(self, won: bool, key: str) -> bool:
        """Remember a key whose row was not what was expected; return whether it was."""
        joined = self._place.joined
        if joined is not None and not won:
            joined.lost.add(key)
        return won

    def _row(self, key: str, value: bytes, ttl: Ttl) -> Parameters:
        """Return the parameters of a row, or raise where it may not be written."""
        if not isinstance(value, bytes):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"a value must be bytes, not {type(value).__name__}")
        self.require_size(value)
        return {"new_key": require_key(key).encode(), "new_value": value, "new_expires": _expires(ttl)}

    # Purging

    def _wrote(self, count: int) -> None:
        """Remove a little of what has expired, once in a while."""
        self._writes += count
        if self._writes >= _WRITES_PER_PURGE and self._place.joined is None:
            self._writes = 0
            # What was asked for has been done. Whoever writes next tries again.
            with contextlib.suppress(StoreError):
                self._purge()

    def _purge(self) -> int:
        """Remove a batch of what has expired; return how many there were."""
        now = _now()
        keys = [row[0] for row in self._rows(statements.EXPIRED, {"now": now})]
        if not keys:
            return 0
        with self._connection() as (connection, _):
            connection.execute(statements.PURGE, {"these": keys, "now": now}, execution_options=_OPTIONS)
        return len(keys)


def _engine_for(given: Engine, timeout: float | None) -> Engine:
    """Return an engine of our own for the application's database, or beside it where that is in memory."""
    if not is_in_memory(given):
        return engine_beside(given, timeout)
    logger.warning(
        "the application's database is in memory, on the one connection that everybody uses; what Stateful keeps is in"
        " another one beside it, and not in the application's transactions"
    )
    engine = engine_in_memory()
    create_tables(engine, [VALUES])
    return engine


def _now() -> int:
    """Return the time as the table has it."""
    return int(clock.now() * 1000)


def _expires(ttl: Ttl) -> int | None:
    """Return when a value expires, as the table has it."""
    seconds = ttl_seconds(ttl)
    if seconds is None:
        return None
    expires = (clock.now() + seconds) * 1000
    return int(expires) if expires < _FOR_EVER else None


def _chunks(items: t.Iterable[T]) -> t.Iterator[list[T]]:
    """Yield items in lists that one statement can take."""
    iterator = iter(items)
    while chunk := list(itertools.islice(iterator, statements.CHUNK)):
        yield chunk
