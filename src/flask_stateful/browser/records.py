"""What a request writes into a browser's records and mirror cookies: the changes of Python, and seals made anew."""

from __future__ import annotations

import contextlib
import typing as t

from .. import clock
from ..errors import CookieTooLarge, StateError, ValueTooLarge
from . import registers
from .registers import NOTHING, Register
from .replica import MAX_BYTES, Registers, size
from .scheme import TTLS, Part
from .sealed import Opened
from .sent import receive
from .wire import MIRROR_BYTES, encode_mirror

if t.TYPE_CHECKING:
    from .visit import Visit


def save_changes(visit: Visit) -> None:
    """Store what Python has changed, and have the browser told.

    :raises CookieTooLarge: if it is more than a mirror cookie may hold.
    :raises ValueTooLarge: if it is more than a record may hold.
    """
    for part in TTLS:
        changed = visit.changes(part)
        if changed:
            _save_record(visit, part, changed)
    for name, value in visit.changes(Part.MIRROR).items():
        if name in visit.scheme.slots and not visit.allows(visit.slot(name)):
            visit.answer.remove(name)
            visit.mirrored[name] = NOTHING
        else:
            set_mirror(visit, name, registers.write(visit.seen(Part.MIRROR, name), value, visit.now))
        visit.tell_changed(name)
    _seal_anew(visit)


def set_mirror(visit: Visit, name: str, register: Register) -> None:
    """Have a mirror cookie set.

    :raises CookieTooLarge: if it is more than one may hold.
    """
    value = encode_mirror(register)
    octets = len(visit.carriers.prefix) + len(name) + len(value)
    if octets > MIRROR_BYTES:
        raise CookieTooLarge(
            f"the mirror cookie of {name} takes {octets} octets and {MIRROR_BYTES} are allowed; write"
            " field(..., mirror=False)"
        )
    slot = visit.scheme.slots.get(name)
    visit.mirrored[name] = register
    visit.answer.mirror(name, value, ttl=slot.field.ttl if slot and register.value is not None else None)
    visit.answer.is_private = True


def _save_record(visit: Visit, part: Part, changed: dict[str, bytes | None]) -> None:
    now, sealed = visit.now, _sealed(visit, part, changed)
    shelf = visit.shelves.get(part)

    def change(held: Registers) -> None:
        for name, value in sealed.items():
            register = visit.register(part, name, held.get(name))
            for sent in shelf.sent.get(name, ()) if shelf and name in visit.scheme.slots else ():
                register = receive(visit, visit.slot(name), register, sent).register
            held[name] = visit.held(name, registers.write(register, value, now))
        _require_room(held, sealed)

    _change(visit, part, change, sealed)
    for name in sealed:
        visit.tell_changed(name)


def _seal_anew(visit: Visit) -> None:
    """Seal with the current key what a fallback key has opened. A page does not fail because a key was changed."""
    if not visit.opened_stale:
        return
    for part, shelf in visit.shelves.items():
        changed = shelf.changes() if part in TTLS else {}
        stale = {
            name: opened
            for name, opened in visit.opened_stale.items()
            if part in TTLS and name not in changed and shelf.holds(name, opened.token)
        }
        if stale:
            with contextlib.suppress(StateError):
                _replace_seals(visit, part, stale)


def _replace_seals(visit: Visit, part: Part, stale: dict[str, Opened]) -> None:
    """Replace tokens in a record, as far as it still holds them."""
    now, replaced = visit.now, set[str]()
    tokens = {
        name: visit.sealer().seal(visit.slot(name), opened.data, _stamp(visit, part, name), expires=opened.expires)
        for name, opened in stale.items()
    }

    def change(held: Registers) -> None:
        replaced.clear()
        for name, token in tokens.items():
            before = held.get(name)
            if before is not None and before.value == stale[name].token:
                register = registers.write(before.at(clock.now()), token, now)
                held[name] = before._replace(value=token, revision=register.revision)
                replaced.add(name)

    _change(visit, part, change, replaced)


def _change(visit: Visit, part: Part, change: t.Callable[[Registers], object], changed: t.Collection[str]) -> None:
    """Change a record, and have the browser told."""
    visit.require_browser()
    key = t.cast("str", visit.key(part))
    visit.stored[part] = stored = visit.service.replica.change(key, change, ttl=TTLS[part])
    for name in changed:
        visit.written[name] = stored[name]
        slot = visit.scheme.slots.get(name)
        if slot is not None and slot.field.fresh:
            visit.sealer().note(slot, stored[name].revision)
    if changed:
        visit.answer.await_patch(part, max(stored[name].revision for name in changed))


def _sealed(visit: Visit, part: Part, changed: dict[str, bytes | None]) -> dict[str, bytes | None]:
    """Return what the browser is to hold: the values, or the tokens of those it cannot read."""
    found = dict(changed)
    for name, value in changed.items():
        slot = visit.scheme.slots.get(name)
        if value is not None and slot is not None and slot.field.sealed:
            ttl = slot.field.ttl
            expires = None if ttl is None else clock.now() + ttl
            found[name] = visit.sealer().seal(slot, value, _stamp(visit, part, name), expires=expires)
    return found


def _stamp(visit: Visit, part: Part, name: str) -> int:
    return registers.next_revision(visit.now, visit.seen(part, name).revision)


def _require_room(held: Registers, changed: t.Iterable[str]) -> None:
    octets = size(held)
    if octets > MAX_BYTES:
        largest = max(held, key=lambda name: len(held[name].value or b""))
        raise ValueTooLarge(
            f"what a browser holds would take {octets:,} bytes with {', '.join(sorted(changed))}, and"
            f" {MAX_BYTES:,} are allowed; {largest} takes most of it"
        )
