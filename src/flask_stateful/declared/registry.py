"""The declared classes of this process, and those of one application.

A class in a module is known from when it is defined. One inside a function, as tests write them, belongs to the
applications that name it or use it, and to no other.
"""

from __future__ import annotations

import itertools
import threading
import typing as t
import weakref
from collections.abc import Iterable

from ..errors import ConfigError
from .model import Model, model_of

if t.TYPE_CHECKING:
    from .classes import State
    from .fields import Field

#: By module and name, so that a class which is defined again, by a reload, takes the place of its former self.
_known: weakref.WeakValueDictionary[tuple[str, str], type[State]] = weakref.WeakValueDictionary()


#: Counts the classes that were defined.
_defined = itertools.count(1)
_latest = 0


def register(cls: type[State]) -> None:
    """Note a class that has been defined."""
    global _latest
    if "<locals>" not in cls.__qualname__:
        _known[cls.__module__, cls.__qualname__] = cls
        _latest = next(_defined)


class Registry:
    """The declared classes of one application.

    :param declared: its classes; without them, all that modules define are.
    :raises ConfigError: if two of these have one name, or a version lacks a migration.
    """

    def __init__(self, declared: Iterable[type[State]] | None = None) -> None:
        self._declared = None if declared is None else [model_of(cls) for cls in declared]
        self._used: dict[str, Model] = {}
        self._admitted: set[Model] = set()
        #: The fields of session state by their keys, and which definitions these rest on.
        self._session_fields: dict[str, Field] = {}
        self._seen: tuple[int, int] | None = None
        self._lock = threading.Lock()
        mistakes = [*_duplicates(self._declared or ()), *_missing_steps(self._all())]
        if mistakes:
            raise ConfigError("\n".join(mistakes))

    def models(self) -> dict[str, Model]:
        """Return all classes of the application, by name.

        :raises ConfigError: if two of them have one name.
        """
        models = self._all()
        mistakes = [*_duplicates(models), *_missing_steps(models)]
        if mistakes:
            raise ConfigError("\n".join(mistakes))
        return {model.name: model for model in sorted(models, key=lambda model: model.name)}

    def admit(self, model: Model) -> None:
        """Let a class be used.

        :raises ConfigError: if it is none of the application's, another one has its name, or a version lacks a
            migration.
        """
        if model not in self._admitted:
            self._admit(model)

    def _admit(self, model: Model) -> None:
        with self._lock:
            if self._declared is not None and model not in self._declared:
                raise ConfigError(f"{model.title} is not declared for this application; write Stateful(declared=[...])")
            mistakes = [*_duplicates({*self._all(), model}, model.name), *_missing_steps([model])]
            if mistakes:
                raise ConfigError("\n".join(mistakes))
            self._used[model.name] = model
            self._admitted.add(model)

    def session_field(self, key: str) -> Field | None:
        """Return the field of session state that is kept under a key."""
        state = _latest, len(self._admitted)
        if self._seen != state:
            models = [model for model in self._all() if model.kind == "session"]
            # What has been used goes before what only bears the same name.
            models.sort(key=lambda model: model in self._admitted)
            self._session_fields = {field.key: field for model in models for field in model.fields.values()}
            self._seen = state
        return self._session_fields.get(key)

    def _all(self) -> list[Model]:
        if self._declared is not None:
            return self._declared
        known = [model_of(cls) for cls in list(_known.values())]
        return known + [model for model in self._used.values() if model not in known]


def _duplicates(models: Iterable[Model], name: str | None = None) -> list[str]:
    """Return what to say about classes of one name."""
    titles: dict[str, list[str]] = {}
    for model in models:
        titles.setdefault(model.name, []).append(model.title)
    return [
        f'{" and ".join(sorted(found))} are both called {called!r}; write name="..." in one of them, or list this'
        " application's own: Stateful(declared=[...])"
        for called, found in titles.items()
        if len(found) > 1 and name in (None, called)
    ]


def _missing_steps(models: Iterable[Model]) -> list[str]:
    """Return what to say about versions that nothing leads to."""
    return [
        f"{model.title} has version {model.version} and no migration from version {step}; write"
        f" @migrate({model.title.rpartition('.')[2]}, {step})"
        for model in models
        for step in range(1, model.version)
        if step not in model.migrations
    ]
