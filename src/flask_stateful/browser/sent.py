"""What a browser has sent, as far as a request believes it."""

from __future__ import annotations

import functools
import typing as t

from ..declared.model import Model
from ..errors import StoreError
from .owner import may_come_from
from .registers import Pushed, Register, Write
from .scheme import Part, Slot
from .shelf import Shelf, pushed
from .wire import Push

if t.TYPE_CHECKING:
    from .visit import Visit


def overlay(visit: Visit, part: Part, shelf: Shelf) -> None:
    """Lay what the browser has sent over what the server holds."""
    if not visit.pushes:
        return
    slots = visit.scheme.slots
    sent = [
        (write, name)
        for push in visit.pushes
        for name, write in push.writes.items()
        if name in slots and slots[name].part is part and is_accepted(visit, push, slots[name])
    ]
    for write, name in sorted(sent, key=lambda item: item[0].write):
        shelf.lay(name, write, functools.partial(_lay, visit))
    if sent:
        shelf.settle()


def is_accepted(visit: Visit, push: Push, slot: Slot) -> bool:
    """Tell whether what was sent may concern a field: one of this tab, not of another user, and agreed to."""
    return may_concern(visit, push, slot.model) and visit.allows(slot)


def may_concern(visit: Visit, push: Push, model: Model) -> bool:
    """Tell whether what was sent may concern a class: one of this tab, and not of another user."""
    if model.kind == "tab" and push.tab != visit.tab:
        return False
    return model.shared or may_come_from(visit, push.owner)


def receive(visit: Visit, slot: Slot, register: Register, sent: Write) -> Pushed:
    """Return what a browser's write comes to."""
    conflict = visit.service.conflict(slot)
    outcome, fits = pushed(slot, register, sent, sealer=visit.sealer, conflict=conflict, now=visit.now)
    if not fits:
        visit.refused(slot.name)
    return outcome


def _lay(visit: Visit, name: str, register: Register, sent: Write) -> Pushed:
    try:
        return receive(visit, visit.slot(name), register, sent)
    except StoreError:
        return Pushed(register, stands=False)
