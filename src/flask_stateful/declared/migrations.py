"""From the fields of an earlier version to those of the current one."""

from __future__ import annotations

import logging
import typing as t
from collections.abc import Callable

from ..errors import PayloadError, StoreError
from ..seldom import log_seldom
from ..serialization import Raw, loads
from .model import Migration, Model, model_of

if t.TYPE_CHECKING:
    from .classes import State

M = t.TypeVar("M", bound=Migration)


def migrate(cls: type[State], version: int) -> Callable[[M], M]:
    """Register a function that turns the fields of one version of a class into those of the next.

    :param version: the one it begins with; the fields of versions before that have been through their own migrations.
    :raises TypeError: if the class has no such step, or has a function for it already.
    """
    model = model_of(cls)
    if not 1 <= version < model.version:
        raise TypeError(
            f"{model.title} has version {model.version}, so there is nothing to migrate from {version}; write"
            f" class {cls.__name__}(..., version={version + 1})"
        )

    def register(function: M) -> M:
        if version in model.migrations:
            raise TypeError(f"{model.title} has a migration from version {version} already")
        model.migrations[version] = function
        return function

    return register


def earlier_version(found: t.Collection[int], version: int) -> int | None:
    """Return which of the versions that were found is to be migrated; ``None`` where the current one is there."""
    return None if version in found else max((earlier for earlier in found if earlier < version), default=None)


def migrated(model: Model, version: int, stored: t.Mapping[str, Raw]) -> dict[str, Raw] | None:
    """Return the encoded fields of an earlier version as those of the current one.

    :return: without the fields that do not fit; ``None`` where a migration failed, which is logged.
    """
    try:
        fields = {name: loads(raw) for name, raw in stored.items()}
        for step in range(version, model.version):
            fields = dict(model.migrations[step](fields))
    except Exception as error:
        cause = type(error).__name__
        message = "%s could not be migrated from version %d: %s"
        log_seldom(_class_of(model), logging.ERROR, message, model.title, version, cause)
        return None
    encoded: dict[str, Raw] = {}
    for name, value in fields.items():
        field = model.fields.get(name)
        if field is None:
            continue
        try:
            encoded[name] = Raw(field.dumps(field.check(value)))
        except (TypeError, ValueError, PayloadError, StoreError):
            message = "%s was dropped: what its migration made of it does not fit"
            log_seldom(field.owner, logging.WARNING, message, field.where)
    return encoded


def _class_of(model: Model) -> type[State]:
    return next(iter(model.fields.values())).owner
