"""Sessions inside one process: what they add to a request, and exactly what they ask of their stores."""

from __future__ import annotations

import itertools
import typing as t
from collections.abc import Callable, Sequence

from .apps import CONTENDERS, Contender, Place
from .counts import Count, count, renewals
from .harness import Block, Cell, Timings, measure, median_time
from .report import Gate, Panel, Part, Table
from .visitor import Visitor, call

OPERATIONS: t.Final = ("untouched", "read", "write")

#: Requests that a block makes before it begins to count, and those that it counts: few, so that all take turns often.
_WARM_UP, _BLOCK = 5, 25

#: How many requests read a session while one idle timeout passes.
_READS_PER_TIMEOUT: t.Final = 200


def run(place: Place, *, rounds: int, tick: Callable[[], None]) -> Part:
    """Count, measure, and judge."""
    contenders = [contender for contender in CONTENDERS.values() if contender.installed]
    counts = {contender.name: count(contender, place) for contender in contenders if contender.name != "none"}
    blocks: dict[Cell, Block] = {}
    for operation in OPERATIONS:
        blocks |= {Cell(contender.name, operation): block(contender, operation, place) for contender in contenders}
    timings = measure(blocks, rounds, tick)
    return Part(
        [_table(contenders, counts, timings)],
        [*_count_gates(counts), *_time_gates(timings)],
        [_panel(contenders, timings)],
    )


def block(contender: Contender, operation: str, place: Place, size: int = _BLOCK) -> Block:
    """Return what makes some requests of one kind and returns the median time of one, in microseconds."""
    visitors = visitors_of(contender, place)
    app, turns = visitors[0].app.wsgi_app, itertools.cycle(visitors)

    def environs(count: int) -> list[t.Any]:
        return [visitor.environ(f"/{operation}") for visitor in itertools.islice(turns, count)]

    def run_block() -> float:
        for environ in environs(_WARM_UP):
            call(app, environ)
        return median_time(lambda environ: call(app, environ), environs(size))

    return run_block


def visitors_of(contender: Contender, place: Place) -> list[Visitor]:
    """Build a contender and return its visitors, each with a session, after a look at whether it works.

    :raises RuntimeError: if it does not: what loses sessions must not look fast.
    """
    app = contender.build(place)
    visitors = [Visitor(app) for _ in range(contender.visitors)]
    if contender.name == "none":
        return visitors
    for visitor in visitors:
        visitor.get("/start")
        written = visitor.get("/write").body
        if visitor.get("/read").body != b"4711" or visitor.get("/written").body != written:
            raise RuntimeError(f"{contender.title} does not keep its sessions")
    return visitors


def _table(contenders: Sequence[Contender], counts: dict[str, dict[str, Count]], timings: Timings) -> Table:
    rows = []
    for contender in contenders:
        cells = [Cell(contender.name, operation) for operation in OPERATIONS]
        if contender.name == "none":
            rows.append(
                [contender.title, *(f"{timings.quiet(c):.0f} / {timings.median(c):.0f}" for c in cells), "", ""]
            )
            continue
        bases = [Cell("none", operation) for operation in OPERATIONS]
        quiet = [timings.quiet(cell) - timings.quiet(base) for cell, base in zip(cells, bases, strict=True)]
        median = [timings.added(cell, base) for cell, base in zip(cells, bases, strict=True)]
        counted = counts[contender.name]
        rows.append(
            [
                contender.title,
                *(f"{low:+.0f} / {middle:+.0f}" for low, middle in zip(quiet, median, strict=True)),
                _exchanges(contender, counted),
                " ".join(sorted(counted["untouched"].headers)) or "none",
            ]
        )
    return Table(
        "Sessions in one process",
        ("", *(f"{operation} (µs)" for operation in OPERATIONS), "asked of the store", "headers untouched"),
        rows,
        "What a request takes without sessions, and what sessions add to it: quiet / median. Then what one request asks"
        " of its store, for a new session / untouched / read / write, and the headers it gets when it leaves the"
        " session untouched.",
    )


def _exchanges(contender: Contender, counted: dict[str, Count]) -> str:
    """Return what each request asked of the store: ``1 / 0 / 1 / 2 round trips``."""
    events = [counted[operation].events for operation in ("new", *OPERATIONS)]
    if contender.unit == "statements":
        return " / ".join(f"{e['statements']}+{e['commits']}" for e in events) + " statements+commits"
    return " / ".join(str(e.total()) for e in events) + f" {contender.unit}" if contender.unit else ""


def _count_gates(counts: dict[str, dict[str, Count]]) -> list[Gate]:
    ours = [counted["untouched"] for name, counted in counts.items() if CONTENDERS[name].ours]
    renewed = renewals(_READS_PER_TIMEOUT)
    return [
        Gate("S1", "untouched, every store of ours: store calls", sum(c.events.total() for c in ours), 0, ""),
        Gate("S1", "untouched, every store of ours: Set-Cookie and Vary", sum(len(c.headers) for c in ours), 0, ""),
        *(
            Gate(code, f"{name}: round trips, {what}", counts[name][operation].events["round trips"], limit, "")
            for name in ("redis", "valkey")
            for code, operation, what, limit in (
                ("S4", "read", "read", 1),
                ("S5", "write", "write to an existing session", 2),
                ("S5", "new", "write to a new session", 1),
            )
        ),
        Gate("S6", "writes while one idle timeout passes in reads", renewed.total() - renewed["get"], 10, ""),
    ]


def _time_gates(timings: Timings) -> list[Gate]:
    ours = [
        cell.contender for cell in timings.rounds[0] if cell.operation == "read" and CONTENDERS[cell.contender].ours
    ]
    gates = [
        Gate(
            "S1",
            f"{name}: untouched request against one without sessions",
            timings.ratio(Cell(name, "untouched"), Cell("none", "untouched")),
            1.05,
        )
        for name in ours
    ]
    for code, name, peer, operation, limit in _ADDED:
        cell, other, base = (Cell(contender, operation) for contender in (name, peer, "none"))
        if other in timings.rounds[0]:
            what = f"{name}, {operation}: added time against {CONTENDERS[peer].title}"
            gates.append(Gate(code, what, timings.added_ratio(cell, other, base), limit))
    return gates


_ADDED: t.Final = (
    ("S3", "sqlite", "fs-redis", "read", 0.12),
    ("S3", "sqlite", "fs-redis", "write", 0.27),
    ("S3", "sqlite", "cookie", "read", 0.60),
    ("S3", "sqlite", "cookie", "write", 0.70),
    ("S3", "sqlite-crowd", "fs-redis", "read", 0.12),
    ("S3", "sqlite-crowd", "fs-redis", "write", 0.27),
    ("S4", "redis", "fs-redis", "read", 0.50),
    ("S4", "redis", "fs-redis-still", "read", 0.90),
    ("S5", "redis", "fs-redis", "write", 0.80),
)


def _panel(contenders: Sequence[Contender], timings: Timings) -> Panel:
    bars = [
        (contender.title, [timings.added(Cell(contender.name, op), Cell("none", op)) for op in OPERATIONS])
        for contender in contenders
        if contender.name != "none"
    ]
    return Panel("What sessions add to a request, in microseconds", OPERATIONS, bars)
