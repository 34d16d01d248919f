"""Values to bytes and back, losing nothing: typed MessagePack.

What :func:`loads` returns is equal to what went into :func:`dumps` and has the same type, nested values included:
``None``, ``bool``, ``int`` of any size, ``float``, ``str``, ``bytes``, ``list``, ``tuple``, ``set``, ``frozenset``,
``dict`` with ``str`` and ``int`` keys in their order, ``datetime`` (naive, aware, with its zone), ``date``, ``time``,
``timedelta``, ``Decimal``, ``UUID`` and ``Markup``, nested up to 64 deep. Any other type, subclasses of these
included, is refused. Nothing that is decoded can run code.

Values that are equal, of equal types and in equal order encode to equal bytes; sets are sorted. That is what lets a
change inside a list be found by comparing bytes.

MessagePack has no tuple, set or date. Encoding such a value as it stands would forget its type, so each is lowered to
an extension type first: the table at the end of this module is the format.
"""

from __future__ import annotations

import binascii
import enum
import typing as t
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from uuid import UUID
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from markupsafe import Markup

from .errors import DecodeError, EncodeError


class Missing(enum.Enum):
    """The type of :data:`MISSING`."""

    MISSING = "MISSING"

    def __bool__(self) -> bool:
        return False


#: No value, which ``None`` is not.
MISSING: t.Final = Missing.MISSING

#: One encoded value inside a larger encoding, not decoded yet.
Raw = msgspec.Raw

#: Types whose values cannot change in place, so that an encoding of one stays true.
FROZEN: t.Final = frozenset(
    {type(None), bool, int, float, str, bytes, datetime, date, time, timedelta, Decimal, UUID, Markup}
)

#: What MessagePack carries by itself, type and all.
_NATIVE: t.Final = frozenset({type(None), bool, float, str, bytes})

_INT_RANGE: t.Final = range(-(2**63), 2**64)

#: How many lists, dicts and the like may lie inside each other. It keeps what can be written readable: without a limit
#: of our own, reading could need a deeper stack than writing did.
MAX_DEPTH: t.Final = 64
_MICROSECOND: t.Final = timedelta(microseconds=1)

#: ``type``, as type checkers should see it.
_type_of: t.Callable[[t.Any], type[t.Any]] = type

_TO_URL_SAFE: t.Final = bytes.maketrans(b"+/", b"-_")
_FROM_URL_SAFE: t.Final = bytes.maketrans(b"-_", b"+/")

_encoder = msgspec.msgpack.Encoder()


def dumps(value: t.Any, *, where: str = "value") -> bytes:
    """Encode a value.

    :param where: how an error names the value, as in ``session['cart']``.
    :return: MessagePack with this module's extension types.
    :raises EncodeError: naming the path to the first part that has another type.
    """
    try:
        return _encoder.encode(_lower(value))
    except (TypeError, UnicodeEncodeError, RecursionError):
        raise EncodeError(_explain(value, where)) from None


def loads(data: bytes | memoryview | Raw) -> t.Any:
    """Decode what :func:`dumps` returned.

    :raises DecodeError: if the bytes are anything else.
    """
    try:
        return _decoder.decode(data)
    except Exception as error:
        raise DecodeError("the bytes are not an encoded value") from error


def dumps_items(items: t.Mapping[str, Raw]) -> bytes:
    """Encode a mapping whose values are encoded already."""
    return _encoder.encode(items)


def loads_items(data: bytes) -> dict[str, Raw]:
    """Decode a mapping but not its values; pass each to :func:`loads` when it is asked for.

    :raises DecodeError: if the bytes are not a mapping with ``str`` keys.
    """
    try:
        return _items_decoder.decode(data)
    except Exception as error:
        raise DecodeError("the bytes are not an encoded mapping") from error


def url_safe(data: bytes) -> str:
    """Return bytes as URL-safe base64 without padding (:rfc:`4648`, section 5), for keys and names."""
    return binascii.b2a_base64(data, newline=False).translate(_TO_URL_SAFE).rstrip(b"=").decode()


def from_url_safe(text: str) -> bytes | None:
    """Return the bytes that :func:`url_safe` made a text of, or ``None`` where it made no such text."""
    try:
        data = binascii.a2b_base64(text.encode("ascii").translate(_FROM_URL_SAFE) + b"=" * (-len(text) % 4))
    except ValueError:
        return None
    # Base64 leaves out what it does not know, and the last bits; only one text may stand for the same bytes.
    return data if url_safe(data) == text else None


