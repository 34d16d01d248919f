"""Where exact caching could serve what is old: after backups, around DDL, in flights, generators, nested contexts."""

from __future__ import annotations

import shutil
import sqlite3
import threading
import typing as t
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from flask import Flask, render_template_string
from sqlalchemy.pool import NullPool

from flask_stateful import Stateful, clock
from flask_stateful.errors import EncodeError
from flask_stateful.stores.sql.tables import VERSIONS

from .conftest import MakeSite, Note, Shop, Site

pytestmark = pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SAWarning")


def _in_thread(work: t.Callable[[], object]) -> None:
    """Do something as another request would, and wait until it is done."""
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def _unseen(shop: Shop, *statements: str) -> None:
    """Do something as a program does that nobody follows."""
    with shop.engine.connect() as connection:
        driver = t.cast("t.Any", connection.connection.dbapi_connection)
        cursor = driver.cursor()
        for statement in statements:
            cursor.execute(statement)
        driver.commit()


def test_a_restored_backup_validates_nothing(shops: Shop) -> None:
    """Rows and versions that go back to an earlier state, and on from there, come to no version that was there."""
    shops.add("first")
    with shops.engine.connect() as connection:
        kept = connection.scalars(sa.select(VERSIONS.c.id)).all()
    shops.add("lost")
    assert shops.read() == ["first", "lost"]
    newer = f"id NOT IN ({', '.join(map(str, kept))})"
    _unseen(shops, f"DELETE FROM state_version WHERE {newer}", "DELETE FROM note WHERE text = 'lost'")
    shops.add("again")
    assert shops.read() == ["first", "again"]


def test_emptied_versions_validate_nothing(shops: Shop) -> None:
    """Without the version rows, what was kept with them counts no more, nor after as many commits as before."""
    shops.add("first")
    assert shops.read() == ["first"]
    _unseen(shops, "DELETE FROM state_version", "DELETE FROM note")
    assert shops.read() == []
    shops.add("other")
    assert shops.read() == ["other"]
    _unseen(shops, "DELETE FROM state_version", "DELETE FROM note")
    shops.add("third")
    assert shops.read() == ["third"]


def test_a_generator_is_not_kept(shop: Shop) -> None:
    """What reads after the function has returned cannot be kept: that is an error in tests, and a log line later."""

    @shop.state.cache.memoize(ttl=3600)
    def texts() -> Iterator[str]:
        yield from shop._texts()

    with shop.app.test_request_context(), pytest.raises(EncodeError):
        texts()


def test_a_streamed_view_is_not_kept(shop: Shop) -> None:
    """A view whose answer reads while it is sent is asked each time."""

    @shop.app.get("/notes")
    @shop.state.cache.view(ttl=3600)
    def notes() -> Iterator[str]:
        return iter_texts()

    def iter_texts() -> Iterator[str]:
        yield "notes:"
        with shop.app.app_context():
            yield from shop._texts()

    client = shop.app.test_client()
    assert client.get("/notes").text == client.get("/notes").text == "notes:"
    shop.add()
    assert client.get("/notes").text == "notes:new"


def test_a_fragment_follows_what_it_reads(shop: Shop) -> None:
    """A fragment follows what is read while it is rendered, and nothing that the view has read before."""

    @shop.app.get("/<name>")
    def page(name: str) -> str:
        cached = f'{{% cache "{name}", ttl=3600 %}}{{{{ texts()|join(",") }}}}{{% endcache %}}'
        texts = shop._texts()
        return render_template_string(cached, texts=shop._texts if name == "function" else lambda: texts)

    client = shop.app.test_client()
    for name in ("function", "list"):
        assert client.get(f"/{name}").text == ""
    shop.add("new")
    assert client.get("/function").text == "new"
    assert client.get("/list").text == ""


def test_copy(make_site: MakeSite) -> None:
    """PostgreSQL's COPY is a write of its table."""
    shop = Shop(make_site("sessionmaker", "postgres"))
    assert shop.read() == []
    with shop.engine.begin() as connection:
        connection.exec_driver_sql("COPY note (text, n) FROM PROGRAM 'echo copied,1' WITH (FORMAT csv)")
    assert shop.read() == ["copied"]


