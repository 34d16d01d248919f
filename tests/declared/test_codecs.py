"""What goes into a field comes back equal and of the same type; what does not fit never comes out."""

from __future__ import annotations

import dataclasses
import enum
import typing as t
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from uuid import UUID

import attrs
import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from flask_stateful.declared.codecs import TypeCodec, describe
from flask_stateful.errors import DecodeError, EncodeError
from tests.unit.values import exact


class Color(enum.Enum):
    RED = "r"
    BLUE = "b"


@dataclasses.dataclass
class Box:
    size: int
    tags: set[str]
    opened: datetime | None = None


class Chain(msgspec.Struct):
    value: Decimal
    next: Chain | None = None


@attrs.define
class Spot:
    x: float
    label: str = ""


class Row(t.NamedTuple):
    key: UUID
    color: Color


class Facts(t.TypedDict, total=False):
    age: int
    names: list[str]


class Address(pydantic.BaseModel):
    street: str = pydantic.Field(min_length=1)
    since: date
    kinds: set[str] = set()
    amount: Decimal = Decimal(0)


TEXT = st.text(st.characters(codec="utf-8"), max_size=5)
MOMENTS = st.datetimes(timezones=st.sampled_from([None, UTC]))
BOXES = st.builds(Box, st.integers(), st.sets(TEXT, max_size=3), st.none() | MOMENTS)
CHAINS = st.recursive(
    st.builds(Chain, st.decimals(allow_nan=False)),
    lambda inner: st.builds(Chain, st.decimals(allow_nan=False), inner),
    max_leaves=4,
)
ADDRESSES = st.builds(
    Address,
    street=st.text(st.characters(codec="utf-8"), min_size=1, max_size=4),
    since=st.dates(),
    kinds=st.sets(TEXT, max_size=2),
    amount=st.decimals(allow_nan=False, allow_infinity=False),
)

#: A type, and values of it.
TYPES: list[tuple[t.Any, st.SearchStrategy[t.Any]]] = [
    (int, st.integers()),
    (bool, st.booleans()),
    (float, st.floats(allow_nan=False)),
    (str, TEXT),
    (bytes, st.binary(max_size=5)),
    (str | None, st.none() | TEXT),
    (t.Literal["a", 1, None], st.sampled_from(["a", 1, None])),
    (Color, st.sampled_from(Color)),
    (datetime, MOMENTS),
    (date, st.dates()),
    (time, st.times()),
    (timedelta, st.timedeltas()),
    (Decimal, st.decimals(allow_nan=False)),
    (UUID, st.uuids()),
    (Markup, TEXT.map(Markup)),
    (list[int], st.lists(st.integers(), max_size=4)),
    (tuple[int, str], st.tuples(st.integers(), TEXT)),
    (set[int], st.sets(st.integers(), max_size=4)),
    (frozenset[str], st.frozensets(TEXT, max_size=4)),
    (dict[str, list[int]], st.dictionaries(TEXT, st.lists(st.integers(), max_size=2), max_size=3)),
    (dict[int, bytes], st.dictionaries(st.integers(0, 2**63), st.binary(max_size=3), max_size=3)),
    (Facts, st.fixed_dictionaries({}, optional={"age": st.integers(), "names": st.lists(TEXT, max_size=2)})),
    (Box, BOXES),
    (list[Box], st.lists(BOXES, max_size=2)),
    (dict[str, Color], st.dictionaries(TEXT, st.sampled_from(Color), max_size=3)),
    (Chain, CHAINS),
    (Spot, st.builds(Spot, st.floats(allow_nan=False), TEXT)),
    (Row, st.builds(Row, st.uuids(), st.sampled_from(Color))),
    (Address, ADDRESSES),
    (list[Address], st.lists(ADDRESSES, max_size=2)),
    (t.Any, st.none() | st.integers() | TEXT | st.lists(st.integers(), max_size=3).map(tuple)),
]

IDS = [describe(kind) for kind, _ in TYPES]


def same(one: t.Any, other: t.Any) -> bool:
    """Tell whether two values are equal and of one type."""
    return type(one) is type(other) and one == other


@pytest.mark.parametrize(("kind", "values"), TYPES, ids=IDS)
def test_values_come_back(kind: t.Any, values: st.SearchStrategy[t.Any]) -> None:
    """A checked value is the value itself, and is equal and of the same type after encoding."""
    codec = TypeCodec(kind, "P.f")

    @given(values)
    def check(value: t.Any) -> None:
        checked = codec.check(value)
        assert same(checked, value)
        assert same(codec.loads(codec.dumps(checked)), value)

    check()


@pytest.mark.parametrize(("kind", "values"), TYPES, ids=IDS)
def test_json_is_faithful_or_refused(kind: t.Any, values: st.SearchStrategy[t.Any]) -> None:
    """What is written as JSON reads back equal and of the same type; what would not is an EncodeError."""
    codec = TypeCodec(kind, "P.f")

    @given(values)
    def check(value: t.Any) -> None:
        try:
            data = codec.to_json(codec.check(value))
        except EncodeError:
            return
        assert same(codec.from_json(data), value)

    check()


@pytest.mark.parametrize(("kind", "values"), TYPES, ids=IDS)
def test_junk_never_raises_anything_else(kind: t.Any, values: st.SearchStrategy[t.Any]) -> None:
    """Any bytes either decode to a value that fits or are a DecodeError."""
    codec = TypeCodec(kind, "P.f")

    @given(st.binary(max_size=40))
    def check(data: bytes) -> None:
        for decode in (codec.loads, codec.from_json):
            try:
                value = decode(data)
            except DecodeError:
                continue
            codec.check(value)

    check()


