"""What exact caching costs, and whether anybody is served what a commit has made old."""

from __future__ import annotations

import contextlib
import sqlite3
import tempfile
import typing as t
from collections.abc import Callable
from pathlib import Path

import sqlalchemy as sa
from flask import Flask

from flask_stateful import Stateful
from flask_stateful.database.tracker import track
from flask_stateful.stores.sql import METADATA
from tests.database import races
from tests.services import MariaDB, Missing, Postgres, launched

from .harness import Block, Cell, measure, median_time
from .report import Gate, Part, Table, figure

#: By database: how many times what one SELECT by primary key takes a hit may take.
_HITS: t.Final = {"SQLite": 2.2, "PostgreSQL": 1.5, "MariaDB": 1.6}

#: Following a statement may take 8 us where a SELECT by primary key takes 26.
_TRACKING: t.Final = 8 / 26

_BLOCK: t.Final = 50

_PLAIN, _LISTENED, _FOLLOWED = "no listener", "a listener that does nothing", "followed"
_STATEMENTS: t.Final = ("SELECT", "UPDATE")
_SELECT, _HIT = "SELECT by primary key", "hit"

#: By database: isolation levels, and what is run on each new connection.
LEVELS: t.Final[dict[str, list[tuple[str | None, str | None]]]] = {
    "SQLite": [(None, None)],
    "PostgreSQL": [("READ COMMITTED", None), ("REPEATABLE READ", None), ("SERIALIZABLE", None)],
    "MariaDB": [(None, f"SET innodb_snapshot_isolation = {value}") for value in ("OFF", "ON")],
}

_BY_KEY: t.Final = sa.select(races.CountA.n).where(races.CountA.id == 1)


def run(*, rounds: int, seconds: float, tick: Callable[[], None]) -> Part:
    """Measure what following, hits and commits cost, then let readers and writers race.

    :param seconds: how long each race takes.
    """
    with contextlib.ExitStack() as stack:
        urls = _databases(stack)
        part = _tracking(rounds, tick) + _hits(urls, rounds, tick) + _counts()
        return part + _races(urls, seconds, tick)


def _databases(stack: contextlib.ExitStack) -> dict[str, str]:
    """Return the address of each database that is there."""
    urls = {"SQLite": f"sqlite:///{stack.enter_context(tempfile.TemporaryDirectory())}/hit.sqlite3"}
    for name, kind in (("PostgreSQL", Postgres), ("MariaDB", MariaDB)):
        with contextlib.suppress(Missing):
            urls[name] = stack.enter_context(launched(kind)).url
    return urls


# Following


def _tracking(rounds: int, tick: Callable[[], None]) -> Part:
    """Compare engines in memory: SQLAlchemy calls listeners of its own accord once an engine has any."""
    engines = {name: sa.create_engine("sqlite://") for name in (_PLAIN, _LISTENED, _FOLLOWED)}
    sa.event.listen(engines[_LISTENED], "before_cursor_execute", lambda *given: given[2:4], retval=True)
    track(engines[_FOLLOWED])
    with contextlib.ExitStack() as stack:
        blocks = dict[Cell, Block]()
        for name, engine in engines.items():
            races.Base.metadata.create_all(engine)
            connection = stack.enter_context(engine.connect())
            update = sa.update(races.CountA).where(races.CountA.id == 1).values(n=1)
            for operation, statement in zip(_STATEMENTS, (_BY_KEY, update), strict=True):
                blocks[Cell(name, operation)] = _executing(connection, statement)
        timings = measure(blocks, rounds, tick)
    rows, gates = list[tuple[str, ...]](), list[Gate]()
    for operation in _STATEMENTS:
        plain, listened, followed = (Cell(name, operation) for name in engines)
        added = timings.added(followed, listened)
        figures = timings.median(plain), timings.added(listened, plain), added
        rows.append((operation, *map(figure, figures)))
        ratio = added / timings.median(Cell(_PLAIN, "SELECT"))
        gates.append(Gate("D1", f"following one {operation} against a SELECT by primary key", ratio, _TRACKING))
    note = (
        "Medians in microseconds, one row in an SQLite database in memory. What SQLAlchemy adds of its own, it adds"
        " once, to any engine that has listeners."
    )
    head = ("", "by itself", "SQLAlchemy adds for listeners", "following adds")
    return Part([Table("Following a statement", head, rows, note)], gates)


def _executing(connection: sa.Connection, statement: sa.Executable) -> Block:
    return lambda: median_time(lambda _: connection.execute(statement).close(), range(_BLOCK))


# Hits


class Cached:
    """An application with one cached function, which reads one row.

    :param url: of a database; its tables are made.
    """

    def __init__(self, url: str, folder: str) -> None:
        self.engine = races.make_engine(races.Setup(url, folder, "exact", 0))
        races.Base.metadata.create_all(self.engine)
        METADATA.create_all(self.engine)
        self.app = Flask(__name__)
        self.app.config.update(SECRET_KEY="dev")
        self.state = Stateful(self.app, db=self.engine, store="memory://")
        self.value = self.state.cache.memoize(ttl=3600)(self.read)

    def read(self) -> int | None:
        """Read the row."""
        return self.state.database.session.scalar(_BY_KEY)

    def write(self) -> None:
        """Commit another number."""
        session = self.state.database.session
        session.merge(races.CountA(id=1, n=(self.read() or 0) + 1))
        session.commit()


