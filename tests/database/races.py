"""Readers and writers in processes of their own, to see whether anybody is served what a commit has made old.

Each writer counts up in a table of its own and, once its commit has returned, notes the count where all can see it. A
reader looks at the notes, then asks for the cached counts: what is smaller than its note is stale. Writers have nothing
to do with each other, so that an error of any of them is caused by the scheme under test.

The benchmark runs the same as the test, for longer.
"""

from __future__ import annotations

import collections
import contextlib
import json
import mmap
import struct
import subprocess
import sys
import time
import typing as t
from pathlib import Path

import sqlalchemy as sa
from flask import Flask
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from flask_stateful import Stateful
from flask_stateful.database import versions
from flask_stateful.stores.sql.tables import METADATA

READERS, WRITERS = 3, 2

SCHEMES = ("exact", "delete after commit")

#: Seconds that a process may take to start.
_PATIENCE = 60

_NOTE = struct.Struct("q")


class Base(DeclarativeBase):
    pass


class CountA(Base):
    __tablename__ = "count_a"
    id: Mapped[int] = mapped_column(primary_key=True)
    n: Mapped[int]


class CountB(Base):
    __tablename__ = "count_b"
    id: Mapped[int] = mapped_column(primary_key=True)
    n: Mapped[int]


COUNTS = (CountA, CountB)


class Setup(t.NamedTuple):
    """What one process is told."""

    url: str
    folder: str
    scheme: str
    seconds: float
    isolation: str | None = None
    #: Run on each new connection.
    prepare: str | None = None


class Result(t.NamedTuple):
    """What came of a run."""

    reads: int
    computed: int
    stale: int
    commits: int
    errors: dict[str, int]
    #: Version rows that were left in the end.
    rows: int


def run(setup: Setup) -> Result:
    """Let readers and writers run against each other on an empty database."""
    engine = make_engine(setup)
    Base.metadata.create_all(engine)
    METADATA.create_all(engine)
    with Session(engine) as session:
        session.add_all([kind(id=1, n=0) for kind in COUNTS])
        session.commit()
    (Path(setup.folder) / "notes").write_bytes(bytes(_NOTE.size * (WRITERS + 1)))
    told = [("read", number) for number in range(READERS)] + [("write", number) for number in range(WRITERS)]
    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(_worker(setup, *each)) for each in told]
        for worker in workers:
            assert worker.stdout is not None
            assert worker.stdout.readline() == b"ready\n"
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write(b"go\n")
            worker.stdin.flush()
        counts = [json.loads(worker.communicate(timeout=setup.seconds + _PATIENCE)[0]) for worker in workers]
    with engine.connect() as connection:
        rows = connection.scalar(sa.text("SELECT COUNT(*) FROM state_version"))
    engine.dispose()
    total = collections.Counter[str]()
    errors = collections.Counter[str]()
    for count in counts:
        errors.update(count.pop("errors"))
        total.update(count)
    return Result(total["reads"], total["computed"], total["stale"], total["commits"], dict(errors), rows or 0)


@contextlib.contextmanager
def _worker(setup: Setup, role: str, number: int) -> t.Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "tests.database.races", role, str(number), json.dumps(setup)]
    root = Path(__file__).parents[2]
    worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=root)
    try:
        yield worker
    finally:
        worker.kill()
        worker.communicate()


def make_engine(setup: Setup) -> sa.Engine:
    options = {"isolation_level": setup.isolation} if setup.isolation else {}
    engine = sa.create_engine(setup.url, **options)

    @sa.event.listens_for(engine, "connect")
    def prepare(connection: t.Any, record: object) -> None:
        cursor = connection.cursor()
        if engine.dialect.name == "sqlite":
            cursor.execute("PRAGMA journal_mode = WAL")
            cursor.execute("PRAGMA synchronous = NORMAL")
            cursor.execute("PRAGMA busy_timeout = 30000")
        if setup.prepare:
            cursor.execute(setup.prepare)
        cursor.close()

    return engine


# In the processes


class Worker:
    """One reader or writer."""

    def __init__(self, setup: Setup) -> None:
        self.engine = make_engine(setup)
        self.app = Flask(__name__, instance_path=setup.folder)
        self.app.config.update(SECRET_KEY="dev")
        self.state = Stateful(self.app, db=self.engine, store=f"sqlite:///{setup.folder}/cache.sqlite3")
        self.counts = dict.fromkeys(("reads", "computed", "stale", "commits"), 0)
        self.errors = collections.Counter[str]()
        with open(f"{setup.folder}/notes", "r+b") as notes:
            self.notes = mmap.mmap(notes.fileno(), 0)
        self.cached = self.state.cache.memoize(ttl=3600)(self.counted)
        self.scheme = setup.scheme

    def counted(self) -> list[int]:
        self.counts["computed"] += 1
        return [self.state.database.session.scalar(sa.select(kind.n)) or 0 for kind in COUNTS]

    def by_hand(self) -> list[int]:
        """Do what applications do that delete a cached value once they have committed."""
        found: list[int] | None = self.state.cache.get("counts")
        if found is None:
            found = self.counted()
            self.state.cache.set("counts", found, ttl=3600)
        return found

    def read(self, number: int) -> None:
        noted = [_NOTE.unpack_from(self.notes, at * _NOTE.size)[0] for at in range(WRITERS)]
        with self.app.test_request_context():
            found = self.cached() if self.scheme == "exact" else self.by_hand()
        self.counts["reads"] += 1
        self.counts["stale"] += any(n < note for n, note in zip(found, noted, strict=True))

    def write(self, number: int) -> None:
        kind = COUNTS[number]
        with self.app.test_request_context():
            session = self.state.database.session
            session.execute(sa.update(kind).values(n=kind.n + 1))
            n = session.scalar(sa.select(kind.n))
            session.commit()
            if self.scheme != "exact":
                self.state.cache.delete("counts")
        self.counts["commits"] += 1
        _NOTE.pack_into(self.notes, number * _NOTE.size, n)

    def work(self, role: str, number: int, seconds: float) -> None:
        ends = time.monotonic() + seconds
        step = {"read": self.read, "write": self.write}[role]
        while time.monotonic() < ends:
            try:
                step(number)
            except Exception as error:
                self.errors[f"{type(error).__name__}: {str(error)[:300]}"] += 1


def main() -> None:
    setup = Setup(*json.loads(sys.argv[3]))
    # So often that it happens many times while everybody reads and writes.
    versions.COMPACT_EVERY = 50
    worker = Worker(setup)
    print("ready", flush=True)
    sys.stdin.readline()
    worker.work(sys.argv[1], int(sys.argv[2]), setup.seconds)
    print(json.dumps({**worker.counts, "errors": worker.errors}))


if __name__ == "__main__":
    main()
