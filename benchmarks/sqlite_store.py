"""What the SQLite store costs: one call, many writers at once, a purge, and a log that has to stay short.

``python -m benchmarks.sqlite_store [--seconds 4] [--rows 1000000] [--folder PLACE]`` prints one table. Latencies are in
microseconds unless another unit is given; the folder should lie on the disk that is to be judged.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import multiprocessing
import os
import random
import statistics
import tempfile
import time
import typing as t
from pathlib import Path

from flask_stateful.stores.sqlite import SQLiteStore
from flask_stateful.testing import FakeClock

VALUE = os.urandom(200)
#: How many keys the writers share.
KEYS = 100_000
MONTH = 31 * 86400

#: What was measured and the figure, one after the other.
Figures: t.TypeAlias = t.Iterator[tuple[str, float]]


class Latencies(t.NamedTuple):
    """How long the calls of one process took, in microseconds, and the longest its log ever was, in bytes."""

    reads: list[float]
    writes: list[float]
    longest_log: int


def key(number: int) -> str:
    """Return a key as long as a session's."""
    return f"session:{number:043}"


def fill(store: SQLiteStore, rows: int, ttl: float = MONTH) -> None:
    """Write so many rows, in the order of their numbers."""
    for start in range(0, rows, 10_000):
        store.set_many({key(number): VALUE for number in range(start, min(start + 10_000, rows))}, ttl)


def percentile(values: list[float], percent: float) -> float:
    """Return the value that so many percent of the values do not exceed."""
    return sorted(values)[min(len(values) - 1, int(len(values) * percent / 100))] if values else float("nan")


def median_call(call: t.Callable[[str], object], keys: t.Sequence[str]) -> float:
    """Return what one call takes: the median of 21 rounds, each the mean of its calls."""
    means = []
    for _ in range(21):
        began = time.perf_counter()
        for each in keys:
            call(each)
        means.append((time.perf_counter() - began) / len(keys) * 1e6)
    return statistics.median(means)


def use(path: Path, seconds: float, reads_percent: int, start: t.Any, results: t.Any) -> None:
    """Read and write without pause in a process of its own."""
    store = SQLiteStore(path, timeout=5)
    store.get("open the file")
    latencies = Latencies([], [], 0)
    chance, log, longest = random.Random(os.getpid()), Path(f"{path}-wal"), 0
    start.wait()
    end = time.perf_counter() + seconds
    while (began := time.perf_counter()) < end:
        name = key(chance.randrange(KEYS))
        if chance.randrange(100) < reads_percent:
            store.get(name)
            latencies.reads.append((time.perf_counter() - began) * 1e6)
        else:
            store.set(name, VALUE, MONTH)
            latencies.writes.append((time.perf_counter() - began) * 1e6)
            if len(latencies.writes) % 1000 == 0:
                longest = max(longest, log.stat().st_size)
    results.put(latencies._replace(longest_log=longest))
    store.close()


def crowd(path: Path, processes: int, seconds: float, reads_percent: int = 0) -> list[Latencies]:
    """Return what each of several processes measured at the same time."""
    context = multiprocessing.get_context("fork")
    start, results = context.Barrier(processes), context.SimpleQueue()
    children = [
        context.Process(target=use, args=(path, seconds, reads_percent, start, results), daemon=True)
        for _ in range(processes)
    ]
    for child in children:
        child.start()
    found = [results.get() for _ in children]
    for child in children:
        child.join()
    return found


def single_calls(folder: Path) -> Figures:
    """Measure calls of one thread, on a small file."""
    store = SQLiteStore(folder / "calls.sqlite3")
    fill(store, 1000)
    keys = [key(number) for number in random.Random(1).sample(range(1000), 1000)]
    yield "get, 1,000 rows", median_call(store.get, keys)
    yield "swap", median_call(lambda name: store.swap(name, VALUE, VALUE, MONTH), keys)
    yield "set", median_call(lambda name: store.set(name, VALUE, MONTH), keys)
    ttls = itertools.count(10**9, -120)  # a shorter one each time, so that the row has to move
    yield "set, ever earlier", median_call(lambda name: store.set(name, VALUE, next(ttls)), keys)
    yield "touch", median_call(lambda name: store.touch(name, MONTH), keys)
    yield "incr", median_call(lambda name: store.incr(f"n{name}"), keys)
    store.close()


