"""What ``db=`` takes: its engines by name, and the session of the current scope."""

from __future__ import annotations

import asyncio
import sys
import typing as t
from pathlib import Path

import pytest
import sqlalchemy as sa
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from flask_sqlalchemy_lite import SQLAlchemy as Lite
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from flask_stateful import ConfigError, Stateful

from .conftest import ASYNC, WITH_BINDS, AuditBase, Base, Entry, MakeSite, Note, Site


def test_a_row_goes_through_the_session_of_the_scope(site: Site) -> None:
    """What the session of one context has committed, that of the next one reads."""
    with site.app.app_context():
        site.run(lambda session: session.add(Note(text="kept")))
        site.run(lambda session: session.commit())
    assert site.count() == 1


def test_the_default_engine_is_named_so(site: Site) -> None:
    """Each of them has one engine by the name of default, a plain Engine on the right server."""
    with site.app.app_context():
        engines = site.state.database.engines()
        assert list(engines) == ["default"]
        assert isinstance(engines["default"], sa.Engine)
        assert site.state.database.name_of(engines["default"]) == "default"
        assert engines["default"] is site.state.database.engines()["default"]


@pytest.mark.parametrize("kind", WITH_BINDS)
def test_each_bind_has_its_name(make_site: MakeSite, kind: str) -> None:
    """A second engine has a name of its own, and is the one that its models are written to."""
    site = make_site(kind, "sqlite", binds=True)
    with site.app.app_context():
        engines = site.state.database.engines()
        assert set(engines) == {"default", site.second}
        used = site.run(lambda session: session.get_bind(Entry))
        assert site.state.database.name_of(t.cast("sa.Engine", used)) == site.second


def test_a_context_has_one_session_and_the_next_another(site: Site) -> None:
    """The scope has no session until it is asked for, then always that one, and it ends with the context."""
    adapter = site.state.database.adapter
    with site.app.app_context():
        if site.kind != "scoped":
            assert adapter.scope() is None
        session = adapter.session()
        assert adapter.scope() is session
        assert adapter.session() is session
        site.run(lambda session: session.execute(sa.text("SELECT 1")))
        assert session.in_transaction()
    if site.kind == "scoped":
        site.db.remove()
    assert not session.in_transaction()


@pytest.mark.parametrize("kind", ["flask-sqlalchemy", "lite", "engine", "sessionmaker", "url"])
def test_contexts_in_each_other_have_sessions_of_their_own(make_site: MakeSite, kind: str) -> None:
    """What an inner context does to its session is nothing to the outer one."""
    site = make_site(kind, "sqlite")
    with site.app.app_context():
        outer = site.state.database.session
        outer.add(Note(text="outer"))
        with site.app.app_context():
            assert site.state.database.session is not outer
        assert len(outer.new) == 1


@pytest.mark.parametrize("kind", ["flask-sqlalchemy", "lite"])
def test_the_session_is_that_of_the_extension(make_site: MakeSite, kind: str) -> None:
    """Who writes db.session and who writes state.database.session has the same one."""
    site = make_site(kind, "sqlite")
    with site.app.app_context():
        expected = site.db.session() if kind == "flask-sqlalchemy" else site.db.session
        assert site.state.database.session is expected
        assert site.state.database.adapter.scope() is expected


def test_what_the_application_made_is_left_to_it(make_site: MakeSite) -> None:
    """The session of a scoped session that we were given does not end with the context."""
    site = make_site("scoped", "sqlite")
    with site.app.app_context():
        site.state.database.session.add(Note(text="mine"))
    assert len(site.db.new) == 1
    site.db.remove()


def test_sessions_are_heard_on_the_target(site: Site) -> None:
    """Events on the session target are those of the scope's session, and of no other session in the process."""
    heard: list[Session] = []
    with site.app.app_context():
        sa.event.listen(site.state.database.adapter.session_target, "before_commit", heard.append)
        with Session(sa.create_engine("sqlite://")) as other:
            other.commit()
        session = site.state.database.adapter.session()
        site.run(lambda session: session.commit())
    assert heard == [session]


