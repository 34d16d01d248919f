"""State in browsers: what it adds to a page, and what its messages cost the server."""

from __future__ import annotations

import json
import logging
import typing as t
from collections.abc import Callable

from flask import Flask

from flask_stateful import LocalState, Stateful, TabState
from flask_stateful.browser import wire
from flask_stateful.browser.registers import Register
from flask_stateful.serialization import url_safe
from flask_stateful.stores.memory import MemoryStore

from .harness import Cell, Timings, measure, median_time
from .report import Gate, Part, Table, figure
from .visitor import Visitor, call

logger = logging.getLogger("flask_stateful")

_BLOCK = 40
_TAB: t.Final = "0123abcd"
_NOW: t.Final = 1_790_000_000_000_000
_NAMESPACE: t.Final = "fs.browser."


def _declare() -> t.Any:
    """Declare classes that belong to no other application of this process."""

    class Small(LocalState):
        """Five fields that mirror cookies hold."""

        theme: t.Literal["auto", "light", "dark"] = "auto"
        sidebar: bool = True
        dense: bool = False
        page: int = 1
        zoom: float = 1.0

    class Large(LocalState):
        """Twenty fields that the store holds."""

        locals().update({f"f{n:02}": "" for n in range(20)})
        __annotations__ = {f"f{n:02}": str for n in range(20)}

    class Wizard(TabState):
        """One tab's."""

        step: int = 1

    return Small, Large, Wizard


Small, Large, Wizard = _declare()

_MIRRORS: t.Final = {
    "small.theme": b'"dark"',
    "small.sidebar": b"false",
    "small.dense": b"true",
    "small.page": b"7",
    "small.zoom": b"1.25",
}
_MALFORMED: t.Final = {
    "outbox": {f"_q.{_TAB}": url_safe(b'{"t":"0123abcd","p":' + b"[" * 2500)},
    "mirror": {"small.theme": "A" * 200},
    "browser id": {"_b": "A" * 48},
}


def make_app(*declared: type[t.Any]) -> Flask:
    """Return an application with a page of each kind."""
    app = Flask("browser")
    app.config["SECRET_KEY"] = "benchmark" * 4
    Stateful(app, store=MemoryStore(), declared=declared)
    small, large = Small(), Large()

    @app.get("/untouched")
    def untouched() -> str:
        return "page"

    @app.get("/mirrors")
    def mirrors() -> str:
        return f"{small.theme}{small.sidebar}{small.dense}{small.page}{small.zoom}"

    @app.get("/one")
    def one() -> str:
        return large.f00 + small.theme

    return app


def run(*, rounds: int, tick: Callable[[], None]) -> Part:
    """Measure, and judge."""
    without, declared = Visitor(make_app()), Visitor(make_app(Small, Large, Wizard))
    mirrored = Visitor(declared.app)
    mirrored.cookies = {
        _NAMESPACE + name: wire.encode_mirror(Register(value, _NOW, _NOW)) for name, value in _MIRRORS.items()
    }
    if mirrored.get("/mirrors").body != b"darkFalseTrue71.25":
        raise RuntimeError("mirror cookies are not read")
    blocks = {
        Cell("without", "untouched"): _page(without, "/untouched"),
        Cell("declared", "untouched"): _page(declared, "/untouched"),
        Cell("declared", "mirrors"): _page(mirrored, "/mirrors"),
        Cell("messages", "island"): _island(declared.app),
    }
    for what, cookies in _MALFORMED.items():
        visitor = Visitor(declared.app)
        visitor.cookies = {_NAMESPACE + name: value for name, value in cookies.items()}
        blocks[Cell("malformed", what)] = _page(visitor, "/one")
    logger.disabled, before = True, logger.disabled
    try:
        return _judged(measure(blocks, rounds, tick))
    finally:
        logger.disabled = before


def _page(visitor: Visitor, path: str) -> Callable[[], float]:
    app = visitor.app.wsgi_app
    return lambda: median_time(lambda environ: call(app, environ), [visitor.environ(path) for _ in range(_BLOCK)])


def _island(app: Flask) -> Callable[[], float]:
    """Return what encodes an island of twenty registers and reads a push of as many."""
    registers = {f"large.f{n:02}": Register(b'"some text"', _NOW + n, _NOW) for n in range(20)}
    writes = {name: ["some text", _NOW, _NOW + 1] for name in registers}
    body = json.dumps({"t": _TAB, "p": writes}, separators=(",", ":")).encode()

    def exchange(_: object) -> int:
        patch = wire.Patch(_TAB)
        for name, register in registers.items():
            patch.tell(name, register)
        push = wire.parse_push(body)
        return len(patch.fitting(wire.ISLAND_BYTES, wire.island_text)) + len(push.writes if push else ())

    return lambda: median_time(exchange, range(_BLOCK))


def _judged(timings: Timings) -> Part:
    base, untouched = Cell("without", "untouched"), Cell("declared", "untouched")
    ratio, mirrors = timings.ratio(untouched, base), timings.added(Cell("declared", "mirrors"), untouched)
    island = timings.quiet(Cell("messages", "island"))
    malformed = {what: timings.added(Cell("malformed", what), untouched) for what in _MALFORMED}
    worst = max(malformed.values())
    rows = [
        ["a page without declared state, beside an app that declares none", f"{ratio:.2f} x"],
        ["five mirrored fields, read", figure(mirrors)],
        ["an island of 20 registers encoded and a push of 20 read", figure(island)],
        *([f"a malformed {what}, ignored", figure(added)] for what, added in malformed.items()),
    ]
    gates = [
        Gate("B1", "page without declared state, against an app that declares none", ratio, 1.05),
        Gate("B2", "page that reads five mirrored fields: added, µs", mirrors, 40, unit=""),
        Gate("B3", "island and patch of 20 registers on the server, µs", island, 60, unit=""),
        Gate("B4", "malformed carrier, ignored: added, µs", worst, 1000, unit=""),
    ]
    note = "Microseconds, added to a page that does not touch the state; the messages by themselves."
    return Part([Table("State in browsers", ("", "µs"), rows, note)], gates)
