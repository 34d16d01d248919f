"""``flask.session``: a mapping that loads when it is looked at and saves what was changed."""

from __future__ import annotations

import contextlib
import copy
import typing as t
from collections.abc import Callable, Generator, Mapping

import msgspec

from .. import signals
from ..blocks import current_block, joining
from ..errors import DecodeError, StateClosed, StateConflict, StoreError, StoreUnavailable
from ..serialization import Raw
from ..tracking import TrackedItems
from ..unit import WRITTEN, Step, Unit
from .change import PERMANENT, Change, Outcome, Visitor
from .codec import NO_FIELDS, SessionCodec
from .mapping import SessionMapping
from .record import Record
from .records import MAX_ROUNDS, Entry, SessionRecords

if t.TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

#: What is noted as read when the bound user is asked for.
USER: t.Final = "(user)"


class State(msgspec.Struct, frozen=True):
    """How a session stands with its store and its cookie."""

    entry: Entry | None
    outcome: Outcome
    recookie: bool
    migrated: frozenset[str]


class Ended(t.NamedTuple):
    """A session that :meth:`Session.destroy` has ended."""

    entry: Entry
    #: Whether a user has left with it.
    left: bool
    #: Whether that was in an atomic block, whose transaction may be rolled back.
    in_block: bool


#: Finds a session's place in the store, once the session is looked at.
Opener: t.TypeAlias = t.Callable[["Session"], tuple[SessionRecords, Entry | None]]