@pytest.mark.parametrize("kind", ASYNC)
def test_async_sessions_are_asynchronous(make_site: MakeSite, kind: str) -> None:
    """The asynchronous session is the one whose inner session the scope has; the sync one is refused."""
    site = make_site(kind, "sqlite")
    with site.app.app_context():
        session = site.state.database.async_session
        assert isinstance(session, AsyncSession)
        assert site.state.database.adapter.scope() is session.sync_session
        with pytest.raises(ConfigError, match=r"write state\.database\.async_session"):
            _ = site.state.database.session


def test_sync_sessions_are_not(make_site: MakeSite) -> None:
    """Who asks a sync database for its asynchronous session is told what to write."""
    site = make_site("engine", "sqlite")
    with site.app.app_context(), pytest.raises(ConfigError, match=r"write state\.database\.session"):
        _ = site.state.database.async_session


@pytest.mark.parametrize("kind", ASYNC)
def test_an_async_view_uses_the_session(make_site: MakeSite, kind: str) -> None:
    """A view that awaits writes a row, and its session is closed when the request is over."""
    site = make_site(kind, "sqlite")
    held: list[AsyncSession] = []

    @site.app.get("/")
    async def view() -> str:
        session = site.state.database.async_session
        held.append(session)
        session.add(Note(text="awaited"))
        await session.commit()
        await session.scalar(sa.select(Note.text))
        return "done"

    assert site.app.test_client().get("/").text == "done"
    assert not held[0].in_transaction()
    assert site.count() == 1


def test_lite_with_both_has_both(tmp_path: Path) -> None:
    """Of two engines by one name the asynchronous one is named so, and the scope is the session that is in use."""
    app = Flask(__name__, instance_path=str(tmp_path))
    app.config["SQLALCHEMY_ENGINES"] = {"default": "sqlite:///both.sqlite3"}
    app.config["SQLALCHEMY_ASYNC_ENGINES"] = {"default": "sqlite+aiosqlite:///both.sqlite3"}
    db = Lite(app)
    state = Stateful(app, db=db, store="memory://")
    with app.app_context():
        assert list(state.database.engines()) == ["default", "async_default"]
        assert state.database.session is db.session
        assert state.database.async_session is db.async_session
        heard: list[Session] = []
        sa.event.listen(state.database.adapter.session_target, "before_commit", heard.append)

        async def read() -> None:
            await db.async_session.execute(sa.text("SELECT 1"))
            assert state.database.adapter.scope() is db.async_session.sync_session
            await db.async_session.commit()
            await db.async_engine.dispose()

        asyncio.run(read())
        db.session.commit()
        assert state.database.adapter.scope() is db.session
        assert heard == [db.async_session.sync_session, db.session]


def test_two_applications_have_engines_of_their_own(tmp_path: Path) -> None:
    """One Stateful serves two applications, each with its own database under its own instance folder."""
    state = Stateful(db="sqlite:///shop.sqlite3", store="memory://")
    apps = [Flask(name, instance_path=str(tmp_path / name)) for name in ("one", "two")]
    for app in apps:
        state.init_app(app)
    assert list(tmp_path.iterdir()) == []
    for number, app in enumerate(apps):
        with app.app_context():
            Base.metadata.create_all(state.database.engines()["default"])
            state.database.session.add_all([Note() for _ in range(number + 1)])
            state.database.session.commit()
    counts = []
    for app in apps:
        with app.app_context():
            counts.append(state.database.session.scalar(sa.select(sa.func.count(Note.id))))
            state.database.engines()["default"].dispose()
    assert counts == [1, 2]
    assert {path.parent.name for path in tmp_path.glob("*/shop.sqlite3")} == {"one", "two"}


@pytest.mark.parametrize("extension", [SQLAlchemy, Lite])
def test_the_extension_may_come_later(tmp_path: Path, extension: t.Any) -> None:
    """Where db.init_app(app) comes after ours, the engines are found by the first context, before any statement."""
    app = Flask(__name__, instance_path=str(tmp_path))
    app.config.update(SQLALCHEMY_DATABASE_URI="sqlite://", SQLALCHEMY_ENGINES={"default": "sqlite://"})
    db = extension()
    state = Stateful(app, db=db, store="memory://")
    with app.app_context(), pytest.raises(ConfigError, match=r"call db\.init_app\(app\)"):
        state.database.engines()
    db.init_app(app)
    with app.app_context():
        engine = db.engine
        assert state.database.name_of(engine) == "default"


