"""Tuned SQLite with its state in the same file: who has let others write does not write over what they wrote."""

from __future__ import annotations

import threading
import typing as t
from collections.abc import Callable, Iterator

import pytest
import sqlalchemy as sa
from flask import session
from sqlalchemy.exc import OperationalError

from flask_stateful import StateConflict

from .conftest import MakeSite, Note, Site


@pytest.fixture
def site(make_site: MakeSite) -> Iterator[Site]:
    """An application with two notes, whose sessions and cache are in its own file."""
    site = make_site("url", "sqlite", store="db", settings={"STATEFUL_CACHE_MEMORY": 0})
    with site.app.app_context():
        db = site.state.database.session
        db.add_all([Note(id=1), Note(id=2)])
        db.commit()
    return site


def numbers(site: Site) -> list[int]:
    """Return the numbers in the notes."""
    with site.app.app_context():
        return list(site.state.database.session.scalars(sa.select(Note.n).order_by(Note.id)))


def elsewhere(site: Site, change: Callable[[t.Any], object]) -> None:
    """Commit a change in a thread of its own, before going on."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            with site.app.test_request_context(method="POST"):
                change(site.state.database.session)
                site.state.database.session.commit()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert errors == []


def add_one(id: int) -> Callable[[t.Any], object]:
    """Return what adds 1 to a note, as a view does: it reads, then writes."""

    def change(db: t.Any) -> None:
        db.get(Note, id).n += 1

    return change


def request(site: Site, method: str, view: Callable[[], object]) -> None:
    """Let a view do its work in a request."""
    site.app.add_url_rule("/", "view", lambda: (view(), "")[1], methods=[method])
    site.app.config["PROPAGATE_EXCEPTIONS"] = True
    site.app.test_client().open("/", method=method)


def save_state(site: Site) -> None:
    """Save the session while the view goes on."""
    with site.state.sessions.lock():
        session["a"] = 1


def fill_cache(site: Site) -> None:
    """Write a value of the cache to the same file."""
    site.state.cache.set("a", 1)


@pytest.mark.parametrize("save", [save_state, fill_cache])
@pytest.mark.parametrize("nested", [False, True])
def test_a_row_that_another_has_written_meanwhile_is_not_overwritten(
    site: Site, save: Callable[[Site], None], nested: bool
) -> None:
    """A row that was read before state was saved, and changed by another since, is a conflict that names atomic()."""

    def view() -> None:
        db = site.state.database.session
        note = db.get(Note, 1)
        session["a"] = 0
        save(site)
        elsewhere(site, add_one(1))
        with db.begin_nested() if nested else db.no_autoflush:
            note.n += 1
        db.commit()

    with pytest.raises(StateConflict, match=r"@state\.atomic\(retry=3\)"):
        request(site, "POST", view)
    assert numbers(site) == [1, 0]


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("read_again", [True, False])
def test_a_computed_number_is_not_written_over_another(site: Site, method: str, read_again: bool) -> None:
    """The same without a primary key, where a table was read: in any request, and also if it is read again."""

    def view() -> None:
        db = site.state.database.session
        n = db.scalar(sa.select(Note.n).where(Note.text == "", Note.id == 1))
        fill_cache(site)
        elsewhere(site, add_one(1))
        if read_again:
            db.scalars(sa.select(Note.id)).all()
        for _ in range(2):
            with pytest.raises(StateConflict):
                db.execute(sa.text("UPDATE note SET n = :n WHERE text = ''"), {"n": n + 1})
        db.commit()

    request(site, method, view)
    assert numbers(site) == [1, 0]


CHANGES: dict[str, Callable[[t.Any], object]] = {
    "another row": lambda db: setattr(db.get(Note, 2), "n", 10),
    "a new row": lambda db: db.add(Note(id=3, n=10)),
    "a table that was not read": lambda db: db.execute(sa.text("UPDATE other SET n = n + 10")),
}


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_loses_nothing_is_not_refused(site: Site, method: str, change: Callable[[t.Any], object]) -> None:
    """Another row, a new one and another table are written, whatever others and our own connection wrote meanwhile."""
    with site.app.app_context():
        db = site.state.database.session
        db.execute(sa.text("CREATE TABLE other (n INTEGER)"))
        db.execute(sa.text("INSERT INTO other VALUES (0)"))
        db.commit()

    def view() -> None:
        db = site.state.database.session
        db.scalars(sa.select(Note)).all()
        fill_cache(site)
        elsewhere(site, add_one(1))
        elsewhere(site, lambda db: db.execute(sa.text("UPDATE other SET n = 1")))
        change(db)
        db.commit()

    request(site, method, view)
    with site.app.app_context():
        other = site.state.database.session.scalar(sa.text("SELECT n FROM other"))
    assert sum(numbers(site)) + other == 12


def test_who_cannot_have_the_turn_keeps_a_transaction(site: Site) -> None:
    """Where another one does not end, the write is refused as locked, and what is written after that can be undone."""
    with site.app.app_context():
        engine = site.state.database.engines()["default"]
    holder = sa.create_engine(engine.url).connect()

    def view() -> None:
        db = site.state.database.session
        db.execute(sa.text("PRAGMA busy_timeout = 0"))
        db.get(Note, 1)
        fill_cache(site)
        holder.exec_driver_sql("BEGIN IMMEDIATE")
        with pytest.raises(OperationalError, match="locked"):
            db.execute(sa.text("UPDATE note SET n = 5"))
        holder.rollback()
        db.execute(sa.text("UPDATE note SET n = 7"))
        db.rollback()

    request(site, "POST", view)
    holder.close()
    assert numbers(site) == [0, 0]


def test_a_retried_block_keeps_both_changes(site: Site) -> None:
    """What the error says to write works: inside atomic nobody comes in between, and nothing is refused."""

    @site.state.atomic(retry=3)
    def view() -> str:
        note = site.state.database.session.get(Note, 1)
        save_state(site)
        fill_cache(site)
        note.n += 1
        return ""

    elsewhere(site, add_one(1))
    request(site, "POST", view)
    assert numbers(site) == [2, 0]
