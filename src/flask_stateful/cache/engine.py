"""Who computes a cached value, and who gets which."""

from __future__ import annotations

import contextlib
import functools
import logging
import typing as t
from collections.abc import Callable, Generator, Mapping

import msgspec

from .. import clock
from ..errors import EncodeError, StoreError, ValueTooLarge
from ..serialization import MISSING
from .call import Call
from .entries import Entry, Lease, new_lease, to_bytes
from .flights import Flight, Flights
from .found import Found
from .layer import Held
from .steps import Check, Compute, Join, Outcome, Pause, Plan, Private, Refresh, Step
from .storage import CacheStorage
from .tables import Verdict, Versions
from .tags import EVERYTHING
from .values import Codec, is_frozen

logger = logging.getLogger("flask_stateful")

#: How long a lease counts, in seconds: after that, another takes over from a holder that died.
LEASE: t.Final = 10.0

#: How often a follower looks whether the value has come, in seconds: at first, and at most.
_FIRST_PAUSE: t.Final = 0.001
_LONGEST_PAUSE: t.Final = 0.01

#: What takes the place of a lease that is given up, and for how long. The key cannot be deleted instead: another may
#: have put a lease of its own there.
_NOTHING: t.Final = b""
_MOMENT: t.Final = 0.001


class Engine:
    """Decides, for one application, who computes.

    :param strict: whether a value that cannot be encoded is an error, as in debugging and testing.
    """

    def __init__(self, storage: CacheStorage, *, strict: bool) -> None:
        self.storage = storage
        self._strict = strict
        self._note = storage.events.note
        self._flights = Flights()

    def renew(self) -> None:
        """Begin anew in a forked child, which has none of the threads that were computing."""
        self._flights = Flights()
        self.storage.renew()

    def plan(self, call: Call, owner: object) -> Plan:
        """Return the plan for a value that memory does not have fresh, or may not serve without a check."""
        held = self.storage.layer.get(call.key)
        if held is not None and held.entry.tables and clock.monotonic() < held.trusted_until:
            verdict = yield from self._check(held.entry.tables)
            if verdict == "current":
                self._note("hits_memory", call.name)
                return held.value
            if verdict == "changing":
                return (yield from _compute_only(call))
        try:
            found = yield from self._look(call)
        except StoreError:
            return (yield from self._without_store(call, owner))
        if found.verdict == "changing":
            return (yield from _compute_only(call))
        if found.held is not None:
            now = clock.monotonic()
            self._note("hits_store" if now < found.held.fresh_until else "hits_stale", call.name)
            if now < found.held.refresh_at:
                return found.held.value
            claimed = self._claim(call, found)
            if claimed is not None:
                yield Refresh(self.refresh(call, claimed))
            return found.held.value
        self._note("misses", call.name)
        return (yield from self._alone(call, owner, lambda flight: self._lead(call, found, flight)))

    # Asking the database

    def _look(self, call: Call) -> Generator[Step, t.Any, Found]:
        """Ask the store; a value whose tables have changed is none.

        :raises StoreError: if the store fails.
        """
        found = self.storage.look(call)
        if found.held is None or not found.held.entry.tables:
            return found
        verdict = yield from self._check(found.held.entry.tables)
        if verdict == "current":
            return found
        if verdict == "changed":
            self._note("outdated", call.name)
        return found._replace(held=None, verdict=verdict)

    def _check(self, versions: Versions) -> Generator[Step, t.Any, Verdict]:
        """Ask whether a value's tables are as they were; if so, whatever is being computed depends on them as well."""
        tables = self.storage.tables
        if tables is None:
            return "changed"
        verdict: Verdict = yield Check(tables, versions)
        if verdict == "current":
            tables.used(versions)
        return verdict

    # Computing

    def _alone(self, call: Call, owner: object, lead: Callable[[Flight], Plan]) -> Plan:
        """Let one caller of this process lead, the others take what it brings.

        The first flight that a caller joins may have begun before an invalidation that this caller has to respect, so
        its value counts only if the store has it. Any flight after that began later than the call.
        """
        for may_be_older in (True, False):
            flight, leads = self._flights.begin(call.key, owner)
            if leads:
                return (yield from self._fly(call.key, flight, lead))
            if not (yield from self._join(flight, owner)):
                break
            held = (yield from self._look_again(call)) if may_be_older else None
            if held is not None:
                return held.value
            if not may_be_older:
                if flight.tables and (yield from self._check(flight.tables)) != "current":
                    break
                with contextlib.suppress(EncodeError):
                    return _copy(call.codec, flight.value)
        return (yield from _compute_only(call))

    def _fly(self, key: str, flight: Flight, lead: Callable[[Flight], Plan]) -> Plan:
        error: BaseException | None = None
        value: t.Any = MISSING
        try:
            value = yield from lead(flight)
            return value
        except Exception as raised:
            error = raised
            raise
        finally:
            # Whoever comes now finds no flight. One that was told to stop brings nothing, which is nobody else's error.
            self._flights.end(key, flight)
            flight.land(MISSING if isinstance(value, Private) else value, error)

    def _join(self, flight: Flight, owner: object) -> Generator[Step, t.Any, bool]:
        """Wait for a flight; tell whether it has brought a value.

        It has not where it takes too long, or waits for us: a computation of our own ends every deadlock.
        """
        if not self._flights.may_wait(flight, owner):
            return False
        try:
            landed = yield Join(flight, LEASE)
        finally:
            self._flights.stop_waiting(owner)
        if landed and flight.error is not None:
            raise flight.error
        return landed and flight.value is not MISSING

    def _look_again(self, call: Call) -> Generator[Step, t.Any, Held | None]:
        """Return the value that another caller has just written, if it is fresh."""
        held = self.storage.layer.get(call.key)
        if held is None:
            with contextlib.suppress(StoreError):
                held = (yield from self._look(call)).held
        elif held.entry.tables and (yield from self._check(held.entry.tables)) != "current":
            return None
        return held if held is not None and clock.monotonic() < held.fresh_until else None

    def _lead(self, call: Call, found: Found, flight: Flight) -> Plan:
        """Compute, once no other process does."""
        leased = to_bytes(new_lease())
        try:
            found = yield from self._take_off(call, found, leased)
            taken = found.data == leased
            versions = self.storage.tags.versions((EVERYTHING, *call.tags), found.versions) if taken else {}
        except StoreError:
            # It failed after it was looked at: the value is computed, and not kept.
            self._note("store_errors", call.name)
            self.storage.owe(call.key)
            return (yield from _compute_only(call, flight))
        if found.held is not None:
            flight.tables = found.held.entry.tables
            return found.held.value
        if not taken:
            return (yield from _compute_only(call, flight))
        return (yield from self._compute(call, versions, flight, replaces=leased))

    def _take_off(self, call: Call, found: Found, leased: bytes) -> Generator[Step, t.Any, Found]:
        """Put our lease under the key, once no other process has one there; return what lies there then.

        That may be the value. It is another's lease where the holders take longer than a lease lasts.
        """
        while not self._take(call.key, found, leased):
            found = yield from self._follow_store(call)
            # Where tables change all the time, whoever waited for a value that counts might wait for ever.
            if found.held is not None or found.verdict is not None or isinstance(found.slot, Lease):
                return found
        return found._replace(data=leased)

    def _take(self, key: str, found: Found, leased: bytes) -> bool:
        """Put our lease where nothing usable lies; tell whether that was so."""
        if isinstance(found.slot, Lease):
            return False
        if found.data is None:
            return self.storage.store.add(key, leased, LEASE)
        return self.storage.store.swap(key, found.data, leased, LEASE)

    def _follow_store(self, call: Call) -> Generator[Step, t.Any, Found]:
        """Wait until whoever holds the lease has written, given up, or lost it."""
        deadline, pause = clock.monotonic() + LEASE, _FIRST_PAUSE
        while True:
            found = yield from self._look(call)
            if not isinstance(found.slot, Lease) or clock.monotonic() >= deadline:
                return found
            yield Pause(pause)
            pause = min(pause * 1.5, _LONGEST_PAUSE)

    def _compute(
        self,
        call: Call,
        versions: Mapping[str, bytes],
        flight: Flight | None = None,
        *,
        replaces: bytes,
        refreshing: bool = False,
    ) -> Plan:
        """Compute and write the value in place of a lease; if something else lies there by now, do not write.

        :param refreshing: whether it is in place of a value, which stays if computing fails.
        """
        began = clock.monotonic()
        outcome = yield from _computed(call, flight)
        written = False
        try:
            value = outcome.get()
            if isinstance(value, Private):
                self._note("private", call.name)
                if value.reason:
                    _warn_once(f"{call.name}: {value.reason}")
                return value
            written = self._write(call, outcome, versions, cost=clock.monotonic() - began, replaces=replaces)
            return value
        finally:
            if not written and not (refreshing and outcome.error is not None):
                self._give_up(call.key, replaces)

    def _write(
        self, call: Call, outcome: Outcome, versions: Mapping[str, bytes], *, cost: float, replaces: bytes
    ) -> bool:
        """Write what was computed; tell whether that was possible.

        :param replaces: what must lie there still.
        :raises EncodeError: if the value cannot be encoded, in debugging and testing.
        """
        call = _as_computed(call, outcome)
        try:
            entry = self.storage.entry(call, outcome.value, versions, cost=cost, tables=outcome.tables)
            self.storage.put(call, to_bytes(entry), replaces=replaces)
        except EncodeError as error:
            self._note("unencodable", call.name)
            if self._strict:
                raise
            _warn_once(str(error))
            return False
        except ValueTooLarge:
            self._note("too_large", call.name)
            return False
        except StoreError:
            self._note("store_errors", call.name)
            return False
        return True

    def _give_up(self, key: str, leased: bytes) -> None:
        """Let the next caller compute at once."""
        try:
            self.storage.store.swap(key, leased, _NOTHING, _MOMENT)
        except StoreError:
            self.storage.owe(key)

    # Refreshing

    def _claim(self, call: Call, found: Found) -> bytes | None:
        """Mark a stale entry as being refreshed, unless somebody does already; return it as marked."""
        entry, now = found.slot, clock.now()
        if not isinstance(entry, Entry) or found.data is None or entry.lease_until > now:
            return None
        token = new_lease().token
        claimed = to_bytes(msgspec.structs.replace(entry, lease=token, lease_until=now + LEASE))
        with contextlib.suppress(StoreError):
            if self.storage.store.swap(call.key, found.data, claimed, max(entry.stale_until - now, 0.001)):
                return claimed
        return None

    def refresh(self, call: Call, claimed: bytes) -> Plan:
        """Return the plan for a refresh. If it fails, the mark keeps others from trying before it runs out."""
        versions = self.storage.tags.read((EVERYTHING, *call.tags))
        began = clock.monotonic()
        outcome = yield from _computed(call)
        if outcome.error is not None:
            self._note("refresh_errors", call.name)
            logger.warning("refreshing a cached value failed, the old one is served on", exc_info=outcome.error)
            return None
        if isinstance(outcome.get(), Private):
            self._give_up(call.key, claimed)
            return None
        self._note("refreshes", call.name)
        self._write(call, outcome, versions, cost=clock.monotonic() - began, replaces=claimed)
        return outcome.value

    def replace(self, call: Call) -> Plan:
        """Return the plan for computing a value anew, though there is one that counts.

        The old one is served meanwhile, and stays if computing fails. If it is forgotten or replaced before the new one
        is there, that is not kept.

        :raises StoreError: if the store fails before the value is computed.
        """
        versions = self.storage.tags.read((EVERYTHING, *call.tags))
        old = self.storage.store.get(call.key)
        if old is not None:
            return (yield from self._compute(call, versions, replaces=old, refreshing=True))
        leased = to_bytes(new_lease())
        self.storage.store.add(call.key, leased, LEASE)
        return (yield from self._compute(call, versions, replaces=leased))

    def _without_store(self, call: Call, owner: object) -> Plan:
        """Serve a stale value to a call that takes one, else compute and keep nothing."""
        self._note("store_errors", call.name)
        held = self.storage.layer.get_untrusted(call.key) if call.stale else None
        if held is not None and clock.monotonic() < held.stale_until:
            tables = held.entry.tables
            if not tables or (yield from self._check(tables)) == "current":
                self._note("hits_stale", call.name)
                return held.value
        return (yield from self._alone(call, owner, lambda flight: _compute_only(call, flight)))


def _as_computed(call: Call, outcome: Outcome) -> Call:
    """Return a call with the ttl that the computation has asked for, if it has."""
    return call if outcome.lasting is None else msgspec.structs.replace(call, ttl=outcome.lasting.ttl, stale=0.0)


def _computed(call: Call, flight: Flight | None = None) -> Generator[Step, t.Any, Outcome]:
    """Compute, and let those who take the value of a flight know which tables it was made from."""
    outcome: Outcome = yield Compute(call.reading)
    if flight is not None:
        flight.tables = outcome.tables
    return outcome


def _compute_only(call: Call, flight: Flight | None = None) -> Plan:
    """Compute, and keep nothing."""
    return (yield from _computed(call, flight)).get()


def _copy(codec: Codec, value: t.Any) -> t.Any:
    return value if is_frozen(value) else codec.decode(codec.encode(value))


@functools.lru_cache(maxsize=256)
def _warn_once(message: str) -> None:
    logger.warning("not cached: %s", message)
