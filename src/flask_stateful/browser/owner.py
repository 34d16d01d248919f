"""Whose the browser's entries are: what happens when a user signs in or out.

Entries that nobody's user has left become those of the user who signs in, as in the browser itself. Those of a user go
with that user.
"""

from __future__ import annotations

import contextlib
import typing as t

from ..errors import StateError
from .scheme import Part

if t.TYPE_CHECKING:
    from .visit import Visit


def change_owner(visit: Visit) -> None:
    """Hand the browser's entries on, or remove them, if a user has signed in or out in this request."""
    if not visit.has_new_user:
        return
    visit.has_new_user = False
    service, old = visit.service, visit.carriers.owner
    try:
        new = service.identities.owner_tag(service.user_id())
    except StateError:
        # Nobody can be told from a session that cannot be read: the entries stay whose they were.
        return
    if new == old:
        return
    visit.new_owner = new
    visit.answer.own(new)
    with contextlib.suppress(StateError):
        # Records are out of reach without the owner's tag, and end by themselves where the store fails now.
        if old:
            _remove(visit)
        else:
            _hand_on(visit, new)


def _remove(visit: Visit) -> None:
    """Remove what belonged to a user."""
    for slot in visit.scheme.parts[Part.MIRROR]:
        if slot.owned:
            visit.answer.remove(slot.name)
    keys = (visit.key(part) for part in (Part.OWNED, Part.TAB))
    visit.service.replica.remove(key for key in keys if key is not None)
    visit.forget_owned()


def _hand_on(visit: Visit, new: str) -> None:
    """Let a user have what nobody's user has left."""
    from .visit import TTLS

    for part in (Part.OWNED, Part.TAB):
        old_key, new_key = visit.key(part), visit.key(part, new)
        if old_key is not None and new_key is not None:
            visit.service.replica.move(old_key, new_key, ttl=TTLS[part])
