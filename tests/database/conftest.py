"""What the tests of the database ask for: an application for every thing that ``db=`` takes, on every server."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import typing as t
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from flask_sqlalchemy_lite import SQLAlchemy as Lite
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, scoped_session, sessionmaker
from sqlalchemy.pool import NullPool

from flask_stateful import Stateful
from flask_stateful.stores.sql.tables import METADATA, VERSIONS

R = t.TypeVar("R")

#: The things that ``db=`` takes whose sessions are asynchronous.
ASYNC = ("lite-async", "async-engine", "async-sessionmaker", "async-url")

#: All the things that ``db=`` takes.
KINDS = ("flask-sqlalchemy", "lite", "engine", "sessionmaker", "scoped", "url", *ASYNC)

#: Those that can have a second engine.
WITH_BINDS = ("flask-sqlalchemy", "lite", "sessionmaker", "scoped", "async-sessionmaker")

SERVERS = ("sqlite", "postgres", "mariadb")

#: Every thing on every server that has a driver for it.
EVERYWHERE = [(kind, server) for kind in KINDS for server in SERVERS if kind not in ASYNC or server != "mariadb"]

_numbers = itertools.count()


class Base(DeclarativeBase):
    """The models of the default engine."""


class Note(Base):
    """A row that tests read and write."""

    __tablename__ = "note"

    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str] = mapped_column(sa.String(100), default="")
    n: Mapped[int] = mapped_column(default=0)


class AuditBase(DeclarativeBase):
    """The models of the second engine."""

    metadata = sa.MetaData(info={"bind_key": "audit"})


class Entry(AuditBase):
    """A row in the second database."""

    __tablename__ = "entry"

    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str] = mapped_column(sa.String(100), default="")


class Site:
    """An application with a database.

    :param second: the name of the second engine, if there is one.
    """

    def __init__(self, app: Flask, state: Stateful, db: t.Any, kind: str, *, second: str | None = None) -> None:
        self.app = app
        self.state = state
        self.db = db
        self.kind = kind
        self.second = second
        self.is_async = kind in ASYNC

    def run(self, function: Callable[[Session], R]) -> R:
        """Call a function with the session of the current application context, which must be there."""
        if not self.is_async:
            return function(self.state.database.session)
        session = self.state.database.async_session
        return asyncio.run(session.run_sync(t.cast("t.Any", function)))

    @contextlib.contextmanager
    def context(self) -> Iterator[None]:
        """An application context at whose end the session ends too, whoever is to end it."""
        with self.app.app_context():
            yield
            if self.kind == "scoped":
                self.db.remove()

    def count(self) -> int:
        """Return how many notes a context of its own sees."""
        with self.context():
            return self.run(lambda session: session.scalar(sa.select(sa.func.count()).select_from(Note)) or 0)


class MakeSite(t.Protocol):
    """Make an application; its tables are there.

    :param binds: whether it has a second engine, for what derives from :class:`AuditBase`.
    :param options: for :class:`Stateful`.
    """

    def __call__(self, kind: str, server: str, *, binds: bool = False, **options: t.Any) -> Site: ...


@pytest.fixture
def new_database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[str], sa.URL]]:
    """Make an empty database on a server and return its URL; it is dropped after the test."""
    dropped: list[tuple[sa.URL, str]] = []

    def make(server: str) -> sa.URL:
        name = f"test{next(_numbers)}"
        if server == "sqlite":
            return sa.make_url(f"sqlite:///{tmp_path / name}.sqlite3")
        url = sa.make_url(request.getfixturevalue(server).url)
        _administer(url, f"CREATE DATABASE {name}")
        dropped.append((url, f"DROP DATABASE {name}{' WITH (FORCE)' if server == 'postgres' else ''}"))
        return url.set(database=name)

    yield make
    for url, statement in dropped:
        _administer(url, statement)


def _administer(url: sa.URL, statement: str) -> None:
    engine = sa.create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(statement)


@pytest.fixture
def make_site(new_database: Callable[[str], sa.URL], tmp_path: Path) -> Iterator[MakeSite]:
    """Make an application for one of :data:`KINDS` on one of :data:`SERVERS`."""
    sites: list[Site] = []

    def make(kind: str, server: str, *, binds: bool = False, **options: t.Any) -> Site:
        urls = [new_database(server)]
        _create_tables(urls[0], Base)
        if binds:
            urls.append(new_database(server))
            _create_tables(urls[1], AuditBase)
        app = Flask(__name__, instance_path=str(tmp_path / "instance"))
        app.config.update(SECRET_KEY="dev", TESTING=True, **options.pop("settings", {}))
        db, second = make_db(app, kind, urls)
        options.setdefault("store", "memory://")
        sites.append(Site(app, Stateful(app, db=db, **options), db, kind, second=second))
        return sites[-1]

    yield make
    for site in sites:
        close(site)


def _create_tables(url: sa.URL, base: type[DeclarativeBase]) -> None:
    engine = sa.create_engine(url)
    base.metadata.create_all(engine)
    engine.dispose()


def close(site: Site) -> None:
    """Close the connections of an application, so that its database can be dropped."""
    if site.kind == "scoped":
        site.db.remove()
    with site.app.app_context():
        for engine in site.state.database.engines().values():
            if not site.is_async:
                engine.dispose()


def make_db(app: Flask, kind: str, urls: list[sa.URL]) -> tuple[t.Any, str | None]:
    """Return what is passed as ``db=``, and the name of its second engine."""
    if kind in ASYNC:
        urls = [url.set(drivername="sqlite+aiosqlite") if "sqlite" in url.drivername else url for url in urls]
    if kind == "flask-sqlalchemy":
        app.config["SQLALCHEMY_DATABASE_URI"] = urls[0]
        app.config["SQLALCHEMY_BINDS"] = dict(zip(["audit"], urls[1:], strict=False))
        return SQLAlchemy(app), "audit"
    if kind.startswith("lite"):
        name = "SQLALCHEMY_ASYNC_ENGINES" if kind in ASYNC else "SQLALCHEMY_ENGINES"
        own = {"poolclass": NullPool} if kind in ASYNC else {}
        app.config[name] = {key: {"url": url, **own} for key, url in zip(["default", "audit"], urls, strict=False)}
        return Lite(app, session_options={"binds": {AuditBase: "audit"}} if urls[1:] else None), "audit"
    if kind.endswith("url"):
        # Over psycopg a URL means what is synchronous.
        return (urls[0] if "sqlite" in urls[0].drivername or kind == "url" else _psycopg_async(urls[0])), None
    if kind in ASYNC:
        # A pool would hand connections on from one event loop to another: each asynchronous view has its own.
        async_engines = [create_async_engine(url, poolclass=NullPool) for url in urls]
        if kind == "async-engine":
            return async_engines[0], None
        return async_sessionmaker(async_engines[0], binds=dict(zip([AuditBase], async_engines[1:], strict=False))), (
            "AuditBase"
        )
    engines = [sa.create_engine(url) for url in urls]
    if kind == "engine":
        return engines[0], None
    factory = sessionmaker(engines[0], binds=dict(zip([AuditBase], engines[1:], strict=False)))
    return factory if kind == "sessionmaker" else scoped_session(factory), "AuditBase"


def _psycopg_async(url: sa.URL) -> sa.URL:
    return url.set(drivername="postgresql+psycopg_async")


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest) -> str:
    """Each server in turn."""
    return str(request.param)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """Each thing that ``db=`` takes in turn."""
    return str(request.param)


@pytest.fixture(params=EVERYWHERE, ids="-".join)
def site(request: pytest.FixtureRequest, make_site: MakeSite) -> Site:
    """An application for each thing that ``db=`` takes on each server."""
    return make_site(*request.param)


class Shop:
    """An application with one cached function, and a way to change its table over another connection."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.app, self.state, self.database = site.app, site.state, site.state.database
        self.calls = 0
        with self.app.app_context():
            self.engine = self.database.engines()["default"]
            METADATA.create_all(self.engine)
        self.texts = self.state.cache.memoize(ttl=3600)(self._texts)
        self.statements: list[str] = []
        sa.event.listen(self.engine, "before_cursor_execute", lambda *given: self.statements.append(given[2]))

    def _texts(self) -> list[str]:
        self.calls += 1
        return list(self.database.session.scalars(sa.select(Note.text).order_by(Note.id)))

    def write(self, work: Callable[[sa.Connection], object]) -> None:
        """Do something in a transaction of another connection, and commit it."""
        with self.engine.begin() as connection:
            work(connection)

    def add(self, text: str = "new") -> None:
        self.write(lambda connection: connection.execute(sa.insert(Note).values(text=text)))

    def read(self) -> list[str]:
        """Call the cached function in a request of its own."""
        with self.app.test_request_context():
            return self.texts()

    def versions(self) -> dict[str, int]:
        with self.engine.connect() as connection:
            rows = connection.execute(sa.select(VERSIONS.c.tag, sa.func.sum(VERSIONS.c.n)).group_by(VERSIONS.c.tag))
            return {tag: int(n) for tag, n in rows}


@pytest.fixture
def shop(make_site: MakeSite) -> Shop:
    """A shop on SQLite."""
    return Shop(make_site("sessionmaker", "sqlite"))


@pytest.fixture(params=SERVERS)
def shops(request: pytest.FixtureRequest, make_site: MakeSite) -> Shop:
    """A shop on each server in turn."""
    return Shop(make_site("sessionmaker", request.param))