def _lower(value: t.Any, depth: int = 0) -> t.Any:
    """Return the value as MessagePack can carry it without forgetting its type.

    :param depth: how many others the value lies in.
    """
    kind = _type_of(value)
    if kind in _NATIVE:
        return value
    if kind in _LOWER:
        return _LOWER[kind](value)
    if kind not in _LOWER_NESTED:
        raise TypeError
    if depth == MAX_DEPTH:
        raise RecursionError
    return _LOWER_NESTED[kind](value, depth + 1)


def _lower_int(value: int) -> t.Any:
    if value in _INT_RANGE:
        return value
    return msgspec.msgpack.Ext(_BIG_INT, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


def _lower_list(value: t.Iterable[t.Any], depth: int) -> list[t.Any]:
    return [_lower(item, depth) for item in value]


def _lower_dict(value: dict[t.Any, t.Any], depth: int) -> t.Any:
    for key in value:
        if type(key) is not str:
            return _lower_keyed(value, depth)
    return {key: _lower(item, depth) for key, item in value.items()}


def _lower_keyed(value: dict[t.Any, t.Any], depth: int) -> t.Any:
    if any(type(key) not in (str, int) for key in value):
        raise TypeError
    if all(type(key) is str or key in _INT_RANGE for key in value):
        return {key: _lower(item, depth) for key, item in value.items()}
    # A map's key cannot be an extension type, so one with a big int among its keys travels as a list of pairs.
    return _nest(_BIG_KEYS, (part for pair in value.items() for part in pair), depth)


def _nest(code: int, items: t.Iterable[t.Any], depth: int = 0) -> msgspec.msgpack.Ext:
    """Return an extension whose payload is itself an encoded list."""
    return msgspec.msgpack.Ext(code, _encoder.encode(_lower_list(items, depth)))


def _lower_tuple(value: tuple[t.Any, ...], depth: int) -> msgspec.msgpack.Ext:
    return _nest(_TUPLE, value, depth)


def _lower_set(value: set[t.Any] | frozenset[t.Any], depth: int) -> msgspec.msgpack.Ext:
    code = _SET if type(value) is set else _FROZENSET
    items = sorted(_encoder.encode(_lower(item, depth)) for item in value)
    return msgspec.msgpack.Ext(code, _encoder.encode([Raw(item) for item in items]))


def _lower_zone(zone: tzinfo | None, offset: timedelta | None) -> list[t.Any]:
    """Return a zone's name, where it has one that another process can look up, and its offset in microseconds."""
    name = zone.key if isinstance(zone, ZoneInfo) else None
    return [name, None if offset is None else offset // _MICROSECOND]


def _lower_datetime(value: datetime) -> msgspec.msgpack.Ext:
    zone = _lower_zone(value.tzinfo, value.utcoffset())
    return _nest(_DATETIME, [value.replace(tzinfo=None).isoformat(), value.fold, *zone])


def _lower_time(value: time) -> msgspec.msgpack.Ext:
    zone = _lower_zone(value.tzinfo, value.utcoffset())
    return _nest(_TIME, [value.replace(tzinfo=None).isoformat(), value.fold, *zone])


def _lower_date(value: date) -> msgspec.msgpack.Ext:
    return msgspec.msgpack.Ext(_DATE, value.isoformat().encode())


def _lower_timedelta(value: timedelta) -> msgspec.msgpack.Ext:
    return _nest(_TIMEDELTA, [value.days, value.seconds, value.microseconds])


def _lower_decimal(value: Decimal) -> msgspec.msgpack.Ext:
    return msgspec.msgpack.Ext(_DECIMAL, str(value).encode())


def _lower_uuid(value: UUID) -> msgspec.msgpack.Ext:
    return msgspec.msgpack.Ext(_UUID, value.bytes)


def _lower_markup(value: Markup) -> msgspec.msgpack.Ext:
    return msgspec.msgpack.Ext(_MARKUP, str.encode(value))


def _raise_zone(name: str | None, offset: int | None) -> tzinfo | None:
    if name is not None:
        try:
            return ZoneInfo(name)
        except ZoneInfoNotFoundError:
            pass  # This machine lacks the zone; its offset still gives the same instant.
    if offset is None:
        return None
    return UTC if offset == 0 else timezone(offset * _MICROSECOND)


def _raise_datetime(payload: memoryview) -> datetime:
    text, fold, name, offset = loads(payload)
    return datetime.fromisoformat(text).replace(fold=fold, tzinfo=_raise_zone(name, offset))


def _raise_time(payload: memoryview) -> time:
    text, fold, name, offset = loads(payload)
    return time.fromisoformat(text).replace(fold=fold, tzinfo=_raise_zone(name, offset))


def _raise_big_keys(payload: memoryview) -> dict[t.Any, t.Any]:
    parts = iter(loads(payload))
    return dict(zip(parts, parts, strict=True))


def _raise_ext(code: int, payload: memoryview) -> t.Any:
    """Return the value of an extension; msgspec calls this while decoding.

    The payload is looked at where it lies: with a copy for each level of nesting, a small value would fill the memory.
    """
    return _RAISE[code](payload)


def _explain(value: t.Any, where: str) -> str:
    """Say which part of a value cannot be encoded, and what to write instead."""
    too_deep = f"{where} contains itself, or is nested more than {MAX_DEPTH} deep; store it in flatter parts"
    try:
        refused = next(_refused(value, where), None)
    except RecursionError:
        return too_deep
    if refused is None:
        return too_deep
    path, part = refused
    if type(part) in (str, Markup):
        return f"{path} has a lone surrogate, which UTF-8 cannot carry; decode the text with errors='replace'"
    kind = f"{type(part).__module__}.{type(part).__qualname__}".removeprefix("builtins.")
    return f"{path} is of type {kind}, which cannot be stored; {_advice(part, is_key=path.startswith('a key of'))}"


def _advice(part: t.Any, *, is_key: bool) -> str:
    if is_key:
        return "keys must be str or int"
    for base in (str, int, bytes, dict, list, tuple, set):
        if isinstance(part, base):
            return f"convert it with {base.__name__}(...)"
    if isinstance(part, (bytearray, memoryview)):
        return "convert it with bytes(...)"
    return "store its parts as plain values, or str(...) of it"


def _refused(value: t.Any, path: str) -> t.Iterator[tuple[str, t.Any]]:
    """Yield the path to, and the value of, each part that cannot be encoded."""
    kind = _type_of(value)
    if kind is dict:
        for key, item in value.items():
            if type(key) not in (str, int):
                yield f"a key of {path}", key
            yield from _refused(key, f"a key of {path}") if type(key) is str else ()
            yield from _refused(item, f"{path}[{_shown(key)}]")
    elif kind in (list, tuple):
        for index, item in enumerate(value):
            yield from _refused(item, f"{path}[{index}]")
    elif kind in (set, frozenset):
        for item in value:
            yield from _refused(item, f"an item of {path}")
    elif kind in (str, Markup):
        if not _is_utf8(value):
            yield path, value
    elif kind not in _NATIVE and kind not in _LOWER and kind not in _LOWER_NESTED:
        yield path, value


def _shown(key: str | int) -> str:
    """Return a key as an error shows it. Python does not print a number of thousands of digits."""
    return repr(key) if isinstance(key, str) or key in _INT_RANGE else f"an int of {key.bit_length()} bits"


def _is_utf8(text: str) -> bool:
    try:
        str.encode(text)
    except UnicodeEncodeError:
        return False
    return True


# The stored format. A code, once given, keeps its meaning; readers of later versions read it too.
_TUPLE, _SET, _FROZENSET, _DATETIME, _DATE, _TIME, _TIMEDELTA = 1, 2, 3, 4, 5, 6, 7
_DECIMAL, _UUID, _MARKUP, _BIG_INT, _BIG_KEYS = 8, 9, 10, 11, 12

_LOWER: t.Final[dict[type, t.Callable[[t.Any], t.Any]]] = {
    int: _lower_int,
    datetime: _lower_datetime,
    date: _lower_date,
    time: _lower_time,
    timedelta: _lower_timedelta,
    Decimal: _lower_decimal,
    UUID: _lower_uuid,
    Markup: _lower_markup,
}

#: The same for what holds other values, and has to know how deep it lies itself.
_LOWER_NESTED: t.Final[dict[type, t.Callable[[t.Any, int], t.Any]]] = {
    list: _lower_list,
    dict: _lower_dict,
    tuple: _lower_tuple,
    set: _lower_set,
    frozenset: _lower_set,
}

_RAISE: t.Final[dict[int, t.Callable[[memoryview], t.Any]]] = {
    _TUPLE: lambda payload: tuple(loads(payload)),
    _SET: lambda payload: set(loads(payload)),
    _FROZENSET: lambda payload: frozenset(loads(payload)),
    _DATETIME: _raise_datetime,
    _DATE: lambda payload: date.fromisoformat(str(payload, "utf-8")),
    _TIME: _raise_time,
    _TIMEDELTA: lambda payload: timedelta(*loads(payload)),
    _DECIMAL: lambda payload: Decimal(str(payload, "utf-8")),
    _UUID: lambda payload: UUID(bytes=bytes(payload)),
    _MARKUP: lambda payload: Markup(str(payload, "utf-8")),
    _BIG_INT: lambda payload: int.from_bytes(payload, "big", signed=True),
    _BIG_KEYS: _raise_big_keys,
}

_decoder = msgspec.msgpack.Decoder(ext_hook=_raise_ext)
_items_decoder = msgspec.msgpack.Decoder(dict[str, Raw])
