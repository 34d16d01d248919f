"""What exact caching costs: following a statement, and a hit beside one SELECT by primary key.

``python -m benchmarks.exact [SECONDS]`` prints it for the databases that are there, with the races of
``tests/database/races.py`` after that.
"""

from __future__ import annotations

import contextlib
import gc
import statistics
import sys
import tempfile
import time
import typing as t
from collections.abc import Callable
from pathlib import Path

import sqlalchemy as sa
from flask import Flask

from flask_stateful import Stateful
from flask_stateful.database.tracker import track
from flask_stateful.stores.sql.tables import METADATA
from tests.database import races
from tests.services import MariaDB, Missing, Postgres, launched

_ROUNDS: t.Final = 60
_CALLS: t.Final = 20

#: By database: how many times what one SELECT by primary key takes a hit may take.
GATES: t.Final = {"SQLite": 2.2, "PostgreSQL": 1.5, "MariaDB": 1.6}

#: Microseconds that following a statement may take.
TRACKING_GATE: t.Final = 8.0


def per_call(work: Callable[[], object]) -> float:
    """Return the microseconds that one of several calls took."""
    began = time.perf_counter()
    for _ in range(_CALLS):
        work()
    return (time.perf_counter() - began) / _CALLS * 1e6


def interleaved(*works: Callable[[], object]) -> list[list[float]]:
    """Return what each of them took, in rounds that each of them had a turn in."""
    gc.collect()
    gc.disable()
    try:
        rounds = [[per_call(work) for work in works] for _ in range(_ROUNDS)]
    finally:
        gc.enable()
    return [list(column) for column in zip(*rounds, strict=True)]


def tracking() -> float:
    """Return the microseconds that following a statement adds, for an UPDATE of one row."""
    engines = [sa.create_engine("sqlite://") for _ in range(2)]
    track(engines[1])
    with contextlib.ExitStack() as stack:
        works: list[Callable[[], object]] = []
        for engine in engines:
            races.Base.metadata.create_all(engine)
            connection = stack.enter_context(engine.connect())
            update = sa.update(races.CountA).where(races.CountA.id == 1).values(n=1)
            works.append(lambda connection=connection, update=update: connection.execute(update))
        plain, followed = interleaved(*works)
    return statistics.median(b - a for a, b in zip(plain, followed, strict=True))


def hit(url: str, folder: str) -> tuple[float, float, float]:
    """Return what a SELECT by primary key and a hit take, in microseconds, on one connection, and their ratio."""
    engine = races.make_engine(races.Setup(url, folder, "exact", 0))
    races.Base.metadata.create_all(engine)
    METADATA.create_all(engine)
    app = Flask(__name__)
    app.config.update(SECRET_KEY="dev")
    state = Stateful(app, db=engine, store="memory://")

    @state.cache.memoize(ttl=3600)
    def cached() -> int | None:
        return state.database.session.scalar(sa.select(races.CountA.n).where(races.CountA.id == 1))

    with app.app_context():
        session = state.database.session
        session.add(races.CountA(id=1, n=1))
        session.commit()
        cached()
        connection = session.connection()
        select = sa.select(races.CountA.n).where(races.CountA.id == 1)
        # Outside of a request nothing is remembered, so that each hit asks.
        selects, hits = interleaved(lambda: connection.execute(select).scalar(), cached)
    engine.dispose()
    ratios = [b / a for a, b in zip(selects, hits, strict=True)]
    return statistics.median(selects), statistics.median(hits), statistics.median(ratios)


def databases(stack: contextlib.ExitStack) -> dict[str, str]:
    """Return the address of each database that is there."""
    urls = {"SQLite": f"sqlite:///{stack.enter_context(tempfile.TemporaryDirectory())}/hit.sqlite3"}
    for name, kind in (("PostgreSQL", Postgres), ("MariaDB", MariaDB)):
        with contextlib.suppress(Missing):
            urls[name] = stack.enter_context(launched(kind)).url
    return urls


def race(url: str, scheme: str, seconds: float, isolation: str | None, prepare: str | None) -> races.Result:
    """Let readers and writers run on an empty database, and leave it empty."""
    with tempfile.TemporaryDirectory() as folder:
        own = f"sqlite:///{Path(folder) / 'race.sqlite3'}" if url.startswith("sqlite") else url
        engine = races.make_engine(races.Setup(own, folder, scheme, 0))
        races.Base.metadata.drop_all(engine)
        METADATA.drop_all(engine)
        engine.dispose()
        return races.run(races.Setup(own, folder, scheme, seconds, isolation, prepare))


#: By database: isolation levels, and what is run on each new connection.
_LEVELS: t.Final[dict[str, list[tuple[str | None, str | None]]]] = {
    "SQLite": [(None, None)],
    "PostgreSQL": [("READ COMMITTED", None), ("REPEATABLE READ", None), ("SERIALIZABLE", None)],
    "MariaDB": [(None, f"SET innodb_snapshot_isolation = {value}") for value in ("OFF", "ON")],
}


def main() -> None:
    """Measure, and print what was found."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 4.0
    print(f"following a statement: {tracking():.1f} us (gate: {TRACKING_GATE:g})", flush=True)
    with contextlib.ExitStack() as stack:
        urls = databases(stack)
        for name, url in urls.items():
            with tempfile.TemporaryDirectory() as folder:
                select, found, ratio = hit(url, folder)
            print(
                f"{name}: SELECT {select:.0f} us, hit {found:.0f} us, ratio {ratio:.2f} (gate: {GATES[name]})",
                flush=True,
            )
        for name, url in urls.items():
            for level in _LEVELS[name]:
                print(name, *filter(None, level), race(url, "exact", seconds, *level), flush=True)
            print(name, "delete after commit", race(url, "delete after commit", seconds, None, None), flush=True)


if __name__ == "__main__":
    main()
