"""The store in an SQL database, beyond what every store does: its statements, joined transactions, and what fails."""

from __future__ import annotations

import functools
import gc
import inspect
import logging
import os
import signal
import sys
import threading
import types
import typing as t
from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext
from pathlib import Path

import pytest
from sqlalchemy import Column, Engine, Integer, MetaData, Table, create_engine, event, insert, select, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import DeclarativeBase, Session
from sqlalchemy.pool import NullPool, StaticPool

from flask_stateful.errors import ConfigError, StateError, StoreError, StoreUnavailable
from flask_stateful.stores import open_store
from flask_stateful.stores.sql import METADATA, SQLStore, statements
from flask_stateful.stores.sql.dialects import database_of
from flask_stateful.stores.sql.engines import create_beside
from flask_stateful.stores.sql.tables import VALUES, create_tables
from flask_stateful.testing import FakeClock, StoreConformance
from flask_stateful.testing.conformance.lifetime import SECRET_KEY, SECRET_VALUE, leaks
from flask_stateful.testing.conformance.suite import call_all
from tests.services import Launch, MariaDB, Postgres

#: Seconds; no test here is about being late, unless it says so.
PATIENT = 30

NOTES = Table("note", MetaData(), Column("id", Integer, primary_key=True))


class Base(DeclarativeBase):
    """The models of the application."""


class Note(Base):
    """A row of the application's."""

    __table__ = Table("note", Base.metadata, Column("id", Integer, primary_key=True))


