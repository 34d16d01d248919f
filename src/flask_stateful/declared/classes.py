"""The bases of declared classes. Their instances are handles."""

from __future__ import annotations

import typing as t
from collections.abc import Iterable
from datetime import timedelta

from .body import declare
from .model import Kind, Model, Overflow, Purpose, model_of
from .near import unknown


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
        cls, *, name: str | None = None, version: int = 1, purpose: Purpose | None = None, **foreign: t.Never
    ) -> None:
        super().__init_subclass__()
        if "_kind" not in vars(cls):
            _refuse(cls, foreign)
            declare(cls, name=name, version=version, purpose=purpose)

    if not t.TYPE_CHECKING:  # With these, a type checker would take any name for a field.

        def __new__(cls, *values: object, **named: object) -> t.Self:
            """Return a handle, or say that it takes no values."""
            if values or named:
                title, name = cls.__name__, next(iter(named), "field")
                raise TypeError(
                    f"{title}() is a handle and takes no values; write handle = {title}(); handle.{name} = ..."
                )
            return super().__new__(cls)

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


def _refuse(cls: type[State], foreign: Iterable[str], *own: str) -> None:
    """Raise where a class is declared with keywords that its kind has not."""
    for keyword in foreign:
        allowed = ", ".join((*own, "name", "version", "purpose"))
        raise TypeError(
            f"{cls.__name__} has the keyword {keyword!r}, and this kind of state has none such; it has {allowed}"
        )


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
        overflow: Overflow | None = None,
        name: str | None = None,
        version: int = 1,
        purpose: Purpose | None = None,
        **foreign: t.Never,
    ) -> None:
        _refuse(cls, foreign, "max_age", "overflow")
        declare(cls, name=name, version=version, purpose=purpose, max_age=max_age, overflow=overflow)


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
        **foreign: t.Never,
    ) -> None:
        _refuse(cls, foreign, "shared")
        declare(cls, name=name, version=version, purpose=purpose, shared=shared)


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
