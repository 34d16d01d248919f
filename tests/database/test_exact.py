"""Cached values that are made from tables are never older than the last commit."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import typing as t
from collections.abc import Callable

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from flask_stateful import ConfigError, Stateful
from flask_stateful.database.tracker import track
from flask_stateful.database.versions import Versions
from flask_stateful.stores.sql.tables import METADATA, VERSIONS

from .conftest import Base, Entry, MakeSite, Note, Shop, Site

pytestmark = pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SAWarning")


NOTE = Note.__table__

#: In which a transaction sees one state of the database.
LEVELS = {"sqlite": "SERIALIZABLE", "postgres": "REPEATABLE READ"}

WRITES: dict[str, Callable[[sa.Connection], object]] = {
    "core": lambda connection: connection.execute(sa.insert(Note).values(text="new")),
    "many": lambda connection: connection.execute(sa.insert(Note), [{"text": "new"}, {"text": "two"}]),
    "text": lambda connection: connection.execute(sa.text("INSERT INTO note (text, n) VALUES ('new', 0)")),
    "driver": lambda connection: connection.exec_driver_sql("INSERT INTO note (text, n) VALUES ('new', 0)"),
    "unit of work": lambda connection: _flush(connection),
    "savepoint": lambda connection: _in_savepoint(connection),
    "delete": lambda connection: connection.execute(sa.delete(Note).where(Note.id == 1)),
    "update": lambda connection: connection.execute(sa.update(Note).values(text="other")),
}


@pytest.fixture(autouse=True)
def _no_thread_adds_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave version rows alone, which a thread adds up after a thousand, counted from anywhere."""
    monkeypatch.setattr(Versions, "_compact_quietly", lambda versions: None)


def _flush(connection: sa.Connection) -> None:
    with Session(connection) as session:
        session.add(Note(text="new"))
        session.flush()


def _in_savepoint(connection: sa.Connection) -> None:
    with connection.begin_nested():
        connection.execute(sa.insert(Note).values(text="new"))


@pytest.mark.parametrize("name", WRITES)
def test_t2_a_commit_is_seen(shops: Shop, name: str) -> None:
    """Whatever way the table was written, the next request does not get what was cached before."""
    shops.add("first")
    assert shops.read() == shops.read() == ["first"]
    assert shops.calls == 1
    shops.write(WRITES[name])
    assert shops.read() != ["first"]
    assert shops.calls == 2


def test_an_unrelated_commit_leaves_a_value(shop: Shop) -> None:
    """A commit to another table does not invalidate."""
    shop.write(lambda connection: connection.exec_driver_sql("CREATE TABLE other (x)"))
    shop.read()
    shop.write(lambda connection: connection.exec_driver_sql("INSERT INTO other VALUES (1)"))
    shop.read()
    assert shop.calls == 1


def test_what_is_rolled_back_invalidates_nothing(shops: Shop) -> None:
    """A rollback writes no version, neither of the transaction nor of a released savepoint."""
    shops.read()
    before = shops.versions()
    with shops.engine.connect() as connection:
        with connection.begin_nested():
            connection.execute(sa.insert(Note).values(text="gone"))
        connection.rollback()
    assert shops.versions() == before
    shops.read()
    assert shops.calls == 1


def test_ddl_and_unknown_sql_invalidate_everything(shop: Shop) -> None:
    """What cannot be told counts as a write to every table."""
    shop.read()
    shop.write(lambda connection: connection.exec_driver_sql("ALTER TABLE note ADD COLUMN more"))
    shop.read()
    assert shop.calls == 2


def test_t3_failed_append(shops: Shop) -> None:
    """Where the versions cannot be written, the commit fails, and the pool hands on a connection that works."""
    shops.add("first")
    assert shops.read() == ["first"]
    connection = shops.engine.connect()
    connection.execute(sa.insert(Note).values(text="gone"))
    # SQLite has one writer at a time; elsewhere, the others may end this transaction.
    own = shops.engine.dialect.name == "sqlite"
    with shops.engine.connect() if not own else contextlib.nullcontext(connection) as taking:
        driver = t.cast("t.Any", taking.connection.dbapi_connection)
        driver.cursor().execute("ALTER TABLE state_version RENAME TO taken")
        if not own:
            driver.commit()
    with pytest.raises(Exception, match="state_version"):
        connection.commit()
    connection.close()
    with shops.engine.connect() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(Note)) == 1


