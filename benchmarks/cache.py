"""The cache inside one process: what a hit takes, beside the caches that people use."""

from __future__ import annotations

import statistics
import time
import typing as t
from collections.abc import Callable, Sequence

from .apps import Place
from .cache_peers import PEERS, RECORD, TEXT, Calls, Peer, computed
from .harness import Block, Cell, Timings, loop_time, measure
from .report import Gate, Panel, Part, Table, figure

#: What is timed, by the names that every cache was given. The text is handed out as it is, the record is copied.
STATEMENTS: t.Final = {
    "get text": "get_text('text')",
    "get record": "get('record')",
    "set record": "set('record', RECORD)",
    "function: text": "text(4711)",
    "by keyword": "text(4711, limit=10)",
    "function: record": "record(4711)",
}

#: What each of those names returns.
_EXPECTED: t.Final = {"get_text": TEXT, "get": RECORD, "text": TEXT, "record": RECORD}

#: How many awaited calls one block times.
_AWAITED: t.Final = 25


def run(place: Place, *, rounds: int, tick: Callable[[], None]) -> Part:
    """Measure, and judge."""
    peers = [peer for peer in PEERS.values() if peer.installed]
    calls = {peer.name: working(peer, place) for peer in peers}
    blocks: dict[Cell, Block] = {}
    for peer in peers:
        blocks |= {
            Cell(peer.name, operation): _block(calls[peer.name], statement)
            for operation, statement in STATEMENTS.items()
            if _name(statement) in calls[peer.name].names
        }
    timings = measure(blocks, rounds, tick)
    gates = _gates(timings, near=calls["near"].is_near)
    return Part([_table(peers, timings)], gates, [_panel(timings)])


def working(peer: Peer, place: Place) -> Calls:
    """Build a cache and fill it, after a look at whether it works.

    :raises RuntimeError: if it does not: what keeps nothing must not look fast.
    """
    calls = peer.build(place)
    for name, arguments in (("set_text", ("text", TEXT)), ("set", ("record", RECORD))):
        if name in calls.names:
            _call(calls, name, *arguments)
    for name, expected in _EXPECTED.items():
        if name not in calls.names:
            continue
        argument = {"get_text": "text", "get": "record"}.get(name, 4711)
        first, before = _call(calls, name, argument), computed.total()
        again = _call(calls, name, argument)
        if not {_plain(first), _plain(again)} == {_plain(expected)} or computed.total() > before:
            raise RuntimeError(f"{peer.title}: {name}() does not keep its value")
    return calls


def _call(calls: Calls, name: str, *arguments: t.Any) -> t.Any:
    with calls.context():
        value = calls.names[name](*arguments)
        return value if calls.loop is None else calls.loop.run_until_complete(value)


def _plain(value: t.Any) -> str:
    """Return a value in the same form, whatever a cache made of it."""
    return value.decode() if isinstance(value, bytes) else str(value)


def _name(statement: str) -> str:
    return statement.partition("(")[0]


def _block(calls: Calls, statement: str) -> Block:
    """Return what makes some calls and returns the time of one, in microseconds."""
    names = {**calls.names, "RECORD": RECORD}

    def run_block() -> float:
        with calls.context():
            if calls.loop is None:
                return loop_time(statement, names)
            return calls.loop.run_until_complete(_awaited(eval(f"lambda: {statement}", names)))

    return run_block


async def _awaited(call: Callable[[], t.Awaitable[object]]) -> float:
    """Return the median time of an awaited call, in microseconds."""
    clock, spans = time.perf_counter_ns, list[float]()
    for _ in range(_AWAITED):
        began = clock()
        await call()
        spans.append((clock() - began) / 1000)
    return statistics.median(spans)


def _table(peers: Sequence[Peer], timings: Timings) -> Table:
    rows = [[peer.title, *(_cell(timings, Cell(peer.name, operation)) for operation in STATEMENTS)] for peer in peers]
    note = (
        "Microseconds: quiet / median. A text of 1 KB, which nobody can change, and a record of 1 KB: read, written,"
        " and returned by a cached function, called by position, and the text's once more by keyword."
    )
    return Table("Caches in one process", ("", *STATEMENTS), rows, note)


def _cell(timings: Timings, cell: Cell) -> str:
    if cell not in timings.rounds[0]:
        return ""
    return f"{figure(timings.quiet(cell))} / {figure(timings.median(cell))}"


#: The gate, one of ours and what it does, a peer and what that does, the limit.
_RATIOS: t.Final = (
    ("C1", "sqlite", "get text", "cachelib", "get record", 0.25),
    ("C1", "sqlite", "function: text", "lru_cache", "function: text", 10),
    ("C1", "sqlite", "by keyword", "lru_cache", "by keyword", 10),
    ("C2", "sqlite", "get record", "cachelib", "get record", 0.60),
    ("C3", "sqlite", "function: text", "fc-memory", "function: text", 0.02),
    ("C3", "sqlite", "function: record", "fc-memory", "function: record", 0.05),
    ("C5", "sqlite-file", "get record", "diskcache", "get record", 0.80),
    ("C5", "sqlite-file", "set record", "diskcache", "set record", 0.60),
    ("C6", "redis", "get record", "fc-redis", "get record", 0.80),
    ("C6", "redis", "function: record", "fc-redis", "function: record", 0.80),
    ("C7", "near", "get text", "redis-near", "get text", 0.03),
)


def _gates(timings: Timings, *, near: bool) -> list[Gate]:
    """Judge; what holds no value in memory over a server is not compared with what does."""
    return [
        Gate(code, f"{name}, {operation}: time against {PEERS[peer].title}, {what}", timings.ratio(cell, other), limit)
        for code, name, operation, peer, what, limit in _RATIOS
        if (other := Cell(peer, what)) in timings.rounds[0]
        and (cell := Cell(name, operation)) in timings.rounds[0]
        and (near or name != "near")
    ]


def _panel(timings: Timings) -> Panel:
    shown = ("lru_cache", "cachebox", "sqlite", "dogpile-memory", "diskcache", "cashews-memory", "fc-memory")
    cells = {PEERS[name].title: Cell(name, "function: text") for name in shown}
    bars = [(title, [timings.median(cell)]) for title, cell in cells.items() if cell in timings.rounds[0]]
    return Panel("What a cached function takes when its value is there, in microseconds", ("hit",), bars)
