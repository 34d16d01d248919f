"""Many callers and one value: 2 processes of 16 callers each, and a computation that takes 100 ms.

All of them ask at once, first for a value that was never computed and then for one that has expired; after that they
ask all the time. What is counted is how often it was computed, who waited, and how long after the result was there.
"""

from __future__ import annotations

import statistics
import typing as t
from collections.abc import Callable
from importlib.util import find_spec

from flask import Flask

from .apps import Place
from .cache_crowd import CALLERS, COMPUTING, PROCESSES, TTL, Ask, Build, Contender, Seen, meet
from .cache_peers import database, flask_caching_app, stateful_app, store_at
from .report import Gate, Part, Table, figure

#: Seconds after which a caller has waited, under traffic without end.
_WAITED: t.Final = 0.05


def _stateful(where: str, *, stale: float | None = 60) -> Build:
    def build(place: Place, compute: Ask) -> Ask:
        app, state = stateful_app(store_at(where, place), memory=True)
        return _in_context(app, state.cache.memoize(ttl=TTL, stale=stale)(compute))

    return build


def _flask_caching(kind: str) -> Build:
    def build(place: Place, compute: Ask) -> Ask:
        app, cache = flask_caching_app(kind, place)
        return _in_context(app, cache.memoize(timeout=TTL)(compute))

    return build


def _in_context(app: Flask, cached: Ask) -> Ask:
    def ask(number: int) -> object:
        with app.app_context():
            return cached(number)

    return ask


def _dogpile(place: Place, compute: Ask) -> Ask:
    from dogpile.cache import make_region

    url = database(place.redis_url, 2)
    options = {"url": url, "distributed_lock": True, "thread_local_lock": False, "redis_expiration_time": 600}
    region = make_region().configure("dogpile.cache.redis", expiration_time=TTL, arguments=options)
    return t.cast("Ask", region.cache_on_arguments()(compute))


def _diskcache(place: Place, compute: Ask) -> Ask:
    import diskcache

    cache = place.keep(diskcache.Cache(str(place.folder / "stampede")))
    return t.cast("Ask", diskcache.memoize_stampede(cache, expire=TTL)(compute))


def _cachebox(place: Place, compute: Ask) -> Ask:
    import cachebox

    return cachebox.cached(cachebox.TTLCache(1000, TTL))(compute)


def _cashews(place: Place, compute: Ask) -> Ask:
    import cashews

    cache = cashews.Cache()
    cache.setup(database(place.redis_url, 3))
    return t.cast("Ask", cache(ttl=TTL, lock=True)(compute))


CONTENDERS: t.Final = {
    "fc-memory": Contender("Flask-Caching, SimpleCache", _flask_caching("SimpleCache"), "flask_caching"),
    "fc-redis": Contender("Flask-Caching, RedisCache", _flask_caching("RedisCache"), "flask_caching"),
    "cachebox": Contender("cachebox.cached", _cachebox, "cachebox"),
    "diskcache": Contender("diskcache.memoize_stampede", _diskcache, "diskcache"),
    "dogpile": Contender("dogpile.cache, Redis, distributed_lock", _dogpile, "dogpile"),
    "cashews": Contender("cashews, Redis, lock=True (async)", _cashews, "cashews", is_async=True),
    "memory": Contender("Flask-Stateful, memory, stale=60", _stateful("memory"), limit=PROCESSES, stale=True),
    "sqlite": Contender("Flask-Stateful, SQLite, stale=60", _stateful("stale.sqlite3"), limit=1, stale=True),
    "redis": Contender("Flask-Stateful, Redis, stale=60", _stateful("redis"), limit=1, stale=True),
    "valkey": Contender("Flask-Stateful, Valkey, stale=60", _stateful("valkey"), limit=1, stale=True),
    "fresh": Contender("Flask-Stateful, SQLite", _stateful("fresh.sqlite3", stale=None), limit=1),
}


def run(place: Place, *, times: int, seconds: float, tick: Callable[[], None]) -> Part:
    """Let crowds meet every cache that is installed.

    :param times: how many values they ask for at once.
    :param seconds: how long they ask all the time.
    """
    part, rows = Part(), list[list[str]]()
    for name, contender in CONTENDERS.items():
        if find_spec(contender.library) is None:
            continue
        found = figures(meet(contender, place, times=times, seconds=seconds), times, seconds)
        rows.append([contender.title, *map(figure, found.values())])
        part += Part(gates=_gates(name, contender, found))
        tick()
    note = (
        f"{PROCESSES} processes of {CALLERS} callers, a computation of {COMPUTING * 1000:.0f} ms, values that are fresh"
        f" for {TTL} s. All ask at once for {times} values that nobody has computed: how often the worst of them was"
        " computed, and how long after the result the last caller had it (ms: median and longest). All ask once more"
        " when they have expired: how often it was computed, and how many callers waited for that. Then all ask all the"
        f" time: computations per second, and the calls that took over {_WAITED * 1000:.0f} ms, in percent."
    )
    head = ("", "cold: computed", "released", "longest", "expired: computed", "waited", "steady: per s", "waited, %")
    return part + Part([Table("Stampedes", head, rows, note)])


def _gates(name: str, contender: Contender, found: dict[str, float]) -> list[Gate]:
    if contender.limit is None:
        return []
    crowd, limit = PROCESSES * CALLERS, contender.limit
    gates = [
        Gate("C9", f"{name}: computations of a cold value for {crowd} callers", found["cold"], limit, ""),
        Gate("C9", f"{name}: computations at its expiry", found["expired"], limit, ""),
        Gate("C9", f"{name}: the last caller of a cold value, after the result", found["released"], 25, "ms"),
    ]
    if contender.stale:
        gates.append(Gate("C9", f"{name}: callers that waited though there was a stale value", found["waited"], 0, ""))
    return gates


def figures(seen: t.Sequence[Seen], times: int, seconds: float) -> dict[str, float]:
    """Return what came of a meeting."""
    cold, expired, steady = (
        [sorted(end for each in seen for n, (_, end) in each.computed[phase] if n == number) for number in range(times)]
        for phase in ("cold", "expired", "steady")
    )
    answered = [[end for each in seen for _, end in each.cold[number]] for number in range(times)]
    released = [(max(ends) - results[0]) * 1000 for ends, results in zip(answered, cold, strict=True)]
    waited = [
        sum(end > min(results, default=0) for each in seen for _, end in each.expired[number])
        for number, results in enumerate(expired)
    ]
    spans = [end - began for each in seen for began, end in each.steady]
    return {
        "cold": max(map(len, cold)),
        "released": statistics.median(released),
        "longest": max(released),
        "expired": max(map(len, expired)),
        "waited": max(waited),
        "computed/s": len(steady[0]) / seconds,
        "steady waited": sum(span > _WAITED for span in spans) / len(spans) * 100,
    }