class Session(SessionMapping):
    """The session of one request.

    :param opener: called at the first look inside.
    :param environ: the request's WSGI environment.
    """

    step: t.ClassVar[Step] = Step.SESSION

    #: Whether Flask has handed it out, or this request has looked inside.
    accessed = False
    #: Whether this request has looked inside.
    touched = False
    #: Whether this request holds the session's lock.
    locked = False

    #: What became of the session, for the cookie.
    outcome = Outcome.UNCHANGED
    #: Whether the cookie turns from one for this browser session into a permanent one, or back.
    recookie = False
    #: The declared classes whose earlier versions were looked for.
    migrated = frozenset[str]()
    #: Its place in the store, as far as this request has looked.
    known: Entry | None = None
    #: Why the session could not be read.
    _failure: Exception | None = None
    #: What :meth:`destroy` has ended.
    _ended: Ended | None = None

    # Set by the first look inside; a request that takes none pays for none of them.
    _items: TrackedItems
    _records: SessionRecords
    _change: Change
    #: The request's unit, which is told what is read.
    unit: Unit
    #: What discarding goes back to.
    _kept: State

    def __init__(self, opener: Opener, environ: WSGIEnvironment) -> None:
        self._opener = opener
        self.environ = environ

    def _load(self) -> None:
        """Read the session from the store. If that fails, it is empty and read-only from then on."""
        self.touched = self.accessed = True
        try:
            self._records, self.known = self._opener(self)
            if not self.closed:
                self.unit.contended = self
        except Exception as error:
            self._failure = error
            raise
        finally:
            self._reset()
            self._kept = self._state()

    def _reset(self) -> None:
        """Go back to what the store holds."""
        self._items, self._change = TrackedItems(self._stored, self._codec), Change()

    @property
    def _codec(self) -> SessionCodec:
        return NO_FIELDS if self._failure is not None else self._records.codec

    @property
    def _record(self) -> Record | None:
        return self.known.record if self.known is not None else None

    @property
    def _stored(self) -> Mapping[str, Raw]:
        entry = self.known
        return entry.record.items if entry is not None and entry.record is not None else {}

    def _values(self, read: object = "*") -> dict[str, t.Any]:
        """Return the values, of which one is to be read, or all of them."""
        if not self.touched:
            self._load()
        self.unit.reads.add(f"session:{read}")
        items = self._items
        if items.defaults and (read == "*" or read in items.defaults):
            items.adopt_defaults()
        return items.values

    def _writable(self) -> TrackedItems:
        if self.closed:
            raise StateClosed(
                "the session was written to after the response had been saved, in a streamed body, say; write to it"
                " before the view returns"
            )
        if not self.touched:
            self._load()
        if self._failure is not None:
            raise StoreUnavailable(
                "the session could not be read, so for the rest of this request it is empty and read-only"
            ) from self._failure
        # What goes with a change is for this request alone: a cookie, a message that was flashed.
        self.unit.reads.add(WRITTEN)
        return self._items

    def _decode(self, key: str, raw: Raw) -> t.Any:
        try:
            return self._items.decode(key, raw)
        except DecodeError:
            field = self._codec.field(key)
            if field is not None:
                self._items.delete(key)
                self._records.report_invalid(field)
                raise KeyError(key) from None
            if self.known is not None and self.known.record is not None:
                self.known = self._records.drop_corrupt(self.known, self.known.record.data)
            # What this request has done is whole, and begins another session.
            own, self._items = self._items.assigned_values(), TrackedItems({}, self._codec)
            for name, value in own.items():
                self._items.assign(name, value)
            raise KeyError(key) from None

    def clear(self) -> None:
        """Remove every key and unbind the user. What is written after this begins a session with a new id."""
        self._writable()
        self._items, self._change = TrackedItems({}, self._codec), Change(cleared=True)

    def __repr__(self) -> str:
        return f"<Session of {len(self._items.values)} keys>" if self.touched else "<Session, not looked at>"

    # What Flask asks of a session

    @property
    def new(self) -> bool:  # type: ignore[override]
        """Whether the store holds nothing of this session yet."""
        self._values()
        return self._record is None

    @property
    def modified(self) -> bool:
        """Whether anything was changed, also inside a list or dict. Set it to save the session in any case."""
        return self.touched and bool(self._difference())

    @modified.setter
    def modified(self, value: bool) -> None:
        self._writable()
        self._change.forced = value

    # What the session manager asks

    @property
    def records(self) -> SessionRecords:
        """The application's sessions."""
        self._values()
        return self._records

    def items_for(self, key: str) -> TrackedItems | None:
        """Return what holds the value of a declared field; ``None`` where the session could not be read."""
        if not self.touched:
            self._load()
        self.unit.reads.add(f"session:{key}")
        return self._items if self._failure is None else None

    def writable_items(self) -> TrackedItems:
        """Return what is to hold the value of a declared field, or raise where nothing may be changed."""
        return self._writable()

    @property
    def entry(self) -> Entry | None:
        """The session's place in the store; ``None`` where the browser brought no id of ours."""
        self._values()
        return self.known

    @property
    def user_id(self) -> str | None:
        """The user bound to the session."""
        self._values(USER)
        if self._change.login is not None:
            return self._change.login
        record = self._record
        return record.header.user_id if record is not None and not self._change.cleared else None

    @property
    def store_key(self) -> str | None:
        """Where the store has the session, if it has."""
        return self.known.id.key if self._record is not None and self.known is not None else None

    def rotate(self) -> None:
        """Keep what there is under a new id, once the response is saved."""
        self._writable()
        self._change.rotated = True

    def login(self, user_id: str) -> None:
        """Bind a user, under a new id. What another user has left in the session is not handed on."""
        self._writable()
        if self.user_id not in (None, user_id):
            self._keep_own()
        self._change.login = user_id

    def destroy(self, reason: str) -> None:
        """End the session at once, whatever becomes of this request. What this request has assigned begins another."""
        self._writable()
        left = self.user_id is not None
        self._keep_own()
        if self.known is not None and not self.known.dead:
            with joining():
                self._records.destroy(self.known, reason)
            self._ended = Ended(self.known, left, current_block.get() is not None)
            self.known = None
        if self.known is None:
            self.outcome = Outcome.ENDED
        self._records.emit(signals.user_changed, left=left)

    def _keep_own(self) -> None:
        """Drop every key but those that this request has assigned."""
        own = self._items.assigned_values()
        self.clear()
        self.update(own)

    def refresh(self) -> None:
        """Read the store again; this request's own changes stay."""
        items = self._writable()
        if self.known is not None and self._record is not None and not self._change.cleared:
            self.known = self._records.fetch(self.known)
            items.rebase(self._stored, keep_changes=True)

    def settle(self) -> None:
        """Go on from what was just saved; where the session is dead, with what is in memory."""
        if not self.touched or self.outcome is Outcome.DEAD:
            return
        self._items.rebase(self._stored, keep_changes=False)
        self._change = Change()
        self._kept = self._state()

    @contextlib.contextmanager
    def undone_by_errors(self) -> Generator[None]:
        """Let an exception that leaves this block take back what was changed in it and has not been saved."""
        before = copy.copy(self._difference())
        try:
            yield
        except BaseException:
            self._go_back(before)
            raise

    def _go_back(self, change: Change) -> None:
        """Let this be all that the request has changed."""
        if change.cleared:
            self._items = TrackedItems({}, self._codec)
        self._items.restore({} if change.cleared else self._stored, change.assigned, change.deleted)
        self._change = change

    def _state(self) -> State:
        return State(self.known, self.outcome, self.recookie, self.migrated)

    def _stand(self, state: State) -> bool:
        """Stand with store and cookie as before, except that what :meth:`destroy` has ended since stays ended.

        :return: whether there is such.
        """
        self.known, self.outcome, self.recookie = state.entry, state.outcome, state.recookie
        self.migrated = state.migrated
        has_ended = self._ended is not None and state.entry is not None and state.entry.id is self._ended.entry.id
        if has_ended:
            self.known, self.outcome = None, Outcome.ENDED
        return has_ended

    def remember(self) -> Callable[[], None]:
        """Return what goes back to how the session is now; what :meth:`destroy` ends after this stays ended."""
        state, change = self._state(), copy.copy(self._difference())

        def go_back() -> None:
            if not self._stand(state):
                self._go_back(change)
                return
            self._go_back(Change(cleared=True, assigned=change.assigned))
            self._end_again()

        return go_back

    def _end_again(self) -> None:
        """End what has come to life again in a transaction that was rolled back."""
        if self._ended is not None and self._ended.in_block:
            with joining():
                self._records.bury(self._ended.entry)
            self._records.emit(signals.user_changed, left=self._ended.left)

    # What the unit asks

    def _difference(self) -> Change:
        self._change.assigned, self._change.deleted = self._items.changes(), self._items.removed()
        return self._change

    def save(self, *, rounds: int | None = None) -> None:
        """Bring the store up to date.

        :param rounds: how often to try against other writers; 1 saves only what nobody else has touched.
        """
        if not self.touched or self._failure is not None:
            return
        change, rounds = self._difference(), rounds or (MAX_ROUNDS if self.unit.merges else 1)
        if change:
            self._save(change, rounds)
        elif not self.unit.goes_on and self._records.is_renewal_due(self.known):
            # The page was made from a session that could be read. If renewing it fails, the next request tries again.
            with contextlib.suppress(StoreError, StateConflict):
                self._save(change, rounds)

    def _save(self, change: Change, rounds: int) -> None:
        before = self._record.header.user_id if self._record is not None else None
        self.known, outcome = self._records.save(self.known, change, Visitor.of(self.environ), rounds=rounds)
        self._records.report_changed(change)
        self.recookie |= PERMANENT in change.assigned or PERMANENT in change.deleted
        # A new id that an earlier save of this request has made is still to be sent.
        if outcome in (Outcome.ENDED, Outcome.DEAD, Outcome.MOVED) or self.outcome is Outcome.UNCHANGED:
            self.outcome = outcome
        if change.login is not None or change.cleared:
            self._records.emit(signals.user_changed, left=before not in (None, change.login))

    def discard(self) -> None:
        """Forget what was not settled."""
        if self.touched:
            has_ended = self._stand(self._kept)
            self._reset()
            if has_ended:
                self._end_again()

    def close(self) -> None:
        """Refuse further changes."""
        self.closed = True
