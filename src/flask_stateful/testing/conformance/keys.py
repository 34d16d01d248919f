"""The rules on keys: any text of 1 to 1,024 UTF-8 bytes is one, each is its own, anything else is not found."""

# ruff: noqa: S101 - these are tests

from __future__ import annotations

import typing as t

import pytest

from ...stores.base import Store
from .suite import Suite

#: Keys that some server, file system, collation or protocol would refuse, cut, fold or take for another.
KEYS = {
    "plain": "user:1",
    "one byte": "k",
    "other number": "user:01",
    "upper case": "USER:1",
    "capital": "User:1",
    "space": "user 1",
    "leading space": " user:1",
    "trailing space": "user:1 ",
    "only a space": " ",
    "tab": "user\t1",
    "trailing tab": "user:1\t",
    "LF": "user\n1",
    "CR LF": "user:1\r\nset user:2 0 0 1\r\nx\r\n",
    "only LF": "\n",
    "NUL": "user\x001",
    "leading NUL": "\x00user:1",
    "trailing NUL": "user:1\x00",
    "only NUL": "\x00",
    "control characters": "".join(map(chr, [*range(1, 32), *range(127, 160)])),
    "slash": "user/1",
    "leading slash": "/user:1",
    "trailing slash": "user:1/",
    "backslash": "user\\1",
    "parent folder": "../user:1",
    "dot": ".",
    "two dots": "..",
    "colons": "::",
    "asterisk": "user:*",
    "question mark": "user:?",
    "brackets": "user:[1]",
    "per cent": "user:%",
    "underscore": "user_1",
    "percent-encoded": "user%3A1",
    "plus": "user+1",
    "hash": "user#1",
    "braces": "{user}:1",
    "single quote": "user'1",
    "double quote": 'user"1',
    "dollar": "$user.1",
    "looks like a number": "1",
    "looks like another": "1.0",
    "looks like nothing": "None",
    "composed": "caf\u00e9",
    "decomposed": "cafe\u0301",
    "unaccented": "cafe",
    "ligature": "\ufb01le",
    "no ligature": "file",
    "Cyrillic a": "us\u0435r:1",
    "full width": "\uff55ser:1",
    "sharp s": "stra\u00dfe",
    "two s": "strasse",
    "Turkish i": "\u0130",
    "zero width": "user\u200b:1",
    "byte order mark": "\ufeffuser:1",
    "right to left": "\u202euser:1",
    "line separator": "user\u20281",
    "emoji": "\U0001f36a",
    "emoji with skin": "\U0001f44d\U0001f3fd",
    "last character": "\U0010ffff",
    "not a character": "\ufffe",
    "1,023 bytes": "k" * 1023,
    "1,024 bytes": "k" * 1024,
    "1,024 bytes, other end": "k" * 1023 + "l",
    "1,024 bytes, 512 characters": "\u00e9" * 512,
    "1,024 bytes, 256 characters": "\U0001f36a" * 256,
    "250 bytes": "m" * 250,
    "251 bytes": "m" * 251,
}

#: What cannot be a key.
NOT_KEYS: dict[str, t.Any] = {
    "empty": "",
    "1,025 bytes": "k" * 1025,
    "1,026 bytes, 513 characters": "\u00e9" * 513,
    "far too long": "k" * 100_000,
    "lone surrogate": "user:\ud800",
    "None": None,
    "number": 1,
    "bytes": b"user:1",
    "tuple": ("user", 1),
    "list": ["user", 1],
}

#: What cannot even be looked up in a dictionary.
_UNHASHABLE = {"list"}

each_key = pytest.mark.parametrize("key", [pytest.param(key, id=name) for name, key in KEYS.items()])
each_other = pytest.mark.parametrize("key", [pytest.param(key, id=name) for name, key in NOT_KEYS.items()])
each_other_hashable = pytest.mark.parametrize(
    "key", [pytest.param(key, id=name) for name, key in NOT_KEYS.items() if name not in _UNHASHABLE]
)


class KeyRules(Suite):
    """What can be a key, and what happens where something cannot."""

    @each_key
    def test_key_works_in_every_operation(self, store: Store, key: str) -> None:
        """Any text of 1 to 1,024 UTF-8 bytes can be written, read, changed and deleted."""
        assert store.get(key) is None
        assert store.add(key, b"1")
        assert not store.add(key, b"2")
        assert store.swap(key, b"1", b"3")
        assert store.touch(key, 1000)
        assert store.incr(key) == 4
        store.set(key, b"5")
        assert store.get(key) == b"5"
        store.delete(key)
        assert store.get(key) is None

    @each_key
    def test_key_works_in_batches(self, store: Store, key: str) -> None:
        """The same keys work in the operations on many."""
        store.set_many({key: b"1"})
        assert store.get_many([key]) == {key: b"1"}
        store.delete_many([key])
        assert store.get_many([key]) == {}

    def test_keys_are_told_apart(self, store: Store) -> None:
        """Keys that look, fold, sort or begin alike are different keys."""
        values = {key: str(number).encode() for number, key in enumerate(KEYS.values())}
        for key, value in values.items():
            assert store.add(key, value), "the store takes this key for another one"
        assert {key: store.get(key) for key in values} == values

    def test_keys_are_told_apart_in_batches(self, store: Store) -> None:
        """Keys that look alike are different keys in the operations on many as well."""
        values = {key: str(number).encode() for number, key in enumerate(KEYS.values())}
        store.set_many(values)
        assert store.get_many(values) == values

    def test_deleting_a_key_leaves_the_others(self, store: Store) -> None:
        """Deleting a key does not touch one that looks, folds or begins alike."""
        left = dict.fromkeys(KEYS.values(), b"x")
        store.set_many(left)
        for key in KEYS.values():
            store.delete(key)
            del left[key]
            assert store.get_many(KEYS.values()) == left

    @each_other
    def test_malformed_key_is_not_found(self, store: Store, key: t.Any) -> None:
        """Reading, touching or deleting what cannot be a key is no error: there is nothing."""
        store.set("user:1", b"x")
        assert store.get(key) is None
        assert store.touch(key, 60) is False
        store.delete(key)
        assert store.get("user:1") == b"x"

    @each_other_hashable
    def test_malformed_key_is_not_found_in_batches(self, store: Store, key: t.Any) -> None:
        """In the operations on many, what cannot be a key is passed over and the others are served."""
        store.set_many({"user:1": b"x", "user:2": b"y"})
        assert store.get_many(["user:1", key, "user:2"]) == {"user:1": b"x", "user:2": b"y"}
        store.delete_many(["user:1", key, "user:2"])
        assert store.get_many(["user:1", "user:2"]) == {}

    @each_other
    def test_malformed_key_cannot_be_written(self, store: Store, key: t.Any) -> None:
        """Every operation that may write raises ValueError for what cannot be a key."""
        with pytest.raises(ValueError, match="key"):
            store.set(key, b"x")
        with pytest.raises(ValueError, match="key"):
            store.add(key, b"x")
        with pytest.raises(ValueError, match="key"):
            store.swap(key, b"x", b"y")
        with pytest.raises(ValueError, match="key"):
            store.incr(key)

    @each_other_hashable
    def test_malformed_key_cannot_be_written_in_batches(self, store: Store, key: t.Any) -> None:
        """Writing many raises ValueError where one of them cannot be a key."""
        with pytest.raises(ValueError, match="key"):
            store.set_many({"user:1": b"x", key: b"y"})
