"""What to say about a name that no field has."""

from __future__ import annotations

import difflib
import typing as t

from .model import Model

if t.TYPE_CHECKING:
    from .classes import State


def unknown(handle: State | type[State], name: str) -> str:
    """Return what to say where a class has no field of a name: the nearest one, or all there are."""
    title = handle.__name__ if isinstance(handle, type) else type(handle).__name__
    model = getattr(handle, "_model", None)
    names = list(model.fields) if isinstance(model, Model) else []
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if near:
        return f"{title} has no field {name!r}; did you mean {near[0]!r}?"
    return f"{title} has no field {name!r}; it has {', '.join(names) or 'none at all'}"
