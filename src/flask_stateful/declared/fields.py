"""A field of a declared class: its type, its default, its options."""

from __future__ import annotations

import copy
import dataclasses
import typing as t
from collections.abc import Callable
from datetime import timedelta

from ..errors import DecodeError, ValueTooLarge
from ..serialization import FROZEN, MISSING, Missing, Raw
from ..stores.base import ttl_seconds
from .codecs import TypeCodec
from .places import values_of

if t.TYPE_CHECKING:
    from .classes import State

T = t.TypeVar("T")

#: Who wins where browser and server have both changed a value: one of them, or what a function makes of both, which
#: is called with the server's value and the browser's.
Conflict: t.TypeAlias = t.Literal["browser", "server"] | Callable[[t.Any, t.Any], t.Any]

#: The options that the fields of each kind of state may have.
OPTIONS: t.Final[dict[str, frozenset[str]]] = {
    "cookie": frozenset({"max_bytes"}),
    "local": frozenset({"max_bytes", "ttl", "sealed", "fresh", "mirror", "conflict"}),
    "tab": frozenset({"max_bytes", "ttl", "sealed", "fresh", "conflict"}),
    "session": frozenset({"max_bytes"}),
    "user": frozenset({"max_bytes", "sealed"}),
    "app": frozenset({"max_bytes", "sealed"}),
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a field was declared with, besides its type."""

    default: t.Any = MISSING
    factory: Callable[[], t.Any] | Missing = MISSING
    max_bytes: int | None = None
    ttl: float | timedelta | None = None
    sealed: bool = False
    fresh: bool = False
    mirror: bool | None = None
    conflict: Conflict = "browser"

    def given(self) -> set[str]:
        """Return the names of the options that say something else than they do by default."""
        return {
            option.name
            for option in dataclasses.fields(self)
            if option.name not in ("default", "factory") and getattr(self, option.name) != option.default
        }


@t.overload
def field(
    default: T,
    *,
    max_bytes: int | None = ...,
    ttl: float | timedelta | None = ...,
    sealed: bool = ...,
    fresh: bool = ...,
    mirror: bool | None = ...,
    conflict: Conflict = ...,
) -> T: ...


@t.overload
def field(
    *,
    default_factory: Callable[[], T],
    max_bytes: int | None = ...,
    ttl: float | timedelta | None = ...,
    sealed: bool = ...,
    fresh: bool = ...,
    mirror: bool | None = ...,
    conflict: Conflict = ...,
) -> T: ...


def field(
    default: t.Any = MISSING, *, default_factory: Callable[[], t.Any] | Missing = MISSING, **options: t.Any
) -> t.Any:
    """Declare a field with options, in the body of a declared class.

    :param default: the value of a field that was never set; each reader gets a copy of its own.
    :param default_factory: returns the default instead.
    :param max_bytes: how long its encoding may be; a longer value is refused at assignment.
    :param ttl: seconds, or a timedelta, after which the browser forgets it.
    :param sealed: the browser, or the store, holds it but can neither read nor forge it.
    :param fresh: refuse an older sealed value that the browser brings back.
    :param mirror: keep it in a small cookie as well, so that the server needs no store for it; decided by its type
        unless you say so.
    :param conflict: who wins where browser and server have both changed it: ``"browser"``, ``"server"``, or a function
        that is called with the server's value and the browser's and returns the one to keep.
    :raises TypeError: if there is no default, or there are two.
    """
    if (default is MISSING) == (default_factory is MISSING):
        raise TypeError("a field needs a default, or a default_factory; write field(0) or field(default_factory=list)")
    known = {option.name for option in dataclasses.fields(Options)} - {"default", "factory"}
    if unknown := sorted(options.keys() - known):
        raise TypeError(f"a field has no option {unknown[0]!r}; it has {', '.join(sorted(known))}")
    return Options(default=default, factory=default_factory, **options)


class Field:
    """One field of a declared class, which is a descriptor: ``Prefs.theme`` is the field, ``Prefs().theme`` its value.

    :raises TypeError: if its default does not fit, its type cannot be validated, or its kind lacks an option.
    """

    def __init__(self, owner: type[State], name: str, kind: t.Any, options: Options, *, state: str) -> None:
        self.owner: t.Final = owner
        self.name: t.Final = name
        #: The type that it is annotated with.
        self.type: t.Final = kind
        #: How errors name it.
        self.where: t.Final = f"{owner.__name__}.{name}"
        #: What it is called wherever fields are kept one by one, as in ``prefs.theme`` and, from version 2 on,
        #: ``prefs.theme~2``.
        self.key = ""
        #: What signals call it, whatever its version: ``prefs.theme``.
        self.label = ""
        #: How long its encoding may be, in bytes.
        self.max_bytes: t.Final = options.max_bytes
        #: Seconds until the browser forgets it.
        self.ttl: t.Final = ttl_seconds(options.ttl)
        self.sealed: t.Final = options.sealed
        self.fresh: t.Final = options.fresh
        #: Whether a small cookie holds it as well; ``None`` leaves that to its type.
        self.mirror: t.Final = options.mirror
        self.conflict: t.Final = options.conflict
        self.options: t.Final = options
        self._refuse_options(state)
        self._codec = TypeCodec(kind, self.where)
        #: Whether equal values encode to equal bytes in every process.
        self.steady: t.Final = self._codec.steady
        self._default = self._checked_default(options, is_json=state in ("local", "tab") and not self.sealed)
        self._is_shared = type(self._default) in FROZEN

    def _refuse_options(self, state: str) -> None:
        foreign = sorted(self.options.given() - OPTIONS[state])
        if foreign:
            allowed = ", ".join(sorted(OPTIONS[state]))
            raise TypeError(
                f"{self.where} has the option {foreign[0]!r}, and {state} state has none such; it has {allowed}"
            )
        if self.fresh and not self.sealed:
            raise TypeError(f"{self.where} is fresh and not sealed; write field(..., sealed=True, fresh=True)")
        if self.mirror and self.sealed:
            raise TypeError(f"{self.where} is sealed, so no cookie that scripts read can mirror it; remove mirror=True")
        for option in ("sealed", "fresh", "mirror"):
            if getattr(self, option) not in (None, True, False):
                raise TypeError(f"{self.where} has {option}={getattr(self, option)!r}; write True or False")
        if self.max_bytes is not None and (type(self.max_bytes) is not int or self.max_bytes < 1):
            raise TypeError(f"{self.where} has max_bytes={self.max_bytes!r}; write a number of bytes above 0")
        if self.conflict not in ("browser", "server") and not callable(self.conflict):
            raise TypeError(f'{self.where} has a conflict that is neither "browser", "server" nor a function')

    def _checked_default(self, options: Options, *, is_json: bool) -> t.Any:
        made = options.default if isinstance(options.factory, Missing) else options.factory()
        try:
            default = self.check(made)
            self.to_json(default) if is_json else self.dumps(default)
        except Exception as error:
            raise TypeError(f"the default of {self.where} does not fit: {error}") from None
        return default

    def default(self) -> t.Any:
        """Return the default, a copy of its own each time."""
        if self._is_shared:
            return self._default
        factory = self.options.factory
        return copy.deepcopy(self._default) if isinstance(factory, Missing) else self.check(factory())

    def check(self, value: t.Any) -> t.Any:
        """Return a value as the field keeps it.

        :raises TypeError: if it is of another type.
        :raises ValueError: if it is of the type and not allowed.
        """
        return self._codec.check(value)

    def dumps(self, value: t.Any) -> bytes:
        """Encode a value as typed MessagePack.

        :raises EncodeError: if it holds something that cannot be stored.
        :raises ValueTooLarge: if it is longer than ``max_bytes``.
        """
        return self._small_enough(self._codec.dumps(value))

    def loads(self, data: bytes | Raw) -> t.Any:
        """Decode what :meth:`dumps` returned.

        :raises DecodeError: if it does not fit the field.
        """
        return self._codec.loads(data)

    def to_json(self, value: t.Any) -> bytes:
        """Encode a value for the browser.

        :raises EncodeError: if JavaScript cannot hold it without loss.
        :raises ValueTooLarge: if it is longer than ``max_bytes``.
        """
        return self._small_enough(self._codec.to_json(value))

    def from_json(self, data: bytes) -> t.Any:
        """Decode what the browser sent.

        :raises DecodeError: if it does not fit the field.
        """
        if self.max_bytes is not None and len(data) > self.max_bytes:
            raise DecodeError(f"what the browser sent for {self.where} is longer than {self.max_bytes:,} bytes")
        return self._codec.from_json(data)

    def _small_enough(self, data: bytes) -> bytes:
        if self.max_bytes is not None and len(data) > self.max_bytes:
            raise ValueTooLarge(
                f"{self.where} takes {len(data):,} bytes and allows {self.max_bytes:,}; raise its max_bytes"
            )
        return data

    # Access through a handle

    @t.overload
    def __get__(self, handle: None, owner: type[State]) -> Field: ...

    @t.overload
    def __get__(self, handle: State, owner: type[State]) -> t.Any: ...

    def __get__(self, handle: State | None, owner: type[State]) -> t.Any:
        return self if handle is None else values_of(handle).get(self)

    def __set__(self, handle: State, value: t.Any) -> None:
        values_of(handle).set(self, self.check(value))

    def __repr__(self) -> str:
        return f"<Field {self.where}>"
