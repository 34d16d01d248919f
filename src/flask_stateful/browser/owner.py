"""Whose the browser's entries are: what happens when a user signs in or out.

Entries that nobody's user has left become those of the user who signs in, as in the browser itself. Those of a user go
with that user.

The browser says in a cookie whose entries it has: the tag of a user, or nothing. Where a user has left whose tag it was
never given, the next tag begins with :data:`ANEW`, and is that alone where nobody follows: nothing from before counts.

The session tells when its user changes. An application that tells its users otherwise is asked when a request looks at
entries that belong to one. No tag is given to a browser that has nothing of ours.
"""

from __future__ import annotations

import contextlib
import typing as t
from collections.abc import Callable, Iterator

from ..cookies.header import CONSENT
from ..declared.model import Model
from ..errors import StateError
from .scheme import TTLS, Part, is_register_of
from .wire import ANEW

if t.TYPE_CHECKING:
    from .visit import Visit


class Ownership:
    """Whose the entries are in one request.

    :param tag: whose the browser says they are.
    :param is_met: whether that is to be believed.
    """

    __slots__ = ("has_left", "has_moved", "is_due", "is_met", "tag")

    def __init__(self, tag: str, *, is_met: bool) -> None:
        #: Under which tag entries are read and written.
        self.tag = tag
        #: Whether those that the browser has brought are no longer looked at.
        self.has_moved = False
        #: Whether a user has left in this request.
        self.has_left = False
        #: Whether the user may be another one than the browser knows of.
        self.is_due = False
        #: Whether the user need not be asked for before entries of an owner are looked at.
        self.is_met = is_met

    def remember(self) -> Callable[[], bool]:
        """Return what goes back to how it is now, and tells whether entries were somebody else's since."""
        facts = {name: getattr(self, name) for name in self.__slots__}

        def go_back() -> bool:
            has_moved = (self.tag, self.has_moved) != (facts["tag"], facts["has_moved"])
            for name, value in facts.items():
                setattr(self, name, value)
            return has_moved

        return go_back


def user_changed(visit: Visit, *, left: bool) -> None:
    """Note that the session has another user."""
    visit.ownership.has_left |= left
    meet_owner(visit)


def meet_owner(visit: Visit) -> None:
    """Leave the entries of somebody else alone, before this request looks at any."""
    owner = visit.ownership
    owner.is_met = owner.is_due = True
    if visit.service.asks_for_user:
        visit.unit.reads.add("session:(user)")
    new = _current_tag(visit)
    # What nobody's user has left is handed on when the request is over.
    if new is not None and not _is_of(owner.tag, new) and (owner.has_left or not _is_nobodys(owner.tag)):
        _forget(visit)
        owner.tag, owner.has_moved = new, True


def keep_owned(visit: Visit) -> None:
    """Note that something is kept for its owner, whom the browser may not know yet."""
    owner = visit.ownership
    if not owner.is_met or not (owner.tag or owner.is_due):
        meet_owner(visit)


def change_owner(visit: Visit) -> None:
    """Hand the browser's entries on, or remove them, if another user was met in this request."""
    owner = visit.ownership
    if not owner.is_due:
        return
    owner.is_due = False
    brought = visit.carriers.owner
    new = _current_tag(visit)
    stays = new is not None and _is_of(brought, new)
    if new is None or (stays and not owner.has_left) or not _has_something(visit):
        return
    with contextlib.suppress(StateError):
        # Records are out of reach without the owner's tag, and end by themselves where the store fails now.
        if owner.has_left or not _is_nobodys(brought):
            _remove(visit, brought)
        else:
            _hand_on(visit, brought, new)
    # To the browser, entries go where the tag that it has is replaced, or where the new one says so.
    if owner.has_left and not brought.startswith(ANEW) and (stays or _is_nobodys(brought)):
        new = ANEW + new
    owner.tag = new
    visit.answer.own(new)


def may_come_from(visit: Visit, tag: str) -> bool:
    """Tell whether entries with a tag are those of this request's owner: his own, or nobody's from before."""
    return tag == visit.ownership.tag or (not tag and not visit.ownership.tag.startswith(ANEW))


def _current_tag(visit: Visit) -> str | None:
    """Return the tag of the request's user; ``None`` where nobody can tell, from a session that cannot be read."""
    try:
        known = visit.carriers.owner.removeprefix(ANEW)
        return visit.service.identities.owner_tag(visit.service.user_id(), known)
    except StateError:
        return None


def _is_of(tag: str, user: str) -> bool:
    return tag.removeprefix(ANEW) == user


def _is_nobodys(tag: str) -> bool:
    return tag in ("", ANEW)


def _has_something(visit: Visit) -> bool:
    """Tell whether the browser has brought something of ours, or is given something now."""
    return (
        visit.carriers.has_header or visit.answer.has_cookies or any(name != CONSENT for name in visit.carriers.cookies)
    )


def _remove(visit: Visit, brought: str) -> None:
    """Remove what belonged to a user."""
    keeps = visit.answer.cookies if visit.ownership.has_moved else ()
    for model in visit.scheme.models.values():
        if model.kind == "local" and not model.shared:
            # Those of earlier versions as well: somebody else's would be made of them.
            for name in _mirror_names(visit, model):
                if name not in keeps:
                    visit.answer.remove(name)
    keys = (visit.key(part, brought) for part in (Part.OWNED, Part.TAB))
    visit.service.replica.remove(key for key in keys if key is not None)
    if not visit.ownership.has_moved:
        _forget(visit)


def _forget(visit: Visit) -> None:
    """Forget what this request has stored for a user who has left, or was to store."""
    for part in (Part.OWNED, Part.TAB):
        visit.stored.pop(part, None)
        visit.shelves.pop(part, None)
        visit.outdated.pop(part, None)
    slots = visit.scheme.slots
    visit.written = {name: held for name, held in visit.written.items() if name in slots and not slots[name].owned}
    if (mirrors := visit.shelves.get(Part.MIRROR)) is not None:
        mirrors.forget(slot.name for slot in visit.scheme.parts[Part.MIRROR] if slot.owned)
    visit.mirrored = {name: register for name, register in visit.mirrored.items() if not _is_owned(visit, name)}


def _is_owned(visit: Visit, name: str) -> bool:
    slot = visit.scheme.slots.get(name)
    return slot is None or slot.owned


def _mirror_names(visit: Visit, model: Model) -> Iterator[str]:
    """Yield the names of the mirror cookies of a class, of all its versions, that were brought or are to be set."""
    names = dict.fromkeys([slot.name for slot in visit.scheme.parts[Part.MIRROR]] + [*visit.carriers.cookies])
    return (name for name in names if is_register_of(model, name))


def _hand_on(visit: Visit, old: str, new: str) -> None:
    """Let a user have what nobody's user has left."""
    for part in (Part.OWNED, Part.TAB):
        old_key, new_key = visit.key(part, old), visit.key(part, new)
        if old_key is not None and new_key is not None:
            visit.service.replica.move(old_key, new_key, ttl=TTLS[part])
