"""The rules on time: what a ttl can be, and that absent and expired are the same from the instant it has passed."""

# ruff: noqa: S101 - these are tests

from __future__ import annotations

import math
import sys
import typing as t
from datetime import timedelta

import pytest

from ...stores.base import Store, Ttl
from .suite import Later, Suite

DAY = 86400.0
YEAR = 365 * DAY

#: Each with two spans in seconds that add up to it: after the first it is there, after the second as well it is not.
TTLS: dict[str, tuple[Ttl, float, float]] = {
    "int": (1000, 990, 10),
    "float": (1000.5, 990, 10.5),
    "timedelta": (timedelta(minutes=20), 1190, 10),
    "timedelta of whole days": (timedelta(days=2), 1.5 * DAY, 0.5 * DAY),
    "timedelta with everything": (timedelta(days=1, seconds=1, microseconds=1), DAY - 10, 11.000001),
    "31 days": (31 * DAY, 30.5 * DAY, 0.5 * DAY),
    "10 years": (10 * YEAR, 9 * YEAR, YEAR),
}

#: Long enough to be there right away, whatever a server's integers can hold.
LONG_TTLS: dict[str, Ttl] = {
    "100 years": 100 * YEAR,
    "2**31 seconds": 2**31,
    "2**63 seconds": 2**63,
    "largest int of the machine": sys.maxsize,
    "1e300 seconds": 1e300,
    "infinite": math.inf,
    "longest timedelta": timedelta.max,
}

#: So short that a server which rounds would take it for zero.
SHORT_TTLS: dict[str, Ttl] = {
    "half a second": 0.5,
    "one millisecond": 0.001,
    "a tenth of a millisecond": 0.0001,
    "one microsecond": timedelta(microseconds=1),
    "smallest float": 5e-324,
}

NOT_TTLS: dict[str, tuple[t.Any, type[Exception]]] = {
    "zero": (0, ValueError),
    "zero as float": (0.0, ValueError),
    "negative": (-1, ValueError),
    "minus infinity": (-math.inf, ValueError),
    "not a number": (math.nan, ValueError),
    "timedelta of nothing": (timedelta(0), ValueError),
    "negative timedelta": (timedelta(days=-1, seconds=86399), ValueError),
    "True": (True, TypeError),
    "text": ("60", TypeError),
    "list": ([60], TypeError),
}


def each(cases: dict[str, t.Any], names: str = "ttl") -> pytest.MarkDecorator:
    """Run a test with each of some named cases."""
    values = [
        pytest.param(*case, id=name) if "," in names else pytest.param(case, id=name) for name, case in cases.items()
    ]
    return pytest.mark.parametrize(names, values)


class TtlRules(Suite):
    """What can be a ttl, in each operation that takes one."""

    @each(TTLS, "case")
    def test_value_lives_as_long_as_its_ttl(self, store: Store, later: Later, case: tuple[Ttl, float, float]) -> None:
        """However it was written, a value is there until its ttl has passed, and not from that instant on."""
        ttl, before, rest = case
        store.set("set", b"1", ttl)
        store.add("add", b"1", ttl)
        store.set("swap", b"0")
        store.swap("swap", b"0", b"1", ttl)
        store.set("touch", b"1")
        store.touch("touch", ttl)
        store.incr("incr", 1, ttl)
        store.set_many({"set_many": b"1"}, ttl)
        keys = ["set", "add", "swap", "touch", "incr", "set_many"]
        later(before)
        assert store.get_many(keys) == dict.fromkeys(keys, b"1")
        later(rest)
        assert [key for key in keys if store.get(key) is not None] == []
        assert store.get_many(keys) == {}

    @each(LONG_TTLS)
    def test_ttl_can_be_very_long(self, store: Store, ttl: Ttl) -> None:
        """However long a ttl is, the value is there."""
        store.set("key", b"1", ttl)
        assert store.touch("key", ttl)
        assert store.swap("key", b"1", b"2", ttl)
        assert store.add("other", b"2", ttl)
        assert store.incr("counter", 2, ttl) == 2
        assert store.get_many(["key", "other", "counter"]) == dict.fromkeys(["key", "other", "counter"], b"2")

    @each(SHORT_TTLS)
    def test_ttl_can_be_very_short(self, store: Store, later: Later, ttl: Ttl) -> None:
        """A ttl below a second, or below what the server can count, is no error and does not mean for ever."""
        store.set("key", b"x", ttl)
        store.set_many({"third": b"x"}, ttl)
        store.add("other", b"x", ttl)
        store.incr("counter", 1, ttl)
        store.set("touched", b"x")
        store.touch("touched", ttl)
        later(1)
        assert store.get_many(["key", "third", "other", "counter", "touched"]) == {}

    def test_no_ttl_means_for_ever(self, store: Store, later: Later) -> None:
        """Without a ttl a value does not expire."""
        store.set("set", b"1")
        store.add("add", b"1", None)
        store.set("swap", b"0", 60)
        store.swap("swap", b"0", b"1")
        store.set("touch", b"1", 60)
        store.touch("touch")
        store.incr("incr")
        store.set_many({"set_many": b"1"})
        keys = ["set", "add", "swap", "touch", "incr", "set_many"]
        later(9 * YEAR)
        assert store.get_many(keys) == dict.fromkeys(keys, b"1")

    @each(NOT_TTLS, "ttl, error")
    def test_wrong_ttl_is_refused(self, store: Store, later: Later, ttl: t.Any, error: type[Exception]) -> None:
        """Zero, a negative span and NaN raise ValueError, what is no span TypeError; nothing is written."""
        store.set("key", b"1", 1000)
        for write in (
            lambda: store.set("key", b"2", ttl),
            lambda: store.add("other", b"2", ttl),
            lambda: store.swap("key", b"1", b"2", ttl),
            lambda: store.touch("key", ttl),
            lambda: store.incr("other", 1, ttl),
            lambda: store.set_many({"key": b"2", "other": b"2"}, ttl),
        ):
            with pytest.raises(error, match="ttl"):
                write()
        assert store.get_many(["key", "other"]) == {"key": b"1"}
        later(990)
        assert store.get("key") == b"1"
        later(10)
        assert store.get("key") is None


