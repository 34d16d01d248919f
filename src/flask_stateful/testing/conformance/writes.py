"""The rules on what each operation does to what is there."""

# ruff: noqa: S101 - these are tests

from __future__ import annotations

import pytest

from ...errors import StoreError
from ...stores.base import Store
from .suite import Suite


class WriteRules(Suite):
    """Get, set, add, swap, delete, touch, and the operations on many."""

    def test_new_store_is_empty(self, store: Store) -> None:
        """Where nothing was written there is nothing."""
        assert store.get("key") is None
        assert store.get_many(["key", "other"]) == {}

    def test_set_writes_whatever_was_there(self, store: Store) -> None:
        """A set replaces a value, and the answer is always None."""
        answers: list[object] = [store.set("key", value) for value in (b"1", b"2", b"2", b"")]
        assert answers == [None] * 4
        assert store.get("key") == b""

    def test_add_writes_only_where_there_is_nothing(self, store: Store) -> None:
        """The first add wins and says so; the next changes nothing and says so."""
        assert store.add("key", b"first") is True
        assert store.add("key", b"second") is False
        assert store.add("key", b"first") is False
        assert store.get("key") == b"first"

    def test_add_loses_against_any_write(self, store: Store) -> None:
        """Add sees what set, swap, incr and set_many wrote, and wins again after a delete."""
        store.set("set", b"x")
        store.set("swap", b"y")
        store.swap("swap", b"y", b"x")
        store.incr("incr")
        store.set_many({"set_many": b"x"})
        keys = ["set", "swap", "incr", "set_many"]
        assert [store.add(key, b"new") for key in keys] == [False] * 4
        store.delete("set")
        store.delete_many(["swap", "incr", "set_many"])
        assert [store.add(key, b"new") for key in keys] == [True] * 4

    def test_swap_replaces_what_is_unchanged(self, store: Store) -> None:
        """A swap with the present value replaces it and says so."""
        store.set("key", b"1")
        assert store.swap("key", b"1", b"2") is True
        assert store.get("key") == b"2"

    def test_swap_leaves_what_was_changed(self, store: Store) -> None:
        """A swap with another value than the present one changes nothing and says so."""
        store.set("key", b"1")
        assert store.swap("key", b"other", b"2") is False
        assert store.get("key") == b"1"
        store.swap("key", b"1", b"2")
        assert store.swap("key", b"1", b"3") is False
        assert store.get("key") == b"2"

    def test_swap_never_creates(self, store: Store) -> None:
        """Where there is no value a swap fails and there is none afterwards, also when the value was there before."""
        assert store.swap("key", b"1", b"2") is False
        assert store.get("key") is None
        store.set("key", b"1")
        store.delete("key")
        assert store.swap("key", b"1", b"2") is False
        assert store.get("key") is None

    def test_swap_of_equal_values_succeeds(self, store: Store) -> None:
        """A swap whose new value equals the old one succeeds, though nothing is to be changed."""
        store.set("key", b"1")
        assert store.swap("key", b"1", b"1") is True
        assert store.get("key") == b"1"

    def test_delete_removes(self, store: Store) -> None:
        """A deleted value is gone for every operation; the answer is always None."""
        store.set("key", b"1")
        answers: list[object] = [store.delete("key"), store.delete("key")]
        assert answers == [None, None]
        assert store.get("key") is None
        assert store.get_many(["key"]) == {}
        assert not store.touch("key", 60)
        assert not store.swap("key", b"1", b"2")

    def test_touch_keeps_the_value(self, store: Store) -> None:
        """A touch says whether there is a value, and neither changes nor creates one."""
        store.set("key", b"1")
        assert store.touch("key", 60) is True
        assert store.touch("key") is True
        assert store.get("key") == b"1"
        assert store.touch("absent", 60) is False
        assert store.get("absent") is None

    def test_get_many_finds_what_is_there(self, store: Store) -> None:
        """Reading many takes any iterable, names each key once, and leaves out those without a value."""
        store.set_many({"a": b"1", "b": b"2"})
        store.set("c", b"3")
        assert store.get_many(key for key in ("a", "absent", "c", "a")) == {"a": b"1", "c": b"3"}
        assert store.get_many([]) == {}

    def test_many_can_be_thousands(self, store: Store) -> None:
        """The operations on many take more keys than one statement or packet of a server does."""
        values = {f"key:{number}": b"%d" % number for number in range(3000)}
        store.set_many(values)
        assert store.get_many(values) == values
        store.delete_many(f"key:{number}" for number in range(2999))
        assert store.get_many(values) == {"key:2999": b"2999"}

    def test_set_many_writes_each(self, store: Store) -> None:
        """Writing many replaces what was there; writing none is no error."""
        store.set("a", b"old")
        store.set_many({"a": b"1", "b": b"2"})
        store.set_many({})
        assert store.get_many(["a", "b"]) == {"a": b"1", "b": b"2"}

    def test_delete_many_removes_each(self, store: Store) -> None:
        """Deleting many takes any iterable and passes over keys without a value; deleting none is no error."""
        store.set_many({"a": b"1", "b": b"2", "c": b"3"})
        store.delete_many(key for key in ("a", "absent", "c", "a"))
        store.delete_many([])
        assert store.get_many(["a", "b", "c"]) == {"b": b"2"}


class CounterRules(Suite):
    """What incr does."""

    def test_incr_counts_from_nothing(self, store: Store) -> None:
        """A counter begins at 0; each call adds and returns the new count."""
        assert [store.incr("key"), store.incr("key"), store.incr("key", 40)] == [1, 2, 42]
        assert store.incr("key", -50) == -8
        assert store.incr("key", 0) == -8
        assert store.incr("other", -3) == -3

    def test_incr_is_decimal_text(self, store: Store) -> None:
        """A counter is kept as decimal text: it can be read, set and swapped as a value."""
        store.incr("key", 7)
        assert store.get("key") == b"7"
        store.set("key", b"41")
        assert store.incr("key") == 42
        assert store.swap("key", b"42", b"-1")
        assert store.incr("key") == 0
        assert store.get("key") == b"0"

    def test_incr_is_exact(self, store: Store) -> None:
        """Counts beyond what a floating-point number can tell apart are exact."""
        store.set("key", b"%d" % 2**53)
        assert store.incr("key") == 2**53 + 1
        assert store.get("key") == b"%d" % (2**53 + 1)

    @pytest.mark.parametrize("value", [b"", b"value", b"1.5", b"1x", b"1_0", b" 1", b"+1", b"\xff"])
    def test_incr_of_something_else_is_an_error(self, store: Store, value: bytes) -> None:
        """Adding to what is no whole number raises StoreError and changes nothing."""
        store.set("key", value)
        with pytest.raises(StoreError):
            store.incr("key")
        assert store.get("key") == value
