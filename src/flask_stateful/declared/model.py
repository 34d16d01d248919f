"""What is known of a declared class."""

from __future__ import annotations

import dataclasses
import typing as t
from collections.abc import Callable

if t.TYPE_CHECKING:
    from .classes import State
    from .fields import Field

#: Where state is kept.
Kind: t.TypeAlias = t.Literal["cookie", "local", "tab", "session", "user", "app"]

#: What state is for, in the words of cookie policies.
Purpose: t.TypeAlias = t.Literal["necessary", "preferences", "analytics", "marketing"]

#: What happens to values that do not fit into a cookie.
Overflow: t.TypeAlias = t.Literal["error", "spill"]

#: Turns the fields of one version into those of the next.
Migration: t.TypeAlias = Callable[[dict[str, t.Any]], dict[str, t.Any]]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Model:
    """A declared class, as the places that keep its values see it."""

    #: What errors call the class.
    title: str
    kind: Kind
    name: str
    version: int = 1
    purpose: Purpose = "necessary"
    #: Of local state: whether it stays with the browser whoever uses it.
    shared: bool = False
    #: Of a cookie: seconds the browser keeps it; ``None`` until it is closed.
    max_age: float | None = None
    #: Of a cookie: what happens to a value that does not fit.
    overflow: Overflow = "error"
    fields: dict[str, Field] = dataclasses.field(default_factory=dict["str", "Field"])
    #: By the version they begin with.
    migrations: dict[int, Migration] = dataclasses.field(default_factory=dict[int, Migration])

    @property
    def key(self) -> str:
        """What the class is called wherever it is kept as a whole: ``prefs`` and, from version 2 on, ``prefs~2``."""
        return versioned(self.name, self.version)


def versioned(name: str, version: int) -> str:
    """Return a name with the version that it is of. Each has its own, so that none overwrites another."""
    return name if version == 1 else f"{name}~{version}"


def model_of(cls: type[State] | State) -> Model:
    """Return what is known of a declared class, or of a handle's.

    :raises TypeError: if it is no such class, or one that has no fields.
    """
    model = getattr(cls, "_model", None)
    if not isinstance(model, Model):
        name = getattr(cls, "__name__", type(cls).__name__)
        raise TypeError(f"{name} declares no fields; derive it from SessionState, say, and write `count: int = 0`")
    return model