def test_merge(make_site: MakeSite) -> None:
    """PostgreSQL's MERGE is a write of its target alone."""
    shop = Shop(make_site("sessionmaker", "postgres"))
    shop.write(lambda connection: connection.exec_driver_sql("CREATE TABLE source (text text)"))
    shop.write(lambda connection: connection.exec_driver_sql("INSERT INTO source VALUES ('merged')"))
    assert shop.read() == []
    merge = (
        "MERGE INTO note USING source ON note.text = source.text"
        " WHEN NOT MATCHED THEN INSERT (text, n) VALUES (source.text, 0)"
    )
    before = shop.versions()
    shop.write(lambda connection: connection.exec_driver_sql(merge))
    changed = {tag for tag, version in shop.versions().items() if before.get(tag) != version}
    assert changed == {"note", "note[*]"}
    assert shop.read() == ["merged"]


def test_t10_writable_cte(make_site: MakeSite) -> None:
    """An INSERT inside a SELECT is seen by whoever reads the table next, built or written as text."""
    shop = Shop(make_site("sessionmaker", "postgres"))
    inserted = sa.insert(Note).values(text="built").returning(Note.id).cte("inserted")
    for number, statement in enumerate(
        (
            sa.select(inserted.c.id),
            sa.text("WITH x AS (INSERT INTO note (text, n) VALUES ('text', 0) RETURNING id) SELECT id FROM x"),
        )
    ):
        assert len(shop.read()) == number
        shop.write(lambda connection, statement=statement: connection.execute(statement))
    assert shop.read() == ["built", "text"]


def test_t11_cascade(make_site: MakeSite) -> None:
    """A row that a foreign key deletes is gone for whoever has cached its table."""
    shop = Shop(make_site("sessionmaker", "postgres"))
    metadata = sa.MetaData()
    owner = sa.Table("owner", metadata, sa.Column("id", sa.Integer, primary_key=True))
    owned = sa.Table("owned", metadata, sa.Column("id", sa.ForeignKey("owner.id", ondelete="CASCADE")))
    metadata.create_all(shop.engine)

    @shop.state.cache.memoize(ttl=3600)
    def count() -> int:
        return shop.database.session.scalar(sa.select(sa.func.count()).select_from(owned)) or 0

    def read() -> int:
        with shop.app.test_request_context():
            return count()

    shop.write(lambda connection: connection.execute(sa.insert(owner).values(id=1)))
    shop.write(lambda connection: connection.execute(sa.insert(owned).values(id=1)))
    assert read() == 1
    shop.write(lambda connection: connection.execute(sa.delete(owner).where(owner.c.id == 1)))
    assert read() == 0


def test_ddl_that_commits(make_site: MakeSite) -> None:
    """MariaDB commits around ALTER: what is read between the version before it and its effect is not kept on."""
    shop = Shop(make_site("sessionmaker", "mariadb"))
    raced: list[list[str]] = []

    @sa.event.listens_for(shop.engine, "before_cursor_execute")
    def between(connection: t.Any, cursor: t.Any, text: str, given: t.Any, context: t.Any, many: bool) -> None:
        if text.startswith("ALTER") and not raced:
            raced.append([])
            connection.connection.dbapi_connection.commit()
            _in_thread(lambda: raced.append(shop.read()))

    shop.add("old")
    shop.write(lambda connection: connection.exec_driver_sql("ALTER TABLE note ADD COLUMN more INTEGER"))
    assert raced[1] == ["old"]
    shop.read()
    assert shop.calls == 2


def test_followers_depend_on_what_the_flight_read(shop: Shop) -> None:
    """Whoever waits for another's computation, and puts it into a value of its own, is invalidated with it."""
    computing, go_on = threading.Event(), threading.Event()
    outer_calls: list[int] = []
    texts = shop.state.cache.memoize(ttl=3600)

    @texts
    def slow() -> list[str]:
        found = shop._texts()
        computing.set()
        assert go_on.wait(30)
        return found

    @shop.state.cache.memoize(ttl=3600)
    def count() -> int:
        outer_calls.append(1)
        return len(slow())

    found: list[int] = []

    def follow() -> None:
        with shop.app.test_request_context():
            found.append(count())

    def lead() -> None:
        with shop.app.test_request_context():
            slow()

    leader, follower = threading.Thread(target=lead), threading.Thread(target=follow)
    leader.start()
    assert computing.wait(30)
    follower.start()
    with shop.app.app_context():
        flights = shop.state.cache.runtime.engine._flights
    ends = clock.monotonic() + 30
    while not flights._waits and clock.monotonic() < ends:
        clock.wait(0.001)
    go_on.set()
    leader.join()
    follower.join()
    shop.add()
    follow()
    assert found == [0, 1]
    assert len(outer_calls) == 2


