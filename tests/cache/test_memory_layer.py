"""The in-process layer: bounded, and fair to what is used."""

from __future__ import annotations

import bisect
import itertools
import random

from hypothesis import given
from hypothesis import strategies as st

from flask_stateful.cache.memory import OVERHEAD, MemoryLayer


@given(st.lists(st.tuples(st.sampled_from("gsd"), st.integers(0, 8), st.integers(0, 300)), max_size=60))
def test_layer_never_lies_and_keeps_its_bounds(steps: list[tuple[str, int, int]]) -> None:
    """What it returns is what was set last, and it holds no more than it may."""
    layer = MemoryLayer[int](max_bytes=4 * OVERHEAD, max_entries=3)
    last: dict[str, int] = {}
    for number, (step, key, size) in enumerate(steps):
        name = str(key)
        if step == "s":
            layer.set(name, number, size)
            last[name] = number
        elif step == "d":
            layer.delete(name)
            last.pop(name, None)
        else:
            assert layer.get(name) in (None, last.get(name))
        assert layer.bytes <= layer.max_bytes
        assert len(layer) <= 3
    layer.clear()
    assert (layer.bytes, len(layer)) == (0, 0)


def test_what_is_used_outlives_a_scan() -> None:
    """M16: values that are asked for stay while a thousand others pass through once."""
    layer = MemoryLayer[int](max_bytes=1 << 30, max_entries=100)
    for key in range(50):
        layer.set(f"hot{key}", key, 1)
    for key in range(1000):
        for hot in range(50):
            assert layer.get(f"hot{hot}") == hot
        layer.set(f"scan{key}", key, 1)


def test_value_larger_than_everything_is_not_kept() -> None:
    """A value that alone exceeds the bound is left out, and what it would replace is gone."""
    layer = MemoryLayer[str](max_bytes=10 * OVERHEAD)
    layer.set("key", "old", 1)
    layer.set("key", "new", 11 * OVERHEAD)
    assert layer.get("key") is None
    assert len(layer) == 0


def test_hit_ratio_is_that_of_sieve() -> None:
    """500 of 20,000 values asked for by zipf(1.0) are hit at least 61 times of 100."""
    chance = random.Random(1)
    weights = list(itertools.accumulate(1 / rank for rank in range(1, 20_001)))
    layer = MemoryLayer[bool](max_bytes=1 << 30, max_entries=500)
    hits = 0
    for _ in range(200_000):
        key = str(bisect.bisect(weights, chance.random() * weights[-1]))
        if layer.get(key):
            hits += 1
        else:
            layer.set(key, True, 1)
    assert hits / 200_000 >= 0.61
