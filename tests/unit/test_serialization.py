"""The codec gives back what went in, or says what it cannot take; bytes of others are refused and cost nothing."""

from __future__ import annotations

import array
import collections
import dataclasses
import enum
import fractions
import re
import sys
import tracemalloc
import typing as t
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from pathlib import Path
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markupsafe import Markup

from flask_stateful.errors import DecodeError, EncodeError
from flask_stateful.serialization import FROZEN, Raw, dumps, dumps_items, loads, loads_items

from .values import ZONES, exact, ints, keys, leaves, rebuilt, values

BERLIN = ZoneInfo("Europe/Berlin")

#: Version 1 of the stored format: what these bytes mean, they mean for ever.
STORED = [
    (None, "c0"),
    (True, "c3"),
    (False, "c2"),
    (7, "07"),
    (-(2**63), "d38000000000000000"),
    (2**64 - 1, "cfffffffffffffffff"),
    (2**64, "c7090b010000000000000000"),
    (-(2**63) - 1, "c7090bff7fffffffffffffff"),
    (0.5, "cb3fe0000000000000"),
    ("häf", "a468c3a466"),
    (b"\x00\xff", "c40200ff"),
    ([1, "a"], "9201a161"),
    ((1, "a"), "d6019201a161"),
    ({2, 1}, "c70302920102"),
    (frozenset({2, 1}), "c70303920102"),
    ({"b": 1, "a": 2}, "82a16201a16102"),
    ({1: "a", "1": "b"}, "8201a161a131a162"),
    ({2**64: "a", "b": 0}, "c7120c94c7090b010000000000000000a161a16200"),
    (datetime(2024, 10, 27, 2, 30), "c71804 94b3323032342d31302d32375430323a33303a303000c0c0"),
    (
        datetime(2024, 10, 27, 2, 30, 0, 5, tzinfo=BERLIN, fold=1),
        "c73004 94ba323032342d31302d32375430323a33303a30302e30303030303501ad4575726f70652f4265726c696ece d693a400",
    ),
    (datetime(2024, 10, 27, 2, 30, tzinfo=UTC), "c71804 94b3323032342d31302d32375430323a33303a303000c000"),
    (
        datetime(2024, 10, 27, 2, 30, tzinfo=timezone(timedelta(hours=-1))),
        "c72004 94b3323032342d31302d32375430323a33303a303000c0d3ffffffff296c5c00",
    ),
    (date(2024, 2, 29), "c70a05 323032342d30322d3239"),
    (time(23, 59, 59, 1), "c71406 94af32333a35393a35392e30303030303100c0c0"),
    (timedelta(days=-1, seconds=1, microseconds=2), "d60793ff0102"),
    (Decimal("-1.50"), "c705082d312e3530"),
    (UUID("12345678-1234-5678-1234-567812345678"), "d80912345678123456781234567812345678"),
    (Markup("<b>"), "c7030a3c623e"),
]


class Text(str):
    """A kind of text, as libraries for translations have."""


class Whole(int):
    pass


class Table(dict[str, int]):
    pass


class Row(list[int]):
    pass


class Point(t.NamedTuple):
    x: int


class Colour(enum.Enum):
    RED = 1


class Level(enum.IntEnum):
    LOW = 1


class Size(enum.StrEnum):
    BIG = "big"


class Moment(datetime):
    pass


class Lazy:
    """Text that is not made before it is shown."""

    def __str__(self) -> str:
        return "hello"

    def __html__(self) -> str:
        return "hello"


@dataclasses.dataclass(frozen=True)
class Item:
    name: str


class Struct(msgspec.Struct, frozen=True):
    name: str


REFUSED: list[t.Any] = [
    object(),
    object,
    Text("hello"),
    Whole(1),
    Table(a=1),
    Row([1]),
    type("Tuple", (tuple,), {})((1,)),
    type("Set", (set,), {})({1}),
    type("Frozen", (frozenset,), {})({1}),
    type("Bytes", (bytes,), {})(b"1"),
    type("Float", (float,), {})(1.0),
    type("Safe", (Markup,), {})("<b>"),
    type("Number", (Decimal,), {})("1"),
    type("Day", (date,), {})(2024, 1, 1),
    type("Hour", (time,), {})(1),
    type("Span", (timedelta,), {})(1),
    type("Name", (UUID,), {})(int=1),
    Moment(2024, 1, 1),
    Point(1),
    Colour.RED,
    Level.LOW,
    Size.BIG,
    Lazy(),
    Item("a"),
    Struct("a"),
    Raw(b"\x01"),
    msgspec.msgpack.Ext(1, b"\x90"),
    bytearray(b"a"),
    memoryview(b"a"),
    array.array("i", [1]),
    collections.deque([1]),
    collections.OrderedDict(a=1),
    collections.defaultdict(int, a=1),
    collections.Counter("a"),
    {"a": 1}.keys(),
    range(3),
    (number for number in [1]),
    fractions.Fraction(1, 2),
    1j,
    ...,
    NotImplemented,
    ValueError("a"),
    Path("a"),
    sys,
    len,
    UTC,
    BERLIN,
    "\ud800",
    "a\udfff",
    Markup("\ud800"),
]

