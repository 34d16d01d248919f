"""The in-process layer by itself: what writing takes when it is full, and how many reads find their value."""

from __future__ import annotations

import itertools
import random
import typing as t
from collections.abc import Callable

from flask_stateful.cache.memory import MemoryLayer

from .harness import Block, Cell, measure, times
from .report import Gate, Part, Table, figure

#: The most entries that cachelib's SimpleCache is full with: it sorts them all at each write.
_SORTED: t.Final = 100_000

#: Writes that a block times, those of what sorts, and reads that the hit ratio is counted over.
_WRITES, _SLOW_WRITES = 200, 3
_READS: t.Final = 300_000

#: What is asked for, and how much of it is kept.
_OBJECTS, _KEPT = 20_000, 500

Write: t.TypeAlias = Callable[[str], object]


def run(*, rounds: int, sizes: t.Sequence[int], tick: Callable[[], None]) -> Part:
    """Measure, count, and judge.

    :param sizes: how many entries the caches are full with, the smallest first.
    """
    fillers = [("Flask-Stateful", sizes, _layer_full_with), *_peers(sizes)]
    cells = {Cell(title, f"{size:,}"): fill(size) for title, filled, fill in fillers for size in filled}
    timings = measure({cell: _block(cell, write) for cell, write in cells.items()}, rounds, tick)
    rows = []
    for title, _, _ in fillers:
        own = (Cell(title, f"{size:,}") for size in sizes)
        rows.append([title, *(figure(timings.median(cell)) if cell in cells else "" for cell in own)])
    rows.append(
        ["Flask-Stateful, the first write after every entry was read", *map(figure, map(_after_reading, sizes))]
    )
    few, many = (Cell("Flask-Stateful", f"{size:,}") for size in (sizes[0], sizes[-1]))
    gates = [Gate("C8", f"write among {sizes[-1]:,} entries against {sizes[0]:,}", timings.ratio(many, few), 2)]
    note = "Microseconds for a new value when there is room for no more: median."
    table = Table("Writing to a full cache", ("entries", *(f"{size:,}" for size in sizes)), rows, note)
    return Part([table], gates) + _hit_ratios()


def _block(cell: Cell, write: Write) -> Block:
    """Return what makes some writes and returns the mean of one, so that those which clear up are in it."""
    numbers, length = itertools.count(), _SLOW_WRITES if "SimpleCache" in cell.contender else _WRITES

    def run_block() -> float:
        spans = times(write, [f"new {number}" for number in itertools.islice(numbers, length)])
        return sum(spans) / len(spans)

    return run_block


def _layer_full_with(size: int) -> Write:
    layer = _full_layer(size)
    return lambda key: layer.set(key, b"", 0)


def _full_layer(size: int) -> MemoryLayer[bytes]:
    layer = MemoryLayer[bytes](max_bytes=1 << 40, max_entries=size)
    for number in range(size):
        layer.set(f"old {number}", b"", 0)
    return layer


def _after_reading(size: int) -> float:
    """Return what the write takes before which every entry was read, so that the hand walks past them all."""
    layer = _full_layer(size)
    for number in range(size):
        layer.get(f"old {number}")
    return times(lambda key: layer.set(key, b"", 0), ["new"])[0]


def _peers(sizes: t.Sequence[int]) -> list[tuple[str, t.Sequence[int], Callable[[int], Write]]]:
    try:
        import cachebox
        from cachelib.simple import SimpleCache
    except ImportError:
        return []

    def simple(size: int) -> Write:
        cache = SimpleCache(threshold=size)
        # Not by its own means, which would take hours.
        cache._cache.update({f"old {number}": (2**40, b"") for number in range(size + 1)})
        return lambda key: cache.set(key, b"")

    def lru(size: int) -> Write:
        cache = cachebox.LRUCache[str, bytes](size, {f"old {number}": b"" for number in range(size)})
        return lambda key: cache.insert(key, b"")

    return [
        ("cachebox LRUCache", sizes, lru),
        ("cachelib SimpleCache", [size for size in sizes if size <= _SORTED], simple),
    ]


def _hit_ratios() -> Part:
    """Count how many of the same reads find their value in different caches."""
    layer = MemoryLayer[bytes](max_bytes=1 << 40, max_entries=_KEPT)
    found = {"Flask-Stateful (SIEVE)": hit_ratio(layer.get, lambda key: layer.set(key, b"", 0))}
    try:
        import cachebox
    except ImportError:
        pass
    else:
        for title, kind in (("cachebox LRUCache", cachebox.LRUCache), ("cachebox LFUCache", cachebox.LFUCache)):
            cache = kind[str, bytes](_KEPT)
            found[title] = hit_ratio(cache.get, lambda key, cache=cache: cache.insert(key, b""))
    rows = [(title, f"{ratio:.1f} %") for title, ratio in found.items()]
    what = f"hits, {_KEPT} of {_OBJECTS:,} objects, zipf(1.0)"
    note = f"{_READS:,} reads, the same for all; whoever misses writes. Exact."
    gate = Gate("C8", what, found["Flask-Stateful (SIEVE)"], 61, "%", at_least=True)
    return Part([Table(f"How many reads are {what}", ("", "hits"), rows, note)], [gate])


def hit_ratio(get: Callable[[str], object], write: Write) -> float:
    """Return for how many percent of the reads, of which a few objects get most, a value was there."""
    weights = [1 / rank for rank in range(1, _OBJECTS + 1)]
    asked = random.Random(1).choices([f"object {number}" for number in range(_OBJECTS)], weights, k=_READS)
    hits = 0
    for key in asked:
        if get(key) is not None:
            hits += 1
        else:
            write(key)
    return hits / _READS * 100
