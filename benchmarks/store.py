"""The stores by themselves: writers that meet, how cost grows with the number of sessions, and what one takes up."""

from __future__ import annotations

import contextlib
import random
import statistics
import typing as t
from collections.abc import Callable, Iterable
from pathlib import Path

from flask import Flask, session

from flask_stateful.serialization import dumps
from flask_stateful.stores.sqlite import SQLiteStore

from . import sqlite_store
from .apps import CONTENDERS, PAYLOAD, Place
from .harness import Cell, measure, median_time
from .report import Gate, Part, Table, figure
from .visitor import Visitor

#: How many sessions the large file holds compared with the small one, and how many gets one block makes.
_FEW: t.Final = 1000
_BLOCK: t.Final = 200
_ROUNDS: t.Final = 41

#: A session of 200 bytes as MessagePack.
_200_BYTES: t.Final = PAYLOAD | {"theme": "dark", "note": "w" * 37}


def run(place: Place, *, seconds: float, tick: Callable[[], None]) -> Part:
    """Let writers meet in an SQLite file, and weigh sessions in Redis."""
    found = _shown(sqlite_store.writers(place.folder, seconds), tick)
    rows = [(what, figure(value)) for what, value in found.items()]
    gates = [
        Gate("E2", "SQLite, 1 writer: write p99.9", found["1 writer: write p99.9"] / 1000, 2, "ms"),
        Gate("E2", "SQLite, 2 writers: share of the slower", found["2 writers: smallest share, %"], 40, "%", True),
        Gate("E2", "SQLite, 2 writers: write p99", found["2 writers: write p99"] / 1000, 1, "ms"),
        Gate("E2", "SQLite, 2 writers: longest write", found["2 writers: longest write, ms"], 100, "ms"),
        Gate("E2", "SQLite, 90 % reads: write p99", found["2 processes, 90 % reads: write p99"] / 1000, 1, "ms"),
    ]
    note = "Times in microseconds unless it says otherwise."
    part = Part([Table("Processes that write to one SQLite file without pause", ("", "measured"), rows, note)], gates)
    return part + _redis_memory(place)


def run_scale(place: Place, *, rows: int, tick: Callable[[], None]) -> Part:
    """Compare a large SQLite file with a small one, and purge a large one while somebody writes."""
    cost = _get_among(rows, place.folder, tick)
    found = _shown(sqlite_store.purge(place.folder, rows), tick)
    table = [(what, figure(value)) for what, value in found.items()]
    held = found["purge: another's write p99"] / 1000
    gates = [
        Gate("E1", f"SQLite, purge among {rows:,}: another's write p99", held, 20, "ms"),
        Gate("E1", f"SQLite, get among {rows:,} against {_FEW:,}", cost, 3),
    ]
    return Part([Table(f"A tenth of {rows:,} sessions is purged", ("", "measured"), table)], gates)


def _shown(figures: Iterable[tuple[str, float]], tick: Callable[[], None]) -> dict[str, float]:
    """Return figures by name, and show that something happens while they come."""
    found = {}
    for what, value in figures:
        found[what] = value
        tick()
    return found


def _get_among(rows: int, folder: Path, tick: Callable[[], None]) -> float:
    """Return what a get costs among many sessions, divided by what it costs among few."""
    with contextlib.ExitStack() as stack:
        blocks = {}
        for count in (_FEW, rows):
            store = stack.enter_context(contextlib.closing(SQLiteStore(folder / f"{count}.sqlite3")))
            sqlite_store.fill(store, count)
            blocks[Cell(str(count), "get")] = _gets(store, count)
            tick()
        timings = measure(blocks, _ROUNDS)
    return timings.ratio(Cell(str(rows), "get"), Cell(str(_FEW), "get"))


def _gets(store: SQLiteStore, count: int) -> Callable[[], float]:
    chance = random.Random(count)
    return lambda: median_time(store.get, [sqlite_store.key(chance.randrange(count)) for _ in range(_BLOCK)])


def _redis_memory(place: Place) -> Part:
    """Weigh a session in Redis."""
    ours = _bytes_per_session("redis", place)
    rows, gates = [(CONTENDERS["redis"].title, figure(ours))], []
    if CONTENDERS["fs-redis"].installed:
        theirs = _bytes_per_session("fs-redis", place)
        rows.append((CONTENDERS["fs-redis"].title, figure(theirs)))
        gates.append(Gate("E3", "Redis: bytes of a session against Flask-Session", ours / theirs, 1.6))
    size = len(dumps(_200_BYTES))
    note = f"MEMORY USAGE of a session of {size} bytes, with its key: the mean of 20 visitors."
    return Part([Table("Sessions in Redis", ("", "bytes"), rows, note)], gates)


def _bytes_per_session(name: str, place: Place) -> float:
    import redis

    app = CONTENDERS[name].build(place)
    _with_200_bytes(app)
    with contextlib.closing(redis.Redis.from_url(place.redis_url)) as client:
        client.flushall()
        for _ in range(20):
            Visitor(app).get("/start-200")
        return statistics.mean(t.cast("int", client.memory_usage(key, samples=0)) for key in client.scan_iter())


def _with_200_bytes(app: Flask) -> None:
    @app.get("/start-200")
    def start_200() -> str:
        session.update(_200_BYTES)
        return "ok"