REFUSED_KEYS: list[t.Any] = [True, None, 1.5, b"a", (1,), frozenset(), Text("a"), Whole(1), Level.LOW, Size.BIG, Lazy()]


@given(values())
def test_round_trip(value: t.Any) -> None:
    """What is decoded equals what was encoded, in every type, order, sign and zone, at every depth."""
    assert exact(loads(dumps(value))) == exact(value)


@given(leaves())
def test_round_trip_of_a_part_left_encoded(value: t.Any) -> None:
    """A value that is cut out of a larger encoding decodes like any other."""
    assert exact(loads(loads_items(dumps_items({"key": Raw(dumps(value))}))["key"])) == exact(value)


@given(st.dictionaries(st.text(), values(), max_size=5))
def test_items_round_trip(items: dict[str, t.Any]) -> None:
    """A mapping of encoded values gives each back, in the mapping's order, also when they are encoded once more."""
    encoded = dumps_items({key: Raw(dumps(value)) for key, value in items.items()})
    assert list(loads_items(encoded)) == list(items)
    assert dumps_items(loads_items(encoded)) == encoded
    assert exact({key: loads(raw) for key, raw in loads_items(encoded).items()}) == exact(items)


@given(values())
def test_equal_values_encode_to_equal_bytes(value: t.Any) -> None:
    """The same value, made anew and with its sets filled in another order, has the same encoding."""
    again = rebuilt(value)
    assert exact(again) == exact(value)
    assert dumps(again) == dumps(value)


@pytest.mark.parametrize("kind", [set, frozenset])
def test_sets_encode_to_equal_bytes_whatever_their_order(kind: type[t.Any]) -> None:
    """Equal sets whose items come in another order, as the order of filling has it, have the same encoding."""
    one, other = kind([0, 8, 16]), kind([16, 8, 0])
    assert list(one) != list(other)
    assert dumps(one) == dumps(other)


@given(values(), values())
@example([1], (1,))
@example({1: 2}, {"1": 2})
@example([0.0], [-0.0])
@example([1], [True])
@example({"a": 1, "b": 2}, {"b": 2, "a": 1})
@example("<b>", Markup("<b>"))
@example({1}, frozenset({1}))
def test_values_that_differ_encode_to_bytes_that_differ(one: t.Any, other: t.Any) -> None:
    """Two encodings are equal only where the values are, so that comparing bytes finds every change."""
    assert (dumps(one) == dumps(other)) == (exact(one) == exact(other))


@given(st.dictionaries(keys(), ints()))
def test_dicts_keep_their_order_and_their_keys(value: dict[str | int, int]) -> None:
    """A dict's keys come back as text or whole numbers of any size, in their order."""
    assert list(loads(dumps(value)).items()) == list(value.items())
    assert [type(key) for key in loads(dumps(value))] == [type(key) for key in value]


@pytest.mark.parametrize("zone", ZONES, ids=str)
@pytest.mark.parametrize("fold", [0, 1])
@pytest.mark.parametrize("moment", [datetime(2024, 10, 27, 2, 30), datetime(2024, 3, 31, 2, 30), datetime(1, 1, 1)])
def test_aware_datetimes_keep_zone_and_instant(zone: ZoneInfo, fold: int, moment: datetime) -> None:
    """A datetime of a zone, also at an hour that comes twice or never, keeps the zone, the fold and the instant."""
    value = moment.replace(tzinfo=zone, fold=fold)
    decoded = loads(dumps(value))
    assert decoded.tzinfo is zone
    assert decoded.fold == fold
    assert decoded.utcoffset() == value.utcoffset()
    assert decoded == value


