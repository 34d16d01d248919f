"""The values of a type to bytes and back: validated, and of the very type they had.

What :mod:`~flask_stateful.serialization` keeps exactly goes through it as it is. Other values, dataclasses and enums
and the like, are lowered to such values first (:func:`msgspec.to_builtins`), and come back by their type.
"""

from __future__ import annotations

import re
import types
import typing as t
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from uuid import UUID

import msgspec
from markupsafe import Markup
from msgspec import inspect

from ..errors import DecodeError, EncodeError
from ..serialization import FROZEN, Raw, dumps, loads

#: What msgspec is to leave as it is, and to take only as it is.
_EXACT: t.Final = (bytes, datetime, date, time, timedelta, Decimal, UUID)

#: What does not come back as itself unless something knows the type.
_RECORDS: t.Final = (
    inspect.StructType,
    inspect.DataclassType,
    inspect.NamedTupleType,
    inspect.EnumType,
    inspect.CustomType,
    inspect.ByteArrayType,
    inspect.MemoryViewType,
)

#: What may hold a set, where that is lowered to a list.
_UNORDERED: t.Final = (inspect.SetType, inspect.FrozenSetType, inspect.CustomType, inspect.AnyType)

#: The largest whole number that JavaScript holds exactly: ``Number.MAX_SAFE_INTEGER``.
_MAX_SAFE: t.Final = 2**53 - 1

#: Where msgspec says that the fault lies inside the value; what stands before it may quote the value.
_PATH: t.Final = re.compile(r" - at (?:`key` in )?`\$([\w.\[\]]*)`\Z")


class TypeCodec:
    """Checks, encodes and decodes the values of one type.

    :param kind: the type, as it was annotated.
    :param where: how errors name the value, as in ``Prefs.theme``.
    :raises TypeError: if it is not a type whose values can be validated.
    """

    def __init__(self, kind: t.Any, where: str) -> None:
        self.kind = kind
        self.where = where
        try:
            infos = list(_walk(inspect.type_info(kind)))
            self._json = msgspec.json.Decoder(kind, dec_hook=_raise_custom)
        except TypeError as error:
            raise TypeError(f"{where} is declared as {describe(kind)}, which is not supported: {error}") from None
        for info in infos:
            if isinstance(info, inspect.CustomType) and not _is_custom(info.cls):
                raise TypeError(
                    f"{where} is declared with {describe(info.cls)}, whose values cannot be validated; write a type"
                    " that msgspec knows, such as a dataclass, or a pydantic model"
                )
        #: The type itself where its values need no look inside: to tell them takes a tenth of the time.
        self._scalar = kind if isinstance(kind, type) and kind in FROZEN else None
        #: Whether values are lowered before they are encoded.
        self.lowers = any(isinstance(info, _RECORDS) and not _is_markup(info) for info in infos)
        if self.lowers and any(map(_is_markup, infos)):
            raise TypeError(f"{where} has Markup inside of a record, which would come back as plain text; write str")
        #: Whether equal values encode to equal bytes in every process: a lowered set has its items in any order.
        self.steady = not self.lowers or not any(isinstance(info, _UNORDERED) for info in infos)

    def check(self, value: t.Any) -> t.Any:
        """Return the value, or what it comes to in the declared type.

        Only whole numbers for a float, another sequence for a list, an enum's value, and a dict for a record are
        converted; all else must be of the type already.

        :raises TypeError: if it, or a part of it, is of another type.
        :raises ValueError: if it is of the type and not allowed, as in a ``Literal``.
        """
        if type(value) is self._scalar:
            return value
        try:
            lowered = self._lower(value) if self.lowers else value
            checked = self._convert(lowered)
            return value if self._is_same(value, lowered, checked) else checked
        except EncodeError as error:
            raise TypeError(str(error)) from None
        except RecursionError:
            raise ValueError(f"{self.where} contains itself, or is nested too deeply") from None
        except Exception as error:
            raise self._refusal(value, str(error)) from None

    def _is_same(self, value: t.Any, lowered: t.Any, checked: t.Any) -> bool:
        """Tell whether a value is exactly what was made of it, so that it can be kept itself."""
        if type(checked) is not type(value):
            return False
        if type(value) in FROZEN:
            return True
        again = self._lower(checked) if self.lowers else checked
        return bool(checked == value) and dumps(again, where=self.where) == dumps(lowered, where=self.where)

    def _refusal(self, value: t.Any, message: str) -> Exception:
        """Return the error for a value that does not fit. What msgspec says may quote the value, so it is not shown."""
        path = _PATH.search(message)
        where = self.where + (path[1] if path else "")
        inside = f"; the fault lies at {where}" if path and path[1] else ""
        expected = f"{self.where} must be {describe(self.kind)}"
        if message.startswith("Expected `") and ", got `" in message:
            found = "" if inside else f", not {type(value).__name__}"
            return TypeError(f"{expected}{found}{inside}")
        return ValueError(f"{expected}, and this {type(value).__name__} is not allowed{inside}")

    def dumps(self, value: t.Any) -> bytes:
        """Encode a value of the type.

        :raises EncodeError: if it holds something that cannot be stored.
        """
        if not self.lowers:
            return dumps(value, where=self.where)
        try:
            lowered = self._lower(value)
        except Exception as error:
            raise EncodeError(f"{self.where} holds a value that cannot be stored: {type(error).__name__}") from None
        return dumps(lowered, where=self.where)

    def loads(self, data: bytes | Raw) -> t.Any:
        """Decode what :meth:`dumps` returned.

        :raises DecodeError: if it does not fit the type.
        """
        value = loads(data)
        if type(value) is self._scalar:
            return value
        try:
            return self._convert(value)
        except Exception:
            raise self._misfit() from None

    def to_json(self, value: t.Any) -> bytes:
        """Encode a value as JSON that JavaScript holds without loss.

        :raises EncodeError: if JavaScript cannot, or if it would not come back as it is.
        """
        try:
            data = msgspec.json.encode(self._lower(value), enc_hook=_lower_custom)
            back = self._json.decode(data)
            faithful = type(back) is type(value) and bool(back == value) and _is_safe(msgspec.json.decode(data))
        except Exception as error:
            raise EncodeError(f"{self.where} cannot be written as JSON: {type(error).__name__}") from None
        if not faithful:
            raise EncodeError(
                f"{self.where} holds what JavaScript cannot: a whole number beyond 2**53 - 1, an infinite one, or a"
                " type that its annotation does not tell; declare it as str, or annotate it more exactly"
            )
        return data

    def from_json(self, data: bytes) -> t.Any:
        """Decode JSON that comes from the browser.

        :raises DecodeError: if it does not fit the type, or cannot be stored.
        """
        try:
            value = self._json.decode(data)
            if type(value) not in FROZEN:
                self.dumps(value)
        except Exception:
            raise self._misfit() from None
        return value

    def _misfit(self) -> DecodeError:
        # Without the cause, whose text may quote the value.
        return DecodeError(f"what is kept of {self.where} does not fit {describe(self.kind)}")

    def _convert(self, lowered: t.Any) -> t.Any:
        return msgspec.convert(lowered, self.kind, builtin_types=_EXACT, dec_hook=_raise_custom)

    @staticmethod
    def _lower(value: t.Any) -> t.Any:
        return msgspec.to_builtins(value, builtin_types=_EXACT, enc_hook=_lower_custom)


