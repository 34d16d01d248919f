"""SQLite, tuned: no acknowledged change is lost, and nobody is refused for having read before he writes."""

from __future__ import annotations

import asyncio
import contextlib
import typing as t
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
import sqlalchemy as sa
from flask import Flask
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import StaticPool

from flask_stateful import ConfigError, Stateful
from flask_stateful.database.tuning import is_tuned, means_to_write, tune_sqlite

from .conftest import Base, MakeSite, Note

PROCESSES = 4

CHANGES = 150


@pytest.fixture
def url(tmp_path: Path) -> sa.URL:
    """A database with one note."""
    url = sa.make_url(f"sqlite:///{tmp_path / 'tuned.sqlite3'}")
    engine = sa.create_engine(url)
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add(Note(id=1, n=0))
        session.commit()
    engine.dispose()
    return url


@contextlib.contextmanager
def immediate() -> Iterator[None]:
    """Begin transactions as an atomic block does."""
    token = means_to_write.set(True)
    yield
    means_to_write.reset(token)


def tuned(url: sa.URL, **options: t.Any) -> sa.Engine:
    """Return an engine that is tuned."""
    engine = sa.create_engine(url, **options)
    tune_sqlite(engine)
    return engine


def pragma(connection: sa.Connection, name: str) -> t.Any:
    """Return a pragma of a connection."""
    return connection.exec_driver_sql(f"PRAGMA {name}").scalar()


def change_often(url: sa.URL, tune: bool, barrier: t.Any, results: t.Any) -> None:
    """Add 1 to a note, again and again, by reading it and then writing it; report how often that was acknowledged."""
    engine = sa.create_engine(url)
    if tune:
        tune_sqlite(engine)
    acknowledged = 0
    barrier.wait()
    for _ in range(CHANGES):
        with Session(engine) as session, immediate():
            try:
                note = session.get(Note, 1)
                note.n += 1
                session.commit()
            except OperationalError:
                continue
            acknowledged += 1
    engine.dispose()
    results.put(acknowledged)


@pytest.mark.parametrize("tune", [True, False])
def test_no_acknowledged_change_is_lost(url: sa.URL, tune: bool) -> None:
    """Processes that read and write one row lose nothing; as the driver opens it, SQLite loses changes."""
    processes = get_context("spawn")
    barrier, results = processes.Barrier(PROCESSES), processes.Queue()
    workers = [processes.Process(target=change_often, args=(url, tune, barrier, results)) for _ in range(PROCESSES)]
    for worker in workers:
        worker.start()
    acknowledged = sum(results.get(timeout=120) for _ in workers)
    for worker in workers:
        worker.join()
    engine = sa.create_engine(url)
    with Session(engine) as session:
        kept = session.get(Note, 1).n
    engine.dispose()
    assert (kept == acknowledged) is tune
    assert not tune or acknowledged == PROCESSES * CHANGES


def test_connections_are_tuned(url: sa.URL) -> None:
    """Each connection has the pragmas, and foreign keys are checked."""
    engine = tuned(url)
    with engine.connect() as connection:
        assert pragma(connection, "journal_mode") == "wal"
        assert pragma(connection, "synchronous") == 1
        assert pragma(connection, "busy_timeout") == 5000
        assert pragma(connection, "foreign_keys") == 1
        connection.exec_driver_sql("CREATE TABLE child (id INTEGER PRIMARY KEY, note INTEGER REFERENCES note (id))")
        with pytest.raises(IntegrityError):
            connection.exec_driver_sql("INSERT INTO child (note) VALUES (404)")
    engine.dispose()


def test_a_connection_from_before_is_tuned_too() -> None:
    """Where a connection was opened before its engine is tuned, the next transaction on it is tuned."""
    engine = sa.create_engine("sqlite://", poolclass=StaticPool)
    with engine.connect() as connection:
        assert pragma(connection, "foreign_keys") == 0
    assert not is_tuned(engine)
    tune_sqlite(engine)
    tune_sqlite(engine)
    assert is_tuned(engine)
    with engine.connect() as connection:
        assert pragma(connection, "foreign_keys") == 1


def test_another_database_has_nothing_to_tune(make_site: MakeSite) -> None:
    """On PostgreSQL tuning does nothing, and says that nothing is left to do."""
    site = make_site("engine", "postgres")
    site.state.database.tune_sqlite(site.db)
    assert is_tuned(site.db)
    assert site.count() == 0


def test_a_reader_keeps_his_state(url: sa.URL) -> None:
    """A transaction that reads sees one state of the database, and keeps nobody from writing."""
    engine = tuned(url)
    with Session(engine) as reader, Session(engine) as writer:
        assert reader.scalar(sa.select(Note.n)) == 0
        writer.get(Note, 1).n = 7
        writer.commit()
        assert reader.scalar(sa.select(Note.n)) == 0
        reader.rollback()
        assert reader.scalar(sa.select(Note.n)) == 7
    engine.dispose()


def begins_immediately(engine: sa.Engine) -> bool:
    """Tell whether a transaction that begins now holds the right to write."""
    with engine.connect() as connection:
        connection.exec_driver_sql("SELECT 1")
        other = sa.create_engine(engine.url, connect_args={"timeout": 0})
        try:
            with other.connect() as writer:
                writer.exec_driver_sql("BEGIN IMMEDIATE")
        except OperationalError:
            return True
        finally:
            other.dispose()
    return False


