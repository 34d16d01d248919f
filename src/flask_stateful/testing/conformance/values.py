"""The rules on values: bytes of any length, given back as they were."""

# ruff: noqa: S101 - these are tests

from __future__ import annotations

import typing as t

import pytest

from ...errors import ValueTooLarge
from ...stores.base import Store
from .suite import Suite

MEBIBYTE = 2**20

#: The longest limit, in bytes, that is tried out.
_TRIED = 64 * MEBIBYTE

#: Values that some server or driver would cut, trim, decode or take for nothing.
VALUES = {
    "empty": b"",
    "every byte": bytes(range(256)),
    "NUL": b"\x00",
    "trailing NUL": b"value\x00",
    "spaces": b" value ",
    "trailing LF": b"value\n",
    "CR LF": b"value\r\nEND\r\n",
    "number": b"1",
    "number, padded": b"0001",
    "looks like nothing": b"None",
    "not UTF-8": b"\xff\xfe\x80",
    "UTF-8": "caf\u00e9".encode(),
    "JSON": b'{"a": 1}',
    "64 KiB": bytes(range(256)) * 256,
}

NOT_VALUES: dict[str, t.Any] = {
    "text": "value",
    "None": None,
    "number": 1,
    "bytearray": bytearray(b"value"),
    "memoryview": memoryview(b"value"),
    "list": [118],
}

each_value = pytest.mark.parametrize("value", [pytest.param(value, id=name) for name, value in VALUES.items()])


class ValueRules(Suite):
    """What can be a value, and how long."""

    @each_value
    def test_value_comes_back(self, store: Store, value: bytes) -> None:
        """Each way to write a value gives back the very bytes."""
        store.set("set", value)
        assert store.add("add", value)
        store.set("swap", b"before")
        assert store.swap("swap", b"before", value)
        store.set_many({"set_many": value})
        keys = ["set", "add", "swap", "set_many"]
        assert store.get_many(keys) == dict.fromkeys(keys, value)
        assert [store.get(key) for key in keys] == [value] * 4
        assert type(store.get("set")) is bytes

    @each_value
    def test_value_is_compared_whole(self, store: Store, value: bytes) -> None:
        """A swap succeeds for exactly the bytes that are there, and not for some that are nearly so."""
        store.set("key", value)
        for other in (value + b"\x00", value + b" ", value[:-1], value.swapcase(), b" " + value):
            if other != value:
                assert not store.swap("key", other, b"wrong")
        assert store.swap("key", value, b"right")
        assert store.get("key") == b"right"

    def test_large_value_comes_back(self, store: Store) -> None:
        """A value of 1 MiB, or of the store's limit, is kept whole by every way to write it."""
        first = (bytes(range(256)) * 4096)[: store.max_value_bytes]
        second = first[::-1]
        store.set("key", first)
        assert store.get("key") == first
        assert store.swap("key", first, second)
        assert store.get_many(["key"]) == {"key": second}
        assert store.add("other", first)
        store.set_many({"third": second})
        assert (store.get("other"), store.get("third")) == (first, second)

    def test_too_large_value_is_refused(self, store: Store) -> None:
        """A value of ``max_value_bytes`` is taken; one byte more raises ValueTooLarge and changes nothing."""
        if store.max_value_bytes > _TRIED:
            pytest.skip(f"takes {store.max_value_bytes:,} bytes, more than is tried")
        fits = b"x" * store.max_value_bytes
        store.set("key", fits)
        assert store.get("key") == fits
        store.set("key", b"before")
        for write in (
            lambda: store.set("key", fits + b"x"),
            lambda: store.add("other", fits + b"x"),
            lambda: store.swap("key", b"before", fits + b"x"),
            lambda: store.set_many({"key": fits + b"x"}),
        ):
            with pytest.raises(ValueTooLarge):
                write()
        assert store.get_many(["key", "other"]) == {"key": b"before"}

    @pytest.mark.parametrize("value", [pytest.param(value, id=name) for name, value in NOT_VALUES.items()])
    def test_only_bytes_are_values(self, store: Store, value: t.Any) -> None:
        """Writing anything but bytes raises TypeError and changes nothing."""
        store.set("key", b"before")
        for write in (
            lambda: store.set("key", value),
            lambda: store.add("other", value),
            lambda: store.swap("key", b"before", value),
            lambda: store.set_many({"key": value}),
        ):
            with pytest.raises(TypeError):
                write()
        assert store.get_many(["key", "other"]) == {"key": b"before"}

    def test_empty_value_is_a_value(self, store: Store) -> None:
        """An empty value is there: it is found, not added over, swapped and touched. An absent one is not."""
        store.set("empty", b"")
        assert store.get("empty") == b""
        assert store.get("absent") is None
        assert store.get_many(["empty", "absent"]) == {"empty": b""}
        assert not store.add("empty", b"x")
        assert store.touch("empty", 60)
        assert not store.swap("absent", b"", b"x")
        assert store.get("absent") is None
        assert store.swap("empty", b"", b"x")
        assert store.get("empty") == b"x"
