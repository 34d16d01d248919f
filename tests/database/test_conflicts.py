"""Whatever fails at whichever statement, a block is kept once or not at all."""

from __future__ import annotations

import itertools
import sqlite3
import typing as t
from collections.abc import Callable, Iterator

import psycopg
import pymysql
import pytest
import sqlalchemy as sa
from flask import session

from flask_stateful.blocks import current_block
from flask_stateful.stores.sql import METADATA

from .conftest import MakeSite, Note
from .test_atomic import KEPT, NOTHING, Shop


def _busy() -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("database is locked")
    error.sqlite_errorcode = sqlite3.SQLITE_BUSY
    return error


#: What says that another transaction came first.
CONFLICTS: dict[str, tuple[str, Callable[[], Exception]]] = {
    "busy": ("sqlite", _busy),
    "serialization": ("postgres", psycopg.errors.SerializationFailure),
    "deadlock": ("postgres", psycopg.errors.DeadlockDetected),
    "locked": ("postgres", psycopg.errors.LockNotAvailable),
    **{
        f"mariadb-{code}": ("mariadb", lambda code=code: pymysql.err.OperationalError(code, "try again"))
        for code in (1213, 1205, 1020, 3572)
    },
}


#: The drivers beside those that are asynchronous.
_SYNC = {"sqlite+aiosqlite": "sqlite", "postgresql+psycopg_async": "postgresql+psycopg"}


class Faults:
    """Lets one statement of a block fail, once: the one with this number, the commit among them."""

    def __init__(self, engine: sa.Engine, make: Callable[[], Exception]) -> None:
        self.left = -1
        self._make = make
        self._commit: Callable[[t.Any], None] = engine.dialect.do_commit
        sa.event.listen(engine, "do_execute", self._statement)
        sa.event.listen(engine, "do_execute_no_params", self._statement)
        t.cast("t.Any", engine.dialect).do_commit = self._commits

    def _statement(self, *_: object) -> None:
        if current_block.get() is not None:
            if self.left == 0:
                self.left = -1
                raise self._make()
            self.left -= self.left > 0

    def _commits(self, driver: t.Any) -> None:
        self._statement()
        self._commit(driver)


def shop_on(make_site: MakeSite, server: str, kind: str = "sessionmaker") -> Shop:
    """Return a shop whose state is in its own database."""
    shop = Shop(make_site(kind, server, store={"default": "db", "cache": "memory://"}))
    url = engine_of(shop).url
    engine = sa.create_engine(url.set(drivername=_SYNC.get(url.drivername, url.drivername)))
    METADATA.create_all(engine)
    engine.dispose()
    return shop


def engine_of(shop: Shop) -> sa.Engine:
    """Return a shop's engine."""
    with shop.app.app_context():
        return shop.state.database.engines()["default"]


@pytest.mark.parametrize("conflict", CONFLICTS)
def test_a_conflict_anywhere_is_tried_again(make_site: MakeSite, conflict: str) -> None:
    """Each class of conflict, at each statement and at COMMIT, ends in one answer 200 and everything kept once."""
    server, make = CONFLICTS[conflict]
    shop = shop_on(make_site, server)
    faults = Faults(engine_of(shop), make)
    shop.visit(lambda: session.update(count=0) or "")

    @shop.state.atomic(retry=1)
    def view() -> str:
        session["count"] += 1
        shop.change()
        return ""

    failed = 0
    for number in itertools.count():
        faults.left = number
        assert shop.visit(view).status_code == 200
        assert shop.site.count() == number + 1
        if faults.left >= 0:
            break
        failed += 1
    assert failed >= 3
    assert shop.visit(lambda: {"count": session["count"]}).json == {"count": failed + 1}


@pytest.mark.parametrize("server", ["sqlite", "postgres"])
def test_a_key_that_fails_at_commit_keeps_nothing(make_site: MakeSite, server: str) -> None:
    """A deferred foreign key, which is checked by COMMIT, is an error, and nothing is kept nor tried again."""
    shop = shop_on(make_site, server)
    attempts = list[int]()
    with engine_of(shop).begin() as connection:
        connection.exec_driver_sql(
            "CREATE TABLE child (parent INTEGER REFERENCES note (id) DEFERRABLE INITIALLY DEFERRED)"
        )

    @shop.state.atomic(retry=2)
    def view() -> str:
        attempts.append(1)
        shop.change()
        shop.db.execute(sa.text("INSERT INTO child VALUES (4711)"))
        return ""

    assert shop.visit(view).status_code == 500
    assert attempts == [1]
    assert shop.kept() == NOTHING
    assert shop.visit(shop.state.atomic()(lambda: shop.change() or "")).status_code == 200
    assert shop.kept() == KEPT