def test_who_means_to_write_begins_so(url: sa.URL) -> None:
    """In the block a transaction takes the right to write with its first statement, outside with its first write."""
    engine = tuned(url)
    assert not begins_immediately(engine)
    with immediate():
        assert begins_immediately(engine)
    assert not begins_immediately(engine)
    engine.dispose()


def test_unsafe_requests_mean_to_write(url: sa.URL) -> None:
    """POST, PUT, PATCH and DELETE begin with the right to write; GET, HEAD and OPTIONS do not."""
    app, engine = Flask(__name__), tuned(url)
    begun: dict[str, bool] = {}
    for method in ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"):
        with app.test_request_context(method=method):
            begun[method] = begins_immediately(engine)
    engine.dispose()
    assert begun == {method: method in {"POST", "PUT", "PATCH", "DELETE"} for method in begun}


def test_threads_keep_to_themselves(url: sa.URL) -> None:
    """What one thread means to write does not make another thread wait."""
    engine = tuned(url)
    with ThreadPoolExecutor(1) as pool, immediate():
        elsewhere: Future[bool] = pool.submit(begins_immediately, engine)
        assert not elsewhere.result()
    engine.dispose()


def test_a_refused_begin_leaves_the_session_usable(url: sa.URL) -> None:
    """A transaction that could not begin is an error, after which the session begins anew."""
    engine = tuned(url)
    with engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA busy_timeout = 0")
    with Session(tuned(url)) as holder, Session(engine) as session:
        with immediate():
            holder.get(Note, 1)
            with pytest.raises(OperationalError, match="locked"):
                session.get(Note, 1)
        session.rollback()
        holder.commit()
        with immediate():
            session.get(Note, 1).n = 1
            session.commit()
    engine.dispose()
    holder.get_bind().dispose()


def test_a_rolled_back_transaction_keeps_no_released_savepoint(url: sa.URL) -> None:
    """T8: what was released in a savepoint goes when the transaction around it is rolled back."""
    engine = tuned(url)
    with engine.connect() as connection:
        with connection.begin_nested():
            connection.execute(sa.insert(Note).values(id=2))
        connection.rollback()
        assert connection.scalar(sa.select(sa.func.count()).select_from(Note)) == 1
    engine.dispose()


def test_autocommit_is_left_alone(url: sa.URL) -> None:
    """A connection that commits each statement by itself begins no transaction, and leaves the next one tuned."""
    engine = tuned(url, pool_size=1, max_overflow=0)
    with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        connection.exec_driver_sql("VACUUM")
    with engine.connect() as connection:
        with connection.begin_nested():
            connection.execute(sa.insert(Note).values(id=2))
        connection.rollback()
        assert connection.scalar(sa.select(sa.func.count()).select_from(Note)) == 1
    engine.dispose()
    with pytest.raises(ConfigError, match="has no transactions"):
        tune_sqlite(sa.create_engine("sqlite://", isolation_level="AUTOCOMMIT"))


def test_an_application_that_begins_itself_may(url: sa.URL) -> None:
    """Where an engine follows SQLAlchemy's manual already, its transactions are begun once."""
    engine = sa.create_engine(url)
    sa.event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
    tune_sqlite(engine)
    with Session(engine) as session:
        session.get(Note, 1).n = 1
        session.commit()
    engine.dispose()


def test_asynchronous_engines_are_tuned(url: sa.URL) -> None:
    """Over aiosqlite it is the same: pragmas, savepoints that go with their transaction, and the right to write."""
    engine = create_async_engine(url.set(drivername="sqlite+aiosqlite"))
    tune_sqlite(engine.sync_engine)

    async def use() -> None:
        async with engine.connect() as connection:
            assert await connection.scalar(sa.text("PRAGMA foreign_keys")) == 1
            async with connection.begin_nested():
                await connection.execute(sa.insert(Note).values(id=2))
            await connection.rollback()
            assert await connection.scalar(sa.select(sa.func.count()).select_from(Note)) == 1
            await connection.rollback()
            with immediate():
                await connection.execute(sa.select(Note))
            with pytest.raises(OperationalError, match="locked"):
                sa.create_engine(url, connect_args={"timeout": 0}, poolclass=sa.NullPool).connect().exec_driver_sql(
                    "BEGIN IMMEDIATE"
                )
        await engine.dispose()

    asyncio.run(use())


@pytest.mark.parametrize("url", ["sqlite:///shop.sqlite3", "sqlite+aiosqlite:///shop.sqlite3", "sqlite://"])
def test_what_we_make_is_tuned(tmp_path: Path, url: str) -> None:
    """The engine of a URL is tuned without being asked."""
    app = Flask(__name__, instance_path=str(tmp_path))
    state = Stateful(app, db=url, store="memory://")
    with app.app_context():
        assert is_tuned(state.database.engines()["default"])


def test_what_the_application_made_is_tuned_when_asked(url: sa.URL) -> None:
    """Engines that we were given are left as they are, until state.database.tune_sqlite(engine), sync or not."""
    engine, asynchronous = sa.create_engine(url), create_async_engine(url.set(drivername="sqlite+aiosqlite"))
    state = Stateful(Flask(__name__), db=engine, store="memory://")
    assert not is_tuned(engine)
    state.database.tune_sqlite(engine)
    state.database.tune_sqlite(asynchronous)
    assert is_tuned(engine)
    assert is_tuned(asynchronous.sync_engine)
