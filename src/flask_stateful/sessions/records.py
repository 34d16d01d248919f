"""Sessions in their store: opened, saved, moved to a new id, ended. Nothing here knows of Flask.

Three rules keep writers from losing each other's work. A record is only ever replaced by ``swap``, so that a save which
raced another re-reads, re-applies its own changes and tries again. A record that has gone is never created again. And
an id that ends leaves a tombstone, which tells a request still in flight to keep its hands off.
"""

from __future__ import annotations

import logging
import typing as t

import msgspec

from .. import clock, signals
from ..declared.kept import report_changed, report_invalid
from ..errors import PayloadError, StateConflict, ValueTooLarge
from ..sealing import Keyring
from ..serialization import Raw
from ..stores.base import Store
from .change import Change, Outcome, SessionOptions, Visitor, is_empty
from .codec import SessionCodec
from .ids import Identities, Identity, new_handle
from .record import TOMBSTONE, Header, Record

if t.TYPE_CHECKING:
    from blinker import Signal

    from ..declared.fields import Field

logger = logging.getLogger("flask_stateful")

#: How long a tombstone stays, in seconds: longer than a request in flight, shorter than anyone waits to log in again.
TOMBSTONE_TTL: t.Final = 10

#: A session in use is renewed when this part of its idle timeout has passed.
RENEW_AFTER: t.Final = 0.1

#: Of any number of racing writers one wins each round, so this is how many may race.
MAX_ROUNDS: t.Final = 100

_SHORTEST_TTL: t.Final = 0.001


class Entry(msgspec.Struct, frozen=True):
    """A session's place in the store, as one request knows it."""

    id: Identity
    #: What the store holds; ``None`` when it holds nothing, or nothing that is still valid.
    record: Record | None = None
    #: Whether the session has ended: the store holds a tombstone, or nothing where a record was before.
    dead: bool = False


#: A session as a save leaves it, and what became of it.
Saved: t.TypeAlias = tuple[Entry | None, Outcome]