def test_plain_values_keep_their_exact_types() -> None:
    """Zones, tuples inside of lists and key types survive where the annotation says nothing of them."""
    codec = TypeCodec(t.Any, "P.f")
    value = [(1, {2}), {3: b"x", "y": datetime(2020, 1, 1, tzinfo=UTC)}]
    assert exact(codec.loads(codec.dumps(value))) == exact(value)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (int, "5"),
        (int, True),
        (int, 1.0),
        (bool, 1),
        (str, b"x"),
        (datetime, "2020-01-01T00:00:00"),
        (UUID, "00000000-0000-0000-0000-000000000000"),
        (Decimal, "1"),
        (Decimal, 1),
        (timedelta, 1),
        (bytes, "aaaa"),
        (list[int], [1, "2"]),
        (dict[str, int], {1: 1}),
        (Box, Box("secret", set())),
        (Facts, {"age": "secret"}),
        (Markup, "secret"),
        (t.Any, Box(1, set())),
        (t.Any, object()),
        (Address, {"street": 7, "since": "2020-01-01"}),
        (Address, Address.model_construct(street="", since=date(2020, 1, 1))),
        (Address, "secret"),
        (t.Literal["a"], "secret"),
        (Color, "secret"),
        (t.Annotated[int, msgspec.Meta(le=10)], 11),
    ],
    ids=repr,
)
def test_what_does_not_fit_is_refused(kind: t.Any, value: t.Any) -> None:
    """Nothing is converted to make it fit, and the error names field and type, never the value."""
    with pytest.raises((TypeError, ValueError), match=r"P\.f") as caught:
        TypeCodec(kind, "P.f").check(value)
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("kind", "value", "checked"),
    [
        (float, 1, 1.0),
        (tuple[int, ...], [1], (1,)),
        (Color, "r", Color.RED),
        (Box, {"size": 1, "tags": []}, Box(1, set())),
        (Address, {"street": "a", "since": "2020-01-01"}, Address(street="a", since=date(2020, 1, 1))),
    ],
    ids=repr,
)
def test_the_few_conversions(kind: t.Any, value: t.Any, checked: t.Any) -> None:
    """An int for a float, another sequence, an enum's value and a record's dict become what was declared."""
    assert same(TypeCodec(kind, "P.f").check(value), checked)


def test_a_value_that_fits_is_kept_itself() -> None:
    """What fits is not copied, so that whoever assigned a list can go on changing it."""
    numbers, boxes = [1], [Box(1, {"a", "b", "c"})]
    assert TypeCodec(list[int], "P.f").check(numbers) is numbers
    assert same(TypeCodec(list[Box], "P.f").check(boxes), boxes)


@pytest.mark.parametrize("kind", [complex, object, t.Callable, "Nope", bytes | str, Box | Chain], ids=repr)
def test_types_that_cannot_be_validated_are_refused(kind: t.Any) -> None:
    """A type that nothing can validate is a TypeError that names the field."""
    with pytest.raises(TypeError, match=r"^P\.f"):
        TypeCodec(kind, "P.f")


def test_markup_in_a_record_is_refused() -> None:
    """Markup inside of a record would come back as plain text, so the type is refused."""

    @dataclasses.dataclass
    class Page:
        html: Markup

    with pytest.raises(TypeError, match="Markup"):
        TypeCodec(Page, "P.f")


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (int, 2**53),
        (int, -(2**53)),
        (list[int], [2**60]),
        (float, float("inf")),
        (float, float("nan")),
        (dict, {1: "a"}),
        (t.Any, (1,)),
        (t.Any, {1}),
        (t.Any, b"x"),
        (Markup, Markup("x")),
    ],
    ids=repr,
)
def test_javascript_cannot_hold_it(kind: t.Any, value: t.Any) -> None:
    """What JavaScript would lose or change is an EncodeError."""
    with pytest.raises(EncodeError, match=r"^P\.f"):
        TypeCodec(kind, "P.f").to_json(value)


def test_javascript_holds_the_largest_safe_number() -> None:
    """2**53 - 1 is still exact, and keys that are numbers come back where the type says so."""
    assert TypeCodec(int, "P.f").to_json(2**53 - 1) == b"9007199254740991"
    assert TypeCodec(dict[int, str], "P.f").from_json(b'{"1":"a"}') == {1: "a"}


def test_deep_json_is_refused() -> None:
    """JSON that is nested too deeply to be stored is a DecodeError, and so is what would exhaust the stack."""
    codec = TypeCodec(t.Any, "P.f")
    for depth in (100, 100_000):
        with pytest.raises(DecodeError):
            codec.from_json(b"[" * depth + b"]" * depth)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (t.Literal["auto", "dark"], "Literal['auto', 'dark']"),
        (str | None, "str | None"),
        (t.Optional[int], "int | None"),  # noqa: UP045
        (dict[str, list[Box]], "dict[str, list[Box]]"),
        (tuple[int, ...], "tuple[int, ...]"),
        (t.Annotated[str, msgspec.Meta(max_length=3)], "str"),
        (t.Any, "Any"),
    ],
)
def test_types_are_described_as_one_writes_them(kind: t.Any, text: str) -> None:
    """Errors and inventories show a type as it stands in the code."""
    assert describe(kind) == text
