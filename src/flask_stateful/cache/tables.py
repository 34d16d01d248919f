"""What the cache asks of a database whose tables values are made from.

A value keeps the versions that its tables had before they were read. It is served only while they are the same, which
the database is asked each time, or once a request.
"""

from __future__ import annotations

import typing as t
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager

#: By the name of a database, then by table.
Versions: t.TypeAlias = Mapping[str, Mapping[str, int]]

#: Which of its tables a value depends on, where the application says so, and what its function was called with.
Arguments: t.TypeAlias = Callable[[], Mapping[str, t.Any]]


#: What became of a value's tables: they are as they were; or one has changed, or that cannot be told; or the caller
#: itself has changed one and has not committed that, so that nobody else sees it.
Verdict: t.TypeAlias = t.Literal["current", "changed", "changing"]


class Reading(t.Protocol):
    """What one computation has read."""

    @property
    def versions(self) -> Versions:
        """The versions of the tables that it has read, from before it did."""
        ...

    @property
    def refusal(self) -> str | None:
        """Why the value is for this caller alone, ``""`` where nobody need be told; ``None`` if others may have it."""
        ...


class Tables(t.Protocol):
    """The tables of one application."""

    def reading(
        self, depends_on: Iterable[t.Any] | None = None, arguments: Arguments | None = None, *, exact: bool = False
    ) -> AbstractContextManager[Reading]:
        """Note what is read in a block.

        :param depends_on: what the value depends on, instead of what it is found to read.
        :param arguments: returns what the function was called with.
        :param exact: whether the application says that the value is made from the database.
        """
        ...

    def committed(self) -> AbstractContextManager[Reading]:
        """Note whether what is read in a block is committed, and no tables: the value has none."""
        ...

    def current(self) -> Reading | None:
        """Return what the innermost such block has read so far."""
        ...

    def used(self, versions: Versions) -> None:
        """Note that a cached value has become part of what is computed in such a block."""

    def check(self, versions: Versions) -> Verdict:
        """Tell whether tables still have these versions."""
        ...

    async def check_async(self, versions: Versions) -> Verdict:
        """Tell that in an event loop."""
        ...
