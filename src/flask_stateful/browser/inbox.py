"""What the endpoint does with a push: it stores what the browser has written, and answers."""

from __future__ import annotations

import typing as t

from . import registers
from .migrations import migrate_earlier
from .owner import keep_owned
from .records import set_mirror
from .registers import NOTHING, Pushed, Write
from .replica import MAX_BYTES, Registers, size
from .scheme import TTLS, Part, is_register_of
from .sent import is_accepted, receive
from .visit import Visit
from .wire import Patch, Push


def accept(visit: Visit, push: Push) -> Patch:
    """Store a push and return the answer.

    :raises StoreError: if the store fails; the browser sends it again.
    """
    visit.arrived(push)
    slots = visit.scheme.slots
    if any(name in slots and slots[name].owned for name in push.writes):
        keep_owned(visit)
    outcomes: dict[str, Pushed] = {}
    for part in Part:
        sent = {
            name: write
            for name, write in push.writes.items()
            if name in slots and slots[name].part is part and is_accepted(visit, push, slots[name])
        }
        if sent and part is Part.MIRROR:
            outcomes |= _accept_mirrors(visit, sent)
        elif sent:
            outcomes |= _accept_records(visit, part, sent)
    _accept_earlier(visit, push)
    return _answer(visit, push, outcomes)


def _accept_mirrors(visit: Visit, sent: dict[str, Write]) -> dict[str, Pushed]:
    """Set mirror cookies anew: a browser keeps for longer what a server has set."""
    outcomes: dict[str, Pushed] = {}
    for name, write in sent.items():
        register = visit.carriers.mirror(name) or NOTHING
        outcomes[name] = outcome = receive(visit, visit.slot(name), register, write)
        set_mirror(visit, name, outcome.register)
        if outcome.stands:
            visit.tell_changed(name, by="browser")
    return outcomes


def _accept_records(visit: Visit, part: Part, sent: dict[str, Write]) -> dict[str, Pushed]:
    """Write into a record what the browser has sent."""
    visit.require_browser()
    outcomes: dict[str, Pushed] = {}

    def change(held: Registers) -> None:
        outcomes.clear()
        for name, write in sent.items():
            before = held.get(name)
            register = visit.register(part, name, before)
            outcome = receive(visit, visit.slot(name), register, write)
            if outcome.register == register:
                outcomes[name] = outcome
                continue
            held[name] = visit.held(name, outcome.register)
            if size(held) > MAX_BYTES:
                visit.refused(name)
                outcome = registers.refuse(register, write, visit.now)
                held[name] = visit.held(name, outcome.register)
            outcomes[name] = outcome

    visit.stored[part] = visit.service.replica.change(t.cast("str", visit.key(part)), change, ttl=TTLS[part])
    for name, outcome in outcomes.items():
        if outcome.stands:
            visit.tell_changed(name, by="browser")
    return outcomes


def _accept_earlier(visit: Visit, push: Push) -> None:
    """Migrate what a page of an earlier version, or its storage, has sent."""
    slots = visit.scheme.slots
    for model in visit.scheme.models.values():
        if model.version > 1 and any(is_register_of(model, name) and name not in slots for name in push.writes):
            migrate_earlier(visit, model)
    visit.save()


def _answer(visit: Visit, push: Push, outcomes: dict[str, Pushed]) -> Patch:
    """Return what the browser is told: what stands, what does not, and what else there is."""
    patch = visit.answer.everything()
    told = {name: wire for name, wire in patch.registers.items() if push.pull or name in visit.written}
    patch.registers.clear()
    patch.registers.update(told)
    for name, outcome in outcomes.items():
        if outcome.stands:
            patch.registers.pop(name, None)
            patch.acknowledged[name] = outcome.register[1:]
        elif name not in patch.registers:
            held = visit.held(name, outcome.register)
            patch.tell(name, outcome.register, visit.slot(name).field.ttl if held.expires else None)
    visit.written.clear()
    return patch
