"""What the store had."""

from __future__ import annotations

import typing as t
from collections.abc import Mapping

from ..epochs import Mark
from .entries import Entry, Slot
from .layer import Held
from .tables import Verdict


class Found(t.NamedTuple):
    """What the store had under a key."""

    data: bytes | None
    slot: Slot | None
    #: The value, where there is one that no tag has invalidated.
    held: Held | None
    #: The versions of the call's tags, by key.
    versions: Mapping[str, bytes]
    #: Where there is a value, and it does not count because of the tables that it was made from.
    verdict: Verdict | None = None


class Read(t.NamedTuple):
    """What the store had under some keys."""

    slots: Mapping[str, Slot | None]
    #: Where values and tags stood before they were read, by key; empty where memory holds nothing.
    marks: Mapping[str, Mark]
    #: The bytes of values, and the versions of tags, by key.
    known: Mapping[str, bytes]


def tags_of(slot: Slot | None) -> t.Collection[str]:
    """Return the tags of what lies under a key."""
    return slot.tags if isinstance(slot, Entry) else ()
