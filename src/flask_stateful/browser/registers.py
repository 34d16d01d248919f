"""The rules of the two-counter register: how a browser and the server come to hold one value.

Each declared field is one register on either side. A *revision* is the server's counter: microseconds of its clock,
but always above the last. A *write* is the browser's: microseconds of its own clock, but always above its last, and
compared with nothing but itself, so that a wrong clock does no harm. Everything here is pure: what the time is, is an
argument.

A message may be lost, repeated, delayed or overtaken. Of two registers that a browser is told about, the one with the
higher revision is the later; of two that a browser sends, the one with the higher write number, then with the higher
base. So whatever arrives twice or late is known for what it is.

Both counters come back from the browser, where anybody may have changed them. At :data:`MAX_COUNT` a counter stays, and
an equal one counts as later: a register that somebody has driven there loses its order, but still takes every write.

The server's rules are used by this package, the browser's by ``client.js`` in JavaScript, and here by the fake browser.
"""

from __future__ import annotations

import typing as t
from collections.abc import Callable

#: The largest whole number that JavaScript counts with.
MAX_COUNT: t.Final = 2**53 - 1

#: What becomes of a browser's write that did not know the server's latest: it wins, it loses, or a function of the
#: server's value and the browser's makes one of both.
Conflict: t.TypeAlias = t.Literal["browser", "server"] | Callable[["bytes | None", "bytes | None"], "bytes | None"]


class Register(t.NamedTuple):
    """What the server holds for one field in one browser or tab."""

    #: The value's JSON; ``None`` where it was reset.
    value: bytes | None = None
    #: The server's counter; 0 before the server has seen the register.
    revision: int = 0
    #: The highest browser write that was seen.
    write: int = 0


class Write(t.NamedTuple):
    """What a browser sends about one field."""

    value: bytes | None
    #: The revision that the browser's value was based on.
    base: int
    write: int


class Pushed(t.NamedTuple):
    """What the server makes of a browser's write."""

    register: Register
    #: Whether the browser's value stands, so that only the new revision is to be sent.
    stands: bool


#: A register that nobody has written.
NOTHING: t.Final = Register()


def next_revision(now: int, *revisions: int) -> int:
    """Return a revision above all these, and not before now."""
    return min(MAX_COUNT, max(now, *(revision + 1 for revision in revisions)))


def write(register: Register, value: bytes | None, now: int) -> Register:
    """Return the register after the server has written it."""
    return Register(value, next_revision(now, register.revision), register.write)


def is_seen(register: Register, sent: Write) -> bool:
    """Tell whether a browser's write is older than the register.

    An equal write number on a base that the server does not know, or no longer, is a value offered again: the server
    has lost its copy. On the very base that the register has, it is the browser's own mirror cookie.
    """
    if sent.write == register.write:
        return sent.base < register.revision and sent.write < MAX_COUNT
    return sent.write < register.write


def push(register: Register, sent: Write, conflict: Conflict, now: int) -> Pushed:
    """Return the register after a browser's write has arrived."""
    if is_seen(register, sent):
        return _repeat(register, sent, now)
    if sent.base < register.revision and conflict != "browser":
        value = register.value if conflict == "server" else conflict(register.value, sent.value)
        return Pushed(Register(value, next_revision(now, register.revision), sent.write), stands=False)
    return Pushed(Register(sent.value, next_revision(now, register.revision, sent.base), sent.write), stands=True)


def refuse(register: Register, sent: Write, now: int) -> Pushed:
    """Return the register after a browser has sent a value that does not fit: it stays, and the browser is told."""
    if is_seen(register, sent):
        return _repeat(register, sent, now)
    return Pushed(Register(register.value, next_revision(now, register.revision, sent.base), sent.write), stands=False)


def _repeat(register: Register, sent: Write, now: int) -> Pushed:
    """Tell a browser once more what stands.

    Where it knows a later revision than we do, we have lost that one, and our clock was set back: it would ignore ours.
    """
    if sent.base > register.revision:
        register = register._replace(revision=next_revision(now, sent.base))
    return Pushed(register, stands=False)


class Entry(t.NamedTuple):
    """What a browser holds for one field."""

    value: bytes | None = None
    revision: int = 0
    write: int = 0
    #: Whether the server has not confirmed it yet.
    pending: bool = False


def assign(entry: Entry, value: bytes | None, now: int) -> Entry:
    """Return the browser's entry after JavaScript has written it."""
    return Entry(value, entry.revision, min(MAX_COUNT, max(entry.write + 1, now)), pending=True)


def take(entry: Entry, register: Register, *, mirrored: bool = False) -> Entry:
    """Return the browser's entry after a server's register has arrived, by whatever carrier, however old.

    :param mirrored: whether the server's register is a cookie, which an answer may have overwritten that was made
        before the browser's last write. It never forgets a write otherwise; a replica does when the store loses it.
    """
    if register.write < entry.write and (entry.pending or mirrored):
        return entry
    if (register.revision, register.write) >= (entry.revision, entry.write):
        return Entry(*register)
    return entry


def acknowledge(entry: Entry, revision: int, write: int) -> Entry:
    """Return the browser's entry after the server has confirmed a write."""
    if entry.pending and write == entry.write and revision >= entry.revision:
        return Entry(entry.value, revision, write)
    return entry


def compare(entry: Entry, held: int | None) -> Entry:
    """Return the browser's entry after the server has said what it holds; where it has lost it, it is offered again.

    :param held: the revision that the server holds; ``None`` where it holds nothing.
    """
    lost = entry.revision > (held or 0) and (entry.value is not None or held is not None)
    return entry._replace(pending=True) if lost and not entry.pending else entry
