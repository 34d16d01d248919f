"""The bases of declared classes, and what becomes of a class that derives from one."""

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
from .model import Kind, Model, Purpose, model_of, versioned
from .near import unknown
from .places import Values, values_of

_NAME: t.Final = re.compile(r"[a-z][a-z0-9_]*")
#: Browsers keep no cookie for longer, in seconds (RFC 6265bis, section 5.5).
_LONGEST_COOKIE: t.Final = 400 * 24 * 3600

_PURPOSES: t.Final = t.get_args(Purpose)

#: Attributes of a class body that are no fields, though they are not annotated.
_CALLABLES: t.Final = (types.FunctionType, property, classmethod, staticmethod, type)


class State:
    """What all declared classes have in common. Its instances are handles: they hold nothing themselves."""

    _kind: t.ClassVar[Kind]
    _model: t.ClassVar[Model]

    __slots__ = ("_user_id",)

    #: Whose state it is, where that is not the request's own user.
    _user_id: str | None

    def __init__(self) -> None:
        object.__setattr__(self, "_user_id", None)

    def __init_subclass__(
        cls, *, name: str | None = None, version: int = 1, purpose: Purpose | None = None, **options: t.Any
    ) -> None:
        super().__init_subclass__()
        if cls.__module__ == __name__:
            return
        parent = _parent_model(cls)
        specs = _inherited(cls) | dict(_own_fields(cls))
        if not specs:
            return
        model = Model(
            title=cls.__qualname__,
            kind=cls._kind,
            name=_checked_name(cls, name),
            version=_checked_version(cls, version),
            purpose=_checked_purpose(cls, purpose or (parent.purpose if parent else "necessary")),
            shared=options.get("shared", parent is not None and parent.shared),
            max_age=options.get("max_age", parent.max_age if parent else None),
            overflow=options.get("overflow", parent.overflow if parent else "error"),
        )
        cls._model = model
        for field_name, (kind, given) in specs.items():
            field = Field(cls, field_name, kind, given, state=cls._kind)
            field.key = versioned(f"{model.name}.{field_name}", model.version)
            field.label = f"{model.name}.{field_name}"
            model.fields[field_name] = field
            setattr(cls, field_name, field)
        registry.register(cls)

    def _values(self) -> Values:
        return values_of(self._model, self._user_id)

    if not t.TYPE_CHECKING:  # With these, a type checker would take any name for a field.

        def __getattr__(self, name: str) -> t.Any:
            raise AttributeError(unknown(self, name), name=name, obj=self)

        def __setattr__(self, name: str, value: t.Any) -> None:
            field = model_of(self).fields.get(name)
            if field is None:
                raise AttributeError(unknown(self, name), name=name, obj=self)
            field.__set__(self, value)

    def __delattr__(self, name: str) -> None:
        handle = type(self).__name__
        if name not in model_of(self).fields:
            raise AttributeError(unknown(self, name), name=name, obj=self)
        raise AttributeError(f"a field is not deleted but reset; write state.reset({handle}(), {name!r})")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, State):
            return NotImplemented
        return type(self) is type(other) and self._user_id == other._user_id

    def __hash__(self) -> int:
        return hash((type(self), self._user_id))

    def __reduce__(self) -> t.Any:
        return (type(self), ()) if self._user_id is None else (of_user, (type(self), self._user_id))

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>" if self._user_id is None else f"<{type(self).__name__} of a user>"


class CookieState(State):
    """State in one sealed cookie.

    :param max_age: seconds, or a timedelta, that the browser keeps it; without one, until it is closed.
    :param overflow: what happens to values that do not fit into a cookie: ``"error"``, or ``"spill"`` into the store.
    """

    _kind = "cookie"
    __slots__ = ()

    def __init_subclass__(
        cls,
        *,
        max_age: float | timedelta | None = None,
        overflow: t.Literal["error", "spill"] | None = None,
        name: str | None = None,
        version: int = 1,
        purpose: Purpose | None = None,
    ) -> None:
        options: dict[str, t.Any] = {}
        if max_age is not None:
            options["max_age"] = ttl_seconds(max_age)
            if options["max_age"] is None or options["max_age"] > _LONGEST_COOKIE:
                raise TypeError(f"{cls.__name__} has a max_age of more than 400 days, which no browser keeps")
        if overflow is not None:
            if overflow not in ("error", "spill"):
                raise TypeError(f'{cls.__name__} has overflow={overflow!r}; write "error" or "spill"')
            options["overflow"] = overflow
        super().__init_subclass__(name=name, version=version, purpose=purpose, **options)