@pytest.fixture(params=[("postgres", True), ("postgres", False), ("mariadb", True), ("mariadb", False)], ids=str)
def cut(request: pytest.FixtureRequest, make_site: MakeSite) -> Iterator[tuple[Shop, bool]]:
    """A shop whose first commit gets no answer, after it has landed or before."""
    server, has_landed = request.param
    shop = shop_on(make_site, server)
    dialect = t.cast("t.Any", engine_of(shop).dialect)
    commit, left = dialect.do_commit, [1]

    def lose(driver: t.Any) -> None:
        block = current_block.get()
        if block is None or not block.commits or not left:
            commit(driver)
            return
        left.clear()
        if has_landed:
            commit(driver)
        driver.driver_connection.close()
        raise (psycopg.OperationalError("gone") if server == "postgres" else pymysql.err.OperationalError(2013, "gone"))

    dialect.do_commit = lose
    yield shop, has_landed
    dialect.do_commit = commit


def test_a_commit_that_nobody_has_heard_of_is_settled(cut: tuple[Shop, bool]) -> None:
    """If the connection breaks during COMMIT, what has landed is not done again, and what has not is."""
    shop, has_landed = cut
    attempts, called = list[int](), list[str]()

    @shop.state.atomic(retry=2)
    def view() -> str:
        attempts.append(1)
        shop.change()
        session["attempts"] = session.get("attempts", 0) + 1
        shop.state.on_commit(lambda: called.append("once"))
        return ""

    assert shop.visit(view).status_code == 200
    assert (len(attempts), called) == (1 if has_landed else 2, ["once"])
    assert shop.kept() == KEPT
    assert shop.visit(lambda: {"attempts": session["attempts"]}).json == {"attempts": 1}


@pytest.mark.parametrize(
    ("server", "end"),
    [("postgres", "SELECT pg_terminate_backend(pg_backend_pid())"), ("mariadb", "KILL CONNECTION_ID()")],
)
def test_a_connection_that_breaks_before_the_commit_is_made_anew(make_site: MakeSite, server: str, end: str) -> None:
    """A connection that the server ends amid a block costs one attempt; without retry it keeps nothing."""
    shop = shop_on(make_site, server)
    left = [1, 1]

    def view() -> str:
        shop.change()
        if left:
            left.pop()
            shop.db.execute(sa.text(end))
        return ""

    assert shop.visit(shop.state.atomic()(view)).status_code == 500
    assert shop.kept() == NOTHING
    assert shop.visit(shop.state.atomic(retry=1)(view)).status_code == 200
    assert shop.kept() == KEPT


@pytest.mark.parametrize("kind", ["async-sessionmaker", "lite-async"])
@pytest.mark.parametrize("server", ["sqlite", "postgres"])
def test_asynchronous_views(make_site: MakeSite, kind: str, server: str) -> None:
    """An `async def` can be atomic and is tried again; `async with` nests; both keep everything or nothing."""
    shop = shop_on(make_site, server, kind)
    state, attempts = shop.state, list[int]()

    def add(text: str) -> None:
        state.database.async_session.add(Note(text=text))
        session["n"] = state.cookies["n"] = 1
        state.cache.set("n", 1)

    @state.atomic(retry=1)
    async def tried_again() -> str:
        attempts.append(1)
        add("x")
        await state.database.async_session.flush()
        if len(attempts) == 1:
            raise sa.exc.OperationalError("", {}, _busy())
        return ""

    async def inner() -> None:
        async with state.atomic():
            add("inner")
            session["n"] = 2
            raise ZeroDivisionError

    async def nested() -> str:
        async with state.atomic():
            add("x")
            with pytest.raises(ZeroDivisionError):
                await inner()
        return ""

    async def failing() -> str:
        async with state.atomic():
            add("x")
            session["n"] = 3
            raise ZeroDivisionError

    def kept() -> tuple[t.Any, ...]:
        found: list[t.Any] = []
        shop.visit(lambda: found.extend([session.get("n"), state.cookies.get("n"), state.cache.get("n")]) or "")
        return (shop.site.count(), *found)

    def serve(view: t.Any) -> int:
        return shop.visit(shop.app.ensure_sync(view)).status_code

    assert serve(failing) == 500
    assert kept() == NOTHING
    assert serve(tried_again) == 200
    assert (len(attempts), kept()) == (2, KEPT)
    assert serve(nested) == 200
    assert kept() == (2, *KEPT[1:])
