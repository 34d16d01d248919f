"""``python -m benchmarks [--quick] [--only PART]``: measure, print, and after a whole run write down what was found."""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
import typing as t
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tests.services import Missing, Redis, Valkey

from . import (
    atomic,
    browser,
    cache,
    cache_memory,
    cache_near,
    cache_outage,
    cache_pages,
    cache_stampede,
    chart,
    client,
    codec,
    cookies,
    exact,
    gunicorn,
    sessions,
    sql_store,
    store,
)
from .apps import CONTENDERS, Place
from .cache_peers import PEERS
from .report import Part, gate_table

_ROOT: t.Final = Path(__file__).parents[1]
_RESULTS: t.Final = _ROOT / "benchmarks" / "results.md"
_CHART: t.Final = _ROOT / "docs" / "_static" / "bench.svg"

#: Up to this load, the machine has nothing else to do.
_QUIET: t.Final = 0.5

_PARTS: t.Final = ("sessions", "cookies", "gunicorn", "store", "scale", "sql", "exact", "atomic", "cache", "browser")

_LIBRARIES: t.Final = (
    *("Flask-Stateful", "Flask", "Werkzeug", "msgspec", "cryptography", "redis", "hiredis", "gunicorn"),
    *("Flask-Session", "cachelib", "Flask-SQLAlchemy", "SQLAlchemy"),
    *("Flask-Caching", "dogpile.cache", "diskcache", "cashews", "Django", "cachebox"),
)


class Extent(t.NamedTuple):
    """How much is measured."""

    session_rounds: int
    codec_rounds: int
    server_rounds: int
    server_seconds: int
    store_seconds: float
    rows: int
    cache_rounds: int
    cache_entries: tuple[int, ...]
    cache_writes: int
    crowd_values: int
    crowd_seconds: float
    race_seconds: float


_WHOLE: t.Final = Extent(120, 60, 9, 2, 6, 1_000_000, 80, (1_000, 100_000, 1_000_000), 500, 5, 2, 4)
_QUICK: t.Final = Extent(5, 5, 1, 1, 1, 20_000, 5, (1_000, 20_000), 20, 1, 1, 1)


def main() -> None:
    """Run the parts that were asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=sys.modules[__name__].__doc__)
    parser.add_argument("--quick", action="store_true", help="few rounds, to see that it works; figures mean little")
    parser.add_argument("--only", choices=_PARTS, action="append", help="leave the other parts out")
    arguments = parser.parse_args()
    wanted, extent = arguments.only or _PARTS, _QUICK if arguments.quick else _WHOLE
    contenders = (*CONTENDERS.values(), *PEERS.values())
    for name in sorted({contender.library for contender in contenders if not contender.installed}):
        print(f"without {name}, which is not installed: make bench brings it", file=sys.stderr)
    load_before = os.getloadavg()[0]
    parts = [_run(name, extent) for name in wanted]
    text = _text(parts, load_before)
    print(text)
    if not arguments.quick and not arguments.only:
        _RESULTS.write_text(text, encoding="utf-8")
        _CHART.write_text(chart.draw([panel for part in parts for panel in part.panels]), encoding="utf-8")
        print(f"written: {_RESULTS.relative_to(_ROOT)} and {_CHART.relative_to(_ROOT)}", file=sys.stderr)


def _run(name: str, extent: Extent) -> Part:
    """Run one part, with servers and a folder of its own."""
    print(name, end=" ", file=sys.stderr, flush=True)
    with _place() as place:
        if name == "sessions":
            part = sessions.run(place, rounds=extent.session_rounds, tick=_tick)
            part += codec.run(rounds=extent.codec_rounds, tick=_tick)
        elif name == "cookies":
            part = cookies.run(rounds=extent.codec_rounds, tick=_tick)
        elif name == "gunicorn":
            part = gunicorn.run(place, rounds=extent.server_rounds, seconds=extent.server_seconds, tick=_tick)
        elif name == "store":
            part = store.run(place, seconds=extent.store_seconds, tick=_tick)
        elif name == "browser":
            part = browser.run(rounds=extent.codec_rounds, tick=_tick)
            part += client.run(rounds=extent.codec_rounds, tick=_tick)
        elif name == "sql":
            part = sql_store.run(place.folder, rounds=extent.codec_rounds, tick=_tick)
        elif name == "atomic":
            part = atomic.run(place.folder, rounds=extent.codec_rounds, tick=_tick)
        elif name == "exact":
            part = exact.run(rounds=extent.codec_rounds, seconds=extent.race_seconds, tick=_tick)
        elif name == "cache":
            part = _run_cache(place, extent)
        else:
            part = store.run_scale(place, rows=extent.rows, tick=_tick)
    print(file=sys.stderr)
    return part


def _run_cache(place: Place, extent: Extent) -> Part:
    # Those that fork come first, while this process has no threads yet.
    stampedes = cache_stampede.run(place, times=extent.crowd_values, seconds=extent.crowd_seconds, tick=_tick)
    seen = cache_near.run(place, times=extent.cache_writes, tick=_tick)
    part = cache.run(place, rounds=extent.cache_rounds, tick=_tick)
    part += cache_pages.run(place, rounds=extent.cache_rounds, tick=_tick)
    part += cache_memory.run(rounds=11, sizes=extent.cache_entries, tick=_tick)
    return part + seen + stampedes + cache_outage.run(rounds=extent.cache_rounds, tick=_tick)


@contextlib.contextmanager
def _place() -> t.Iterator[Place]:
    with contextlib.ExitStack() as stack:
        try:
            redis, valkey = (stack.enter_context(contextlib.closing(kind())).start() for kind in (Redis, Valkey))
        except Missing as missing:
            sys.exit(str(missing))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="benchmarks-")))
        place = Place(folder, redis.url, valkey.url)
        with place.opened:
            yield place


def _tick() -> None:
    print(".", end="", file=sys.stderr, flush=True)


def _text(parts: list[Part], load_before: float) -> str:
    tables = [table for part in parts for table in part.tables]
    gates = gate_table(gate for part in parts for gate in part.gates)
    machine = f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}"
    head = ["# Results", "", "Written by `make bench`; [README.md](README.md) says how it measures.", ""]
    head += [
        f"- {time.strftime('%Y-%m-%d')}, {machine}; load before the run: {load_before:.1f}",
        f"- {_versions()}",
        "",
    ]
    if load_before > _QUIET:
        head += [
            "**The machine was busy with other work:** counts are exact, ratios blurred, percentiles not ours.",
            "",
        ]
    return "\n".join([*head, str(gates), *map(str, tables)])


def _versions() -> str:
    found = [f"Python {platform.python_version()}", f"SQLite {sqlite3.sqlite_version}"]
    for name in _LIBRARIES:
        with contextlib.suppress(PackageNotFoundError):
            found.append(f"{name} {version(name)}")
    found += [_program(Redis.find(), "--version"), _program(Valkey.find(), "--version")]
    wrk = shutil.which("wrk")
    return ", ".join([*found, _program(Path(wrk), "-v") if wrk else "no wrk"])


def _program(path: Path, option: str) -> str:
    """Return what a program calls itself, and its version."""
    said = subprocess.run([path, option], capture_output=True, text=True, check=False).stdout
    return f"{path.stem} {re.findall('[0-9]+(?:[.][0-9]+)+', said)[0]}"


if __name__ == "__main__":
    main()
