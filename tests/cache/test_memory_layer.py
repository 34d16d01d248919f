"""The in-process layer: bounded, and fair to what is used."""

from __future__ import annotations

import bisect
import dataclasses
import itertools
import math
import random
import typing as t

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_stateful.cache.entries import Entry
from flask_stateful.cache.layer import Held, hold
from flask_stateful.cache.memory import OVERHEAD, MemoryLayer
from flask_stateful.cache.values import PLAIN, Codec, codec_for


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


parts = st.one_of(st.none(), st.integers(), st.text(max_size=3), st.tuples(st.integers(), st.text(max_size=3)))
changeable = st.recursive(
    st.one_of(st.lists(parts), st.sets(parts), st.dictionaries(st.text(max_size=3), parts)),
    lambda inner: st.one_of(
        st.lists(st.one_of(parts, inner), max_size=4),
        st.dictionaries(st.one_of(st.text(max_size=3), st.integers()), st.one_of(parts, inner), max_size=4),
        st.tuples(inner).map(list),
        st.tuples(inner, parts).map(lambda both: [both]),
    ),
    max_leaves=12,
)


def deface(value: t.Any) -> None:
    """Change every list, dict and set in a value."""
    for part in value.values() if isinstance(value, dict) else value:
        if isinstance(part, (list, dict, set, tuple)):
            deface(part)
    if isinstance(value, dict):
        value["defaced"] = True
    elif isinstance(value, list):
        value.append("defaced")
    elif isinstance(value, set):
        value.add("defaced")


@given(changeable)
def test_each_reader_has_a_copy_of_its_own(value: t.Any) -> None:
    """Whatever one reader changes, the next one finds the value as it was, in its order and with its types."""
    held = hold_as(PLAIN, value)
    for _ in range(4):
        read = held.value
        assert PLAIN.encode(read) == PLAIN.encode(value)
        deface(read)


@dataclasses.dataclass(eq=False)
class Thing:
    """An object that can be in a set, and that anybody can change."""

    name: str


@pytest.mark.parametrize(
    ("annotation", "value"),
    [(list[Thing], [Thing("tea")]), (dict[str, Thing], {"a": Thing("tea")}), (set[Thing], {Thing("tea")})],
)
def test_each_reader_has_objects_of_its_own(annotation: t.Any, value: t.Any) -> None:
    """Objects that came back as themselves are nobody else's, also inside what is copied."""
    held = hold_as(codec_for(annotation), value)
    for _ in range(4):
        read = held.value
        (thing,) = read.values() if isinstance(read, dict) else read
        assert thing.name == "tea"
        thing.name = "coffee"


def hold_as(codec: Codec, value: t.Any) -> Held:
    """Return a value as memory holds it."""
    entry = Entry("key", 0.0, math.inf, math.inf, 0.0, {}, codec.encode(value))
    return hold(entry, codec, (), trusted_for=math.inf)