def test_plain_engines_are_found_at_once() -> None:
    """An engine that needs no context is known without one, so that a script's statements are not missed either."""
    app, engine = Flask(__name__), sa.create_engine("sqlite://")
    state = Stateful(app, db=engine, store="memory://")
    assert state.database.name_of(engine.execution_options(isolation_level="AUTOCOMMIT")) == "default"
    with pytest.raises(ConfigError, match="none of those of db=, which are default"):
        state.database.name_of(sa.create_engine("sqlite://"))


def test_a_sessionmaker_may_be_bound_later() -> None:
    """Where a sessionmaker gets its engine after us, that is the one; until then whoever asks is told."""
    app, factory = Flask(__name__), sessionmaker()
    state = Stateful(app, db=factory, store="memory://")
    with app.app_context(), pytest.raises(ConfigError, match=r"write sessionmaker\(engine\)"):
        state.database.engines()
    engine = sa.create_engine("sqlite://")
    factory.configure(binds={Base: engine, AuditBase: engine})
    with app.app_context():
        assert state.database.engines() == {"default": engine}


def test_threads_share_a_database_in_memory(tmp_path: Path) -> None:
    """A database in memory that we make is one database, whichever thread looks at it."""
    app = Flask(__name__, instance_path=str(tmp_path))
    state = Stateful(app, db="sqlite://", store="memory://")
    with app.app_context():
        Base.metadata.create_all(state.database.engines()["default"])

    async def in_another_thread() -> int | None:
        def count() -> int | None:
            with app.app_context():
                return state.database.session.scalar(sa.select(sa.func.count(Note.id)))

        return await asyncio.to_thread(count)

    assert asyncio.run(in_another_thread()) == 0


def test_without_a_database_every_use_says_so() -> None:
    """Who has named no database is told to, in each thing that state.database offers."""
    app = Flask(__name__)
    state = Stateful(app, store="memory://")
    assert not state.database
    with app.app_context():
        for use in (
            lambda: state.database.session,
            lambda: state.database.async_session,
            lambda: state.database.engines(),
        ):
            with pytest.raises(ConfigError, match=r"write Stateful\(app, db=db\)"):
                use()


@pytest.mark.parametrize(
    ("db", "message"),
    [
        (7, "not a int"),
        (SQLAlchemy, "not the class SQLAlchemy"),
        ({"default": "sqlite://"}, "not a dict"),
        (Session(), "pass the sessionmaker or the engine"),
        (AsyncSession(create_async_engine("sqlite+aiosqlite://")), "pass the sessionmaker or the engine"),
        (scoped_session(Session), r"scoped_session\(sessionmaker\(engine\)\)"),
        ("shop", "no URL that SQLAlchemy can read"),
        ("oracle+nonsense://localhost", r"db='oracle\+nonsense://\.\.\.' needs a driver"),
        ("postgresql+psycopg2://:secret@localhost", r"db='postgresql\+psycopg2://\.\.\.' needs a driver"),
    ],
)
def test_what_db_does_not_take_is_refused(db: t.Any, message: str) -> None:
    """A wrong argument is an error at once, which names what db= takes, and no password."""
    with pytest.raises(ConfigError, match=message) as refused:
        Stateful(db=db)
    assert "secret" not in str(refused.value)


def test_without_sqlalchemy_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where SQLAlchemy is not installed, db= says what to install."""
    for name in [name for name in sys.modules if name.startswith(("sqlalchemy", "flask_stateful.database.adapter"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)
    with pytest.raises(ConfigError, match=r"pip install 'flask-stateful\[sql\]'"):
        Stateful(db="sqlite://")


def test_only_engines_have_a_name(make_site: MakeSite) -> None:
    """name_of() takes an engine, or an asynchronous one, and tells others what to write."""
    site = make_site("async-engine", "sqlite")
    with site.app.app_context():
        assert site.state.database.engines()
    assert site.state.database.name_of(site.db) == "default"
    for wrong in (None, "default"):
        with pytest.raises(TypeError, match=r"state\.database\.name_of\(db\.engine\)"):
            site.state.database.name_of(t.cast("t.Any", wrong))
