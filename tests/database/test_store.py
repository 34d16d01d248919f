"""The application's own database as a store: named by ``"db"``, made by a command or a migration, joined by rows."""

from __future__ import annotations

import logging
import re
import sqlite3
import subprocess
import sys
import typing as t
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from flask import Flask, session
from flask_sqlalchemy import SQLAlchemy

from flask_stateful import AppState, ConfigError, Stateful, StoreError, UserState, field
from flask_stateful.stores.memory import MemoryStore
from flask_stateful.stores.sql import METADATA, SQLStore
from flask_stateful.wiring import wiring_of

from .conftest import ASYNC, MakeSite, Note, Site

PATIENT = 30
DOCS = Path(__file__).parents[2] / "docs"

WAYS: list[t.Any] = [
    pytest.param({"store": "db"}, id="argument"),
    pytest.param({"store": {"default": "db", "cache": "memory://"}}, id="part"),
    pytest.param({"store": {"default": "memory://", "sessions": "db"}}, id="sessions"),
]


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no store be too slow for a busy machine."""
    init = SQLStore.__init__
    monkeypatch.setattr(SQLStore, "__init__", lambda self, *a, **k: init(self, *a, **{**k, "timeout": PATIENT}))


def add_counter(site: Site) -> None:
    @site.app.get("/")
    def count() -> str:
        session["n"] = session.get("n", 0) + 1
        return str(session["n"])


def keys(url: sa.URL) -> list[bytes]:
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        found = connection.execute(sa.text("SELECT * FROM state_value")).all()
    engine.dispose()
    return [bytes(row[0]) for row in found]


def engine_of(site: Site) -> sa.Engine:
    with site.app.app_context():
        return site.state.database.engines()["default"]


# store="db"


def test_sessions_are_kept_in_the_database(make_site: MakeSite, kind: str, server: str) -> None:
    """With each thing that db= takes, on each server, sessions are rows of the application's database."""
    if kind in ASYNC and server == "mariadb":
        pytest.skip("has no asynchronous driver here")
    site = make_site(kind, server, store="db")
    add_counter(site)
    browser = site.app.test_client()
    assert [browser.get("/").text for _ in range(3)] == ["1", "2", "3"]
    store = wiring_of(site.app).session_store
    assert type(store) is SQLStore
    with site.app.app_context():
        assert len(list(store.scan(""))) == 1
    store.close()


@pytest.mark.parametrize("way", WAYS)
def test_parts_can_be_in_the_database(make_site: MakeSite, way: dict[str, t.Any]) -> None:
    """Each part of the setting takes "db"."""
    site = make_site("engine", "sqlite", **way)
    add_counter(site)
    site.app.test_client().get("/")
    assert len(keys(engine_of(site).url)) == 1


def test_the_setting_takes_it(tmp_path: Path) -> None:
    """STATEFUL_STORE = "db" means the same as the argument."""
    app = Flask(__name__)
    app.config.update(SECRET_KEY="dev", STATEFUL_STORE="db", TESTING=True)
    state = Stateful(app, db=f"sqlite:///{tmp_path / 'app.sqlite3'}")
    assert type(wiring_of(app).default_store) is SQLStore
    assert state.database


@pytest.mark.parametrize("store", ["db", {"default": "memory://", "cache": "db"}])
def test_without_db_it_is_refused(store: t.Any) -> None:
    """Where no database is named, "db" is a ConfigError that says what to write."""
    with pytest.raises(ConfigError, match=re.escape('write Stateful(app, db=db, store="db")')):
        Stateful(Flask(__name__), store=store)


def test_the_extension_may_be_set_up_later(tmp_path: Path) -> None:
    """The engine is looked for at first use, after db.init_app(app)."""
    app, db = Flask(__name__), SQLAlchemy()
    app.config.update(SECRET_KEY="dev", TESTING=True, SQLALCHEMY_DATABASE_URI=f"sqlite:///{tmp_path / 'app.sqlite3'}")
    state = Stateful(app, db=db, store="db")
    db.init_app(app)

    @app.get("/")
    def visit() -> str:
        session["visited"] = True
        return ""

    app.test_client().get("/")
    with app.app_context():
        assert len(keys(db.engine.url)) == 1
        db.engine.dispose()
    assert state.database


def test_it_is_not_guarded(make_site: MakeSite) -> None:
    """Without its database the application does not work anyway, so each call asks anew."""
    site = make_site("engine", "sqlite", store="db")
    assert isinstance(wiring_of(site.app).session_store, SQLStore)


# What a view does with its own session


