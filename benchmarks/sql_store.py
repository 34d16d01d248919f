"""What a session read from an SQL database costs, beside the same SELECT through SQLAlchemy Core."""

from __future__ import annotations

import contextlib
import typing as t
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import Engine, create_engine, text

from flask_stateful.serialization import dumps
from flask_stateful.stores.sql import METADATA, SQLStore
from flask_stateful.stores.sql.statements import GET
from tests.services import MariaDB, Missing, Postgres

from .apps import PAYLOAD
from .harness import Block, Cell, measure, median_time
from .report import Gate, Part, Table, figure

#: How many reads one block makes.
_BLOCK: t.Final = 50

_LIMIT: t.Final = 1.3
_CORE, _OURS = "SQLAlchemy Core", "SQLStore"


def run(folder: Path, *, rounds: int, tick: Callable[[], None]) -> Part:
    """Read a session again and again from each database that is installed; both check out a connection each time."""
    rows: list[tuple[str, ...]] = []
    gates: list[Gate] = []
    with contextlib.ExitStack() as stack:
        for name, url in _urls(folder, stack):
            engine = create_engine(url)
            stack.callback(engine.dispose)
            store = stack.enter_context(contextlib.closing(SQLStore(engine, timeout=30)))
            timings = measure(_blocks(name, engine, store), rounds, tick)
            core, ours = Cell(_CORE, name), Cell(_OURS, name)
            ratio = timings.ratio(ours, core)
            rows.append((name, *(figure(timings.median(cell)) for cell in (core, ours)), figure(ratio, "x")))
            gates.append(Gate("S9", f"{name}: SQLStore session read against SQLAlchemy Core", ratio, _LIMIT))
    note = "The median of a read, in microseconds, each with a connection from the pool and back into it."
    return Part([Table("A session in an SQL database", ("", _CORE, _OURS, "ratio"), rows, note)], gates)


def _urls(folder: Path, stack: contextlib.ExitStack) -> t.Iterator[tuple[str, str]]:
    yield "SQLite", f"sqlite:///{folder / 'app.sqlite3'}"
    for name, kind in (("PostgreSQL", Postgres), ("MariaDB", MariaDB)):
        with contextlib.suppress(Missing):
            yield name, stack.enter_context(contextlib.closing(kind())).start().url


def _blocks(name: str, engine: Engine, store: SQLStore) -> dict[Cell, Block]:
    """Return both ways to read, after each has shown that it finds the session."""
    if engine.dialect.name == "sqlite":
        with engine.connect() as connection:
            connection.execute(text("PRAGMA journal_mode = WAL"))
    METADATA.create_all(engine)
    value = dumps(PAYLOAD)
    store.set("app:session:key", value, 3600)

    def core(key: str) -> bytes | None:
        with engine.connect() as connection:
            return connection.execute(GET, {"at": key.encode(), "now": 0}).scalar_one_or_none()

    for read in (core, store.get):
        if read("app:session:key") != value:
            raise RuntimeError(f"{name}: the session was not found")
    keys = ["app:session:key"] * _BLOCK
    return {
        Cell(_CORE, name): lambda: median_time(core, keys),
        Cell(_OURS, name): lambda: median_time(store.get, keys),
    }
