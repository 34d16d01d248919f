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
from ..errors import PayloadError, StateConflict, ValueTooLarge
from ..sealing import Keyring
from ..serialization import Raw
from ..stores.base import Store
from .change import Change, Outcome, SessionOptions, Visitor, is_empty
from .ids import Identities, Identity, new_handle
from .record import TOMBSTONE, Header, Record

if t.TYPE_CHECKING:
    from blinker import Signal

logger = logging.getLogger("flask_stateful")

#: How long a tombstone stays, in seconds: longer than a request in flight, shorter than anyone waits to log in again.
TOMBSTONE_TTL: t.Final = 10

#: A session in use is renewed when this part of its idle timeout has passed.
RENEW_AFTER: t.Final = 0.1

#: Of any number of racing writers one wins each round, so this is how many may race.
MAX_ROUNDS: t.Final = 100


class Entry:
    """A session's place in the store, as one request knows it."""

    __slots__ = ("dead", "id", "record")

    def __init__(self, identity: Identity) -> None:
        self.id = identity
        #: What the store holds; ``None`` when it holds nothing, or nothing that is still valid.
        self.record: Record | None = None
        #: Whether the session has ended: the store holds a tombstone, or nothing where a record was before.
        self.dead = False


class SessionRecords:
    """The sessions of one application.

    :param app: the application, which is the sender of the signals.
    """

    def __init__(self, app: object, store: Store, keyring: Keyring, options: SessionOptions) -> None:
        self.store = store
        self.options = options
        self.identities = Identities(keyring, options.namespace)
        self._keyring = keyring
        self._app = app

    # Opening

    def open(self, identity: Identity) -> Entry:
        """Return the session of an id that a browser sent.

        :raises StoreError: if the store cannot be asked.
        """
        entry = Entry(identity)
        self.fetch(entry)
        if entry.record is None and not entry.dead:
            self.emit(signals.session_id_invalid, reason="unknown")
        return entry

    def fetch(self, entry: Entry) -> bool:
        """Read what the store holds now.

        :return: whether the session is alive.
        """
        data = self.store.get(entry.id.key)
        # What this request has seen alive is dead once it has gone, also where no tombstone says so any more.
        entry.dead = data == TOMBSTONE or entry.record is not None
        entry.record = None
        if data is None or data == TOMBSTONE:
            return False
        try:
            record = entry.id.seal.open(data)
        except PayloadError:
            self.drop_corrupt(entry, data)
            return False
        if self._remaining(record.header) <= 0:
            self._remove(entry, data)
            self.emit(signals.session_destroyed, reference=self.reference(entry.id.key), reason="expired")
            return False
        entry.record, entry.dead = record, False
        return True

    def drop_corrupt(self, entry: Entry, data: bytes) -> None:
        """Remove a record that cannot be opened or decoded, and report it once."""
        self._remove(entry, data)
        entry.record = None
        reference = self.reference(entry.id.key)
        logger.warning("dropped the stored session %s: it is damaged, forged or swapped", reference)
        self.emit(signals.session_corrupt, reference=reference)

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

    def save(
        self, entry: Entry | None, change: Change, visitor: Visitor, *, rounds: int = MAX_ROUNDS
    ) -> tuple[Entry | None, Outcome]:
        """Bring the store up to date with what a request did; where it did nothing, renew the session.

        :param entry: the session as the request knows it; ``None`` where the browser had none.
        :param rounds: how often to try against other writers; 1 saves only what nobody else has touched.
        :return: the session as it is now, and what became of it.
        :raises ValueTooLarge: if the record is longer than the settings allow; the message names the biggest keys.
        :raises StateConflict: if other writers won every round.
        :raises StoreError: if the store fails.
        """
        if entry is not None and entry.dead and change.login is None:
            return entry, Outcome.DEAD
        if entry is None or entry.record is None:
            return self._create(entry, change, visitor)
        if change.moves and not is_empty(change.apply(entry.record.items), change.user_of(entry.record.header)):
            return self._move(entry, change, visitor, rounds)
        return entry, self._update(entry, change, visitor, rounds)

    def destroy(self, entry: Entry, reason: str) -> None:
        """End a session now; requests in flight cannot bring it back."""
        if entry.record is not None:
            self.store.set(entry.id.key, TOMBSTONE, TOMBSTONE_TTL)
            self.emit(signals.session_destroyed, reference=self.reference(entry.id.key), reason=reason)

    def _create(self, entry: Entry | None, change: Change, visitor: Visitor) -> tuple[Entry | None, Outcome]:
        items = change.apply({})
        if is_empty(items, change.login):
            return entry, Outcome.UNCHANGED
        created = Entry(self.identities.issue())
        header = self._new_header(change.login, visitor)
        data = self._seal(created, header, items)
        if not self.store.add(created.id.key, data, self._remaining(header)):
            raise StateConflict("the store already holds a session that was only just invented")
        created.record = Record(header, items, data)
        self.emit(signals.session_created, reference=self.reference(created.id.key))
        return created, Outcome.MOVED

    def _update(self, entry: Entry, change: Change, visitor: Visitor, rounds: int) -> Outcome:
        for _ in range(rounds):
            record = entry.record
            if record is None:
                return Outcome.DEAD
            if not change and not self.is_renewal_due(entry):
                # Another reader has just renewed it.
                return Outcome.UNCHANGED
            items = change.apply(record.items)
            header = self._seen(record.header, visitor)
            remaining = self._remaining(header)
            if remaining <= 0 or is_empty(items, change.user_of(record.header)):
                if self.store.swap(entry.id.key, record.data, TOMBSTONE, TOMBSTONE_TTL):
                    return self._ended(entry, change, expired=remaining <= 0)
            else:
                data = self._seal(entry, header, items)
                if self.store.swap(entry.id.key, record.data, data, remaining):
                    entry.record = Record(header, items, data)
                    return Outcome.SAVED if change else Outcome.RENEWED
            self.fetch(entry)
        raise StateConflict("others kept rewriting a session while it was being saved")

    def _ended(self, entry: Entry, change: Change, *, expired: bool) -> Outcome:
        entry.record = None
        reason = "expired" if expired else "cleared" if change.cleared else "emptied"
        self.emit(signals.session_destroyed, reference=self.reference(entry.id.key), reason=reason)
        return Outcome.ENDED

    def _move(self, entry: Entry, change: Change, visitor: Visitor, rounds: int) -> tuple[Entry | None, Outcome]:
        """Write the session under a new id, then turn the old record into a tombstone.

        In this order a crash in between loses nothing: the browser still has the old id, and nobody has the new one.
        """
        moved = Entry(self.identities.issue())
        for _ in range(rounds):
            record = entry.record
            if record is None:
                self.store.delete(moved.id.key)
                if change.login is None:
                    return entry, Outcome.DEAD
                # It ended while its visitor logged in. The login stands; the data of the dead session stays dead.
                return self._create(entry, change, visitor)
            moved.record = self._write_new(moved, record, change, visitor)
            if self.store.swap(entry.id.key, record.data, TOMBSTONE, TOMBSTONE_TTL):
                self._announce_move(entry, moved, change)
                return moved, Outcome.MOVED
            self.fetch(entry)
        self.store.delete(moved.id.key)
        raise StateConflict("others kept rewriting a session while it moved to a new id")

    def _write_new(self, moved: Entry, record: Record, change: Change, visitor: Visitor) -> Record:
        items = change.apply(record.items)
        if change.cleared or change.login is not None:
            header = self._new_header(change.login, visitor)
        else:
            header = self._seen(record.header, visitor)
        data = self._seal(moved, header, items)
        self.store.set(moved.id.key, data, max(self._remaining(header), 0.001))
        return Record(header, items, data)

    def _announce_move(self, entry: Entry, moved: Entry, change: Change) -> None:
        previous, reference = self.reference(entry.id.key), self.reference(moved.id.key)
        if change.cleared:
            self.emit(signals.session_destroyed, reference=previous, reason="cleared")
            self.emit(signals.session_created, reference=reference)
        else:
            self.emit(signals.session_rotated, reference=reference, previous=previous)

    # Parts

    def _seal(self, entry: Entry, header: Header, items: t.Mapping[str, Raw]) -> bytes:
        data = entry.id.seal.seal(header, items)
        if len(data) > self.options.max_bytes:
            sizes = sorted(((len(bytes(raw)), key) for key, raw in items.items()), reverse=True)[:3]
            biggest = ", ".join(f"{key!r} ({size:,})" for size, key in sizes)
            raise ValueTooLarge(
                f"the session has {len(data):,} bytes and STATEFUL_SESSION_MAX_BYTES allows {self.options.max_bytes:,};"
                f" its biggest keys, in bytes: {biggest}"
            )
        return data

    def _new_header(self, user_id: str | None, visitor: Visitor) -> Header:
        now = clock.now()
        return Header(
            handle=new_handle(),
            user_id=user_id,
            created_at=now,
            last_seen_at=now,
            deadline=now + self.options.lifetime,
            **visitor._asdict(),
        )

    @staticmethod
    def _seen(header: Header, visitor: Visitor) -> Header:
        """Return the header with the time and place of this request."""
        return msgspec.structs.replace(header, last_seen_at=clock.now(), **visitor._asdict())

    def expires_at(self, header: Header) -> float:
        """Return when a session ends if it is not used again, in seconds since 1970."""
        return min(header.last_seen_at + self.options.idle_timeout, header.deadline)

    def _remaining(self, header: Header) -> float:
        return self.expires_at(header) - clock.now()

    # Reporting

    def reference(self, key: str) -> str:
        """Return what signals and log lines call a session: a keyed hash that opens nothing."""
        return self._keyring.tag(key.encode(), "reference", length=6).hex()

    def emit(self, signal: Signal, **details: t.Any) -> None:
        """Send a signal of this application."""
        signal.send(self._app, **details)