@pytest.fixture(params=["sqlite", "postgres", "mariadb"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """The application's engine, on each server in turn; our table and its own are there, and empty."""
    with ExitStack() as stack:
        yield make_engine(request, request.param, tmp_path, stack)


def make_engine(request: pytest.FixtureRequest, server: str, tmp_path: Path, stack: ExitStack) -> Engine:
    url = f"sqlite:///{tmp_path / 'app.sqlite3'}" if server == "sqlite" else request.getfixturevalue(server).url
    engine = create_engine(url)
    stack.callback(engine.dispose)
    if server == "sqlite":
        with engine.connect() as connection:
            connection.execute(text("PRAGMA journal_mode = WAL"))
    METADATA.create_all(engine)
    NOTES.create(engine, checkfirst=True)
    with engine.begin() as connection:
        connection.execute(VALUES.delete())
        connection.execute(NOTES.delete())
    return engine


@pytest.fixture
def postgres_engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """The application's engine on PostgreSQL."""
    with ExitStack() as stack:
        yield make_engine(request, "postgres", tmp_path, stack)


@pytest.fixture
def sqlite_engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """The application's engine on a file of SQLite's."""
    with ExitStack() as stack:
        yield make_engine(request, "sqlite", tmp_path, stack)


@pytest.fixture
def store(engine: Engine) -> Iterator[SQLStore]:
    """A store beside the application's engine."""
    store = SQLStore(engine, timeout=PATIENT)
    yield store
    store.close()


# What it asks of the database


def own_engine(store: SQLStore) -> Engine:
    return store._place._open().engine if store._place._opened is None else store._place._opened.engine


def test_each_call_is_one_statement(store: SQLStore) -> None:
    """A call is one statement, outside of any transaction; a counter that is there is read and written."""
    counts = {"statements": 0}
    store.get("key")

    @event.listens_for(own_engine(store), "before_cursor_execute")
    def count(connection: t.Any, *_: object) -> None:
        assert connection.dialect.detect_autocommit_setting(connection.connection.dbapi_connection)
        counts["statements"] += 1

    def statements_of(call: Callable[[], object]) -> int:
        counts["statements"] = 0
        call()
        return counts["statements"]

    calls = dict(call_all(store, "key", b"1"))
    one = ["get", "set", "add", "swap", "touch", "delete", "get_many", "set_many", "delete_many", "scan"]
    assert {name: statements_of(calls[name]) for name in one} == dict.fromkeys(one, 1)
    assert [statements_of(calls["incr"]), statements_of(calls["incr"])] == [2, 2]
    assert statements_of(lambda: store.set_many(dict.fromkeys(map(str, range(100)), b"x"))) == 1


def test_the_longest_values_can_be_swapped(store: SQLStore) -> None:
    """A swap, which carries the old value and the new one, takes the longest of both."""
    old, new = b"\xff" * store.max_value_bytes, b"'" * store.max_value_bytes
    store.set("key", old)
    assert store.swap("key", old, new)
    assert store.get("key") == new


def test_the_applications_connections_are_left_alone(engine: Engine) -> None:
    """A store works while all connections of the application's pool are lent, and executes nothing on its engine."""
    tight = create_engine(engine.url, pool_size=1, max_overflow=0, pool_timeout=0.01)
    statements: list[str] = []
    event.listen(tight, "before_cursor_execute", lambda *a: statements.append(a[2]))
    store = SQLStore(tight, timeout=PATIENT)
    with tight.connect():
        store.set("key", b"1")
        assert store.get("key") == b"1"
    store.close()
    tight.dispose()
    assert statements == []


def test_connections_end_with_the_store(engine: Engine) -> None:
    """A store that nobody has any more leaves no connection open, though nobody has closed it."""
    store = SQLStore(engine, timeout=PATIENT)
    store.get("key")
    pool, closed = own_engine(store).pool, []
    event.listen(pool, "close", lambda *a: closed.append(a))
    assert pool.checkedin() == 1  # type: ignore[attr-defined]
    del store
    gc.collect()
    assert len(closed) == 1


def test_what_expired_goes_with_writes(store: SQLStore) -> None:
    """Whoever writes removes a little of what has expired, so that the table does not grow for ever."""
    with FakeClock() as clock:
        store.set_many({f"old:{number}": b"x" for number in range(200)}, 60)
        clock.advance(60)
        for number in range(60):
            store.set("key", b"%d" % number)
        assert store.purge_expired() == 0


def test_a_dead_idle_connection_is_replaced(postgres_engine: Engine) -> None:
    """A connection that the server has ended while it was idle is found out before it is used."""
    store = SQLStore(postgres_engine, timeout=PATIENT)
    with FakeClock() as clock:
        store.set("key", b"1")
        end_other_connections(postgres_engine)
        clock.advance(10)
        assert store.get("key") == b"1"
    store.close()


def test_a_connection_that_ends_in_use_is_an_outage(postgres_engine: Engine) -> None:
    """A connection that the server has just ended is StoreUnavailable once; then there is a new one."""
    store = SQLStore(postgres_engine, timeout=PATIENT)
    store.set("key", b"1")
    end_other_connections(postgres_engine)
    with pytest.raises(StoreUnavailable):
        store.get("key")
    assert store.get("key") == b"1"
    store.close()


def end_other_connections(engine: Engine) -> None:
    with engine.connect() as connection:
        connection.execute(
            text("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE pid != pg_backend_pid()")
        )


def test_an_asynchronous_engine_is_asked_synchronously(tmp_path: Path, postgres_engine: Engine) -> None:
    """An asynchronous engine's database is reached through the synchronous driver."""
    urls = [f"sqlite+aiosqlite:///{tmp_path / 'async.sqlite3'}", str(postgres_engine.url)]
    for url in urls:
        engine = create_async_engine(url, poolclass=NullPool).sync_engine
        create_beside(engine, [VALUES])
        store = SQLStore(engine, timeout=PATIENT)
        store.set("key", b"1")
        assert store.get("key") == b"1"
        store.close()


# Joined


def test_joined_writes_share_the_fate_of_the_transaction(engine: Engine, store: SQLStore) -> None:
    """What is written inside joined() is seen by nobody else before the commit, and by nobody after a rollback."""
    store.set_many({"swapped": b"1", "deleted": b"1"})
    with engine.connect() as connection:
        for end in (connection.rollback, connection.commit):
            with store.joined(connection):
                store.set("set", b"2")
                assert store.add("added", b"2")
                assert store.swap("swapped", b"1", b"2")
                store.delete("deleted")
                assert store.get_many(["set", "added", "swapped", "deleted"]) == dict.fromkeys(
                    ["set", "added", "swapped"], b"2"
                )
            assert connection.in_transaction()
            assert store.get_many(["set", "added", "swapped", "deleted"]) == {"swapped": b"1", "deleted": b"1"}
            end()
    assert store.get_many(["set", "added", "swapped", "deleted"]) == dict.fromkeys(["set", "added", "swapped"], b"2")


def test_joined_flushes_nothing(engine: Engine, store: SQLStore) -> None:
    """The session's objects that are pending stay so, and are rolled back with what we wrote."""
    with Session(engine) as session:
        session.add(Note(id=1))
        with store.joined(session.connection()):
            store.set("key", b"1")
            assert store.get("key") == b"1"
        assert len(session.new) == 1
        session.rollback()
    assert store.get("key") is None


def test_joined_is_for_this_context_only(engine: Engine, store: SQLStore) -> None:
    """Another thread, and another store, are not joined; afterwards nothing is."""
    other = SQLStore(engine, timeout=PATIENT)
    store.get("key")
    seen: list[bytes | None] = []
    with engine.connect() as connection:
        with store.joined(connection):
            store.set("key", b"1")
            thread = threading.Thread(target=lambda: seen.append(store.get("key")))
            thread.start()
            thread.join(PATIENT)
            assert [*seen, other.get("key"), store.get("key")] == [None, None, b"1"]
        connection.rollback()
    assert store._place.joined is None
    other.close()


def test_a_lost_swap_reads_what_is_there_now(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """On MariaDB a transaction goes on to see its snapshot; after a lost swap the row is read as it is, and locked."""
    with ExitStack() as stack:
        engine = make_engine(request, "mariadb", tmp_path, stack)
        store = SQLStore(engine, timeout=PATIENT)
        stack.callback(store.close)
        store.set_many({"key": b"1", "other": b"1"})
        with engine.connect() as connection, store.joined(connection):
            assert store.get("key") == b"1"
            SQLStore(engine, timeout=PATIENT).set_many({"key": b"2", "other": b"2"})
            assert not store.swap("key", b"1", b"3")
            assert store.get("key") == b"2"
            assert store.get_many(["key"]) == {"key": b"2"}
            assert store.get("other") == b"1"
            assert store.swap("key", b"2", b"3")
            connection.commit()
        assert store.get("key") == b"3"


def test_a_joined_conflict_tells_its_cause(postgres_engine: Engine) -> None:
    """A serialization failure leaves as StoreError, whose cause is SQLAlchemy's error; it tells no key and no value."""
    engine = postgres_engine.execution_options(isolation_level="REPEATABLE READ")
    store = SQLStore(postgres_engine, timeout=PATIENT)
    store.set(SECRET_KEY, SECRET_VALUE)
    with engine.connect() as connection, store.joined(connection):
        assert store.get(SECRET_KEY) == SECRET_VALUE
        SQLStore(postgres_engine, timeout=PATIENT).set(SECRET_KEY, b"2")
        with pytest.raises(StoreError) as raised:
            store.swap(SECRET_KEY, SECRET_VALUE, SECRET_VALUE + b"3")
        cause: t.Any = raised.value.__cause__
        assert cause.orig.sqlstate == "40001"
        assert not isinstance(raised.value, StoreUnavailable)
        assert leaks(raised.value) == []
        connection.rollback()
    store.close()


def test_joined_keeps_to_our_own_table(engine: Engine, store: SQLStore) -> None:
    """A connection that translates schemas for a tenant reaches our table all the same."""
    with engine.connect().execution_options(schema_translate_map={None: "tenant"}) as connection:
        with store.joined(connection):
            store.set("key", b"1")
            assert store.get("key") == b"1"
        connection.commit()
    assert store.get("key") == b"1"


def test_joined_refuses_another_database(engine: Engine, store: SQLStore, tmp_path: Path) -> None:
    """A connection to another database, and a store with a database of its own, cannot be joined."""
    other = create_engine(f"sqlite:///{tmp_path / 'other.sqlite3'}")
    with other.connect() as connection, pytest.raises(StateError, match='write store="db"'), store.joined(connection):
        pass
    own = SQLStore.from_url("postgresql://nobody@127.0.0.1/nothing")
    with engine.connect() as connection, pytest.raises(StateError, match='store="db"'), own.joined(connection):
        pass
    assert (store.can_join, own.can_join) == (True, False)
    other.dispose()


# Tables


def test_missing_table_names_the_command(engine: Engine, store: SQLStore) -> None:
    """Where the table is missing every call says what to run, and makes nothing."""
    VALUES.drop(engine)
    for name, call in call_all(store, "key", b"1"):
        with pytest.raises(StoreError, match="flask state db create") as raised:
            call()
        assert not isinstance(raised.value, StoreUnavailable), name
    with engine.connect() as connection, store.joined(connection), pytest.raises(StoreError, match="db create"):
        store.get("key")
    assert create_tables(engine, [VALUES]) == ["state_value"]


def test_table_is_made_where_that_is_allowed(engine: Engine) -> None:
    """In debug and testing a store makes its table at first use, also inside a transaction."""
    for first_in_transaction in (False, True):
        VALUES.drop(engine)
        store = SQLStore(engine, timeout=PATIENT, create_table=lambda: True)
        with engine.connect() as connection:
            if first_in_transaction:
                connection.execute(insert(NOTES).values(id=1))
                with store.joined(connection):
                    store.set("key", b"1")
                connection.commit()
                connection.execute(NOTES.delete())
                connection.commit()
            else:
                store.set("key", b"1")
        assert store.get("key") == b"1"
        store.close()


def test_tables_may_be_made_by_several_at_once(engine: Engine) -> None:
    """Of those who create the tables at the same time none fails."""
    METADATA.drop_all(engine)
    start, errors = threading.Barrier(4), []

    def create() -> None:
        start.wait(PATIENT)
        try:
            create_beside(engine, list(METADATA.sorted_tables))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=create) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENT)
    assert errors == []
    assert create_tables(engine, list(METADATA.sorted_tables)) == []


# SQLite


def test_sqlite_in_memory_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    """The one connection of a database in memory is not used: the store has another database, and says so once."""
    engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
    NOTES.create(engine)
    store = SQLStore(engine)
    with engine.connect() as connection:
        connection.execute(insert(NOTES).values(id=1))
        with caplog.at_level(logging.WARNING, "flask_stateful"):
            store.set("key", b"1")
            assert store.get("key") == b"1"
        assert not store.can_join
        with pytest.raises(StateError), store.joined(connection):
            pass
        connection.rollback()
        assert connection.execute(select(NOTES)).all() == []
    assert [record.message for record in caplog.records if "in memory" in record.message] != []
    assert len(caplog.records) == 1
    store.close()
    engine.dispose()


def test_an_open_write_transaction_is_waited_for(sqlite_engine: Engine) -> None:
    """A write that another transaction keeps from being done fails after the timeout, and says why; a read does not."""
    store = SQLStore(sqlite_engine, timeout=0.05)
    with sqlite_engine.connect() as connection:
        connection.execute(insert(NOTES).values(id=1))
        with pytest.raises(StoreUnavailable, match=r"open write transaction.*STATEFUL_STORE_TIMEOUT"):
            store.set("key", b"1")
        assert store.get("key") is None
        connection.rollback()
    store.set("key", b"1")
    store.close()


# What fails


def test_a_slow_database_is_bounded(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """A row that another transaction holds is waited for no longer than the timeout."""
    for server in ("postgres", "mariadb"):
        with ExitStack() as stack:
            engine = make_engine(request, server, tmp_path, stack)
            store = SQLStore(engine, timeout=0.1)
            stack.callback(store.close)
            store.set("key", b"1")
            with engine.connect() as connection:
                connection.execute(VALUES.update().values(value=b"2"))
                with pytest.raises(StoreUnavailable, match="in time"):
                    store.set("key", b"3")
                connection.rollback()
            assert store.get("key") == b"1"


@pytest.mark.parametrize("server", ["postgres", "mariadb"])
def test_a_server_that_stops_answering_is_an_outage(server: str, launch: Launch) -> None:
    """A server that neither answers nor hangs up is StoreUnavailable after the timeout."""
    service = launch(Postgres if server == "postgres" else MariaDB)
    store = SQLStore.from_url(service.url, timeout=0.5)
    patient = SQLStore.from_url(service.url, timeout=PATIENT)
    patient.create_table()
    patient.set("key", b"1")
    with store._connection() as (connection, _):
        # The process that serves this very connection; MariaDB has one for all.
        statement = text("SELECT pg_backend_pid()" if server == "postgres" else f"SELECT {service.process.pid}")  # type: ignore[union-attr]
        process = connection.execute(statement).scalar_one()
    os.kill(process, signal.SIGSTOP)
    with pytest.raises(StoreUnavailable) as raised:
        store.get("key")
    os.kill(process, signal.SIGCONT)
    assert raised.value.__cause__ is not None
    assert patient.get("key") == b"1"
    patient.close()
    store.close()


@pytest.mark.parametrize(
    "url",
    [
        "mariadb+pymysql://me:password-nobody@host:port/name",
        "postgresql://me:password-nobody@host:99x/name",
    ],
)
def test_malformed_address_is_explained(url: str) -> None:
    """An address that cannot be read is a ConfigError that shows a good one, and no password."""
    with pytest.raises(ConfigError, match="host:5432/name") as raised:
        open_store(url)
    assert "nobody" not in str(raised.value)


@pytest.mark.parametrize(
    ("scheme", "package"),
    [("postgresql", "psycopg"), ("postgresql+psycopg", "psycopg"), ("mariadb+pymysql", "pymysql")],
)
def test_missing_driver_is_named(monkeypatch: pytest.MonkeyPatch, scheme: str, package: str) -> None:
    """Without its driver a scheme is a ConfigError that names the package."""
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=rf"{re_escape(scheme)}://.*{package}"):
        open_store(f"{scheme}://host/name")


def re_escape(scheme: str) -> str:
    return scheme.replace("+", r"\+")


def test_opened_by_address_it_is_guarded() -> None:
    """A database of the store's own is remote; the application's is not guarded, since nothing works without it."""
    own, given = open_store("postgresql://host/name"), SQLStore(lambda: pytest.fail("is not looked for"))
    assert (own.remote, given.remote) == (True, False)


@pytest.mark.parametrize(("url", "shared"), [("sqlite://", False), ("postgresql+psycopg://host/name", True)])
def test_other_machines_share_a_server(url: str, shared: bool) -> None:
    """A file of SQLite belongs to one machine, which can keep its key in a file; servers need one that is shared."""
    assert SQLStore(create_engine(url)).shared == shared
    assert open_store("postgresql://host/name").shared


def test_other_databases_are_refused() -> None:
    """A dialect that we have no statements for is a ConfigError that names those that we have."""
    with pytest.raises(ConfigError, match="PostgreSQL, MariaDB, MySQL and SQLite, but not in oracle"):
        database_of(t.cast("t.Any", types.SimpleNamespace(name="oracle")))


def test_an_engine_is_needed() -> None:
    """A URL in place of an engine is a TypeError that says what to write."""
    with pytest.raises(TypeError, match="open_store"):
        SQLStore(t.cast("t.Any", "sqlite:///state.sqlite3"))


def test_wrong_clock_is_reported(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """A check tells of a server whose clock is another than this machine's."""
    for server in ("postgres", "mariadb"):
        with ExitStack() as stack:
            store = SQLStore(make_engine(request, server, tmp_path, stack), timeout=PATIENT)
            stack.callback(store.close)
            assert store.check() == []
            with FakeClock() as clock:
                clock.advance(60)
                (problem,) = store.check()
            assert "clock of the database" in problem


# The conformance suite notices what is left out of a statement

_LIVES = "expires > "


def without(statement: t.Any, *parts: str) -> t.Any:
    """Return a statement without the conditions whose text has one of some parts."""
    kept = [one for one in statement._where_criteria if not any(part in str(one) for part in parts)]
    broken = statement._clone()
    broken._where_criteria = tuple(kept)
    return broken


BROKEN: list[t.Any] = [
    pytest.param("GET", [_LIVES], "test_swap_fails_on_expired", id="expired is read"),
    pytest.param("SWAP", [_LIVES], "test_swap_fails_on_expired", id="expired is swapped"),
    pytest.param("TOUCH", [_LIVES], "test_touch_fails_on_expired", id="expired is touched"),
    pytest.param("SCAN", [_LIVES], "test_scan_lists_what_is_there", id="expired is listed"),
    pytest.param("SCAN", ["BETWEEN"], "test_scan_keeps_to_its_prefix", id="all prefixes are listed"),
    pytest.param("SWAP", ["value = "], "test_swap_leaves_what_was_changed", id="swap does not compare"),
    pytest.param("COUNT", ["value = "], "test_incr_loses_nothing_among_threads", id="counts are lost"),
]


@pytest.mark.parametrize(("name", "parts", "rule"), BROKEN)
def test_a_broken_statement_is_noticed(engine: Engine, name: str, parts: list[str], rule: str) -> None:
    """The suite's test for a condition fails where a statement lacks it, and passes where it does not."""
    suite, whole = StoreConformance(), getattr(statements, name)
    for statement in (without(whole, *parts), whole):
        with engine.begin() as connection:
            connection.execute(VALUES.delete())
        store = SQLStore(engine, timeout=PATIENT)
        expected = pytest.raises(AssertionError) if statement is not whole else nullcontext()
        with pytest.MonkeyPatch.context() as patch, FakeClock() as suite.clock, expected:
            patch.setattr(statements, name, statement)
            asked = {"later": functools.partial(suite.advance, store), "prefix": "cache:"}
            run = functools.partial(getattr(suite, rule), store)
            run(**{name: asked[name] for name in inspect.signature(run).parameters})
        store.close()


def test_add_needs_no_count_of_rows_on_postgres(postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLAlchemy before 2.0.28 does not know how many rows an INSERT has written there."""
    monkeypatch.setattr("sqlalchemy.CursorResult.rowcount", -1)
    store = SQLStore.from_url(postgres.url, timeout=PATIENT)
    store.create_table()
    store.delete("added")
    assert [store.add("added", value) for value in (b"1", b"2")] == [True, False]
    assert store.get("added") == b"1"
    store.close()
