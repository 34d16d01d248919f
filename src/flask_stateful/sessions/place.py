"""Declared state in the session: each field under a key of its own."""

from __future__ import annotations

import typing as t

from ..current import get_session
from ..declared.kept import KeptValues
from ..declared.migrations import earlier_version, migrated
from ..errors import ConfigError
from ..serialization import Raw, dumps
from .session import Session

if t.TYPE_CHECKING:
    from ..declared.fields import Field
    from ..declared.model import Model
    from ..tracking import TrackedItems


class SessionPlace(KeptValues):
    """The values that declared classes keep in the session of the request at hand.

    :param sender: the application, which is the sender of the signals.
    """

    def __init__(self, sender: object) -> None:
        self._app = sender

    def values(self, model: Model, user_id: str | None = None) -> SessionPlace:
        """Return the values of a class, from an earlier version where there are no others."""
        if model.version > 1:
            _bring_up(_session(), model)
        return self

    def _reading(self, field: Field) -> TrackedItems | None:
        return _session().items_for(field.key)

    def _writing(self, field: Field) -> TrackedItems:
        return _session().writable_items()

    def _key(self, field: Field) -> str:
        return field.key

    def _sender(self) -> object:
        return self._app


def _session() -> Session:
    session = get_session()
    if type(session) is not Session:
        raise ConfigError("the session is not ours; remove what sets app.session_interface after Stateful(app)")
    return session


def _bring_up(session: Session, model: Model) -> None:
    """Migrate what an earlier version of a class has left in the session, unless the current one is there already."""
    items = session.items_for(f"{model.name}.*")
    if items is None or session.closed or model.name in session.migrated:
        return
    session.migrated |= {model.name}
    versions: dict[int, dict[str, str]] = {}
    for key in items.values:
        name, dot, rest = key.partition(".")
        if dot and name == model.name:
            field_name, _, digits = rest.partition("~")
            if not digits or digits.isdecimal():
                versions.setdefault(int(digits or 1), {})[field_name] = key
    version = earlier_version(versions, model.version)
    if version is None:
        return
    stored = {name: _encoded(items.values[key]) for name, key in versions[version].items()}
    fields = migrated(model, version, stored)
    if fields is None:
        return
    writable = session.writable_items()
    for name, raw in fields.items():
        field = model.fields[name]
        writable.assign(field.key, field.loads(raw))
    for earlier, keys in versions.items():
        for key in keys.values() if earlier < model.version else ():
            writable.delete(key)


def _encoded(value: t.Any) -> Raw:
    return value if type(value) is Raw else Raw(dumps(value))
