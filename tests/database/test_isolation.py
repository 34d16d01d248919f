"""``state.test_isolation()``: what was changed in the block is as it was before, whatever was committed."""

from __future__ import annotations

import asyncio
import typing as t
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from flask import Flask, session
from sqlalchemy.orm import Session

from flask_stateful import ConfigError, LocalState, StateError, Stateful, UserState
from flask_stateful.database.tracker import track
from flask_stateful.stores import open_store
from flask_stateful.stores.base import Store
from flask_stateful.stores.memory import MemoryStore
from flask_stateful.stores.sql import METADATA
from flask_stateful.testing import StoreConformance
from flask_stateful.wiring.overlay import OverlayStore, cover

from .conftest import ASYNC, WITH_BINDS, Base, Entry, MakeSite, Note, Site


def add(site: Site, *, text: str = "") -> None:
    """Add a note and commit."""
    site.run(lambda session: session.add(Note(text=text)))
    site.run(lambda session: session.commit())


def held(site: Site) -> list[str]:
    """Return the texts of the notes that a context of its own sees."""
    with site.context():
        return site.run(lambda session: list(session.scalars(sa.select(Note.text).order_by(Note.id))))


def test_committed_rows_are_gone(site: Site) -> None:
    """T12: what is committed in the block is seen by every context in it, and gone after it; what was there stays."""
    with site.context():
        add(site, text="before")
    for _ in range(2):
        with site.context(), site.state.test_isolation():
            with site.context():
                add(site, text="inside")
            with site.context():
                site.run(lambda session: session.execute(sa.update(Note).values(n=1)))
                site.run(lambda session: session.commit())
            assert held(site) == ["before", "inside"]
        assert held(site) == ["before"]
    with site.context():
        assert site.run(lambda session: session.scalar(sa.select(Note.n))) == 0
        add(site, text="after")
    assert held(site) == ["before", "after"]


def test_a_rollback_takes_only_its_own(site: Site) -> None:
    """A rollback of the application's undoes what its transaction did, and nothing that was committed before."""
    with site.app.app_context(), site.state.test_isolation():
        add(site, text="kept")
        site.run(lambda session: session.add(Note(text="dropped")))
        site.run(lambda session: session.flush())
        site.run(lambda session: session.rollback())
        assert site.run(lambda session: list(session.scalars(sa.select(Note.text)))) == ["kept"]

        def in_savepoints(session: Session) -> None:
            with session.begin_nested():
                session.add(Note(text="nested"))
            nested = session.begin_nested()
            session.add(Note(text="undone"))
            nested.rollback()
            session.commit()

        site.run(in_savepoints)
        assert site.run(lambda session: list(session.scalars(sa.select(Note.text).order_by(Note.id)))) == [
            "kept",
            "nested",
        ]
    assert held(site) == []


def test_an_error_leaves_the_block_usable(site: Site) -> None:
    """A statement that fails costs its own transaction, and the block goes on."""
    with site.app.app_context(), site.state.test_isolation():
        add(site)

        def fail(session: Session) -> None:
            session.execute(sa.insert(Note).values(id=7))
            with pytest.raises(sa.exc.IntegrityError):
                session.execute(sa.insert(Note).values(id=7))
            session.rollback()

        site.run(fail)
        add(site)
        assert site.count() == 2
    assert site.count() == 0


def test_adding_up_versions_leaves_the_shared_connection_alone(make_site: MakeSite, server: str) -> None:
    """Version rows are added up on a connection of its own, and neither ends nor commits what is isolated."""
    site = make_site("engine", server)
    site.state.database.tune_sqlite(site.db)
    METADATA.create_all(site.db)
    with site.app.app_context(), site.state.test_isolation():
        assert site.run(lambda session: session.scalar(sa.select(sa.func.count()).select_from(Note))) == 0
        track(site.db).versions.compact()
        add(site)
        assert site.count() == 1
    assert site.count() == 0