def _hits(urls: dict[str, str], rounds: int, tick: Callable[[], None]) -> Part:
    rows, gates = list[tuple[str, ...]](), list[Gate]()
    for name, url in urls.items():
        with tempfile.TemporaryDirectory() as folder:
            cached = Cached(url, folder)
            with cached.app.app_context():
                timings = measure(_hit_blocks(name, cached), rounds, tick)
            cached.engine.dispose()
        select, hit = Cell(_SELECT, name), Cell(_HIT, name)
        ratio = timings.ratio(hit, select)
        rows.append((name, figure(timings.median(select)), figure(timings.median(hit)), figure(ratio, "x")))
        gates.append(Gate("D2", f"{name}: hit against {_SELECT}", ratio, _HITS[name]))
    note = "Medians in microseconds on one connection, which is in a transaction. Each hit asks for its versions."
    return Part([Table("An exact hit", ("", _SELECT, _HIT, "ratio"), rows, note)], gates)


def _hit_blocks(name: str, cached: Cached) -> dict[Cell, Block]:
    cached.write()
    # Outside of a request nothing is remembered, so that each hit asks.
    if cached.value() != cached.value():
        raise RuntimeError(f"{name}: the value was not kept")
    connection = cached.state.database.session.connection()
    return {
        Cell(_SELECT, name): lambda: median_time(lambda _: connection.execute(_BY_KEY).scalar(), range(_BLOCK)),
        Cell(_HIT, name): lambda: median_time(lambda _: cached.value(), range(_BLOCK)),
    }


# Counts


def _counts() -> Part:
    """Count what SQLite is asked for, by whatever way: the driver itself tells."""
    executed: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        cached = Cached(f"sqlite:///{folder}/counts.sqlite3", folder)
        with cached.app.app_context():
            cached.write()
            cached.value()

        @sa.event.listens_for(cached.engine, "checkout")
        def listen(connection: sqlite3.Connection, record: object, proxy: object) -> None:
            connection.set_trace_callback(executed.append)

        def count(work: Callable[[], object]) -> int:
            executed.clear()
            with cached.app.test_request_context():
                work()
            return len([sql for sql in executed if "state_version" in sql])

        rows = [
            ("a request that touches neither state nor cache", count(lambda: None), 0),
            ("a request with ten hits", count(lambda: [cached.value() for _ in range(10)]), 1),
            ("a commit", count(cached.write), 1),
        ]
        cached.engine.dispose()
    gates = [Gate("D3", f"our statements in {what}", value, limit, "") for what, value, limit in rows]
    table = [(what, str(value)) for what, value, _ in rows]
    return Part([Table("Statements that exact caching executes", ("", "statements"), table)], gates)


# Races


def _races(urls: dict[str, str], seconds: float, tick: Callable[[], None]) -> Part:
    rows, gates = list[tuple[str, ...]](), list[Gate]()
    for name, url in urls.items():
        for level in LEVELS[name]:
            title = " ".join([name, *filter(None, level)])
            found = _race(url, "exact", seconds, *level)
            rows.append(_row(title, "exact", found))
            gates.append(Gate("D4", f"{title}: stale reads", found.stale, 0, ""))
            gates.append(Gate("D5", f"{title}: errors", sum(found.errors.values()), 0, ""))
            tick()
        found = _race(url, "delete after commit", seconds, None, None)
        rows.append(_row(name, "delete after commit", found))
        gates.append(Gate("D6", f"{name}: stale reads where keys are deleted", found.stale, 1, "", at_least=True))
        tick()
    note = (
        f"{races.READERS} readers and {races.WRITERS} writers in processes of their own, for {seconds:g} seconds. A"
        " read is stale that began after a commit had returned and did not see it."
    )
    head = ("", "scheme", "reads", "computed", "stale", "commits", "errors")
    return Part([Table("Readers against writers", head, rows, note)], gates)


def _row(title: str, scheme: str, found: races.Result) -> tuple[str, ...]:
    counts = found.reads, found.computed, found.stale, found.commits, sum(found.errors.values())
    return (title, scheme, *map(figure, counts))


def _race(url: str, scheme: str, seconds: float, isolation: str | None, prepare: str | None) -> races.Result:
    """Let readers and writers run on an empty database, and leave it empty."""
    with tempfile.TemporaryDirectory() as folder:
        own = f"sqlite:///{Path(folder) / 'race.sqlite3'}" if url.startswith("sqlite") else url
        engine = races.make_engine(races.Setup(own, folder, scheme, 0))
        races.Base.metadata.drop_all(engine)
        METADATA.drop_all(engine)
        engine.dispose()
        return races.run(races.Setup(own, folder, scheme, seconds, isolation, prepare))