def test_the_table_may_be_dropped(shops: Shop) -> None:
    """A migration may take the table of the versions away, with other tables and whatever else it does."""
    shops.add("first")
    with shops.engine.begin() as connection:
        connection.execute(sa.insert(Note).values(text="second"))
        METADATA.drop_all(connection)
        connection.execute(sa.insert(Note).values(text="third"))
    METADATA.create_all(shops.engine)
    shops.read()
    shops.add("fourth")
    assert shops.read() == ["first", "second", "third", "fourth"]


def test_t5_rows_are_appended(shops: Shop) -> None:
    """Two transactions that write one table wait for each other nowhere, and both commit."""
    shops.add()
    if shops.engine.dialect.name == "sqlite":
        shops.add()
        shops.add()
    else:
        engine = shops.engine.execution_options(isolation_level="REPEATABLE READ")
        with engine.connect() as one, engine.connect() as other:
            one.execute(sa.insert(Note).values(text="one"))
            other.execute(sa.insert(Note).values(text="other"))
            one.commit()
            other.commit()
    with shops.engine.connect() as connection:
        assert connection.scalar(sa.select(sa.func.count()).where(VERSIONS.c.tag == "note")) == 3


def test_t6_version_is_read_before_the_data(shops: Shop) -> None:
    """A commit between the version and the data makes the value count for nobody."""
    shops.add("old")

    @sa.event.listens_for(shops.engine, "before_cursor_execute")
    def overtake(connection: t.Any, cursor: t.Any, text: str, given: t.Any, context: t.Any, many: bool) -> None:
        if "SELECT" in text and "note" in text and len(shops.statements) < 30 and not raced:
            raced.append(True)
            threads = threading.Thread(target=shops.add, args=("new",))
            threads.start()
            threads.join()

    raced: list[bool] = []
    shops.read()
    assert raced
    assert shops.read() == ["old", "new"]
    assert shops.calls == 2


@pytest.mark.parametrize("name", ["postgres", "mariadb"])
def test_t6_version_is_read_in_the_snapshot(make_site: MakeSite, name: str) -> None:
    """What is read in an old snapshot is kept with the versions of that snapshot."""
    shop = Shop(make_site("sessionmaker", name))
    shop.add("old")
    with shop.app.test_request_context():
        session = shop.database.session
        session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
        session.scalar(sa.select(sa.func.count()).select_from(VERSIONS))
        shop.add("new")
        assert shop.texts() == ["old"]
    assert shop.read() == ["old", "new"]


def test_t9_marks_do_not_outlive_their_transaction(shop: Shop) -> None:
    """Neither a rollback, nor a commit, nor a connection that goes back to the pool leaves what was written."""
    for end in ("commit", "rollback", "close"):
        with shop.engine.connect() as connection:
            connection.execute(sa.insert(Note).values(text="x"))
            info = connection.info
            getattr(connection, end)()
            # While it is still checked out, where that does not close it.
            assert not any(getattr(each, "written", None) for each in info.values()), end
    before = shop.versions()
    with shop.engine.connect() as connection:
        connection.execute(sa.select(Note))
        connection.commit()
    assert shop.versions() == before


def test_autocommit_is_followed(shops: Shop) -> None:
    """A connection without transactions writes the version with each statement."""
    shops.read()
    with shops.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.insert(Note).values(text="new"))
        assert shops.read() == ["new"]
        connection.commit()
        connection.execute(sa.insert(Note).values(text="two"))
        assert shops.read() == ["new", "two"]
    with shops.engine.connect() as connection:
        # Before each statement and after it.
        assert connection.scalar(sa.select(sa.func.count()).where(VERSIONS.c.tag == "note")) == 4


def test_autocommit_engines_are_followed(shops: Shop) -> None:
    """So does one of an engine with options of its own, at the latest when it is given back."""
    shops.read()
    with shops.engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        connection.execute(sa.insert(Note).values(text="new"))
    assert shops.read() == ["new"]
    with shops.engine.connect() as connection:
        assert connection.scalar(sa.select(sa.func.count()).where(VERSIONS.c.tag == "note")) == 2