class SessionRecords:
    """The sessions of one application.

    :param app: the application, which is the sender of the signals.
    :param field_of: returns the declared field that sessions keep under a key, if one is.
    """

    def __init__(
        self,
        app: object,
        store: Store,
        keyring: Keyring,
        options: SessionOptions,
        *,
        field_of: t.Callable[[str], Field | None] = lambda key: None,
    ) -> None:
        self.store = store
        self.options = options
        self.codec = SessionCodec(options.max_bytes, field_of)
        self.identities = Identities(keyring, options.namespace)
        self._keyring = keyring
        self._app = app

    # Opening

    def open(self, identity: Identity) -> Entry:
        """Return the session of an id that a browser sent.

        :raises StoreError: if the store cannot be asked.
        """
        entry = self.fetch(Entry(identity))
        if entry.record is None and not entry.dead:
            self.emit(signals.session_id_invalid, reason="unknown")
        return entry

    def fetch(self, entry: Entry) -> Entry:
        """Return a session as the store has it now."""
        data = self.store.get(entry.id.key)
        # What this request has seen alive is dead once it has gone, also where no tombstone says so any more.
        if data is None or data == TOMBSTONE:
            return Entry(entry.id, dead=data is not None or entry.record is not None)
        try:
            record = entry.id.seal.open(data)
        except PayloadError:
            return self.drop_corrupt(Entry(entry.id, dead=entry.record is not None), data)
        if self._is_over(record.header):
            self._remove(entry, data)
            self.emit(signals.session_destroyed, reference=self.reference(entry.id.key), reason="expired")
            return Entry(entry.id, dead=entry.record is not None)
        return Entry(entry.id, record)

    def drop_corrupt(self, entry: Entry, data: bytes) -> Entry:
        """Remove a record that cannot be opened or decoded, report it once, and return the session without it."""
        self._remove(entry, data)
        reference = self.reference(entry.id.key)
        logger.warning("dropped the stored session %s: it is damaged, forged or swapped", reference)
        self.emit(signals.session_corrupt, reference=reference)
        return Entry(entry.id, dead=entry.dead)

    def _remove(self, entry: Entry, data: bytes) -> None:
        """Remove what was read; where another request has written since, leave its work alone."""
        if self.store.swap(entry.id.key, data, TOMBSTONE, TOMBSTONE_TTL):
            self.store.delete(entry.id.key)

    # Saving

    def is_renewal_due(self, entry: Entry | None) -> bool:
        """Tell whether a session that was used but not changed is to be saved all the same, to stay alive."""
        if entry is None or entry.record is None:
            return False
        unused = clock.now() - entry.record.header.last_seen_at
        return entry.id.stale or entry.record.stale or unused >= self.options.idle_timeout * RENEW_AFTER

    def save(self, entry: Entry | None, change: Change, visitor: Visitor, *, rounds: int = MAX_ROUNDS) -> Saved:
        """Bring the store up to date with what a request did; where it did nothing, renew the session.

        :param entry: the session as the request knows it; ``None`` where the browser had none.
        :param rounds: how often to try against other writers; 1 saves only what nobody else has touched.
        :return: the session as it is now, and what became of it.
        :raises ValueTooLarge: if the record is longer than the settings allow; the message names the biggest keys.
        :raises StateConflict: if other writers won every round.
        :raises StoreError: if the store fails.
        """
        if entry is None or (entry.record is None and not entry.dead):
            return self._create(entry, change, visitor)
        for left in range(rounds, 0, -1):
            saved = self._try_to_save(entry, change, visitor)
            if saved is not None:
                return saved
            if left > 1:
                entry = self.fetch(entry)
        raise StateConflict("others kept rewriting a session while it was being saved")

    def destroy(self, entry: Entry, reason: str) -> None:
        """End a session now; requests in flight cannot bring it back."""
        if entry.record is not None:
            self.bury(entry)
            self.emit(signals.session_destroyed, reference=self.reference(entry.id.key), reason=reason)

    def bury(self, entry: Entry) -> None:
        """Leave a tombstone in the place of a session."""
        self.store.set(entry.id.key, TOMBSTONE, TOMBSTONE_TTL)

    def _create(self, entry: Entry | None, change: Change, visitor: Visitor) -> Saved:
        items = change.apply({})
        if is_empty(items, change.login):
            return entry, Outcome.UNCHANGED
        identity, header = self.identities.issue(), self._new_header(change.login, visitor)
        record = self._seal(identity, header, items)
        if not self.store.add(identity.key, record.data, self._ttl(header)):
            raise StateConflict("the store already holds a session that was only just invented")
        self.emit(signals.session_created, reference=self.reference(identity.key))
        return Entry(identity, record), Outcome.MOVED

    def _try_to_save(self, entry: Entry, change: Change, visitor: Visitor) -> Saved | None:
        """Save, or return ``None`` where another request has written since the record was read."""
        old = entry.record
        if old is None:
            # It has ended. A login stands all the same; the data of the dead session stays dead.
            return (entry, Outcome.DEAD) if change.login is None else self._create(entry, change, visitor)
        if not change and not self.is_renewal_due(entry):
            # Another reader has just renewed it.
            return entry, Outcome.UNCHANGED
        begins = change.cleared or change.login is not None
        header = self._new_header(change.login, visitor) if begins else self._seen(old.header, visitor)
        items = change.apply(old.items)
        if self._is_over(header):
            return self._end(entry, old, "expired")
        if is_empty(items, header.user_id):
            return self._end(entry, old, "cleared" if change.cleared else "emptied")
        if change.moves:
            return self._move(entry, old, change, header=header, items=items)
        new = self._seal(entry.id, header, items)
        if not self.store.swap(entry.id.key, old.data, new.data, self._ttl(header)):
            return None
        return Entry(entry.id, new), Outcome.SAVED if change else Outcome.RENEWED

    def _end(self, entry: Entry, old: Record, reason: str) -> Saved | None:
        if not self.store.swap(entry.id.key, old.data, TOMBSTONE, TOMBSTONE_TTL):
            return None
        self.emit(signals.session_destroyed, reference=self.reference(entry.id.key), reason=reason)
        return Entry(entry.id), Outcome.ENDED

    def _move(
        self, entry: Entry, old: Record, change: Change, *, header: Header, items: t.Mapping[str, Raw]
    ) -> Saved | None:
        """Write the session under a new id, then turn the old record into a tombstone.

        In this order a crash in between loses nothing: the browser still has the old id, and nobody has the new one.
        """
        identity = self.identities.issue()
        record = self._seal(identity, header, items)
        self.store.set(identity.key, record.data, self._ttl(header))
        if not self.store.swap(entry.id.key, old.data, TOMBSTONE, TOMBSTONE_TTL):
            self.store.delete(identity.key)
            return None
        self._announce_move(entry.id, identity, change)
        return Entry(identity, record), Outcome.MOVED

    def _announce_move(self, old: Identity, new: Identity, change: Change) -> None:
        previous, reference = self.reference(old.key), self.reference(new.key)
        if change.cleared:
            self.emit(signals.session_destroyed, reference=previous, reason="cleared")
            self.emit(signals.session_created, reference=reference)
        else:
            self.emit(signals.session_rotated, reference=reference, previous=previous)

    # Parts

    def _seal(self, identity: Identity, header: Header, items: t.Mapping[str, Raw]) -> Record:
        data = identity.seal.seal(header, items)
        if len(data) > self.options.max_bytes:
            sizes = sorted(((len(bytes(raw)), key) for key, raw in items.items()), reverse=True)[:3]
            biggest = ", ".join(f"{key!r} ({size:,})" for size, key in sizes)
            raise ValueTooLarge(
                f"the session has {len(data):,} bytes and STATEFUL_SESSION_MAX_BYTES allows {self.options.max_bytes:,};"
                f" its biggest keys, in bytes: {biggest}"
            )
        return Record(header, items, data)

    def _new_header(self, user_id: str | None, visitor: Visitor) -> Header:
        now, lifetime = clock.now(), self.options.lifetime
        return Header(
            handle=new_handle(),
            user_id=user_id,
            created_at=now,
            last_seen_at=now,
            lifetime=int(lifetime) if lifetime == int(lifetime) else lifetime,
            ip=visitor.ip,
            user_agent=visitor.user_agent,
        )

    @staticmethod
    def _seen(header: Header, visitor: Visitor) -> Header:
        """Return the header with the time and place of this request."""
        return msgspec.structs.replace(header, last_seen_at=clock.now(), ip=visitor.ip, user_agent=visitor.user_agent)

    def expires_at(self, header: Header) -> float:
        """Return when a session ends if it is not used again, in seconds since 1970."""
        return min(header.last_seen_at + self.options.idle_timeout, header.deadline)

    def _is_over(self, header: Header) -> bool:
        now = clock.now()
        return header.last_seen_at + self.options.idle_timeout <= now or header.created_at + header.lifetime <= now

    def _ttl(self, header: Header) -> float:
        """Return how long the store is to keep a record, which is never nothing at all."""
        return max(self.expires_at(header) - clock.now(), _SHORTEST_TTL)

    # Reporting

    def reference(self, key: str) -> str:
        """Return what signals and log lines call a session: a keyed hash that opens nothing."""
        return self._keyring.tag(key.encode(), "reference", length=6).hex()

    def report_changed(self, change: Change) -> None:
        """Tell which declared fields were changed, now that this is saved."""
        for key in (*change.assigned, *change.deleted):
            field = self.codec.field(key)
            if field is not None:
                report_changed(self._app, field)

    def report_invalid(self, field: Field) -> None:
        """Tell that a stored value did not fit its field."""
        report_invalid(self._app, field, "type")

    def emit(self, signal: Signal, **details: t.Any) -> None:
        """Send a signal of this application."""
        signal.send(self._app, **details)