def test_a_view_is_never_committed(make_site: MakeSite, server: str) -> None:
    """A save commits nothing that the view has written and not committed, and flushes nothing."""
    site = make_site("flask-sqlalchemy", server, store="db")

    @site.app.get("/")
    def view() -> tuple[str, int]:
        session["n"] = 1
        site.db.session.add(Note(id=1))  # pending: nothing is written before a flush
        return "", 422

    assert site.app.test_client().get("/").status_code == 422
    assert site.count() == 0
    assert len(keys(engine_of(site).url)) == 1


@pytest.mark.parametrize("kind", ["flask-sqlalchemy", "lite", "engine", "scoped"])
def test_an_open_write_transaction_on_sqlite_is_waited_for(
    make_site: MakeSite, kind: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A view that leaves a write transaction open is answered 503 after a bounded wait; nothing of it is committed."""
    monkeypatch.setattr("tests.database.test_store.PATIENT", 0.05)
    site = make_site(kind, "sqlite", store="db")
    add_counter(site)

    @site.app.post("/")
    def view() -> str:
        session["n"] = 100
        site.state.database.session.add(Note(id=1))
        site.state.database.session.flush()
        return ""

    browser = site.app.test_client()
    assert browser.get("/").text == "1"
    with caplog.at_level(logging.WARNING, "flask_stateful"):
        assert browser.post("/").status_code == 503
    assert "open write transaction" in caplog.text
    if kind == "scoped":
        site.db.remove()
    assert site.count() == 0
    assert browser.get("/").text == "2"


@pytest.mark.parametrize("kind", ["flask-sqlalchemy", "lite", "engine", "scoped", "url"])
def test_a_view_that_only_reads_lets_its_session_be_saved(
    make_site: MakeSite, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A transaction that began for writing, since the method may write, and has only read keeps nobody waiting."""
    monkeypatch.setattr("tests.database.test_store.PATIENT", 0.05)
    site = make_site(kind, "sqlite", store="db")
    add_counter(site)
    engine = engine_of(site)
    site.state.database.tune_sqlite(engine)

    @site.app.post("/")
    def view() -> str:
        found = site.state.database.session.scalars(sa.select(Note)).all()
        with site.state.sessions.lock():
            session["n"] += 1
        found += site.state.database.session.scalars(sa.select(Note)).all()
        return str(len(found))

    browser = site.app.test_client()
    assert browser.get("/").text == "1"
    assert browser.post("/").text == "0"
    assert browser.get("/").text == "3"
    if kind == "scoped":
        site.db.remove()


def test_a_database_in_memory_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    """Sessions work beside a database in memory, whose one connection sees no commit and no rollback of ours."""
    app, db = Flask(__name__), SQLAlchemy()
    app.config.update(SECRET_KEY="dev", TESTING=True, SQLALCHEMY_DATABASE_URI="sqlite://")
    db.init_app(app)
    Stateful(app, db=db, store="db")
    with app.app_context():
        note = db.Table("note", sa.Column("id", sa.Integer, primary_key=True))
        db.create_all()

    @app.get("/")
    def view() -> str:
        db.session.execute(note.insert().values(id=1))
        session["n"] = session.get("n", 0) + 1
        return str(session["n"])

    browser = app.test_client()
    with caplog.at_level(logging.WARNING, "flask_stateful"):
        assert [browser.get("/").text for _ in range(2)] == ["1", "2"]
    assert len([record for record in caplog.records if "in memory" in record.message]) == 1
    with app.app_context():
        assert db.session.execute(sa.select(note)).all() == []
        db.session.remove()
        db.engine.dispose()


# The tables


def test_the_command_creates_the_tables(make_site: MakeSite, server: str) -> None:
    """``flask state db create`` makes ours in each bind, changes nothing else, and may be run again."""
    site = make_site("flask-sqlalchemy", server, binds=True, store="db")
    site.app.testing = False
    add_counter(site)
    with pytest.raises(StoreError, match="flask state db create"):
        ask_in_context(site)
    runner = site.app.test_cli_runner()
    made = runner.invoke(args=["state", "db", "create"])
    assert made.exit_code == 0, made.output
    assert made.output.splitlines() == [
        "default: created state_value, state_version",
        "audit: created state_version",
    ]
    assert site.app.test_client().get("/").text == "1"
    again = runner.invoke(args=["state", "db", "create"])
    assert again.output.splitlines() == ["default: nothing to create", "audit: nothing to create"]
    assert len(keys(engine_of(site).url)) == 1


def ask_in_context(site: Site) -> None:
    with site.app.app_context():
        wiring_of(site.app).default_store.get("key")


def test_the_command_creates_a_table_for_an_address(new_database: Callable[[str], sa.URL]) -> None:
    """The database of a store that was opened by an address gets its table from the command as well."""
    app = Flask(__name__)
    app.config["SECRET_KEY"] = "dev"
    Stateful(app, store=new_database("postgres").render_as_string(hide_password=False))
    for output in ("the default store: created state_value\n", "the default store: nothing to create\n"):
        assert app.test_cli_runner().invoke(args=["state", "db", "create"]).output == output
    wiring_of(app).default_store.close()


def test_the_command_needs_a_database() -> None:
    """Without any database the command says what to write."""
    app = Flask(__name__)
    Stateful(app, store="memory://")
    done = app.test_cli_runner().invoke(args=["state", "db", "create"])
    assert done.exit_code == 1
    assert "Stateful(app, db=db)" in done.output


def test_check_names_the_command(make_site: MakeSite) -> None:
    """``flask state check`` tells of a table that is missing, for the store and for the rows of users."""
    for options in ({"store": "db"}, {"store": "memory://"}):

        class Member(UserState):
            newsletter: bool = False

        site = make_site("engine", "sqlite", declared=[Member], **options)
        site.app.testing = False
        done = site.app.test_cli_runner().invoke(args=["state", "check"])
        assert done.exit_code == 1
        assert "flask state db create" in done.output


def test_a_migration_creates_the_tables(tmp_path: Path) -> None:
    """The recipe of the documentation makes Alembic create our tables, and then leave them alone."""
    recipe = re.search(
        r"```python\n(from flask_stateful.stores.sql import METADATA\n.*?)```",
        (DOCS / "stores" / "sql.md").read_text(encoding="utf-8"),
        re.S,
    )
    assert recipe is not None

    def alembic(*arguments: str) -> str:
        command = [sys.executable, "-m", "alembic", *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    alembic("init", "migrations")
    ini, env = tmp_path / "alembic.ini", tmp_path / "migrations" / "env.py"
    ini.write_text(re.sub(r"(?m)^sqlalchemy.url = .*$", "sqlalchemy.url = sqlite:///app.sqlite3", ini.read_text()))
    application = "import sqlalchemy\n\nclass db:\n    metadata = sqlalchemy.MetaData()\n\n" + recipe[1]
    env.write_text(env.read_text().replace("target_metadata = None", application))
    alembic("revision", "--autogenerate", "-m", "ours")
    alembic("upgrade", "head")
    assert "No new upgrade operations detected" in alembic("check")

    engine = sa.create_engine(f"sqlite:///{tmp_path / 'app.sqlite3'}")
    assert set(METADATA.tables) <= set(sa.inspect(engine).get_table_names())
    store = SQLStore(engine)
    store.set("key", b"1")
    assert store.get("key") == b"1"
    store.close()
    engine.dispose()


# Rows of users and of the application


def member_class() -> type[t.Any]:
    class Member(UserState):
        newsletter: bool = False
        theme: str = "light"
        iban: str = field("", sealed=True)

    return Member


def test_rows_are_kept_in_the_database(make_site: MakeSite, server: str) -> None:
    """With db=, rows of users and of the application lie in its database, whatever the store; sealed where declared."""
    store = MemoryStore()
    Member = member_class()

    class Flags(AppState):
        maintenance: bool = False

    site = make_site("sessionmaker", server, store=store, declared=[Member, Flags])
    with site.app.app_context():
        Member.of("ada").iban = "DE02 1203 0000 0000 2020 51"
        Flags().maintenance = True
    assert list(store.scan("")) == []
    assert len(keys(engine_of(site).url)) == 2
    rows = wiring_of(site.app).database_store
    with site.app.app_context():
        assert not any(b"DE02" in rows.get(key) for key in rows.scan(""))
        assert Member.of("ada").iban == "DE02 1203 0000 0000 2020 51"
        assert Flags().maintenance is True
    rows.close()


def test_two_tabs_that_edit_different_fields_keep_both(make_site: MakeSite, server: str) -> None:
    """Requests that have read the same row and change different fields both keep their change."""
    Member = member_class()
    site = make_site("sessionmaker", server, declared=[Member], store="db", user_id=lambda: "ada")
    member = Member()

    @site.app.get("/slow")
    def slow() -> str:
        assert member.theme == "light"
        with site.app.test_client() as other:
            other.get("/fast")
        member.newsletter = True
        return ""

    @site.app.get("/fast")
    def fast() -> str:
        member.theme = "dark"
        return ""

    assert site.app.test_client().get("/slow").status_code == 200
    with site.app.app_context():
        ada = Member.of("ada")
        assert (ada.newsletter, ada.theme) == (True, "dark")


def test_a_failed_request_leaves_the_row(make_site: MakeSite) -> None:
    """What a request that fails has changed is not written."""
    Member = member_class()
    site = make_site("flask-sqlalchemy", "postgres", declared=[Member], user_id=lambda: "ada")
    member = Member()

    @site.app.get("/")
    def fail() -> tuple[str, int]:
        member.theme = "dark"
        site.db.session.add(Note(id=1))
        return "", 500

    site.app.test_client().get("/")
    with site.app.app_context():
        assert Member.of("ada").theme == "light"
    assert keys(engine_of(site).url) == []


def test_an_older_worker_lives_beside_a_newer_one(make_site: MakeSite) -> None:
    """A deploy that adds a field, with old workers alive: neither loses what the other one knows and it does not."""

    def make(extra: bool) -> type[t.Any]:
        if extra:

            class Member(UserState, name="evolving"):
                theme: str = "light"
                per_page: int = 20

            return Member

        class OldMember(UserState, name="evolving"):
            theme: str = "light"

        return OldMember

    Old, New = make(False), make(True)
    old = make_site("engine", "postgres", declared=[Old])
    app = Flask(old.app.name)
    app.config.update(SECRET_KEY="dev", TESTING=True)
    Stateful(app, db=engine_of(old), store="memory://", declared=[New])
    with app.app_context():
        New.of("ada").per_page = 50
    with old.app.app_context():
        Old.of("ada").theme = "dark"
    with app.app_context():
        assert (New.of("ada").theme, New.of("ada").per_page) == ("dark", 50)


def test_a_thousand_owners_have_a_row_each(make_site: MakeSite) -> None:
    """Rows of a thousand users are told apart, and one that is removed leaves the others."""
    Member = member_class()
    site = make_site("engine", "sqlite", declared=[Member])
    with site.app.app_context():
        for number in range(1000):
            Member.of(f"user {number}").theme = f"theme {number}"
        site.state.reset(Member.of("user 7"))
        themes = [Member.of(f"user {number}").theme for number in range(1000)]
    assert themes == ["light" if number == 7 else f"theme {number}" for number in range(1000)]


def test_a_request_that_reads_a_row_asks_once(make_site: MakeSite) -> None:
    """A request reads each row once; one that looks at none executes no statement of ours."""
    Member = member_class()
    site = make_site("engine", "sqlite", declared=[Member], user_id=lambda: "ada")
    member = Member()

    @site.app.get("/<int:times>")
    def read(times: int) -> str:
        return "".join(member.theme for _ in range(times))

    browser = site.app.test_client()
    browser.get("/1")
    rows = wiring_of(site.app).database_store
    statements: list[str] = []
    sa.event.listen(rows._place._opened.engine, "before_cursor_execute", lambda *a: statements.append(a[2]))
    browser.get("/0")
    assert statements == []
    browser.get("/3")
    assert len(statements) == 1


def test_reading_state_keeps_the_turn_of_a_request_that_writes(make_site: MakeSite) -> None:
    """What a POST has read of tuned SQLite is not overtaken because it looks at its session before it writes."""
    site = make_site("url", "sqlite", store="db")
    site.app.testing = True
    locked: list[bool] = []

    @site.app.post("/")
    def add() -> str:
        note = site.state.database.session.scalars(sa.select(Note)).one()
        session.get("seen")
        locked.append(is_locked(engine_of(site)))
        note.n += 1
        site.state.database.session.commit()
        session["seen"] = note.n
        return str(note.n)

    with site.app.app_context():
        site.state.database.session.add(Note(id=1, n=0))
        site.state.database.session.commit()
    client = site.app.test_client()
    assert [client.post("/").text for _ in range(2)] == ["1", "2"]
    assert locked == [True, True]


def is_locked(engine: sa.Engine) -> bool:
    """Tell whether somebody has the right to write to an SQLite database."""
    connection = sqlite3.connect(str(engine.url.database), timeout=0, isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError:
        return True
    finally:
        connection.close()
    return False


@pytest.mark.parametrize("server", ["sqlite", "postgres", "mariadb"])
def test_a_request_without_state_runs_no_statement_of_ours(make_site: MakeSite, server: str) -> None:
    """With everything in the database, a request that only reads rows executes what it says and nothing else."""
    site = make_site("sessionmaker", server, store="db")
    site.app.testing = True
    add_counter(site)

    @site.app.get("/plain")
    def plain() -> str:
        return "plain"

    @site.app.get("/rows")
    def rows() -> str:
        return str(len(site.state.database.session.scalars(sa.select(Note)).all()))

    client = site.app.test_client()
    statements: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        statements.append(statement)

    with client:
        client.get("/")
        sa.event.listen(sa.Engine, "before_cursor_execute", note)
        try:
            answers = [client.get(path).text for path in ("/plain", "/rows")]
            assert [statement.partition(" ")[0] for statement in statements] == ["SELECT"]
            client.get("/")
            assert len(statements) > 1
        finally:
            sa.event.remove(sa.Engine, "before_cursor_execute", note)
    assert answers == ["plain", "0"]
