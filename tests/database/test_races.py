"""Across processes, and whatever isolation they use, nobody is served what a commit has made old."""

from __future__ import annotations

import signal
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from flask_stateful.stores.sql.tables import METADATA, VERSIONS

from . import races

#: Server, isolation level, and what is run on each new connection.
SETUPS = [
    ("sqlite", None, None),
    ("postgres", "READ COMMITTED", None),
    ("postgres", "REPEATABLE READ", None),
    ("postgres", "SERIALIZABLE", None),
    ("mariadb", None, "SET innodb_snapshot_isolation = OFF"),
    ("mariadb", None, "SET innodb_snapshot_isolation = ON"),
]

SECONDS = 1.5


@pytest.mark.parametrize(("server", "isolation", "prepare"), SETUPS)
def test_no_read_is_stale(
    new_database: t.Callable[[str], sa.URL], tmp_path: Path, server: str, isolation: str | None, prepare: str | None
) -> None:
    """A read that begins after a commit returned sees it; no reader, writer or compaction fails."""
    url = new_database(server).render_as_string(hide_password=False)
    result = races.run(races.Setup(url, str(tmp_path), "exact", SECONDS, isolation, prepare))
    assert result.errors == {}
    assert result.stale == 0
    assert result.reads > 20
    assert result.computed > 5
    assert result.commits > 20
    # The rows were added up while all that went on.
    assert result.rows < 2 * result.commits


def test_the_harness_bites(new_database: t.Callable[[str], sa.URL], tmp_path: Path, server: str) -> None:
    """Deleting the key after the commit, as applications do, serves what is stale."""
    url = new_database(server).render_as_string(hide_password=False)
    result = races.run(races.Setup(url, str(tmp_path), "delete after commit", SECONDS))
    assert result.stale > 0


@pytest.mark.parametrize("when", ["before", "after"])
def test_writer_killed_at_its_commit(
    new_database: t.Callable[[str], sa.URL], tmp_path: Path, server: str, when: str
) -> None:
    """A writer that is killed right before or after COMMIT leaves data and version, or neither of them."""
    url = new_database(server).render_as_string(hide_password=False)
    setup = races.Setup(url, str(tmp_path), "exact", 0)
    engine = races.make_engine(setup)
    races.Base.metadata.create_all(engine)
    METADATA.create_all(engine)
    with Session(engine) as session:
        session.add_all([kind(id=1, n=0) for kind in races.COUNTS])
        session.commit()
    (tmp_path / "notes").write_bytes(bytes(64))
    reader = races.Worker(setup)
    with reader.app.test_request_context():
        assert reader.cached() == [0, 0]
    killed = subprocess.run(
        [sys.executable, "-c", _KILLED, url, str(tmp_path), when], cwd=Path(__file__).parents[2], timeout=60
    )
    assert killed.returncode == -signal.SIGKILL
    with engine.connect() as connection:
        appended = connection.scalar(sa.select(sa.func.count()).where(VERSIONS.c.tag == "count_a"))
    with reader.app.test_request_context():
        assert reader.cached() == ([0, 0] if when == "before" else [1, 0])
    assert appended == (0 if when == "before" else 1)
    assert reader.counts["computed"] == (1 if when == "before" else 2)
    engine.dispose()
    reader.engine.dispose()


_KILLED = f"""
import os, signal, sys
from tests.database import races
import sqlalchemy as sa
worker = races.Worker(races.Setup(sys.argv[1], sys.argv[2], "exact", 0))
def die(*_):
    os.kill(os.getpid(), {int(signal.SIGKILL)})
commit = worker.engine.dialect.do_commit
def do_commit(connection):
    if sys.argv[3] == "after":
        commit(connection)
    die()
with worker.app.test_request_context():
    session = worker.state.database.session
    session.execute(sa.update(races.CountA).values(n=1))
    worker.engine.dialect.do_commit = do_commit
    session.commit()
"""