class LocalState(State):
    """State in the browser's localStorage.

    :param shared: keep it with the browser, whoever uses it; otherwise it belongs to the signed-in user.
    """

    _kind = "local"
    __slots__ = ()

    def __init_subclass__(
        cls,
        *,
        shared: bool | None = None,
        name: str | None = None,
        version: int = 1,
        purpose: Purpose | None = None,
    ) -> None:
        options = {} if shared is None else {"shared": shared}
        super().__init_subclass__(name=name, version=version, purpose=purpose, **options)


class TabState(State):
    """State in the sessionStorage of one browser tab."""

    _kind = "tab"
    __slots__ = ()


class SessionState(State):
    """State in the session, where each field has a key of its own."""

    _kind = "session"
    __slots__ = ()


class UserState(State):
    """State that is kept for ever, once for each user."""

    _kind = "user"
    __slots__ = ()

    @classmethod
    def of(cls, user_id: str | int) -> t.Self:
        """Return a handle to another user's state.

        :raises TypeError: if the id is neither text nor a whole number.
        :raises ValueError: if it is empty.
        """
        return of_user(cls, user_id)


class AppState(State):
    """State that is kept for ever, once for the application."""

    _kind = "app"
    __slots__ = ()


S = t.TypeVar("S", bound=State)


def of_user(cls: type[S], user_id: str | int) -> S:
    """Return a handle to one user's state."""
    if isinstance(user_id, bool) or not isinstance(user_id, (str, int)):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"a user id must be str or int, not {type(user_id).__name__}; write {cls.__name__}.of(user.id)")
    if user_id == "":
        raise ValueError(f"a user id must not be empty; write {cls.__name__}.of(user.id)")
    handle = cls()
    object.__setattr__(handle, "_user_id", str(user_id))
    return handle


# From a class body to fields


def _parent_model(cls: type[State]) -> Model | None:
    """Return the model of the declared class that this one derives from, if it does."""
    kinds = {vars(base)["_kind"] for base in cls.__mro__[1:] if "_kind" in vars(base)}
    if len(kinds) != 1:
        raise TypeError(
            f"{cls.__name__} must derive from one of CookieState, LocalState, TabState, SessionState,"
            " UserState and AppState"
        )
    return next((vars(base)["_model"] for base in cls.__mro__[1:] if "_model" in vars(base)), None)


def _checked_name(cls: type[State], name: str | None) -> str:
    name = _snake_case(cls.__name__) if name is None else name
    if not _NAME.fullmatch(name):
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


def _checked_purpose(cls: type[State], purpose: Purpose) -> Purpose:
    if purpose not in _PURPOSES:
        raise TypeError(f"{cls.__name__} has purpose={purpose!r}; write one of {', '.join(_PURPOSES)}")
    return purpose


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
    return not isinstance(value, Options) and (isinstance(value, _CALLABLES) or hasattr(value, "__get__"))


def _require_free_name(cls: type[State], name: str) -> None:
    if name.startswith("_"):
        raise TypeError(
            f"{cls.__name__}.{name} begins with an underscore, which no field may; write {name.lstrip('_')}"
        )
    if any(name in vars(base) for base in cls.__mro__[1:] if base.__module__ == __name__):
        raise TypeError(f"{cls.__name__}.{name} is what handles themselves have; choose another name")


def _annotations(cls: type[State]) -> dict[str, t.Any]:
    """Return the annotations of a class body, those that are text looked up where the class was written."""
    written = inspect.get_annotations(cls)
    holder = type(cls.__name__, (), {"__annotations__": written, "__module__": cls.__module__})
    module = vars(sys.modules[cls.__module__])
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