def test_nested_contexts(shops: Shop) -> None:
    """A context inside another has a session of its own, and does not see what the outer one has not committed."""
    shops.add("old")
    assert shops.read() == ["old"]
    with shops.app.test_request_context():
        assert shops.texts() == ["old"]
        with shops.app.app_context():
            assert shops.texts() == ["old"]
            inner = shops.database.session
            inner.add(Note(text="inner"))
            inner.commit()
            assert shops.texts() == ["old", "inner"]
        shops.database.session.rollback()
        assert shops.texts() == ["old", "inner"]
    assert shops.read() == ["old", "inner"]


def test_t9_a_connection_comes_back_clean(shop: Shop) -> None:
    """What a request wrote and never ended is not appended by the next one that gets the connection."""
    connection = shop.engine.connect()
    connection.execute(sa.insert(Note).values(text="lost"))
    info = connection.info
    # The pool takes the driver's connection back without a word to the Connection.
    t.cast("t.Any", connection.connection).close()
    assert not info.get("flask_stateful.transaction")
    with shop.engine.connect() as other:
        other.execute(sa.select(Note))
        other.commit()
    assert shop.versions() == {}


def test_t11_a_view_of_the_database_follows_its_tables(shops: Shop) -> None:
    """T11: what was read from a view is over when a table is written that the view is said to read."""
    shops.write(lambda connection: connection.exec_driver_sql("CREATE VIEW shelf AS SELECT text FROM note"))
    shops.database.map_view("shelf", reads=[Note])

    @shops.state.cache.memoize(ttl=3600)
    def shelf() -> list[str]:
        return list(shops.database.session.scalars(sa.text("SELECT text FROM shelf ORDER BY text")))

    for texts in ([], ["a"], ["a", "b"]):
        with shops.app.test_request_context():
            assert shelf() == shelf() == texts
        shops.add("ab"[len(texts)] if len(texts) < 2 else "c")


def test_t11_a_trigger_writes_what_it_is_said_to_write(shop: Shop) -> None:
    """T11: what was read from a table is over when another one is written whose trigger is said to write it."""
    trigger = "CREATE TRIGGER noted AFTER INSERT ON note BEGIN INSERT INTO log VALUES (new.text); END"
    shop.write(lambda connection: connection.exec_driver_sql("CREATE TABLE log (text)"))
    shop.write(lambda connection: connection.exec_driver_sql(trigger))
    shop.database.map_trigger(Note, writes=["log"])

    @shop.state.cache.memoize(ttl=3600)
    def log() -> list[str]:
        return list(shop.database.session.scalars(sa.text("SELECT text FROM log")))

    for texts in ([], ["a"], ["a", "a"]):
        with shop.app.test_request_context():
            assert log() == log() == texts
        shop.add("a")


def test_a_lagging_replica_misleads_nobody(tmp_path: Path) -> None:
    """What was made from a replica that lags behind is right there and nowhere else; once it is level, all share it."""
    primary, replica = tmp_path / "primary.sqlite3", tmp_path / "replica.sqlite3"
    there = [primary]
    engine = sa.create_engine("sqlite://", creator=lambda: sqlite3.connect(there[0]), poolclass=NullPool)
    app = Flask(__name__, instance_path=str(tmp_path))
    app.config.update(SECRET_KEY="dev", TESTING=True)
    shop = Shop(Site(app, Stateful(app, db=engine, store="memory://"), engine, "engine"))
    Note.metadata.create_all(engine)

    def read_at(path: Path) -> list[str]:
        there[:] = [path]
        try:
            return shop.read()
        finally:
            there[:] = [primary]

    shop.add("first")
    shutil.copy(primary, replica)
    shop.add("second")
    for calls in (1, 3):
        assert (read_at(primary), shop.calls) == (["first", "second"], calls)
        assert (read_at(replica), shop.calls) == (["first"], calls + 1)
    shutil.copy(primary, replica)
    assert (read_at(primary), shop.calls) == (["first", "second"], 5)
    assert (read_at(replica), shop.calls) == (["first", "second"], 5)
    with app.app_context():
        assert shop.state.cache.stats["misses"] == 5