def describe(kind: t.Any) -> str:
    """Return a type as one writes it."""
    if isinstance(kind, type) and not isinstance(kind, types.GenericAlias):
        return kind.__qualname__.rpartition(".")[2]
    origin: t.Any = t.get_origin(kind)
    args = t.get_args(kind)
    if origin is t.Literal:
        return f"Literal[{', '.join(map(repr, args))}]"
    if origin in (t.Union, types.UnionType):
        return " | ".join("None" if arg is type(None) else describe(arg) for arg in args)
    if origin is t.Annotated:
        return describe(args[0])
    if origin is not None and args:
        inner = ", ".join("..." if arg is ... else describe(arg) for arg in args)
        return f"{describe(origin)}[{inner}]"
    return str(kind).removeprefix("typing.")


def _walk(info: inspect.Type) -> Iterator[inspect.Type]:
    """Yield a type and all that it is made of, each once."""
    seen: set[int] = set()
    waiting: list[t.Any] = [info]
    while waiting:
        current = waiting.pop()
        if id(current) in seen:
            continue
        seen.add(id(current))
        if isinstance(current, inspect.Metadata):
            waiting.append(current.type)
            continue
        yield t.cast("inspect.Type", current)
        for name in current.__struct_fields__:
            waiting += _types_in(getattr(current, name))


def _types_in(part: t.Any) -> list[t.Any]:
    """Return the types in one attribute of a type: itself, or those of a tuple or of a record's fields."""
    parts: list[t.Any] = [*part] if isinstance(part, tuple) else [part]
    return [getattr(item, "type", item) for item in parts if isinstance(item, (inspect.Type, inspect.Field))]


def _is_markup(info: inspect.Type) -> bool:
    return isinstance(info, inspect.CustomType) and info.cls is Markup


def _is_custom(kind: t.Any) -> bool:
    """Tell whether this module knows what to do with a type that msgspec does not."""
    return kind is Markup or hasattr(kind, "model_validate_json")


def _lower_custom(value: t.Any) -> t.Any:
    """Lower a pydantic model, in the form that its strict mode takes back."""
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json", by_alias=True, round_trip=True)
    raise TypeError


def _raise_custom(kind: t.Any, value: t.Any) -> t.Any:
    """Return a value as what msgspec itself knows nothing of."""
    if kind is Markup:
        if type(value) is not Markup:
            raise TypeError
        return value
    return kind.model_validate_json(msgspec.json.encode(value), strict=True)


def _is_safe(value: t.Any) -> bool:
    """Tell whether JavaScript holds each number of a JSON value exactly."""
    if isinstance(value, (dict, list)):
        parts: t.Any = value.values() if isinstance(value, dict) else value  # pyright: ignore[reportUnknownVariableType]
        return all(map(_is_safe, parts))
    return not isinstance(value, int) or -_MAX_SAFE <= value <= _MAX_SAFE
