"""From the body of a declared class to its model and fields."""

from __future__ import annotations

import inspect
import re
import sys
import types
import typing as t
from collections.abc import Iterator
from datetime import timedelta

from ..stores.base import ttl_seconds
from . import registry
from .codecs import describe
from .fields import Field, Options
from .model import Model, Overflow, Purpose, versioned

if t.TYPE_CHECKING:
    from .classes import State

T = t.TypeVar("T")

_NAME: t.Final = re.compile(r"[a-z][a-z0-9_]*")
_PURPOSES: t.Final = t.get_args(Purpose)

#: Browsers keep no cookie for longer, in seconds (RFC 6265bis, section 5.5).
_LONGEST_COOKIE: t.Final = 400 * 24 * 3600


def declare(
    cls: type[State],
    *,
    name: str | None,
    version: int,
    purpose: Purpose | None,
    shared: bool | None = None,
    max_age: float | timedelta | None = None,
    overflow: Overflow | None = None,
) -> None:
    """Give a class the fields that its body and its bases declare, if there are any.

    What it does not say itself, except name and version, it takes from the declared class that it derives from.

    :raises TypeError: if something is wrong with the class; the text says what to write instead.
    """
    parent = _parent_model(cls)
    if shared not in (None, True, False):
        raise TypeError(f"{cls.__name__} has shared={shared!r}; write True or False")
    specs = _inherited(cls) | dict(_own_fields(cls))
    if not specs:
        return
    model = Model(
        title=cls.__qualname__,
        kind=vars(_kind_base(cls))["_kind"],
        name=_checked_name(cls, name),
        version=_checked_version(cls, version),
        purpose=_one_of(cls, "purpose", purpose or parent.purpose, _PURPOSES),
        shared=parent.shared if shared is None else shared,
        max_age=parent.max_age if max_age is None else _checked_age(cls, max_age),
        overflow=_one_of(cls, "overflow", overflow or parent.overflow, ("error", "spill")),
    )
    cls._model = model  # pyright: ignore[reportPrivateUsage]
    for field_name, (kind, given) in specs.items():
        field = Field(cls, field_name, kind, given, state=model.kind)
        field.label = f"{model.name}.{field_name}"
        field.key = versioned(field.label, model.version)
        model.fields[field_name] = field
        setattr(cls, field_name, field)
    registry.register(cls)


def _kind_base(cls: type[State]) -> type:
    """Return the one of our bases that a class derives from."""
    bases = [base for base in cls.__mro__[1:] if "_kind" in vars(base)]
    if len(bases) != 1:
        raise TypeError(
            f"{cls.__name__} must derive from one of CookieState, LocalState, TabState, SessionState, UserState and"
            " AppState"
        )
    return bases[0]


def _parent_model(cls: type[State]) -> Model:
    """Return the model of the declared class that this one derives from; where it does not, one that says nothing."""
    nothing = Model(title="", kind=vars(_kind_base(cls))["_kind"], name="")
    return next((vars(base)["_model"] for base in cls.__mro__[1:] if "_model" in vars(base)), nothing)


def _checked_name(cls: type[State], name: str | None) -> str:
    name = _snake_case(cls.__name__) if name is None else name
    if not _NAME.fullmatch(str(name)):
        raise TypeError(
            f"{cls.__name__} is called {name!r}, and a name has small letters, digits and underscores only, a letter"
            f' first; write class {cls.__name__}(..., name="prefs")'
        )
    return name


def _snake_case(name: str) -> str:
    """Return a class's name as a module would have it: ``HTTPPrefs`` is ``http_prefs``."""
    parts = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name)
    return parts.lower().lstrip("_")


def _checked_version(cls: type[State], version: int) -> int:
    if type(version) is not int or version < 1:
        raise TypeError(f"{cls.__name__} has version={version!r}; write a whole number, the first version is 1")
    return version


def _checked_age(cls: type[State], max_age: float | timedelta) -> float:
    seconds = ttl_seconds(max_age)
    if seconds is None or seconds > _LONGEST_COOKIE:
        raise TypeError(f"{cls.__name__} has a max_age of more than 400 days, which no browser keeps")
    return seconds


def _one_of(cls: type[State], option: str, value: T, allowed: tuple[T, ...]) -> T:
    if value not in allowed:
        raise TypeError(f"{cls.__name__} has {option}={value!r}; write one of {', '.join(map(str, allowed))}")
    return value


def _inherited(cls: type[State]) -> dict[str, tuple[t.Any, Options]]:
    """Return the types and options of the fields of all declared classes that this one derives from."""
    specs: dict[str, tuple[t.Any, Options]] = {}
    for base in reversed(cls.__mro__[1:]):
        if "_model" in vars(base):
            specs |= {name: (field.type, field.options) for name, field in vars(base)["_model"].fields.items()}
    return specs


def _own_fields(cls: type[State]) -> Iterator[tuple[str, tuple[t.Any, Options]]]:
    """Yield the names, types and options of the fields that a class body declares."""
    annotations = _annotations(cls)
    for name, value in vars(cls).items():
        if name not in annotations and not name.startswith("__") and not _is_no_field(value):
            raise TypeError(
                f"{cls.__name__}.{name} has no annotation; write `{name}: {type(value).__name__} = ...`, or ClassVar"
                " for what is no field"
            )
    for name, kind in annotations.items():
        if t.get_origin(kind) is t.ClassVar or kind is t.ClassVar:
            continue
        _require_free_name(cls, name)
        if name not in vars(cls):
            raise TypeError(f"{cls.__name__}.{name} has no default; write `{name}: {describe(kind)} = ...`")
        value = vars(cls)[name]
        yield name, (kind, value if isinstance(value, Options) else Options(default=value))


def _is_no_field(value: object) -> bool:
    """Tell whether a value is what classes have besides fields: a method, a property, a class."""
    return not isinstance(value, Options) and (isinstance(value, type) or hasattr(value, "__get__"))


def _require_free_name(cls: type[State], name: str) -> None:
    if name.startswith("_"):
        raise TypeError(
            f"{cls.__name__}.{name} begins with an underscore, which no field may; write {name.lstrip('_')}"
        )
    if any(name in vars(base) for base in cls.__mro__[1:] if "_kind" in vars(base)):
        raise TypeError(f"{cls.__name__}.{name} is what handles themselves have; choose another name")


def _annotations(cls: type[State]) -> dict[str, t.Any]:
    """Return the annotations of a class body, those that are text looked up where the class was written."""
    written = inspect.get_annotations(cls)
    holder = type(cls.__name__, (), {"__annotations__": written, "__module__": cls.__module__})
    module = vars(sys.modules.get(cls.__module__, types))
    try:
        return t.get_type_hints(holder, module, _names_around(cls), include_extras=True)
    except Exception as error:
        raise TypeError(
            f"an annotation of {cls.__name__} cannot be looked up: {error}; define or import what it names before the"
            " class, and not under TYPE_CHECKING"
        ) from None


def _names_around(cls: type[State]) -> dict[str, t.Any]:
    """Return the names that a class body sees besides its module's: those of the function it stands in, and classes."""
    frame: types.FrameType | None = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]
    while frame is not None and frame.f_globals.get("__name__") != cls.__module__:
        frame = frame.f_back
    around = {} if frame is None else frame.f_locals
    return {**around, **{name: value for name, value in vars(cls).items() if isinstance(value, type)}}