@pytest.mark.parametrize("name", ["postgres", "mariadb"])
def test_two_phases_are_followed(make_site: MakeSite, name: str) -> None:
    """A prepared transaction carries its versions."""
    shop = Shop(make_site("sessionmaker", name))
    shop.read()
    with shop.engine.connect() as connection:
        transaction = connection.begin_twophase()
        connection.execute(sa.insert(Note).values(text="new"))
        transaction.prepare()
        transaction.commit()
    assert shop.read() == ["new"]


def test_own_changes_pass_by(shops: Shop) -> None:
    """Who has changed a table and not committed sees the change; nobody else does, and it is not kept."""
    shops.add("old")
    shops.read()
    with shops.app.test_request_context():
        session = shops.database.session
        session.execute(sa.insert(Note).values(text="mine"))
        assert shops.texts() == ["old", "mine"]
        if shops.engine.dialect.name != "sqlite":
            thread = threading.Thread(target=lambda: found.append(shops.read()))
            found: list[list[str]] = []
            thread.start()
            thread.join()
            assert found == [["old"]]
        session.rollback()
        assert shops.texts() == ["old"]


def test_unflushed_objects_pass_by(shop: Shop) -> None:
    """An object that the session has not sent yet counts as a change."""
    shop.add("old")
    shop.read()
    with shop.app.test_request_context():
        session = shop.database.session
        session.autoflush = False
        session.add(Note(text="mine"))
        assert shop.texts() == ["old"]
        assert shop.calls == 2
        session.expunge_all()


def test_filled_in_a_dirty_session(shop: Shop) -> None:
    """What was computed from uncommitted rows is kept for nobody."""
    with shop.app.test_request_context():
        shop.database.session.add(Note(text="mine"))
        assert shop.texts() == ["mine"]
    assert shop.read() == []


def test_own_commit_renews_the_check(shops: Shop) -> None:
    """A request that commits is not served what it had been told before."""
    with shops.app.test_request_context():
        assert shops.texts() == []
        shops.database.session.rollback()
        assert shops.texts() == []
        shops.database.session.add(Note(text="mine"))
        shops.database.session.commit()
        assert shops.texts() == ["mine"]


@pytest.mark.parametrize("server", ["sqlite", "postgres"])
def test_a_commit_in_an_inner_context_is_seen_there(make_site: MakeSite, server: str) -> None:
    """What an outer application context has open, in a snapshot from before, tells an inner one nothing."""
    shop = Shop(make_site("sessionmaker", server))
    shop.database.tune_sqlite(shop.engine)
    with shop.app.app_context():
        shop.database.session.connection(execution_options={"isolation_level": LEVELS[server]})
        assert shop.texts() == []
        with shop.app.app_context():
            shop.database.session.add(Note(text="mine"))
            shop.database.session.commit()
            assert shop.texts() == ["mine"]


def test_one_check_serves_a_request(shops: Shop) -> None:
    """However many hits a request has, the database is asked once, and a hit runs no other statement."""
    shops.read()
    with shops.app.test_request_context():
        shops.texts()
        asked: list[object] = []
        tracker = track(shops.engine)
        read = tracker.versions.read
        tracker.versions.read = lambda *given: asked.append(given) or read(*given)  # type: ignore[method-assign]
        shops.statements.clear()
        for _ in range(5):
            shops.texts()
    with shops.app.test_request_context():
        for _ in range(5):
            shops.texts()
    assert len(asked) == 1
    assert shops.statements == []
    assert shops.calls == 1


def test_no_transaction_is_begun(shops: Shop) -> None:
    """A hit begins no transaction in the application's session."""
    shops.read()
    with shops.app.test_request_context():
        shops.texts()
        assert not shops.database.session.in_transaction()


def test_nested_functions_hand_on_what_they_read(shop: Shop) -> None:
    """A function that calls another cached one is invalidated with it, though it reads nothing itself."""
    outer = shop.state.cache.memoize(ttl=3600)(_Outer(shop).total)
    for text in ("a", "b"):
        with shop.app.test_request_context():
            shop.texts()
            expected = len(shop.database.session.scalars(sa.select(Note)).all())
            assert outer() == expected
        shop.add(text)
    with shop.app.test_request_context():
        assert outer() == 2


class _Outer:
    def __init__(self, shop: Shop) -> None:
        self.shop = shop

    def total(self) -> int:
        return len(self.shop.texts())


