"""Where declared state is kept: what an application has to offer for each kind."""

from __future__ import annotations

import threading
import typing as t
from collections.abc import Callable

from flask import current_app

from ..errors import ConfigError

if t.TYPE_CHECKING:
    from flask import Flask

    from .classes import State
    from .fields import Field
    from .model import Model

#: Where an application keeps what it has of us, in ``app.extensions``.
EXTENSION: t.Final = "stateful"

#: Returns the current application itself: to go through the proxy takes longer than to read a field.
_current_app: t.Callable[[], Flask] = t.cast("t.Any", current_app)._get_current_object


class Values(t.Protocol):
    """The values of one declared class for the request at hand."""

    def get(self, field: Field) -> t.Any:
        """Return a field's value, or its default. If that can change in place, a change is seen."""

    def set(self, field: Field, value: t.Any) -> None:
        """Set a value that :meth:`Field.check <flask_stateful.declared.fields.Field.check>` has returned."""

    def reset(self, field: Field) -> None:
        """Remove a value, so that the default holds again."""

    def known(self, field: Field) -> bool:
        """Tell whether there is a value, so that what :meth:`get` returns is not the default."""
        ...


class Place(t.Protocol):
    """Keeps one kind of declared state."""

    def values(self, model: Model, user_id: str | None = None) -> Values:
        """Return the values of a class.

        :param user_id: whose they are, where that is not the request's own user.
        """
        ...


class Places:
    """The places that one application has, each made at first use."""

    def __init__(self) -> None:
        self._makers: dict[str, Callable[[], Place]] = {}
        self._made: dict[str, Place] = {}
        self._lock = threading.RLock()

    def offer(self, kind: str, make: Callable[[], Place]) -> None:
        """Say how the place of a kind is made."""
        self._makers[kind] = make

    def place(self, kind: str) -> Place:
        """Return the place of a kind.

        :raises ConfigError: if the application has none.
        """
        return self._made.get(kind) or self._make(kind)

    def _make(self, kind: str) -> Place:
        with self._lock:
            if kind not in self._makers:
                raise ConfigError(f"this application has no place for {kind} state")
            if kind not in self._made:
                self._made[kind] = self._makers[kind]()
            return self._made[kind]


class Home(t.Protocol):
    """What an application has of us, as far as declared state needs to know."""

    def place_of(self, model: Model) -> Place:
        """Return where a class is kept.

        :raises ConfigError: where it is none of the application's.
        """
        ...


def values_of(handle: State) -> Values:
    """Return the values that a handle stands for in the current application.

    :raises ConfigError: if the application has no Stateful, or the class is none of its own.
    """
    home: Home | None = _current_app().extensions.get(EXTENSION)
    if home is None:
        raise ConfigError("this application has no Stateful; write `state = Stateful(app)` or `state.init_app(app)`")
    model = handle._model  # pyright: ignore[reportPrivateUsage]
    return home.place_of(model).values(model, handle._user_id)  # pyright: ignore[reportPrivateUsage]