def longest_pause(seconds: float) -> float:
    """Return for how many milliseconds the machine let a process wait that only looks at the clock."""
    longest, now = 0.0, time.perf_counter()
    end = now + seconds
    while now < end:
        before, now = now, time.perf_counter()
        longest = max(longest, now - before)
    return longest * 1000


def writers(folder: Path, seconds: float) -> Figures:
    """Measure one and several processes that write, and write and read, without pause."""
    yield "nothing but the clock: longest pause, ms", longest_pause(seconds)
    path = folder / "writers.sqlite3"
    store = SQLiteStore(path)
    fill(store, KEYS)
    store.close()
    for title, processes, reads in (
        ("1 writer", 1, 0),
        ("2 writers", 2, 0),
        ("4 writers", 4, 0),
        ("2 processes, 90 % reads", 2, 90),
    ):
        found = crowd(path, processes, seconds, reads)
        writes = [each for latencies in found for each in latencies.writes]
        yield f"{title}: writes/s", len(writes) / seconds
        for percent in (50, 99, 99.9):
            yield f"{title}: write p{percent}", percentile(writes, percent)
        yield f"{title}: longest write, ms", max(writes) / 1000
        if processes > 1:
            yield f"{title}: smallest share, %", min(len(each.writes) for each in found) / len(writes) * 100
        if reads:
            yield f"{title}: read p99", percentile([each for latencies in found for each in latencies.reads], 99)


def long_run(folder: Path, seconds: float) -> Figures:
    """Measure how long the log becomes when two processes write for a long time."""
    found = crowd(folder / "writers.sqlite3", 2, seconds)
    yield f"2 writers for {seconds:.0f} s: longest log, MiB", max(each.longest_log for each in found) / 2**20


def write_until(path: Path, start: t.Any, done: t.Any, results: t.Any) -> None:
    """Write without pause in a process of its own, until told to stop, and send how long each write took."""
    writes = []
    with contextlib.closing(SQLiteStore(path, timeout=5)) as store:
        store.get("open the file")
        start.wait()
        while not done.is_set():
            began = time.perf_counter()
            store.set("alive", VALUE, MONTH)
            writes.append((time.perf_counter() - began) * 1e6)
    results.put(writes)


def purge(folder: Path, rows: int) -> Figures:
    """Measure reading from a big file, and removing a tenth of it while another process writes."""
    path, chance = folder / "purge.sqlite3", random.Random(2)
    doomed, kept = dict[str, bytes](), dict[str, bytes]()
    for _ in range(rows):
        (doomed if chance.randrange(10) == 0 else kept)[key(chance.randrange(10**12))] = VALUE
    with FakeClock(time.time() - 3600), contextlib.closing(SQLiteStore(path)) as store:
        store.set_many(kept, MONTH)
        store.set_many(doomed, 60)
    with contextlib.closing(SQLiteStore(path)) as store:
        yield f"get, {rows:,} rows", median_call(store.get, chance.sample(sorted(kept), 1000))
    context = multiprocessing.get_context("fork")
    start, done, results = context.Barrier(2), context.Event(), context.SimpleQueue()
    writer = context.Process(target=write_until, args=(path, start, done, results), daemon=True)
    writer.start()
    with contextlib.closing(SQLiteStore(path, timeout=5)) as store:
        start.wait()
        began = time.perf_counter()
        store.purge_expired()
        yield f"purge: seconds, {len(doomed):,} rows", time.perf_counter() - began
    done.set()
    writes = results.get()
    writer.join()
    yield "purge: another's writes", len(writes)
    for percent in (50, 99, 99.9):
        yield f"purge: another's write p{percent}", percentile(writes, percent)
    yield "purge: another's longest write, ms", max(writes) / 1000


def main() -> None:
    """Measure everything in a folder that is removed afterwards."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=4, help="of each run with several processes")
    parser.add_argument("--long", type=float, default=30, help="seconds of the run that watches the log")
    parser.add_argument("--rows", type=int, default=1_000_000, help="of the file to purge")
    parser.add_argument("--folder", help="where to put the files; default: the system's place for temporary ones")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        for part in (
            single_calls(folder),
            writers(folder, arguments.seconds),
            long_run(folder, arguments.long),
            purge(folder, arguments.rows),
        ):
            for what, figure in part:
                print(f"{what:<44}{figure:>14,.1f}", flush=True)


if __name__ == "__main__":
    main()
