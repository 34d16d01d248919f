"""A process that was forked shares no connection with its parent."""

from __future__ import annotations

import json
import os
import typing as t
from collections.abc import Callable

import pytest
import sqlalchemy as sa
from flask import Flask

from flask_stateful import Stateful

from .conftest import ASYNC, KINDS, MakeSite, Note, Site

#: What a connection is called by its server.
NAMES = {"postgres": "SELECT pg_backend_pid()", "mariadb": "SELECT CONNECTION_ID()"}


def in_child(function: Callable[[], object]) -> t.Any:
    """Return what a function returns in a child of this process."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writer, json.dumps(function()).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as answer:
        said = answer.read()
    os.waitpid(child, 0)
    return json.loads(said)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ASYNC])
@pytest.mark.parametrize("server", NAMES)
def test_a_child_opens_its_own(make_site: MakeSite, kind: str, server: str) -> None:
    """Whatever ``db=`` is, a child talks to the server over another connection, and the parent's goes on working."""
    site = make_site(kind, server)

    def name() -> int:
        with site.context():
            return site.run(lambda session: session.scalar(sa.text(NAMES[server])) or 0)

    before = name()
    assert in_child(name) not in (before, name())


def test_a_child_of_sqlite_opens_its_own(make_site: MakeSite) -> None:
    """SQLite keeps a file's locks in the memory of the process, so a child opens the file itself."""
    site = make_site("url", "sqlite")
    opened: list[object] = []
    with site.app.app_context():
        sa.event.listen(site.state.database.engines()["default"], "connect", lambda *given: opened.append(given))
    site.count()

    def opens() -> int:
        opened.clear()
        site.count()
        return len(opened)

    assert opens() == 0
    assert in_child(opens) == 1


def test_a_connection_in_use_stays_the_parents(make_site: MakeSite) -> None:
    """A fork amid a transaction leaves it as it is, and the child begins without it."""
    site = make_site("url", "postgres")

    def add(session: t.Any) -> None:
        session.add(Note(text="parent's"))
        session.flush()

    with site.context():
        site.run(add)
        assert in_child(lambda: _count_elsewhere(site)) == 0
        site.state.database.session.commit()
    assert site.count() == 1


def _count_elsewhere(site: Site) -> int:
    with site.state.database.engines()["default"].connect() as connection:
        return connection.scalar(sa.select(sa.func.count()).select_from(Note)) or 0


def test_a_database_in_memory_is_copied() -> None:
    """A child has a copy of a database in memory, and the parent keeps its own."""
    app = Flask(__name__)
    app.config.update(SECRET_KEY="dev", TESTING=True)
    site = Site(app, state := Stateful(app, db="sqlite://", store="memory://"), None, "url")
    with app.app_context():
        Note.metadata.create_all(state.database.engines()["default"])
    assert in_child(site.count) == 0
    assert site.count() == 0