class Unnamed(tzinfo):
    """A zone of some library's own."""

    def utcoffset(self, moment: datetime | None) -> timedelta:
        return timedelta(hours=2)

    def dst(self, moment: datetime | None) -> timedelta:
        return timedelta(0)

    def tzname(self, moment: datetime | None) -> str:
        return "somewhere"


def test_zone_without_a_name_becomes_its_offset() -> None:
    """A zone that no other process could look up is kept as its offset: the instant stays the same."""
    value = datetime(2024, 1, 1, tzinfo=Unnamed())
    assert loads(dumps(value)) == value
    assert loads(dumps(value)).tzinfo == timezone(timedelta(hours=2))
    assert loads(dumps(time(1, tzinfo=Unnamed()))) == time(1, tzinfo=Unnamed())


def test_zone_that_this_machine_lacks_becomes_its_offset() -> None:
    """A zone that was stored by a machine with newer time zones is read as its offset."""
    value = datetime(2024, 7, 1, 12, tzinfo=BERLIN)
    encoded = dumps(value).replace(b"Europe/Berlin", b"Europe/Nimmer")
    assert loads(encoded) == value
    assert loads(encoded).utcoffset() == timedelta(hours=2)


@pytest.mark.parametrize(("value", "stored"), STORED, ids=lambda part: repr(part)[:40])
def test_stored_format_stays_readable(value: t.Any, stored: str) -> None:
    """Bytes of format version 1 decode to the value they were made from, and are what that value encodes to."""
    data = bytes.fromhex(stored)
    assert exact(loads(data)) == exact(value)
    assert dumps(value) == data


def test_frozen_types_are_those_that_hold_no_others() -> None:
    """The types said to be frozen are all that are stored but those that hold others."""
    assert {type(value) for value, _ in STORED} - FROZEN == {list, dict, tuple, set, frozenset}


# What is refused