class ExpiryRules(Suite):
    """Expired is absent, for every operation."""

    def test_add_wins_over_expired(self, store: Store, later: Later) -> None:
        """Where a value has expired, add writes the new one, with its own ttl."""
        store.set("key", b"old", 60)
        later(60)
        assert store.add("key", b"new", 1000)
        assert store.get("key") == b"new"
        later(990)
        assert not store.add("key", b"third")
        later(10)
        assert store.add("key", b"third")

    def test_swap_fails_on_expired(self, store: Store, later: Later) -> None:
        """An expired value cannot be swapped, and does not come back by it."""
        store.set("key", b"old", 60)
        later(60)
        assert not store.swap("key", b"old", b"new")
        assert store.get("key") is None
        assert store.add("key", b"third")

    def test_touch_fails_on_expired(self, store: Store, later: Later) -> None:
        """An expired value cannot be touched, and does not come back by it."""
        store.set("key", b"old", 60)
        later(60)
        assert not store.touch("key", 60)
        assert not store.touch("key")
        assert store.get("key") is None

    def test_incr_begins_anew_on_expired(self, store: Store, later: Later) -> None:
        """An expired counter begins at 0, with the ttl of the call that does so."""
        store.set("key", b"41", 60)
        later(60)
        assert store.incr("key", 1, 1000) == 1
        later(990)
        assert store.get("key") == b"1"
        later(10)
        assert store.incr("key", 5) == 5

    def test_delete_of_expired_is_nothing(self, store: Store, later: Later) -> None:
        """Deleting an expired value is no error and leaves none."""
        store.set("key", b"old", 60)
        later(60)
        store.delete("key")
        store.delete_many(["key"])
        assert store.get("key") is None
        assert store.add("key", b"new")

    def test_set_replaces_the_ttl(self, store: Store, later: Later) -> None:
        """A new value has its own ttl, longer, shorter or none; nothing is left of the old one."""
        store.set("none", b"1", 60)
        store.set("none", b"2")
        store.set("longer", b"1", 60)
        store.set("longer", b"2", 1000)
        store.set("shorter", b"1")
        store.set("shorter", b"2", 60)
        later(60)
        assert store.get_many(["none", "longer", "shorter"]) == {"none": b"2", "longer": b"2"}
        later(940)
        assert store.get_many(["none", "longer", "shorter"]) == {"none": b"2"}

    def test_swap_replaces_the_ttl(self, store: Store, later: Later) -> None:
        """A swap gives the value a new ttl, also where old and new are equal."""
        store.set_many({"none": b"1", "longer": b"1"}, 60)
        store.set("shorter", b"1")
        assert store.swap("none", b"1", b"1")
        assert store.swap("longer", b"1", b"1", 1000)
        assert store.swap("shorter", b"1", b"2", 60)
        later(60)
        assert store.get_many(["none", "longer", "shorter"]) == {"none": b"1", "longer": b"1"}
        later(940)
        assert store.get_many(["none", "longer", "shorter"]) == {"none": b"1"}

    def test_touch_replaces_the_ttl(self, store: Store, later: Later) -> None:
        """A touch gives the value a new ttl, longer, shorter or none."""
        store.set_many({"none": b"1", "longer": b"1"}, 60)
        store.set("shorter", b"1")
        assert store.touch("none")
        assert store.touch("longer", 1000)
        assert store.touch("shorter", 60)
        later(60)
        assert store.get_many(["none", "longer", "shorter"]) == {"none": b"1", "longer": b"1"}
        later(940)
        assert store.get_many(["none", "longer", "shorter"]) == {"none": b"1"}

    def test_lost_write_leaves_the_ttl(self, store: Store, later: Later) -> None:
        """An add or a swap that changes nothing does not change the ttl either."""
        store.set_many({"add": b"1", "swap": b"1"}, 60)
        assert not store.add("add", b"2", 1000)
        assert not store.swap("swap", b"other", b"2", 1000)
        later(60)
        assert store.get_many(["add", "swap"]) == {}

    def test_incr_leaves_the_ttl(self, store: Store, later: Later) -> None:
        """Where the store counts by itself, an existing counter keeps its ttl."""
        if "incr" not in store.abilities:
            pytest.skip("counts by the fallback, which cannot know the ttl")
        store.incr("timed", 1, 60)
        store.incr("timed", 1, 1000)
        store.incr("for ever")
        store.incr("for ever", 1, 60)
        later(60)
        assert store.get_many(["timed", "for ever"]) == {"for ever": b"2"}

    def test_each_key_has_its_own_ttl(self, store: Store, later: Later) -> None:
        """Of many values each expires at its own time."""
        for number in range(1, 51):
            store.set(f"key:{number}", b"x", number * 100)
        later(2450)
        found = store.get_many([f"key:{number}" for number in range(1, 51)])
        assert found == {f"key:{number}": b"x" for number in range(25, 51)}
