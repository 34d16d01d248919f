"""Cached pages through the WSGI application, and the round trips of everything that is cached on a server."""

from __future__ import annotations

import functools
import typing as t
from collections.abc import Callable

from flask import Flask

from flask_stateful import Stateful
from flask_stateful.stores import open_store

from .apps import Place
from .cache_peers import PEERS, RECORD, TEXT, flask_caching_app, stateful_app, store_at
from .counts import RoundTrips
from .harness import Block, Cell, Timings, measure, median_time
from .report import Gate, Part, Table, figure
from .visitor import Visitor, call

#: Requests that a block makes before it begins to count, and those that it counts.
_WARM_UP, _BLOCK = 5, 25

#: How many values one call asks for.
_MANY: t.Final = 10


class Page(t.NamedTuple):
    """One way to answer with a page."""

    title: str
    build: Callable[[Place], Flask]
    path: str = "/cached"


def _page() -> str:
    return TEXT


def _with_pages(app: Flask, decorate: Callable[[t.Any], t.Any]) -> Flask:
    app.add_url_rule("/uncached", "uncached", lambda: TEXT)
    app.add_url_rule("/cached", "cached", decorate(_page))
    return app


def _bare(place: Place) -> Flask:
    return _with_pages(Flask("benchmarks", instance_path="/nonexistent"), lambda view: view)


def _flask_caching(kind: str, place: Place, **options: t.Any) -> Flask:
    app, cache = flask_caching_app(kind, place)
    return _with_pages(app, cache.cached(timeout=300, **options))


def _stateful(where: str, place: Place, *, memory: bool = True, **options: t.Any) -> Flask:
    app, state = stateful_app(store_at(where, place), memory=memory)
    return _with_pages(app, state.cache.view(ttl=300, **options))


def pages() -> dict[str, Page]:
    """Return what is compared, as far as it is there."""
    ours = functools.partial(_stateful, "pages.sqlite3")
    found = {
        "bare": Page("Flask alone, not cached", _bare, "/uncached"),
        "uncached": Page("Flask-Stateful, not cached", ours, "/uncached"),
        "view": Page("Flask-Stateful, memory over SQLite", ours),
        "front": Page("Flask-Stateful, memory over SQLite, front=True", functools.partial(ours, front=True)),
        "file": Page("Flask-Stateful, SQLite alone", functools.partial(ours, memory=False)),
        "redis": Page("Flask-Stateful, Redis alone", functools.partial(_stateful, "redis", memory=False)),
    }
    if PEERS["fc-memory"].installed:
        memory, redis = (functools.partial(_flask_caching, kind) for kind in ("SimpleCache", "RedisCache"))
        found["fc-memory"] = Page("Flask-Caching, SimpleCache", memory)
        query = functools.partial(memory, query_string=True)
        found["fc-query"] = Page("Flask-Caching, SimpleCache, query_string=True", query)
        found["fc-redis"] = Page("Flask-Caching, RedisCache", redis)
    return found


def run(place: Place, *, rounds: int, tick: Callable[[], None]) -> Part:
    """Count, measure, and judge."""
    found = pages()
    timings = measure({Cell(name, "page"): _block(page, place) for name, page in found.items()}, rounds, tick)
    base = Cell("bare", "page")
    rows = []
    for name, page in found.items():
        cell = Cell(name, "page")
        quiet, median = figure(timings.quiet(cell)), figure(timings.median(cell))
        rows.append([page.title, f"{quiet} / {median}", figure(timings.ratio(cell, base), "x")])
    note = "A request for a page of 1 KB that takes nothing to make. Microseconds: quiet / median."
    table = Table("Cached pages", ("", "request (µs)", "against Flask alone"), rows, note)
    return Part([table], _time_gates(timings)) + _counted(place)


def _block(page: Page, place: Place) -> Block:
    visitor = Visitor(page.build(place))
    for _ in range(2):
        if visitor.get(page.path).body != TEXT.encode():
            raise RuntimeError(f"{page.title} does not answer with its page")
    app = visitor.app.wsgi_app

    def run_block() -> float:
        for _ in range(_WARM_UP):
            call(app, visitor.environ(page.path))
        return median_time(lambda environ: call(app, environ), [visitor.environ(page.path) for _ in range(_BLOCK)])

    return run_block


def _time_gates(timings: Timings) -> list[Gate]:
    return [
        Gate(code, f"{what}: request against {against}", timings.ratio(cell, other), limit)
        for code, what, name, against, peer, limit in (
            ("C4", "view, hit", "view", "one that is not cached", "uncached", 1.10),
            ("C4", "view, front=True, hit", "front", "one that is not cached", "uncached", 0.10),
            ("C6", "view, hit on Redis", "redis", "Flask-Caching, RedisCache", "fc-redis", 0.80),
        )
        if {cell := Cell(name, "page"), other := Cell(peer, "page")} <= timings.rounds[0].keys()
    ]


def _counted(place: Place) -> Part:
    """Count the round trips of what is cached on a server and nowhere else."""
    servers = {"Redis": round_trips(place.redis_url), "Valkey": round_trips(place.valkey_url)}
    gates = [
        Gate("C6", f"{server}: round trips, {operation}", trips, 1, "")
        for server, counted in servers.items()
        for operation, trips in counted.items()
    ]
    operations = servers["Redis"]
    rows = [[server, *(str(counted[operation]) for operation in operations)] for server, counted in servers.items()]
    note = "Of hits, with nothing held in the process, after a first one."
    return Part([Table("Round trips of the cache", ("", *operations), rows, note)], gates)


def round_trips(url: str) -> dict[str, int]:
    """Return how often each kind of hit waits for a server, when the process holds nothing."""
    with RoundTrips(url) as proxy:
        store = open_store(proxy.url)
        app, state = stateful_app(store, memory=False)
        operations = _operations(app, state)
        counted = {}
        with app.app_context():
            for name, operation in operations.items():
                operation()  # the first may ask for what later ones know
                proxy.events.clear()
                operation()
                counted[name] = proxy.events["round trips"]
        store.close()
    return counted


def _operations(app: Flask, state: Stateful) -> dict[str, Callable[[], object]]:
    cache, keys = state.cache, [f"value {number}" for number in range(_MANY)]
    visitor = Visitor(_with_pages(app, cache.view(ttl=300)))
    cached = cache.memoize(tags=["records"])(_page)
    with app.app_context():
        cache.set_many(dict.fromkeys(keys, RECORD))
        cache.set("tagged", RECORD, tags=["records"])
    return {
        "get": lambda: cache.get(keys[0]),
        "get, tagged": lambda: cache.get("tagged"),
        f"get_many of {_MANY}": lambda: cache.get_many(keys),
        "memoize": cached,
        "view": lambda: visitor.get("/cached"),
    }