@pytest.mark.parametrize("value", REFUSED, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize(
    ("wrap", "path"),
    [
        (lambda value: value, "session['key']"),
        (lambda value: [0, value], "session['key'][1]"),
        (lambda value: {"a": [{7: (value,)}]}, "session['key']['a'][0][7][0]"),
        (lambda value: [{(1, value)}] if _is_hashable(value) else [value], "session['key'][0]"),
    ],
    ids=["bare", "in a list", "deep inside", "in a set"],
)
def test_unknown_types_are_refused(value: t.Any, wrap: t.Callable[[t.Any], t.Any], path: str) -> None:
    """A type that is not listed is an error that names the path to it, also a kind of text, number or dict."""
    with pytest.raises(EncodeError) as caught:
        dumps(wrap(value), where="session['key']")
    assert path in str(caught.value)
    name = type(value).__name__
    assert name in str(caught.value) or "lone surrogate" in str(caught.value)


def _is_hashable(value: t.Any) -> bool:
    try:
        hash(value)
    except (TypeError, ValueError):
        return False
    return True


@pytest.mark.parametrize("value", REFUSED, ids=lambda value: type(value).__name__)
def test_advice_can_be_followed(value: t.Any) -> None:
    """Where the error names a conversion, what the conversion returns can be stored."""
    with pytest.raises(EncodeError) as caught:
        dumps(value)
    for name in re.findall(r"(\w+)\(\.\.\.\)", str(caught.value)):
        convert = {kind.__name__: kind for kind in (str, int, float, bytes, dict, list, tuple, set, frozenset)}[name]
        assert loads(dumps(convert(value))) == convert(value)


@pytest.mark.parametrize("key", REFUSED_KEYS, ids=repr)
def test_unknown_keys_are_refused(key: t.Any) -> None:
    """A dict's key that is neither text nor a whole number is an error that says so."""
    with pytest.raises(EncodeError, match=r"a key of value\['a'\].*keys must be str or int"):
        dumps({"a": {"fine": 1, key: 1}})


@pytest.mark.parametrize("key", ["\ud800", "a\udfff"])
def test_keys_that_utf8_cannot_carry_are_refused(key: str) -> None:
    """A dict's key with a lone surrogate is an error that says what to do."""
    with pytest.raises(EncodeError, match=r"a key of value\[0\] has a lone surrogate.*errors='replace'"):
        dumps([{key: 1}])


@pytest.mark.parametrize("value", ["s3cret", Text("s3cret"), Point(53), Item("s3cret"), "s3cret\ud800"])
def test_errors_do_not_show_the_value(value: t.Any) -> None:
    """What is refused is named by its type and place; the value is not in the message, nor chained to it."""
    with pytest.raises(EncodeError) as caught:
        dumps([value, object()])
    assert "s3cret" not in str(caught.value)
    assert "53" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_first_of_several_mistakes_is_named() -> None:
    """Of several parts that cannot be stored, the first is named."""
    with pytest.raises(EncodeError, match=r"^value\['a'\]\[1\] is of type object,"):
        dumps({"a": [1, object()], "b": object()})


@pytest.mark.parametrize("key", [10**5000, -(10**5000)], ids=["positive", "negative"])
def test_path_through_an_endless_key_is_named(key: int) -> None:
    """Also below a key of more digits than Python prints, the mistake is an EncodeError."""
    with pytest.raises(EncodeError, match="is of type object, which cannot be stored"):
        dumps({key: object()})


def _self_containing() -> list[t.Any]:
    in_list: list[t.Any] = []
    in_list.append(in_list)
    in_dict: dict[str, t.Any] = {}
    in_dict["a"] = in_dict
    in_tuple: list[t.Any] = []
    in_tuple.append((in_tuple,))
    return [in_list, in_dict, in_tuple]


@pytest.mark.parametrize("value", _self_containing(), ids=["list", "dict", "tuple"])
def test_value_that_contains_itself_is_refused(value: t.Any) -> None:
    """A list or dict that contains itself is an error that says so."""
    with pytest.raises(EncodeError, match="value contains itself"):
        dumps(value)


NESTS: dict[str, t.Callable[[t.Any], t.Any]] = {
    "list": lambda inner: [inner],
    "tuple": lambda inner: (inner,),
    "dict": lambda inner: {"a": inner},
    "big key": lambda inner: {2**64: inner},
    "frozenset": lambda inner: frozenset([inner]),
}


def nest(wrap: t.Callable[[t.Any], t.Any], depth: int) -> t.Any:
    """Return a value inside so many others."""
    value: t.Any = None
    for _ in range(depth):
        value = wrap(value)
    return value


@pytest.mark.parametrize("wrap", NESTS.values(), ids=NESTS)
def test_depth_has_one_limit(wrap: t.Callable[[t.Any], t.Any]) -> None:
    """Values nest 64 deep, whatever they are and however deep the calls are that store and read them."""
    encoded = dumps(nest(wrap, 64))
    assert at_depth(300, lambda: dumps(nest(wrap, 64))) == encoded
    assert at_depth(300, lambda: dumps(loads(encoded))) == encoded
    for depth in (65, 100, 300, 1000):
        with pytest.raises(EncodeError, match="value contains itself, or is nested more than 64 deep"):
            dumps(nest(wrap, depth))


def at_depth(calls: int, action: t.Callable[[], t.Any]) -> t.Any:
    """Do something so many calls further down."""
    return at_depth(calls - 1, action) if calls else action()


# What is not ours


def _kinds(value: t.Any) -> t.Iterator[type]:
    yield type(value)
    if isinstance(value, dict):
        value = [*value.keys(), *value.values()]
    if isinstance(value, (list, tuple, set, frozenset)):
        for item in value:
            yield from _kinds(item)


LISTED = FROZEN | {list, tuple, set, frozenset, dict}


@given(st.binary(max_size=200))
def test_random_bytes_are_refused_or_values(data: bytes) -> None:
    """Whatever the bytes, the outcome is a value of the listed types or a DecodeError."""
    try:
        value = loads(data)
    except DecodeError:
        return
    assert LISTED.issuperset(_kinds(value))


@given(st.binary(max_size=200))
def test_random_bytes_are_refused_or_mappings(data: bytes) -> None:
    """Whatever the bytes, the outcome is a mapping with text as keys or a DecodeError."""
    try:
        items = loads_items(data)
    except DecodeError:
        return
    assert all(type(key) is str and type(raw) is Raw for key, raw in items.items())


@given(values(), st.data())
def test_cut_bytes_are_refused(value: t.Any, data: st.DataObject) -> None:
    """An encoding that is cut anywhere, or continued, is refused."""
    encoded = dumps(value)
    with pytest.raises(DecodeError):
        loads(encoded[: data.draw(st.integers(0, len(encoded) - 1))])
    with pytest.raises(DecodeError):
        loads(encoded + data.draw(st.binary(min_size=1, max_size=9)))


@given(values(), st.data())
def test_flipped_bits_are_refused_or_values(value: t.Any, data: st.DataObject) -> None:
    """An encoding with flipped bits is refused, or is another value of the listed types."""
    encoded = bytearray(dumps(value))
    for bit in data.draw(st.lists(st.integers(0, len(encoded) * 8 - 1), min_size=1, max_size=4)):
        encoded[bit // 8] ^= 1 << bit % 8
    try:
        decoded = loads(bytes(encoded))
    except DecodeError:
        return
    assert LISTED.issuperset(_kinds(decoded))


def ext(code: int, payload: bytes) -> bytes:
    """Return an extension type's encoding."""
    return msgspec.msgpack.encode(msgspec.msgpack.Ext(code, payload))


@pytest.mark.parametrize("code", [code for code in range(-128, 128) if code != -1 and not 1 <= code <= 12])
def test_unknown_extension_is_refused(code: int) -> None:
    """An extension type without a meaning is refused."""
    with pytest.raises(DecodeError):
        loads(ext(code, b"\x90"))


@given(st.integers(1, 12), st.one_of(st.binary(max_size=40), values().map(dumps)))
def test_extension_with_another_payload_is_refused_or_a_value(code: int, payload: bytes) -> None:
    """An extension type with a payload that is not its own is refused, or is some value of the listed types."""
    try:
        value = loads(ext(code, payload))
    except DecodeError:
        return
    assert LISTED.issuperset(_kinds(value))


@pytest.mark.parametrize(
    "payload",
    [
        ext(4, dumps(["2024-01-01T00:00:00", 2, None, None])),
        ext(4, dumps(["2024-13-01T00:00:00", 0, None, None])),
        ext(4, dumps(["2024-01-01T00:00:00", 0, None, 24 * 3600 * 10**6])),
        ext(4, dumps(["2024-01-01T00:00:00", 0, "../../../../etc/passwd", None])),
        ext(4, dumps(["2024-01-01T00:00:00", 0, "/etc/passwd", None])),
        ext(4, dumps(["2024-01-01T00:00:00", 0, None])),
        ext(7, dumps([10**10, 0, 0])),
        ext(8, b"1_0x"),
        ext(9, b"short"),
        ext(10, b"\xff"),
        ext(12, dumps([1])),
        ext(12, dumps([[], 1])),
        ext(2, dumps([[]])),
        ext(1, dumps(7)),
        b"\xc1",
        b"",
    ],
)
def test_damaged_parts_are_refused(payload: bytes) -> None:
    """Dates that do not exist, zones that are paths, spans out of range and the like are refused."""
    with pytest.raises(DecodeError):
        loads(payload)
    with pytest.raises(DecodeError):
        loads(b"\x91" + payload)


def _peak(decode: t.Callable[[bytes], t.Any], data: bytes) -> int:
    """Return how many bytes an attempt to decode took at its peak."""
    tracemalloc.start()
    try:
        try:
            decode(data)
        except DecodeError:
            pass
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


LONG = b"\xff\xff\xff\xff"


@pytest.mark.parametrize(
    "marker", [b"\xdd", b"\xdf", b"\xdb", b"\xc6", b"\xc9"], ids=["list", "map", "str", "bin", "ext"]
)
@pytest.mark.parametrize("decode", [loads, loads_items])
def test_length_that_lies_is_refused_without_memory(marker: bytes, decode: t.Callable[[bytes], t.Any]) -> None:
    """Bytes that announce four billion items and hold none are refused before memory is taken for them."""
    for data in (marker + LONG, b"\x81\xa1a" + marker + LONG, (marker + LONG) * 20):
        with pytest.raises(DecodeError):
            decode(data)
        assert _peak(decode, data) < 100_000


@pytest.mark.parametrize("part", [b"\x91", b"\x81\xa1a", b"\xdc\x00\xff"], ids=["list", "map", "long list"])
@pytest.mark.parametrize("decode", [loads, loads_items])
def test_bytes_nested_too_deep_are_refused(part: bytes, decode: t.Callable[[bytes], t.Any]) -> None:
    """A hundred thousand lists or maps inside each other are refused, and take little more memory than they are."""
    data = part * 100_000 + b"\xc0"
    with pytest.raises(DecodeError):
        decode(data)
    assert _peak(decode, data) < len(data) + 500_000


@pytest.mark.parametrize("depth", [20, 100, 1000])
def test_nested_extensions_take_no_memory_for_each_level(depth: int) -> None:
    """A large value inside many extension types is not copied once for each of them."""
    data = b"\x91" + dumps(b"x" * 1_000_000)
    for _ in range(depth):
        data = b"\x91" + b"\xc9" + len(data).to_bytes(4, "big") + b"\x01" + data
    assert _peak(loads, data) < 5_000_000
