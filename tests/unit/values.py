"""Values of every kind that can be stored, and how to tell that two of them are the same."""

from __future__ import annotations

import struct
import typing as t
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from uuid import UUID
from zoneinfo import ZoneInfo

from hypothesis import strategies as st
from markupsafe import Markup

#: Zones of every shape: whole and half hours, beyond a day's half, offsets in seconds, two clocks a year, half an hour
#: of summer time, a day that never was.
ZONES = [
    ZoneInfo(name)
    for name in (
        "UTC",
        "Europe/Berlin",
        "America/New_York",
        "America/St_Johns",
        "Asia/Kathmandu",
        "Australia/Lord_Howe",
        "Africa/Monrovia",
        "Pacific/Apia",
        "Pacific/Kiritimati",
        "Etc/GMT+12",
    )
]


def zones() -> st.SearchStrategy[tzinfo | None]:
    """Time zones, and none."""
    limit = timedelta(hours=24) - timedelta(microseconds=1)
    offsets = st.timedeltas(-limit, limit).map(timezone)
    return st.one_of(st.none(), st.just(UTC), offsets, st.sampled_from(ZONES))


def datetimes() -> st.SearchStrategy[datetime]:
    """Naive and aware ones, those that come twice or never included."""
    return st.builds(
        lambda moment, zone, fold: moment.replace(tzinfo=zone, fold=fold), st.datetimes(), zones(), st.integers(0, 1)
    )


def times() -> st.SearchStrategy[time]:
    """Times of day, naive and aware."""
    return st.builds(lambda moment, zone, fold: moment.replace(tzinfo=zone, fold=fold), st.times(), zones(), folds())


def folds() -> st.SearchStrategy[int]:
    """The first or the second time that a clock shows the same."""
    return st.integers(0, 1)


def ints() -> st.SearchStrategy[int]:
    """Whole numbers, those around every width and far beyond it included."""
    widths = st.sampled_from([7, 8, 16, 31, 32, 63, 64, 65, 127, 500])
    edges = st.builds(lambda sign, bits, by: sign * 2**bits + by, st.sampled_from([1, -1]), widths, st.integers(-1, 1))
    return st.one_of(st.integers(), edges)


def keys() -> st.SearchStrategy[str | int]:
    """What a dict can have as a key."""
    return st.one_of(st.text(), ints())


#: What cannot change in place, but for the one kind of number that no set can hold.
_HASHABLE = [
    st.none(),
    st.booleans(),
    ints(),
    st.floats(),
    st.text(),
    st.binary(),
    datetimes(),
    st.dates(),
    times(),
    st.timedeltas(),
    st.decimals().filter(lambda value: not value.is_snan()),
    st.uuids(),
    st.text().map(Markup),
]
_LEAVES = st.one_of(*_HASHABLE, st.just(Decimal("-sNaN7")))
_IN_SETS = st.recursive(
    st.one_of(*_HASHABLE),
    lambda inner: st.one_of(st.frozensets(inner, max_size=3), st.lists(inner, max_size=3).map(tuple)),
    max_leaves=4,
)
_VALUES = st.recursive(
    st.one_of(_LEAVES, st.sets(_IN_SETS, max_size=3), st.frozensets(_IN_SETS, max_size=3)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(keys(), inner, max_size=4),
    ),
    max_leaves=8,
)


@st.composite
def leaves(draw: st.DrawFn) -> t.Any:
    """Values that hold no others."""
    return draw(_LEAVES)


@st.composite
def values(draw: st.DrawFn) -> t.Any:
    """Everything that can be stored."""
    return draw(_VALUES)


def exact(value: t.Any) -> t.Any:
    """Return something that equals only what comes from the same value: types, signs, order and zones included."""
    kind = type(value)
    return kind, _EXACT[kind](value)


def _zone(moment: datetime | time) -> t.Any:
    zone = moment.tzinfo
    return zone.key if isinstance(zone, ZoneInfo) else None, moment.utcoffset(), zone is None


_EXACT: dict[type, t.Callable[[t.Any], t.Any]] = {
    type(None): lambda value: None,
    bool: lambda value: value,
    int: lambda value: value,
    float: lambda value: struct.pack(">d", value),
    str: str.encode,
    bytes: lambda value: value,
    list: lambda value: [exact(item) for item in value],
    tuple: lambda value: [exact(item) for item in value],
    set: lambda value: sorted(repr(exact(item)) for item in value),
    frozenset: lambda value: sorted(repr(exact(item)) for item in value),
    dict: lambda value: [(exact(key), exact(item)) for key, item in value.items()],
    datetime: lambda value: (value.replace(tzinfo=None), value.fold, _zone(value)),
    date: lambda value: value,
    time: lambda value: (value.replace(tzinfo=None), value.fold, _zone(value)),
    timedelta: lambda value: value,
    Decimal: lambda value: value.as_tuple(),
    UUID: lambda value: value,
    Markup: str.encode,
}


def rebuilt(value: t.Any) -> t.Any:
    """Return an equal value that shares nothing with it, and whose sets were filled in another order."""
    kind = type(value)
    if kind in (list, tuple):
        return kind([rebuilt(item) for item in value])
    if kind in (set, frozenset):
        return kind([rebuilt(item) for item in reversed(list(value))])
    if kind is dict:
        return {rebuilt(key): rebuilt(item) for key, item in value.items()}
    if kind is str:
        return value.encode().decode()
    return value
