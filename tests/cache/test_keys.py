"""Keys: no two calls share one by accident."""

from __future__ import annotations

import dataclasses
import enum
import typing as t
from datetime import date, datetime
from decimal import Decimal
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_stateful.cache.keys import Signature, canonical, store_key

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(st.characters(exclude_categories=["Cs"])),
    st.binary(),
    st.dates(),
    st.uuids(),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(st.one_of(st.text(max_size=3), st.integers()), inner, max_size=4),
        st.frozensets(scalars, max_size=4),
    ),
    max_leaves=12,
)


def same(one: t.Any, other: t.Any) -> bool:
    """Tell whether two values are equal and of equal types, all the way down."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(
            same(one[key], other[key]) and any(same(key, twin) for twin in other) for key in one
        )
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, frozenset):
        return len(one) == len(other) and all(any(same(item, twin) for twin in other) for item in one)
    return bool(repr(one) == repr(other))


@given(values, values)
def test_two_values_share_a_key_exactly_when_they_are_the_same(one: t.Any, other: t.Any) -> None:
    """The encoding tells apart what differs in value or type, and nothing else."""
    assert (canonical(one) == canonical(other)) == same(one, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, True),
        (1, 1.0),
        (1, "1"),
        (0.0, -0.0),
        ("a", b"a"),
        ([1], (1,)),
        ({1}, frozenset({1})),
        (("a_b", "c"), ("a", "b_c")),
        (["a"], ["a", "a"]),
        (date(2026, 1, 1), datetime(2026, 1, 1)),
        (Decimal("1"), 1),
        (UUID(int=1), str(UUID(int=1))),
        ("\u00e9", "e\u0301"),
    ],
)
def test_what_looks_alike_has_two_keys(one: t.Any, other: t.Any) -> None:
    """M14: values that a text would confuse are told apart, also inside others."""
    assert canonical(one) != canonical(other)
    assert canonical({"x": [one]}) != canonical({"x": [other]})


def test_order_of_a_dict_does_not_matter() -> None:
    """Two dicts with the same items are one key, however they were filled."""
    assert canonical({"a": 1, "b": {"c": 2, "d": 3}}) == canonical({"b": {"d": 3, "c": 2}, "a": 1})


class Colour(enum.Enum):
    RED = 1


class Shade(enum.Enum):
    RED = 1


@dataclasses.dataclass
class Point:
    x: int


@dataclasses.dataclass
class Other:
    x: int


class User:
    def __init__(self, number: int) -> None:
        self.number = number

    def __cache_key__(self) -> int:
        return self.number


class Plain:
    pass


def test_declared_identities_are_keys() -> None:
    """Enums, classes, dataclasses and objects with __cache_key__ are told apart by type and value."""
    keys = {
        canonical(value)
        for value in (Colour.RED, Shade.RED, 1, Point(1), Point(2), Other(1), User(1), User(2), User, Plain, len)
    }
    assert len(keys) == 11
    assert canonical(User(1)) == canonical(User(1))
    assert canonical(Point(1)) == canonical(Point(1))


def test_object_without_identity_is_refused() -> None:
    """M8: an address is no identity; the error says how to give one."""
    with pytest.raises(TypeError, match=r"argument 'user'.*__cache_key__.*key="):
        Signature(lambda user: None).key("shop", (Plain(),), {})


def test_calls_that_mean_the_same_share_a_key() -> None:
    """Defaults are filled in and names bound: f(1), f(1, 2), f(1, b=2) and f(b=2, a=1) are one key."""

    def function(a: int, b: int = 2) -> None:
        raise NotImplementedError

    signature = Signature(function)
    calls: list[tuple[tuple[t.Any, ...], dict[str, t.Any]]] = [
        ((1,), {}),
        ((1, 2), {}),
        ((1,), {"b": 2}),
        ((), {"b": 2, "a": 1}),
    ]
    assert len({signature.key("shop", *call) for call in calls}) == 1
    others = [((True,), {}), ((1.0,), {}), (("1",), {}), ((2,), {}), ((1, 3), {}), ((1, None), {})]
    assert len({signature.key("shop", args, kwargs) for args, kwargs in others}) == len(others)


def test_wrong_arguments_are_a_type_error() -> None:
    """A call that does not fit the function fails as the function itself would."""
    with pytest.raises(TypeError, match="missing a required argument"):
        Signature(lambda a: None).key("shop", (), {})


def test_namespaces_and_kinds_have_keys_of_their_own() -> None:
    """Two applications, and two kinds of cached values, share no key."""
    keys = {store_key(ns, kind, name) for ns in ("a", "b") for kind in ("view", "function") for name in ("x", "y")}
    assert len(keys) == 8
