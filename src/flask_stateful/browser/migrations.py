"""Values that an earlier version of a class has left in a browser."""

from __future__ import annotations

import re
import typing as t
from collections.abc import Iterator

import msgspec

from ..declared.migrations import migrated
from ..declared.model import Model, versioned
from ..errors import PayloadError
from ..serialization import Raw, dumps
from .owner import meet_owner
from .registers import NOTHING, Register
from .scheme import Part, record_of
from .sent import may_concern

if t.TYPE_CHECKING:
    from .visit import Visit

_NAME: t.Final = re.compile(r"\.(\w+)(?:~([0-9]{1,6}))?", re.ASCII)


def migrate_earlier(visit: Visit, model: Model) -> None:
    """Bring what the browser holds of a class's earlier versions to the current one, once in a request.

    The values of the latest of these are written as the current version's, and all that was earlier is reset. Where
    the migration fails nothing is changed.
    """
    if model.name in visit.migrated:
        return
    visit.migrated.add(model.name)
    if not model.shared and not visit.ownership.is_met:
        meet_owner(visit)
    found = _earlier(visit, model)
    if not found:
        return
    latest = max(version for version, _, _ in found)
    stored = {name: register.value for version, name, (_, register) in found if version == latest}
    values = migrated(model, latest, _encoded(stored))
    if values is None:
        return
    for name, raw in values.items():
        field = model.fields[name]
        visit.writable(visit.slot(field.key)).assign(field.key, field.loads(raw))
    for version, name, (part, register) in found:
        key = versioned(f"{model.name}.{name}", version)
        visit.outdated.setdefault(part, {})[key] = register


def _earlier(visit: Visit, model: Model) -> list[tuple[int, str, tuple[Part, Register]]]:
    """Return version, field and register of everything that earlier versions have left."""
    part = record_of(model)
    places: list[tuple[Part, t.Iterable[tuple[str, Register]]]] = [(Part.MIRROR, _mirrors(visit, model))]
    # Whoever has a value of the current version has been through this; and a first visit has no record.
    if not any(slot.name in visit.carriers.cookies for slot in visit.scheme.parts[Part.MIRROR] if slot.model is model):
        places.append((part, visit.shelf(part).held.items()))
    pushes = [push for push in visit.pushes if may_concern(visit, push, model)]
    sent = {name: Register(*write) for push in pushes for name, write in push.writes.items()}
    places.append((part, sent.items()))
    found: dict[tuple[int, str], tuple[Part, Register]] = {}
    for where, registers in places:
        for name, register in registers:
            match = _NAME.fullmatch(name, len(model.name)) if name.startswith(model.name) else None
            version = int(match[2] or 1) if match else model.version
            if match and version < model.version and register.value is not None:
                found[version, match[1]] = where, register
    return [(version, name, place) for (version, name), place in found.items()]


def _mirrors(visit: Visit, model: Model) -> Iterator[tuple[str, Register]]:
    if visit.ownership.has_moved and not model.shared:
        return
    for name in visit.carriers.cookies:
        if name.startswith(f"{model.name}."):
            yield name, visit.carriers.mirror(name) or NOTHING


def _encoded(stored: dict[str, bytes | None]) -> dict[str, Raw]:
    """Return what the browser holds as migrations are given it, without what is no JSON."""
    values: dict[str, Raw] = {}
    for name, value in stored.items():
        try:
            values[name] = Raw(dumps(msgspec.json.decode(value or b"null")))
        except (msgspec.MsgspecError, PayloadError, RecursionError):
            continue
    return values
