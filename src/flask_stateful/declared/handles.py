"""What is done to a handle as a whole."""

from __future__ import annotations

from .classes import State
from .fields import Field
from .model import Model, model_of
from .near import unknown
from .places import values_of


def reset(handle: State, *names: str) -> None:
    """Let the defaults of some fields hold again, or of all.

    :raises AttributeError: if there is no such field.
    """
    fields = [_field(handle, name) for name in names] or list(_model(handle).fields.values())
    values = values_of(handle)
    for field in fields:
        values.reset(field)


def known(handle: State, name: str) -> bool:
    """Tell whether a field has a value, so that what it reads as is not the default.

    :raises AttributeError: if there is no such field.
    """
    field = _field(handle, name)
    return values_of(handle).known(field)


def _model(handle: State) -> Model:
    if not isinstance(handle, State):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError("pass a handle, as in `prefs = Prefs()`, not the class")
    return model_of(handle)


def _field(handle: State, name: str) -> Field:
    if not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"a field is named by text, not {type(name).__name__}; write state.reset(prefs, 'theme')")
    field = _model(handle).fields.get(name)
    if field is None:
        raise AttributeError(unknown(handle, name))
    return field
