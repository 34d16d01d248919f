"""One call for a cached value: its key, its times and its tags."""

from __future__ import annotations

import math
import typing as t
from collections.abc import Callable
from contextlib import AbstractContextManager

import msgspec

from .. import clock
from .tables import Reading
from .values import Codec

#: What log lines call a value under a key of the application's own.
A_VALUE: t.Final = "a value"


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """One call for a cached value."""

    key: str
    codec: Codec
    #: What log lines call it.
    name: str = A_VALUE
    #: Seconds that the value is fresh; ``None`` for ever.
    ttl: float | None = None
    #: Seconds after that during which it may be served stale.
    stale: float = 0.0
    tags: tuple[str, ...] = ()
    #: Notes which tables the value is made from; ``None`` where nobody asks.
    reading: Callable[[], AbstractContextManager[Reading]] | None = None

    @property
    def lasts(self) -> float | None:
        """How long the store keeps the value, in seconds."""
        return None if self.ttl is None else self.ttl + self.stale

    def times(self) -> Times:
        """Return the times of an entry that is written now."""
        now = clock.now()
        fresh_until = math.inf if self.ttl is None else now + self.ttl
        return {"created_at": now, "fresh_until": fresh_until, "stale_until": fresh_until + self.stale}


class Times(t.TypedDict):
    """When an entry was made, and until when it may be served; seconds since 1970."""

    created_at: float
    fresh_until: float
    stale_until: float
