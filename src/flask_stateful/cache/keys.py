"""What a cached value is kept under: an encoding of what it depends on that no two calls share by accident.

The encoding is structured, never text glued together, so that ``("a_b", "c")`` and ``("a", "b_c")`` differ. ``1``,
``1.0``, ``True`` and ``"1"`` are four keys. The order of a dict's keys and of a set's items does not matter.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import functools
import hashlib
import inspect
import typing as t
from collections.abc import Callable, Mapping

import msgspec

from ..errors import EncodeError
from ..serialization import Raw, dumps, url_safe

#: ``type``, as type checkers should see it.
_type_of: Callable[[t.Any], type[t.Any]] = type

_encode = msgspec.msgpack.Encoder().encode

#: Types that :func:`canonical` marks, so that they share no encoding with a plain value.
_DICT, _ENUM, _CLASS, _FIELDS, _DECLARED = "dict", "enum", "class", "fields", "declared"


def canonical(value: t.Any, *, where: str = "the key") -> bytes:
    """Return the encoding of a value; equal for equal values of equal types, and for no others.

    :param where: how an error names the value, as in ``argument 'user'``.
    :raises TypeError: if the value has no identity that another process would find too; the message says how to give
        it one.
    """
    kind = _type_of(value)
    if kind in (list, tuple):
        return _encode([kind.__name__, [Raw(canonical(item, where=f"{where}[{i}]")) for i, item in enumerate(value)]])
    if kind in (set, frozenset):
        return _encode([kind.__name__, [Raw(item) for item in sorted(canonical(item, where=where) for item in value)]])
    if kind is dict:
        items = sorted((canonical(key, where=where), canonical(item, where=where)) for key, item in value.items())
        return _encode([_DICT, [[Raw(key), Raw(item)] for key, item in items]])
    try:
        return _encode(["value", Raw(dumps(value, where=where))])
    except EncodeError:
        return _encode(_identity(value, where))


def _identity(value: t.Any, where: str) -> list[t.Any]:
    """Return what identifies an object of a type that is not stored by itself."""
    declared = getattr(_type_of(value), "__cache_key__", None)
    if declared is not None:
        return [_DECLARED, _name(_type_of(value)), Raw(canonical(declared(value), where=f"{where}.__cache_key__()"))]
    if isinstance(value, enum.Enum):
        return [_ENUM, _name(_type_of(value)), value.name]
    if inspect.isclass(value) or inspect.isroutine(value):
        return [_CLASS, _name(value)]
    fields = _fields(value)
    if fields is not None:
        return [_FIELDS, _name(_type_of(value)), Raw(canonical(fields, where=where))]
    raise TypeError(
        f"{where} is of type {_name(_type_of(value))}, which has no identity that lasts; give the class a method"
        " `def __cache_key__(self): return self.id`, or pass key= to memoize()"
    )


def _fields(value: t.Any) -> dict[str, t.Any] | None:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value) if field.compare}
    if isinstance(value, msgspec.Struct):
        return {name: getattr(value, name) for name in value.__struct_fields__}
    if issubclass(_type_of(value), tuple) and hasattr(value, "_asdict"):
        return t.cast("dict[str, t.Any]", t.cast("t.Any", value)._asdict())
    return None


def _name(thing: t.Any) -> str:
    name = f"{getattr(thing, '__module__', '')}:{getattr(thing, '__qualname__', '')}"
    if "<lambda>" in name or "<locals>" in name:
        raise TypeError(f"{name} is made anew by each call and cannot be told from its twins; pass key= to memoize()")
    return name


def store_key(namespace: str, kind: str, name: str, identity: bytes = b"") -> str:
    """Return the key that the store keeps a value under.

    :param kind: what is cached, such as ``"function"``; each kind has keys of its own.
    :param name: which one of that kind.
    :param identity: which call of it, as :func:`canonical` encodes it.
    """
    digest = hashlib.sha256(_encode([kind, name, identity])).digest()
    return f"{namespace}:cache:{url_safe(digest)}"


def value_key(namespace: str, key: t.Any) -> str:
    """Return the key that the store keeps a value under whose own key is the application's."""
    return store_key(namespace, "value", "", canonical(key))


class Signature:
    """Turns the calls of a function into keys.

    :param function: its signature is read once, here. Defaults are filled in, so that ``f(1)`` and ``f(1, b=2)`` may be
        one key.
    :param key: returns what to use instead of the arguments; called each time, for it may know more than those.
    """

    #: Types of which two equal values are one key.
    _SCALARS: t.Final = frozenset({str, int, bool, bytes, type(None)})

    def __init__(self, function: Callable[..., t.Any], key: Callable[..., t.Any] | None = None) -> None:
        self.name: t.Final = f"{function.__module__}:{function.__qualname__}"
        self._signature = inspect.signature(function)
        self._key = key
        #: What returns the keys of the last calls, for each namespace. It takes the arguments of a call, and raises
        #: where two equal ones need not have one key.
        self.known: t.Final[dict[str, Callable[..., str]]] = {}

    def key(self, namespace: str, args: tuple[t.Any, ...], kwargs: Mapping[str, t.Any]) -> str:
        """Return the store key of a call.

        :raises TypeError: if the arguments do not fit, or one of them has no identity.
        """
        if namespace not in self.known:
            encode = functools.partial(self._encode_scalars, namespace)
            self.known[namespace] = functools.lru_cache(maxsize=4096, typed=True)(encode)
        with contextlib.suppress(Exception):  # they are no scalars, or do not fit, which the other says better
            return self.known[namespace](*args, **kwargs)
        return self._encode(namespace, *args, **kwargs)

    def _encode_scalars(self, namespace: str, /, *args: t.Any, **kwargs: t.Any) -> str:
        if self._key is not None or not self._SCALARS.issuperset(map(type, (*args, *kwargs.values()))):
            raise TypeError
        return self._encode(namespace, *args, **kwargs)

    def arguments(self, args: tuple[t.Any, ...], kwargs: Mapping[str, t.Any]) -> dict[str, t.Any]:
        """Return the arguments of a call by name, with the defaults."""
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return bound.arguments

    def _encode(self, namespace: str, /, *args: t.Any, **kwargs: t.Any) -> str:
        if self._key is not None:
            identity = canonical(self._key(*args, **kwargs), where="what key= returned")
        else:
            parts = [
                [name, Raw(canonical(value, where=f"argument {name!r}"))]
                for name, value in self.arguments(args, kwargs).items()
            ]
            identity = _encode(parts)
        return store_key(namespace, "function", self.name, identity)
