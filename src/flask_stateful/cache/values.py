"""Cached values to bytes and back."""

from __future__ import annotations

import functools
import typing as t
from collections.abc import Callable, Iterable

import msgspec

from ..errors import DecodeError, EncodeError
from ..serialization import FROZEN, dumps, loads

#: ``type``, as type checkers should see it.
_type_of: Callable[[t.Any], type[t.Any]] = type


class Codec(t.NamedTuple):
    """How the values of one cached function are encoded."""

    encode: Callable[[t.Any], bytes]
    decode: Callable[[bytes], t.Any]


#: For every type that sessions keep as well.
PLAIN: t.Final = Codec(functools.partial(dumps, where="the cached value"), loads)


def codec_for(annotation: t.Any) -> Codec:
    """Return the codec for what a function says it returns.

    Dataclasses, Structs and attrs classes, also inside lists and dicts, come back as themselves. Everything else is
    encoded by its own type, whatever the annotation says.
    """
    if not _has_records(annotation):
        return PLAIN
    decoder = msgspec.msgpack.Decoder(annotation)

    def encode(value: t.Any) -> bytes:
        try:
            return msgspec.msgpack.encode(value)
        except (TypeError, ValueError, RecursionError) as error:
            raise EncodeError(f"the cached value cannot be stored as its return annotation says: {error}") from None

    def decode(data: bytes) -> t.Any:
        try:
            return decoder.decode(data)
        except Exception as error:
            raise DecodeError("the bytes are not what the return annotation says") from error

    return Codec(encode, decode)


def copier(codec: Codec, payload: bytes) -> Callable[[], t.Any]:
    """Return what makes another copy of an encoded value each time it is called.

    Lists, dicts and sets are copied, and what nobody can change inside them is shared, which takes a fraction of the
    time that decoding takes. A value with anything else in it is decoded.
    """
    try:
        return _copier(codec.decode(payload))
    except TypeError:
        return functools.partial(codec.decode, payload)


def _copier(value: t.Any) -> Callable[[], t.Any]:
    """Return what copies a value, or raise :exc:`TypeError` where there is something in it that is not copied here."""
    kind = _type_of(value)
    if kind is list:
        return _copier_of_parts(value, zip(range(len(value)), value, strict=True))
    if kind is dict and all(map(is_frozen, value)):
        return _copier_of_parts(value, value.items())
    if kind is set and all(map(is_frozen, value)):
        return _copier_of_parts(value, ())
    raise TypeError


def _copier_of_parts(value: t.Any, parts: Iterable[tuple[t.Any, t.Any]]) -> Callable[[], t.Any]:
    copy: Callable[[], t.Any] = value.copy
    changeable = [(where, _copier(part)) for where, part in parts if not is_frozen(part)]
    if not changeable:
        return copy

    def copy_all() -> t.Any:
        new = copy()
        for where, copy_part in changeable:
            new[where] = copy_part()
        return new

    return copy_all


def is_frozen(value: t.Any) -> bool:
    """Tell whether nobody can change a value in place, so that everybody may have the same one."""
    if type(value) in FROZEN:
        return True
    if type(value) in (tuple, frozenset):
        return all(map(is_frozen, value))
    if isinstance(value, msgspec.Struct):
        return value.__struct_config__.frozen and all(map(is_frozen, msgspec.structs.astuple(value)))
    return False


def _has_records(annotation: t.Any) -> bool:
    if isinstance(annotation, type) and (
        hasattr(annotation, "__struct_fields__")
        or hasattr(annotation, "__dataclass_fields__")
        or hasattr(annotation, "__attrs_attrs__")
    ):
        return True
    return any(map(_has_records, t.get_args(annotation)))
