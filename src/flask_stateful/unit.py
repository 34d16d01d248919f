"""One request's unit of state: what it read and changed, kept together or not at all.

Every kind of state that a request touches joins the request's unit. When the response is ready the unit is either
*saved*, in the order of :class:`Step`, or *discarded*. After that it is closed, and writing to a closed kind of state
raises :exc:`~flask_stateful.errors.StateClosed`.

In between, a unit can *remember* how things are, to go back to that, and it can *write* what it has and go on: what was
written and is then *settled* stands, whatever becomes of the rest. This is what ``state.atomic()`` is made of.
"""

from __future__ import annotations

import contextlib
import enum
import typing as t
from collections.abc import Callable, Generator

if t.TYPE_CHECKING:
    from flask import Response

#: What is noted as read by whoever changes a visitor's state: nothing that an answer varies by covers that.
WRITTEN: t.Final = "(written)"


class Step(enum.IntEnum):
    """The order in which the kinds of state are saved. It is written nowhere else.

    What others refer to comes first: a session may name a row, a cookie names a session.
    """

    SESSION = 20
    DURABLE = 30
    BROWSER = 50
    COOKIES = 60


class Member(t.Protocol):
    """A piece of state that a request has touched."""

    def save(self) -> None:
        """Write what has changed; where nothing has, do nothing."""

    def settle(self) -> None:
        """Let what has just been saved stand: what changes from now on is another matter."""

    def remember(self) -> Callable[[], None]:
        """Return what goes back to how things are now, also after they were saved, unless they were settled."""
        ...

    def discard(self) -> None:
        """Forget what has changed and was not settled, except what must go out whatever happens."""

    def close(self) -> None:
        """Refuse further changes."""


class Participant(Member, t.Protocol):
    """A kind of state that a request has touched."""

    #: When it is saved.
    step: t.ClassVar[Step]


class Contended(t.Protocol):
    """State that requests of one visitor compete for, so that it is read again before one is tried again."""

    @property
    def store_key(self) -> str | None:
        """Where the store has it, if it has."""

    @property
    def modified(self) -> bool:
        """Whether it was changed."""
        ...

    def refresh(self) -> None:
        """Read it again; what was changed stays."""


P = t.TypeVar("P", bound=Participant)
K = t.TypeVar("K")
M = t.TypeVar("M", bound=Member)


class Group(dict[K, M]):
    """Members of one kind of state that are saved together, each under a key."""

    step: t.ClassVar[Step]

    def save(self) -> None:
        """Save what has changed in each."""
        for member in self.values():
            member.save()

    def settle(self) -> None:
        """Let what was saved of each stand."""
        for member in self.values():
            member.settle()

    def remember(self) -> Callable[[], None]:
        """Return what lets each go back to how it is now."""
        return remember(self.values)

    def discard(self) -> None:
        """Let each forget what was not settled."""
        for member in self.values():
            member.discard()

    def close(self) -> None:
        """Let each refuse further changes."""
        for member in self.values():
            member.close()


def remember(members: Callable[[], t.Iterable[Member]]) -> Callable[[], None]:
    """Return what lets each member go back to how it is now, the last one first; those that are new by then forget all.

    :param members: returns the members there are.
    """
    known: dict[int, tuple[Member, Callable[[], None]]] = {}
    for member in members():
        known[id(member)] = member, member.remember()

    def go_back() -> None:
        with contextlib.ExitStack() as stack:
            # The stack runs all of them, also where one fails.
            for member in members():
                stack.callback(known[id(member)][1] if id(member) in known else member.discard)

    return go_back


def stay() -> None:
    """Go back to nothing, where a participant is closed."""