@pytest.mark.parametrize("kind", WITH_BINDS)
def test_every_bind_is_isolated(make_site: MakeSite, kind: str) -> None:
    """Rows in a second database are gone as well."""
    site = make_site(kind, "sqlite", binds=True)

    def count(session: Session) -> int | None:
        return session.scalar(sa.select(sa.func.count()).select_from(sa.orm.aliased(Entry)), bind_arguments=of_entries)

    of_entries = {"mapper": Entry}
    with site.app.app_context(), site.state.test_isolation():
        site.run(lambda session: session.add(Entry()))
        site.run(lambda session: session.commit())
        assert site.run(count) == 1
    with site.app.app_context():
        assert site.run(count) == 0


@pytest.mark.parametrize("server", ["sqlite", "postgres", "mariadb"])
def test_other_ways_to_the_engine_are_isolated(make_site: MakeSite, server: str) -> None:
    """Connections of the engine's, with options of their own as well, commit into the block, and no further."""
    site = make_site("engine", server)
    with site.app.app_context(), site.state.test_isolation():
        with site.db.begin() as connection:
            connection.execute(sa.insert(Note).values(text="core"))
        with site.db.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
            connection.execute(sa.insert(Note).values(text="autocommit"))
            with pytest.raises(sa.exc.DBAPIError):
                connection.exec_driver_sql("SELECT 1 FROM missing")
        with site.db.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
            connection.execute(sa.insert(Note).values(text="once more"))
        with site.db.connect().execution_options(isolation_level="SERIALIZABLE") as connection:
            kept = set(connection.scalars(sa.select(Note.text)))
        # What one statement does costs PostgreSQL all of its transaction, which this one has to be.
        assert kept | {"autocommit"} == {"core", "autocommit", "once more"}
        site.db.dispose()
        assert site.count() == len(kept)
    assert site.count() == 0


@pytest.mark.parametrize("server", ["sqlite", "postgres", "mariadb"])
def test_transactions_in_each_other_are_told_apart(make_site: MakeSite, server: str) -> None:
    """One that ends inside of another one keeps or drops its own; one that went with another one hears of it."""
    site = make_site("engine", server)
    with site.app.app_context(), site.state.test_isolation():
        with Session(site.db) as outer, Session(site.db) as inner:
            outer.add(Note(text="outer"))
            outer.flush()
            inner.add(Note(text="inner"))
            inner.commit()
            inner.add(Note(text="dropped"))
            inner.flush()
            inner.rollback()
            outer.commit()
        assert sorted(held(site)) == ["inner", "outer"]
        with Session(site.db) as outer, Session(site.db) as inner:
            outer.add(Note())
            outer.flush()
            inner.add(Note())
            inner.flush()
            outer.rollback()
            with pytest.raises(StateError, match="end the inner one first"):
                inner.commit()
            inner.rollback()
        assert site.count() == 2
    assert site.count() == 0


@pytest.mark.parametrize(("kind", "server"), [("sessionmaker", "postgres"), ("url", "sqlite"), ("engine", "sqlite")])
def test_blocks_in_each_other(make_site: MakeSite, kind: str, server: str) -> None:
    """A block inside of a block undoes its own part, and the outer one the rest."""
    site = make_site(kind, server)
    with site.app.app_context(), site.state.test_isolation():
        add(site, text="outer")
        site.state.database.session.close()
        with site.state.test_isolation():
            add(site, text="inner")
            assert held(site) == ["outer", "inner"]
        assert held(site) == ["outer"]
    assert held(site) == []


def test_what_commits_past_us_is_an_error(make_site: MakeSite) -> None:
    """A DDL statement that commits on MariaDB keeps rows, and the end of the block says so."""
    site = make_site("engine", "mariadb")
    with site.app.app_context():
        isolation = site.state.test_isolation()
        isolation.__enter__()
        connection = site.db.connect()
        connection.exec_driver_sql("CREATE TABLE other (id INTEGER)")
        with pytest.raises(StateError, match="DDL"):
            connection.commit()
        with pytest.raises(StateError, match="DDL"):
            isolation.__exit__(None, None, None)
        add(site)
    assert site.count() == 1


