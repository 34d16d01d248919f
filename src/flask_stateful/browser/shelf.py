"""The registers of one part, as one request sees them: what the server holds, and over it what the browser has sent."""

from __future__ import annotations

import typing as t
from collections.abc import Callable, Iterable

from ..declared.fields import Field
from ..errors import PayloadError, ValueTooLarge
from ..serialization import MISSING, Raw
from ..tracking import TrackedItems
from . import registers
from .registers import NOTHING, Conflict, Pushed, Register, Write
from .scheme import Slot
from .sealed import Opened, Sealer


class Opener(t.Protocol):
    """What a shelf has to know of its visit."""

    #: What fallback keys have opened, by the register's name.
    opened_stale: dict[str, Opened]

    def slot(self, name: str) -> Slot:
        """Return the slot of a register."""
        ...

    def sealer(self) -> Sealer:
        """Return what seals and opens for this browser and user."""
        ...


class FieldCodec:
    """Encodes fields as they are told apart: as JSON, and sealed ones before they are sealed."""

    def __init__(self, visit: Opener) -> None:
        self._visit = visit

    def encode(self, key: str, value: t.Any) -> bytes:
        """Return a value's encoding."""
        field = self._visit.slot(key).field
        return field.dumps(value) if field.sealed else field.to_json(value)

    def decode(self, key: str, raw: Raw) -> t.Any:
        """Return what a register holds."""
        slot = self._visit.slot(key)
        if slot.field.sealed:
            opened = self._visit.sealer().open(slot, bytes(raw))
            if opened.stale:
                self._visit.opened_stale[slot.name] = opened
            return slot.field.loads(opened.data)
        return slot.field.from_json(bytes(raw))

    def require_room(self, key: str, encoded: bytes) -> None:
        """Room is asked for when all changes are known."""

    def check(self, key: str, value: t.Any) -> None:
        """Raise where a value that was changed in place does not fit its field."""
        self._visit.slot(key).field.check(value)

    def is_steady(self, key: str) -> bool:
        """Tell that a browser may write the same value as other bytes."""
        return False

    def conflict(self, key: str) -> str:
        """Return what to say where a value was changed that is no longer the one at its key."""
        field = self._visit.slot(key).field
        return f"{field.where} was changed after another value had taken its place; look it up again"

    def value(self, key: str, encoded: Raw) -> t.Any:
        """Return the value of what :meth:`encode` has encoded."""
        field = self._visit.slot(key).field
        return field.loads(encoded) if field.sealed else field.from_json(bytes(encoded))


class Shelf:
    """The registers of one part in one request.

    :param held: what the server holds.
    """

    __slots__ = ("_codec", "_reset", "held", "items", "seen", "sent")

    def __init__(self, visit: Opener, held: dict[str, Register]) -> None:
        self._codec = FieldCodec(visit)
        self.held = held
        #: With what the browser has sent.
        self.seen = dict(held)
        self.sent: dict[str, list[Write]] = {}
        self._reset: set[str] = set()
        self.items = self._track()

    def _track(self) -> TrackedItems:
        stored = {name: Raw(register.value) for name, register in self.seen.items() if register.value is not None}
        return TrackedItems(stored, self._codec)

    def lay(self, name: str, sent: Write, push: Callable[[str, Register, Write], Pushed]) -> None:
        """Lay over it what the browser has sent. It is not stored."""
        self.sent.setdefault(name, []).append(sent)
        self.seen[name] = push(name, self.seen.get(name, NOTHING), sent).register

    def settle(self) -> None:
        """Begin, once all is laid over it."""
        self.items = self._track()

    def get(self, field: Field, refused: Callable[[str], None]) -> t.Any:
        """Return a field's value, or its default.

        :param refused: is told of a value that does not fit.
        """
        name = field.key
        value = self.items.values.get(name, MISSING)
        if type(value) is Raw:
            value = self._decoded(name, value, refused)
        return self.items.default(name, field.default) if value is MISSING else value

    def knows(self, field: Field, refused: Callable[[str], None]) -> bool:
        """Tell whether a field has a value."""
        value = self.items.values.get(field.key, MISSING)
        return (self._decoded(field.key, value, refused) if type(value) is Raw else value) is not MISSING

    def holds(self, name: str, value: bytes) -> bool:
        """Tell whether the server holds exactly this, whatever the browser has sent since."""
        return name in self.held and self.held[name].value == value

    def _decoded(self, name: str, raw: Raw, refused: Callable[[str], None]) -> t.Any:
        try:
            return self.items.decode(name, raw)
        except PayloadError:
            del self.items.values[name]
            refused(name)
            return MISSING

    def assign(self, name: str, value: t.Any) -> None:
        """Set a value."""
        self.items.assign(name, value)
        self._reset.discard(name)

    def reset(self, name: str) -> None:
        """Remove a value. It is told even where none is known: the browser may have one that the server has lost."""
        self.items.reset(name)
        self._reset.add(name)

    def forget(self, names: Iterable[str]) -> None:
        """Let some registers be as if nobody had written them."""
        for name in names:
            self.items.discard(name)
            for known in (self.held, self.seen, self.sent):
                known.pop(name, None)
            self._reset.discard(name)

    def changes(self) -> dict[str, bytes | None]:
        """Return the encodings of what Python has changed; ``None`` for what it has reset."""
        changed = t.cast("dict[str, bytes | None]", self.items.changes())
        if not self._reset:
            return changed
        # A default that was changed in place since it was reset is a value that is there.
        return {**dict.fromkeys(self._reset - self.items.values.keys()), **changed}

    def restore(self, changes: dict[str, bytes | None]) -> None:
        """Let these be all that Python has changed."""
        changed = {name: value for name, value in changes.items() if value is not None}
        self._reset = changes.keys() - changed.keys()
        self.items.restore(self.items.stored, changed, self._reset, self._codec.value)


def judge(slot: Slot, sealer: Callable[[], Sealer], sent: Write) -> bytes | None:
    """Return the value that a browser has sent as the server keeps it.

    :raises PayloadError: if it does not fit its field.
    """
    if sent.value is None:
        return None
    if slot.field.sealed:
        slot.field.loads(sealer().open(slot, sent.value).data)
        return sent.value
    try:
        return slot.field.to_json(slot.field.from_json(sent.value))
    except ValueTooLarge as error:
        raise PayloadError(str(error)) from None


def pushed(
    slot: Slot, register: Register, sent: Write, *, sealer: Callable[[], Sealer], conflict: Conflict, now: int
) -> tuple[Pushed, bool]:
    """Return what a browser's write comes to, and whether its value fits."""
    try:
        value = judge(slot, sealer, sent)
    except PayloadError:
        return registers.refuse(register, sent, now), False
    return registers.push(register, sent._replace(value=value), conflict, now), True