class Unit:
    """What one request has touched."""

    __slots__ = (
        "_participants",
        "_parts",
        "closed",
        "contended",
        "ended",
        "goes_on",
        "memo",
        "merges",
        "outgoing",
        "reads",
    )

    def __init__(self) -> None:
        self._participants: list[Participant] = []
        self._parts: dict[type, t.Any] = {}
        #: What was read that belongs to one visitor, such as ``"session:cart"`` and ``"cookie:lang"``. A name of ``*``
        #: means all of that kind.
        self.reads: set[str] = set()
        #: What the request has asked the cache for, by key, where it is not to ask again.
        self.memo: dict[str, t.Any] = {}
        #: What is to be done to the response, in this order, after the unit was saved or discarded: set a cookie, add
        #: a header.
        self.outgoing: list[t.Callable[[Response], None]] = []
        #: Whether a save that has lost against another writer lays its changes over what that one wrote. Where all can
        #: be done again, it is to say that it has lost instead.
        self.merges = True
        #: What others compete for, once it is touched.
        self.contended: Contended | None = None
        #: Whether this is not the last save: what is only to be renewed can wait for that.
        self.goes_on = False
        #: Whether saving or discarding has begun.
        self.closed = False
        #: Whether it has ended as well, and nothing that joins is saved any more.
        self.ended = False

    def join(self, participant: Participant) -> None:
        """Add a kind of state, once it is touched.

        A participant that is being saved may add one of a later step. Who joins after the end is left alone.
        """
        self._participants.append(participant)
        if len(self._participants) > 1:
            self._participants.sort(key=_step)

    def part(self, kind: type[P], make: t.Callable[[], P]) -> P:
        """Return the one participant of a class, which is made and joins when it is first asked for."""
        found: P | None = self._parts.get(kind)
        if found is None:
            found = self._parts[kind] = make()
            self.join(found)
        return found

    @contextlib.contextmanager
    def watching(self) -> Generator[set[str]]:
        """Tell what is read of one visitor's state in this block."""
        before, self.reads = self.reads, set()
        try:
            yield self.reads
        finally:
            self.reads |= before

    @property
    def is_touched(self) -> bool:
        """Whether there is anything that may have changed."""
        return bool(self._participants)

    def remember(self) -> Callable[[], None]:
        """Return what goes back to how everything is now. Who joins later goes back to where it began."""
        go_back = remember(lambda: self._participants)

        def forget() -> None:
            self.memo.clear()
            go_back()

        return forget

    def write(self, *, merges: bool = True) -> None:
        """Save all that has joined so far and go on.

        :param merges: whether who has lost against another writer lays its changes over what that one wrote.
        :raises StateError: what the first participant that fails raises; go back then.
        """
        if self.closed:
            return
        self.merges, self.goes_on = merges, True
        try:
            for participant in self._participants:
                participant.save()
        finally:
            self.merges, self.goes_on = True, False

    def settle(self) -> None:
        """Let stand what was written, whatever becomes of the rest."""
        if not self.closed:
            for participant in self._participants:
                participant.settle()

    def save(self) -> None:
        """Save all that has joined and close the unit; the second time, do nothing.

        :raises StateError: what the first participant that fails raises; those after it are discarded.
        """
        if self.closed:
            return
        self.closed = True
        saved = 0
        try:
            for participant in self._participants:
                participant.save()
                saved += 1
        finally:
            self._end(saved)

    def discard(self) -> None:
        """Discard what has not been saved and close the unit; the second time, do nothing."""
        if not self.closed:
            self.closed = True
            self._end(0)

    def send(self, response: Response) -> None:
        """Do to the response what is :attr:`outgoing`, once."""
        outgoing, self.outgoing = self.outgoing, []
        for change in outgoing:
            change(response)

    def _end(self, saved: int) -> None:
        """Close every participant, after discarding those that were not saved."""
        self.ended = True
        for participant in self._participants[saved:]:
            participant.discard()
        for participant in self._participants:
            participant.close()
        # They know the unit; without this, a session's data would stay in memory until the garbage collector runs.
        self._participants, self.contended = [], None


def _step(participant: Participant) -> Step:
    return participant.step
