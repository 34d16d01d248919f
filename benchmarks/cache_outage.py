"""What a request takes while the cache's server is gone, and while it hangs."""

from __future__ import annotations

import contextlib
import logging
import time
import typing as t
from collections.abc import Callable

from flask import Flask

from flask_stateful.stores import open_store
from tests.services import Redis

from .cache_peers import TEXT, stateful_app
from .harness import Block, Cell, measure, median_time
from .report import Gate, Part, Table, figure
from .visitor import Visitor, call

#: What is asked for: without a cache, with a cached function, and a cached view.
_PATHS: t.Final = {"/plain": "nothing cached", "/function": "cached function", "/view": "cached view"}

#: Requests of one block, and those that meet a server that hangs: over before it is asked again.
_BLOCK, _HUNG = 25, 200

#: Milliseconds after which a request has waited for a server, half of what a store call may take.
_WAITED: t.Final = 125


def run(*, rounds: int, tick: Callable[[], None]) -> Part:
    """Measure, and judge, with a server that is stopped and started for it."""
    logger, quiet = logging.getLogger("flask_stateful"), logging.NullHandler()
    logger.addHandler(quiet)
    try:
        with contextlib.closing(Redis()) as server:
            return _refused(server.start(), rounds, tick) + _hung(server)
    finally:
        logger.removeHandler(quiet)


@contextlib.contextmanager
def _visitor(server: Redis) -> t.Iterator[Visitor]:
    """Yield a visitor who has been served by an application whose cache is on a server."""
    with contextlib.closing(open_store(server.url, timeout=0.25)) as store:
        # What memory holds is served for as long as the server's silence goes unnoticed: nobody would wait.
        app, state = stateful_app(store, memory=False)
        _add_paths(app, state.cache)
        visitor = Visitor(app)
        for path in [*_PATHS, *_PATHS]:
            visitor.get(path)
        yield visitor


def _add_paths(app: Flask, cache: t.Any) -> None:
    def text() -> str:
        return TEXT

    cached = cache.memoize(ttl=300)(text)
    app.add_url_rule("/plain", "plain", text)
    app.add_url_rule("/function", "function", lambda: cached())
    app.add_url_rule("/view", "view", cache.view(ttl=300)(text))


def _refused(server: Redis, rounds: int, tick: Callable[[], None]) -> Part:
    """Kill the server, and measure what requests take once that is known."""
    with _visitor(server) as visitor:
        server.kill()
        for path in _PATHS:
            visitor.get(path)
        timings = measure({Cell(path, "refused"): _block(visitor, path) for path in _PATHS}, rounds, tick)
    plain, rows, gates = Cell("/plain", "refused"), [], []
    for path, title in _PATHS.items():
        cell = Cell(path, "refused")
        added = timings.added(cell, plain)
        rows.append([title, figure(timings.median(cell)), f"{added:+.0f}"])
        if path != "/plain":
            gates.append(Gate("C9", f"Redis gone, {title}: added to a request", added / 1000, 0.2, "ms"))
    note = "Microseconds, after the first request that met that: median, and what the cache adds."
    table = Table("The cache's server refuses connections", ("", "request", "added"), rows, note)
    return Part([table], gates)


def _hung(server: Redis) -> Part:
    """Let the server hang, and count the requests that wait for it."""
    rows, gates = [], []
    for path, title in list(_PATHS.items())[1:]:
        server.restart()
        with _visitor(server) as visitor:
            server.freeze()
            spans = [_time(visitor, path) for _ in range(_HUNG)]
            server.thaw()
        waited = sum(span > _WAITED for span in spans)
        rows.append([title, figure(max(spans)), str(waited)])
        gates += [
            Gate("C9", f"Redis hung, {title}: requests of {_HUNG} that waited for it", waited, 1, ""),
            Gate("C9", f"Redis hung, {title}: how long", max(spans), 300, "ms"),
        ]
    note = f"Of {_HUNG} requests, before the server is asked again; a store call may take 250 ms."
    return Part([Table("The cache's server hangs", ("", "longest request (ms)", "waited"), rows, note)], gates)


def _time(visitor: Visitor, path: str) -> float:
    """Return what one request takes, in milliseconds."""
    began = time.perf_counter()
    visitor.get(path)
    return (time.perf_counter() - began) * 1000


def _block(visitor: Visitor, path: str) -> Block:
    app = visitor.app.wsgi_app
    return lambda: median_time(lambda environ: call(app, environ), [visitor.environ(path) for _ in range(_BLOCK)])
