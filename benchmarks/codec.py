"""A session of 50 KB: what it costs to decode and encode it when one key is looked at, or changed."""

from __future__ import annotations

import typing as t
from collections.abc import Callable

import msgspec

from flask_stateful.serialization import dumps, dumps_items, loads_items
from flask_stateful.sessions.change import Change
from flask_stateful.sessions.codec import NO_FIELDS
from flask_stateful.tracking import TrackedItems

from .apps import PAYLOAD
from .harness import Cell, measure, median_time
from .report import Gate, Part, Table, figure

_BLOCK = 20

#: A session such as an application has that keeps search results in it.
LARGE: t.Final[dict[str, t.Any]] = PAYLOAD | {
    f"page-{page}": [
        {
            "id": page * 100 + n,
            "title": f"Result {n} of page {page}, with some words",
            "tags": ["a", "bc"],
            "score": n / 7,
        }
        for n in range(24)
    ]
    for page in range(27)
}

_KEY: t.Final = "user_id"


def run(*, rounds: int, tick: Callable[[], None]) -> Part:
    """Measure, and judge."""
    data = dumps(LARGE)
    calls = {
        Cell("full", "read"): lambda data: msgspec.msgpack.decode(data)[_KEY],
        Cell("full", "write"): write_all,
        Cell("ours", "read"): read_one,
        Cell("ours", "write"): write_one,
    }
    blocks = {cell: _block(call, data) for cell, call in calls.items()}
    timings = measure(blocks, rounds, tick)
    rows, gates = [], []
    for operation in ("read", "write"):
        ours, full = Cell("ours", operation), Cell("full", operation)
        ratio = timings.ratio(ours, full)
        rows.append([f"{operation} one key", *(figure(timings.quiet(cell)) for cell in (full, ours)), f"{ratio:.2f} x"])
        gates.append(Gate("S7", f"session of {len(data):,} bytes, {operation} one key: codec", ratio, 0.25))
    note = (
        f"Microseconds, quiet, for a session of {len(data):,} bytes: all of it decoded (and encoded) by msgspec,"
        " against what a request does with it here."
    )
    return Part([Table("Large sessions", ("", "all (µs)", "one key (µs)", "ratio"), rows, note)], gates)


def _block(call: Callable[[bytes], object], data: bytes) -> Callable[[], float]:
    return lambda: median_time(call, [data] * _BLOCK)


def write_all(data: bytes) -> bytes:
    """Change one key as a session extension does that decodes and encodes everything."""
    return msgspec.msgpack.encode(msgspec.msgpack.decode(data) | {_KEY: "4712"})


def read_one(data: bytes) -> object:
    """Read one key as a request does."""
    items = loads_items(data)
    return TrackedItems(items, NO_FIELDS).decode(_KEY, items[_KEY])


def write_one(data: bytes) -> bytes:
    """Change one key as a request does."""
    items = loads_items(data)
    tracked = TrackedItems(items, NO_FIELDS)
    tracked.assign(_KEY, "4712")
    return dumps_items(Change(assigned=tracked.changes()).apply(items))
