"""The contract of stores, in the three databases: opened by a URL, or beside an engine of the application's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.pool import NullPool

from flask_stateful.stores.base import Store
from flask_stateful.stores.sql import SQLStore
from flask_stateful.testing import StoreConformance
from tests import services
from tests.databases import emptied
from tests.services import MariaDB, Postgres

#: Seconds; no test here is about being late.
PATIENT = 30


class SQLConformance(StoreConformance):
    """What the classes below share; each says where the database is."""

    url: str

    @pytest.fixture(autouse=True)
    def database(self) -> None:
        """Set :attr:`url` to a database whose table is empty."""
        raise NotImplementedError

    def make_store(self, tmp_path: Path) -> Store:
        return SQLStore.from_url(self.url, timeout=PATIENT)

    def reopen(self, store: Store) -> Store:
        return SQLStore.from_url(self.url, timeout=PATIENT)

    def make_with_client(self, tmp_path: Path) -> tuple[Store, Callable[[], object]]:
        engine = create_engine(self.url)

        def use_client() -> None:
            with engine.connect() as connection:
                assert connection.execute(text("SELECT count(*) FROM state_value")).scalar() == 1
            engine.dispose()

        return SQLStore(engine, timeout=PATIENT), use_client

    def make_unreachable(self, tmp_path: Path) -> Store | None:
        scheme = self.url.partition("://")[0]
        return SQLStore.from_url(f"{scheme}://user@127.0.0.1:{services.free_port()}/name", timeout=PATIENT)


class GivenConformance(SQLConformance):
    """Stores on an engine of the application's, which pools its own connections."""

    @pytest.fixture(autouse=True)
    def engine(self, database: None) -> Iterator[Engine]:
        """Set :attr:`given`, and close it after the test, which the store does not."""
        self.given = create_engine(self.url)
        yield self.given
        self.given.dispose()

    def make_store(self, tmp_path: Path) -> Store:
        return SQLStore(self.given, timeout=PATIENT)

    def reopen(self, store: Store) -> Store:
        return SQLStore(lambda: self.given, timeout=PATIENT)


class TestPostgres(SQLConformance):
    """PostgreSQL, by its address."""

    @pytest.fixture(autouse=True)
    def database(self, postgres: Postgres) -> None:
        self.url = emptied(postgres.url)


class TestMariaDB(SQLConformance):
    """MariaDB, by its address."""

    @pytest.fixture(autouse=True)
    def database(self, mariadb: MariaDB) -> None:
        self.url = emptied(mariadb.url)


class TestPostgresEngine(GivenConformance, TestPostgres):
    """PostgreSQL, beside an engine."""


class TestSQLiteEngine(GivenConformance):
    """A file of SQLite's, beside an engine."""

    @pytest.fixture(autouse=True)
    def database(self, tmp_path: Path) -> None:
        self.url = f"sqlite:///{tmp_path / 'app.sqlite3'}"
        engine = create_engine(self.url, poolclass=NullPool)
        with engine.connect() as connection:
            connection.execute(text("PRAGMA journal_mode = WAL"))
        emptied(self.url)

    def make_unreachable(self, tmp_path: Path) -> None:
        return None