def test_an_application_that_begins_itself_is_isolated(make_site: MakeSite) -> None:
    """Where an engine follows SQLAlchemy's manual for SQLite, its own BEGIN is left out."""
    site = make_site("engine", "sqlite")
    sa.event.listen(site.db, "connect", lambda connection, _: setattr(connection, "isolation_level", None))
    sa.event.listen(site.db, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
    with site.app.app_context(), site.state.test_isolation():
        add(site)
        assert site.count() == 1
    assert site.count() == 0


@pytest.mark.parametrize("url", ["sqlite://", "sqlite+aiosqlite://"])
def test_a_database_in_memory_is_isolated(url: str) -> None:
    """A database in memory loses what was changed, and nothing else."""
    app = Flask(__name__)
    state = Stateful(app, db=url, store="memory://")
    site = Site(app, state, None, "async-url" if "aio" in url else "url")
    with app.app_context():
        site.run(lambda session: Base.metadata.create_all(session.connection()))
        add(site, text="before")
    with app.app_context(), state.test_isolation():
        add(site, text="inside")
        assert held(site) == ["before", "inside"]
    assert held(site) == ["before"]
    with app.app_context():
        if site.is_async:
            asyncio.run(site.state.database.async_session.bind.dispose())
        else:
            site.state.database.engines()["default"].dispose()


def test_tuned_engines_are_isolated(make_site: MakeSite) -> None:
    """A tuned engine begins as it does, also in requests that mean to write."""
    site = make_site("url", "sqlite")

    @site.app.post("/")
    def view() -> str:
        add(site)
        return str(site.count())

    with site.app.app_context(), site.state.test_isolation():
        assert [site.app.test_client().post("/").text for _ in range(2)] == ["1", "2"]
    assert site.count() == 0


@pytest.mark.parametrize("kind", ASYNC)
@pytest.mark.parametrize("server", ["sqlite", "postgres"])
def test_async_with(make_site: MakeSite, kind: str, server: str) -> None:
    """In an event loop the block is written `async with`; the plain one says so."""
    site = make_site(kind, server)

    async def run() -> None:
        with pytest.raises(ConfigError, match="async with"), site.state.test_isolation():
            pass
        async with site.state.test_isolation():
            session = site.state.database.async_session
            session.add(Note())
            await session.commit()
            assert await session.scalar(sa.select(sa.func.count()).select_from(Note)) == 1

    with site.app.app_context():
        asyncio.run(run())
    assert site.count() == 0


def test_async_with_for_what_is_not(make_site: MakeSite) -> None:
    """`async with` works for a sync database too."""
    site = make_site("flask-sqlalchemy", "sqlite")

    async def run() -> None:
        with site.app.app_context():
            async with site.state.test_isolation():
                add(site)

    asyncio.run(run())
    assert site.count() == 0


def test_async_views_are_isolated(make_site: MakeSite) -> None:
    """What views commit that Flask runs in loops of their own is gone as well."""
    site = make_site("async-url", "postgres")

    @site.app.post("/")
    async def view() -> str:
        session = site.state.database.async_session
        session.add(Note())
        await session.commit()
        return str(await session.scalar(sa.select(sa.func.count()).select_from(Note)))

    with site.app.app_context(), site.state.test_isolation():
        assert [site.app.test_client().post("/").text for _ in range(2)] == ["1", "2"]
    assert site.count() == 0


def test_a_session_in_use_is_refused(make_site: MakeSite) -> None:
    """Where the session of the scope is in a transaction already, it cannot be isolated, and nothing is changed."""
    site = make_site("url", "sqlite")
    with site.app.app_context():
        site.state.database.session.add(Note())
        site.state.database.session.flush()
        with pytest.raises(StateError, match="end that first"), site.state.test_isolation():
            pass
        site.state.database.session.commit()
    assert site.count() == 1


def test_an_engine_without_transactions_is_refused() -> None:
    """An engine that commits each statement by itself cannot be isolated, and one before it is as it was."""
    app = Flask(__name__)
    engine = sa.create_engine("sqlite://", isolation_level="AUTOCOMMIT")
    state = Stateful(app, db=engine, store="memory://")
    with app.app_context(), pytest.raises(ConfigError, match="AUTOCOMMIT"), state.test_isolation():
        pass


def test_the_block_needs_a_context() -> None:
    """Without an application context nobody can tell what to isolate."""
    with pytest.raises(ConfigError, match=r"app\.app_context\(\), state\.test_isolation\(\)"):
        Stateful(Flask(__name__), store="memory://").test_isolation().__enter__()


# What is no row


class Prefs(UserState):
    """What a user has chosen."""

    theme: str = "light"


class Draft(LocalState):
    """What a browser holds."""

    text: str = ""


@pytest.fixture(params=["memory", "sqlite", "redis", "memcached"])
def state(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stateful]:
    """An application without a database, with its store in one place after the other."""
    app = Flask(__name__, instance_path=str(tmp_path))
    app.config.update(SECRET_KEY="isolation", TESTING=True, STATEFUL_NAMESPACE=tmp_path.name)
    if request.param == "redis":
        store: t.Any = request.getfixturevalue("redis_server").url
    elif request.param == "memcached":
        cache = request.getfixturevalue("memcached").url
        store = {"default": "memory://", "cache": cache}
    else:
        store = {"memory": "memory://", "sqlite": "sqlite:///state.sqlite3"}[request.param]
    state = Stateful(app, store=store)
    calls: list[int] = []

    @state.cache.memoize(tags=["numbers"])
    def computed() -> int:
        calls.append(1)
        return len(calls)

    @app.get("/<value>")
    def view(value: str) -> dict[str, t.Any]:
        seen = {"session": session.get("value"), "cached": state.cache.get("value"), "theme": Prefs().theme}
        if value != "look":
            state.sessions.login("ada")
            session["value"] = value
            state.cache.set("value", value)
            state.cache.invalidate_tags("numbers")
            Prefs().theme = value
        return {**seen, "computed": computed()}

    state.app = app  # type: ignore[attr-defined]
    yield state
    for opened in app.extensions["stateful"].settings.stores.values():
        opened.close()


def test_sessions_and_values_are_what_they_were(state: Stateful) -> None:
    """Sessions, rows of users and cached values changed in the block are as before after it, on every store."""
    app: Flask = state.app  # type: ignore[attr-defined]
    client = app.test_client()
    client.get("/before")
    seen = client.get("/look").json
    assert {seen["session"], seen["cached"], seen["theme"]} == {"before"}
    cookies = str(client.get_cookie("session"))
    with app.app_context(), state.test_isolation():
        inside = app.test_client()
        inside.set_cookie("session", client.get_cookie("session").value)  # type: ignore[union-attr]
        assert inside.get("/look").json == seen
        inside.get("/inside")
        changed = inside.get("/look").json
        assert {changed["session"], changed["cached"], changed["theme"]} == {"inside"}
        assert changed["computed"] == seen["computed"] + 1
        other = app.test_client()
        other.get("/other")
    assert client.get("/look").json == seen
    assert str(client.get_cookie("session")) == cookies
    assert other.get("/look").json["session"] is None


def test_what_browsers_hold_is_what_it_was(tmp_path: Path) -> None:
    """What the server knows of a browser's storage is as before after the block."""
    app = Flask(__name__, instance_path=str(tmp_path))
    app.config.update(SECRET_KEY="isolation", TESTING=True)
    state = Stateful(app, store="memory://")

    @app.get("/<text>")
    def view(text: str) -> str:
        if text != "look":
            Draft().text = text
        return Draft().text

    client = app.test_client()
    client.get("/before")
    with app.app_context(), state.test_isolation():
        client.get("/inside")
        assert client.get("/look").text == "inside"
    assert client.get("/look").text == "before"


class TestOverlay(StoreConformance):
    """The overlay keeps the contract."""

    across_processes = False

    def make_store(self, tmp_path: Path) -> Store:
        """Return one over a store that is small enough to try its limit."""
        return OverlayStore(MemoryStore(max_value_bytes=2**20))


def test_the_store_below_stays_as_it_is(tmp_path: Path) -> None:
    """A covered store shows what was in it, takes changes, and has none of them once it is uncovered."""
    store = open_store("sqlite:///below.sqlite3", root=tmp_path)
    store.set("kept", b"1")
    store.set("deleted", b"1")
    uncover = cover(store)
    assert store.get_many(["kept", "deleted", "none"]) == {"kept": b"1", "deleted": b"1"}
    store.delete("deleted")
    assert store.swap("kept", b"1", b"2")
    assert store.incr("count") == 1
    assert store.add("added", b"1")
    assert sorted(store.scan("")) == ["added", "count", "kept"]
    uncover()
    assert sorted(store.scan("")) == ["deleted", "kept"]
    assert store.get("kept") == b"1"
    store.close()