def test_unattributable_reads_are_not_kept(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    """SQL whose tables cannot be told is computed each time, and a log line says what to write."""
    calls: list[int] = []

    @shop.state.cache.memoize(ttl=3600)
    def rows() -> list[int]:
        calls.append(1)
        return list(shop.database.session.scalars(sa.text("SELECT value FROM json_each('[1]')")))

    for _ in range(2):
        with shop.app.test_request_context():
            assert rows() == [1]
    assert len(calls) == 2
    assert "depends_on=" in caplog.text


def test_depends_on(shop: Shop) -> None:
    """What is declared counts, and not what is read; a row counts alone."""
    calls: list[int] = []

    @shop.state.cache.memoize(ttl=3600, depends_on=[shop.state.row(Note, "id")])
    def text(id: int) -> str | None:
        calls.append(id)
        return shop.database.session.scalar(sa.select(Note.text).where(Note.id == id))

    def read(id: int) -> str | None:
        with shop.app.test_request_context():
            return text(id)

    shop.write(lambda connection: connection.execute(sa.insert(Note), [{"id": 1, "text": "a"}, {"id": 2, "text": "b"}]))
    assert (read(1), read(2)) == ("a", "b")
    shop.write(lambda connection: connection.execute(sa.update(Note).where(Note.id == 1).values(text="A")))
    assert (read(1), read(2)) == ("A", "b")
    assert calls == [1, 2, 1]
    shop.write(lambda connection: connection.execute(sa.update(Note).values(text="x")))
    assert (read(1), read(2)) == ("x", "x")


@pytest.mark.parametrize("named", [[Note], [NOTE], ["note"]], ids=["model", "table", "name"])
def test_depends_on_a_table(shop: Shop, named: list[t.Any]) -> None:
    """A model, a table and a name are one thing, also where the function reads nothing that can be seen."""
    calls: list[int] = []

    @shop.state.cache.memoize(ttl=3600, depends_on=named)
    def count() -> int:
        calls.append(1)
        return len(calls)

    def read() -> int:
        with shop.app.test_request_context():
            return count()

    assert (read(), read()) == (1, 1)
    shop.add()
    assert read() == 2


def test_depends_on_nothing_that_is_known(shop: Shop) -> None:
    """Something that is neither model nor table nor name is an error that says what to write."""

    @shop.state.cache.memoize(depends_on=[42])
    def count() -> int:
        return 1

    with shop.app.test_request_context(), pytest.raises(TypeError, match=r"depends_on=\[Post"):
        count()


@pytest.mark.parametrize(("name", "meant"), [("notes", "did you mean 'note'"), ("xyz", "write the model")])
def test_depends_on_no_table(shop: Shop, name: str, meant: str) -> None:
    """A name that is neither in the metadata nor read by the function is an error that names the nearest table."""
    texts = shop.state.cache.memoize(depends_on=[name])(shop._texts)
    for _ in range(2):
        with shop.app.test_request_context(), pytest.raises(ConfigError, match=meant):
            texts()


def test_depends_on_a_table_that_only_text_names(shop: Shop) -> None:
    """A name that no metadata has is taken where such a table is read, also by a cached function inside."""
    shop.write(lambda connection: connection.execute(sa.text("CREATE TABLE plain (n INTEGER)")))
    calls: list[int] = []

    @shop.state.cache.memoize(ttl=3600, depends_on=["plain"])
    def count() -> int:
        calls.append(1)
        return int(shop.database.session.scalar(sa.text("SELECT COUNT(*) FROM plain")) or 0)

    @shop.state.cache.memoize(ttl=3600, depends_on=["Plain", "note"])
    def outer() -> int:
        shop._texts()
        return count()

    with shop.app.test_request_context():
        assert (count(), count(), outer(), outer()) == (0, 0, 0, 0)
    assert calls == [1]
    shop.write(lambda connection: connection.execute(sa.text("INSERT INTO plain VALUES (1)")))
    with shop.app.test_request_context():
        assert (outer(), count()) == (1, 1)


@pytest.mark.parametrize("names", [(), (5,), ("id", None)])
def test_a_row_is_named_by_arguments(shop: Shop, names: tuple[t.Any, ...]) -> None:
    """state.row() refuses at once what is no name of an argument."""
    with pytest.raises(TypeError, match=r'state\.row\(User, "user_id"\)'):
        shop.state.row(Note, *names)


def test_ttl_looks_at_no_tables(shop: Shop) -> None:
    """depends_on= together with consistency="ttl" is refused where it is written."""
    decorators: list[t.Any] = [shop.state.cache.memoize, shop.state.cache.view]
    for decorator in decorators:
        with pytest.raises(ValueError, match="leave out depends_on="):
            decorator(depends_on=[Note], consistency="ttl")(lambda: None)


@pytest.mark.parametrize("way", ["function", "view", "nested"])
def test_ttl_keeps_nothing_uncommitted(shop: Shop, way: str) -> None:
    """A value that lasts until its ttl is not kept where it is made from what its caller may yet roll back."""
    memoize = shop.state.cache.memoize
    texts = memoize(ttl=3600, consistency="ttl")(shop._texts)
    if way == "view":
        texts = shop.state.cache.view(ttl=3600, consistency="ttl")(lambda: ",".join(shop._texts()))
    if way == "nested":
        texts = memoize(ttl=3600, consistency="ttl")(lambda: memoize(ttl=3600, consistency="ttl")(shop._texts)())

    def read() -> str:
        with shop.app.test_request_context():
            found = texts()
            return found.get_data(as_text=True) if way == "view" else ",".join(found)

    with shop.app.test_request_context():
        shop.database.session.add(Note(text="rolled back"))
        shop.database.session.flush()
        texts()
        shop.database.session.rollback()
    assert read() == ""
    shop.add()
    assert read() == ""


def test_consistency_ttl(shop: Shop) -> None:
    """A function may ask to be served until its ttl is over."""
    texts = shop.state.cache.memoize(ttl=3600, consistency="ttl")(shop._texts)
    with shop.app.test_request_context():
        texts()
    shop.add()
    with shop.app.test_request_context():
        assert texts() == []


def test_exact_needs_a_database() -> None:
    """Who asks for it without a database is told what to write."""
    from flask import Flask

    app = Flask(__name__)
    app.config.update(SECRET_KEY="dev", TESTING=True)
    state = Stateful(app, store="memory://")

    @state.cache.memoize(consistency="exact")
    def one() -> int:
        return 1

    with app.app_context(), pytest.raises(ConfigError, match=r"Stateful\(app, db=db\)"):
        one()
    with pytest.raises(ValueError, match="consistency="):
        state.cache.memoize(consistency=t.cast("t.Any", "often"))(len)


def test_views_and_fragments_are_exact(shop: Shop) -> None:
    """A cached view, a fragment and get_or_set() follow the tables they are made from as well."""

    @shop.app.get("/notes")
    @shop.state.cache.view(ttl=3600)
    def notes() -> str:
        return ",".join(shop._texts())

    @shop.app.get("/fragment")
    def fragment() -> str:
        from flask import render_template_string

        return render_template_string('{% cache "notes", ttl=3600 %}{{ texts() }}{% endcache %}', texts=shop._texts)

    @shop.app.get("/value")
    def value() -> str:
        return str(shop.state.cache.get_or_set("notes", shop._texts, ttl=3600))

    client = shop.app.test_client()
    for path in ("/notes", "/fragment", "/value"):
        calls = shop.calls
        first = client.get(path).text
        assert client.get(path).text == first
        assert shop.calls == calls + 1
        shop.add(path[1:4])
        assert path[1:4] in client.get(path).text
    with shop.app.test_request_context():
        assert shop.state.cache.get("notes") == ["not", "fra", "val"]
    shop.add("last")
    with shop.app.test_request_context():
        assert shop.state.cache.get("notes") is None


def test_stale_serves_no_value_whose_tables_changed(shop: Shop) -> None:
    """``stale=`` is for values that are old, not for those that are wrong."""
    texts = shop.state.cache.memoize(ttl=0.001, stale=3600)(shop._texts)
    with shop.app.test_request_context():
        texts()
    shop.add()
    with shop.app.test_request_context():
        assert texts() == ["new"]


def test_two_databases(make_site: MakeSite) -> None:
    """A value that is made from two databases follows each of them."""
    site = make_site("sessionmaker", "sqlite", binds=True)
    shop = Shop(site)

    @shop.state.cache.memoize(ttl=3600)
    def count() -> int:
        session = shop.database.session
        return len(session.scalars(sa.select(Note)).all()) + len(session.scalars(sa.select(Entry)).all())

    def read() -> int:
        with shop.app.test_request_context():
            return count()

    assert read() == 0
    for kind in (Note, Entry):
        with shop.app.app_context():
            shop.database.session.add(kind(text="x"))
            shop.database.session.commit()
        read()
    assert read() == 2


@pytest.mark.parametrize("name", ["postgres", "mariadb"])
def test_missing_table_means_ttl(make_site: MakeSite, caplog: pytest.LogCaptureFixture, name: str) -> None:
    """Without the version table, commits go on, values live for their ttl, and one log line names the command."""
    shop = Shop(make_site("sessionmaker", name))
    METADATA.drop_all(shop.engine)
    with caplog.at_level(logging.ERROR, "flask_stateful"):
        assert shop.read() == []
        shop.add()
        assert shop.read() == []
    assert caplog.text.count("flask state db create") == 1


def test_sqlite_makes_the_table(shop: Shop) -> None:
    """On SQLite the version table is made when it is needed."""
    METADATA.drop_all(shop.engine)
    assert shop.read() == []
    shop.add()
    assert shop.read() == ["new"]


def test_in_memory_sqlite(make_site: MakeSite) -> None:
    """A database with one connection is asked over that connection, and nothing of the application is rolled back."""
    engine = sa.create_engine("sqlite://", poolclass=sa.StaticPool, connect_args={"check_same_thread": False})
    Base.metadata.create_all(engine)
    from flask import Flask

    app = Flask(__name__)
    app.config.update(SECRET_KEY="dev", TESTING=True)
    shop = Shop(Site(app, Stateful(app, db=engine, store="memory://"), engine, "engine"))
    shop.read()
    shop.add()
    assert shop.read() == ["new"]
    held: list[sa.Connection] = []

    def insert() -> None:
        held.append(engine.connect())
        held[0].execute(sa.insert(Note).values(text="open"))

    thread = threading.Thread(target=insert)
    thread.start()
    thread.join()
    assert shop.read() == ["new"]
    held[0].commit()
    assert shop.read() == ["new", "open"]
    held[0].close()
    engine.dispose()


def test_loaded_before(shops: Shop) -> None:
    """Where the session holds objects that may be older than what is read, the value is kept for nobody."""
    shops.add("old")

    @shops.state.cache.memoize(ttl=3600)
    def first() -> str:
        return shops.database.session.scalars(sa.select(Note)).one().text

    with shops.app.test_request_context():
        session = shops.database.session
        if shops.engine.dialect.name == "sqlite":
            # A transaction of SQLite's sees what it saw first: here, each statement is one of its own.
            session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
        else:
            session.connection(execution_options={"isolation_level": "READ COMMITTED"})
        held = session.scalars(sa.select(Note)).one()
        shops.write(lambda connection: connection.execute(sa.update(Note).values(text="new")))
        assert first() == held.text == "old"
    with shops.app.test_request_context():
        assert first() == "new"


def test_what_is_found_in_the_session_is_not_kept(shops: Shop) -> None:
    """T6: what session.get() finds without asking the database is kept for nobody, nor is what contains it."""
    shops.add("old")

    @shops.state.cache.memoize(ttl=3600)
    def text() -> str:
        return shops.database.session.get(Note, 1).text

    outer = shops.state.cache.memoize(ttl=3600)(lambda: text().upper())
    with shops.app.test_request_context():
        held = shops.database.session.get(Note, 1)
        assert (outer(), text()) == ("OLD", held.text)
    shops.write(lambda connection: connection.execute(sa.update(Note).values(text="new")))
    with shops.app.test_request_context():
        assert (outer(), text()) == ("NEW", "new")
    shops.write(lambda connection: connection.execute(sa.update(Note).values(text="newer")))
    with shops.app.test_request_context():
        assert (outer(), text()) == ("NEWER", "newer")


def test_what_a_found_object_leads_to_is_not_kept(make_site: MakeSite) -> None:
    """T6: a found object's table was read and is as it was; but it may lead to others that were loaded before."""
    shop = Shop(make_site("sessionmaker", "sqlite", binds=True))
    shop.add("old")
    with shop.app.app_context():
        shop.database.session.add(Entry(id=1, text="old"))
        shop.database.session.commit()
    calls: list[str] = []

    def count() -> int:
        session = shop.database.session
        calls.append(session.get(Note, 1).text)
        return len(session.scalars(sa.select(Note.id)).all())

    cached = shop.state.cache.memoize(ttl=3600)(count)
    for loads_entry, expected in ((True, 1), (True, 2), (False, 3), (False, 3)):
        with shop.app.test_request_context():
            session = shop.database.session
            held = [session.get(Note, 1), *([session.get(Entry, 1)] if loads_entry else [])]
            assert cached() == len(held) - loads_entry
        assert len(calls) == expected


def test_an_exact_value_that_read_nothing_is_not_kept(shop: Shop) -> None:
    """Who says "exact" of a value that is made from an object of the caller's only is served nothing old."""
    shop.add("old")
    held: list[Note] = []

    @shop.state.cache.memoize(ttl=3600, consistency="exact")
    def text() -> str:
        return held[0].text

    texts = list[str]()
    for new in ("new", "newer"):
        with shop.app.test_request_context():
            held[:] = [shop.database.session.get(Note, 1)]
            texts.append(text())
        shop.write(lambda connection, new=new: connection.execute(sa.update(Note).values(text=new)))
    assert texts == ["old", "new"]


def test_what_needs_no_database_is_kept(shop: Shop) -> None:
    """A function that asks no database is cached as ever, whatever its caller has loaded."""
    shop.add()
    calls: list[int] = []
    cached = shop.state.cache.memoize(ttl=3600)(lambda: calls.append(1))
    for _ in range(2):
        with shop.app.test_request_context():
            held = shop.database.session.get(Note, 1)
            cached()
            assert held.id == 1
    assert calls == [1]


def test_markers_are_appended_with_the_rest(shop: Shop) -> None:
    """A row that somebody else asks for goes with the commit, and only with it."""
    from flask_stateful.database.tracker import append

    for end in ("rollback", "commit"):
        with shop.engine.connect() as connection:
            connection.execute(sa.select(Note))
            append(connection, f"unit:{end}", 7)
            getattr(connection, end)()
    assert shop.versions() == {"unit:commit": 7}


def test_compaction_keeps_the_sum(shops: Shop) -> None:
    """Adding up leaves one row for each tag, and the same versions; old markers go."""
    for _ in range(40):
        shops.add()
    with shops.engine.begin() as connection:
        connection.execute(sa.insert(VERSIONS), [{"tag": "unit:old", "n": 1}, {"tag": "unit:new", "n": 1 << 40}])
    before = shops.versions()
    track(shops.engine).versions.compact()
    after = shops.versions()
    assert before.pop("unit:old") == 1
    assert after == before
    with shops.engine.connect() as connection:
        assert connection.scalar(sa.select(sa.func.count()).where(VERSIONS.c.tag == "note")) == 1


@pytest.mark.parametrize("tags", [["note"] * 40, ["note[1]", "note[2]"]])
def test_numbers_of_version_rows_only_grow(shop: Shop, monkeypatch: pytest.MonkeyPatch, tags: list[str]) -> None:
    """On SQLite no later row gets the number of an earlier one, which would hide that somebody has written since."""
    from flask_stateful.database import versions

    def last() -> int:
        with shop.engine.connect() as connection:
            return connection.scalar(sa.select(sa.func.max(VERSIONS.c.id))) or 0

    monkeypatch.setattr(versions, "_MOST_ROW_TAGS", 1)
    shop.write(lambda connection: connection.execute(sa.insert(VERSIONS), [{"tag": tag, "n": 1} for tag in tags]))
    before = last()
    track(shop.engine).versions.compact()
    assert last() > before


def test_many_row_tags_are_given_up(shops: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where very many rows have tags, they go, and whatever depends on a row of the table is made anew."""
    from flask_stateful.database import versions

    monkeypatch.setattr(versions, "_MOST_ROW_TAGS", 10)
    for number in range(12):
        shops.write(lambda connection, id=number: connection.execute(sa.update(Note).where(Note.id == id).values(n=1)))
    before = shops.versions()
    track(shops.engine).versions.compact()
    after = shops.versions()
    assert set(after) == {"note", "note[*]"}
    assert after["note"] == before["note"]


def test_a_request_without_state_runs_no_statement(shop: Shop) -> None:
    """A request that touches neither state nor cache runs nothing of ours."""

    @shop.app.get("/plain")
    def plain() -> str:
        return "plain"

    shop.statements.clear()
    assert shop.app.test_client().get("/plain").text == "plain"
    assert shop.statements == []


@pytest.mark.parametrize("kind", ["async-engine", "lite-async"])
def test_async_functions(make_site: MakeSite, kind: str) -> None:
    """A coroutine function over an asynchronous engine is exact as well."""
    site = make_site(kind, "sqlite")
    calls: list[int] = []

    @site.state.cache.memoize(ttl=3600)
    async def count() -> int:
        calls.append(1)
        session = site.state.database.async_session
        return len((await session.scalars(sa.select(Note))).all())

    async def work() -> list[int]:
        counts = [await count(), await count()]
        session = site.state.database.async_session
        session.add(Note(text="x"))
        counts.append(await count())
        await session.commit()
        counts += [await count(), await count()]
        await session.close()
        return counts

    with site.app.test_request_context():
        assert asyncio.run(work()) == [0, 0, 1, 1, 1]
    assert len(calls) == 3


def test_threads_share_one_value(shops: Shop) -> None:
    """Threads that ask at once compute once, and each gets what the last commit left."""
    for round in range(5):
        shops.add(str(round))
        barrier, found = threading.Barrier(4), list[int]()

        def ask(barrier: threading.Barrier = barrier, found: list[int] = found) -> None:
            barrier.wait()
            found.append(len(shops.read()))

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [round + 1] * 4


def test_two_applications_share_an_engine(shop: Shop) -> None:
    """A commit through one application invalidates what another has cached, with one row for each table."""
    from flask import Flask

    app = Flask("other")
    app.config.update(SECRET_KEY="dev", TESTING=True)
    other = Shop(Site(app, Stateful(app, db=shop.engine, store="memory://"), shop.engine, "engine"))
    assert other.read() == []
    with shop.app.test_request_context():
        shop.database.session.add(Note(text="x"))
        shop.database.session.commit()
    assert other.read() == ["x"]
    with shop.engine.connect() as connection:
        assert connection.scalar(sa.select(sa.func.count()).where(VERSIONS.c.tag == "note")) == 1


def test_an_error_in_the_function_keeps_nothing(shop: Shop) -> None:
    """A function that raises after it has read is called again."""
    calls: list[int] = []

    @shop.state.cache.memoize(ttl=3600)
    def fails() -> int:
        calls.append(1)
        shop._texts()
        if len(calls) == 1:
            raise ValueError("once")
        return 1

    with shop.app.test_request_context():
        with pytest.raises(ValueError, match="once"):
            fails()
        assert fails() == fails() == 1
    assert len(calls) == 2


@pytest.mark.parametrize("depends_on", ["note", Note, 5])
def test_depends_on_is_a_list(shop: Shop, depends_on: t.Any) -> None:
    """A name alone is not taken for the tables that its letters name, of which none ever changes."""
    for decorator in (shop.state.cache.memoize, shop.state.cache.view):
        with pytest.raises(TypeError, match=r"depends_on=\[Post\]"):
            decorator(depends_on=depends_on)


def test_what_is_mapped_wrongly_is_refused_and_forgotten(shop: Shop) -> None:
    """A view or trigger of nothing that we know is an error at once, and never again."""
    database = shop.database
    for view, reads in (("v", "note"), ("v", Note), ("v", [5]), (5, [Note])):
        with pytest.raises(TypeError):
            database.map_view(t.cast("t.Any", view), reads=t.cast("t.Any", reads))
    for table, writes in ((Note, "note"), (5, ["note"]), (Note, [None])):
        with pytest.raises(TypeError):
            database.map_trigger(table, writes=t.cast("t.Any", writes))
    database.map_view("v", reads=[Note])
    with shop.app.app_context():
        assert database.engines()


@pytest.mark.parametrize("engine", [None, "sqlite://"])
def test_only_engines_are_tuned(shop: Shop, engine: t.Any) -> None:
    """What is no engine is told what to write."""
    with pytest.raises(TypeError, match="tune_sqlite"):
        shop.database.tune_sqlite(engine)
