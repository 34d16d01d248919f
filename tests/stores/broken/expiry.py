"""Stores that are wrong about time."""

from __future__ import annotations

import math
import typing as t
from datetime import timedelta

from flask_stateful import clock
from flask_stateful.errors import StoreError
from flask_stateful.stores.base import Ttl, ttl_seconds
from flask_stateful.stores.memory import MemoryStore
from tests.stores.broken.table import breaks

LIVES = "test_value_lives_as_long_as_its_ttl"


class Timing(MemoryStore):
    """Keeps values for another time than it was told."""

    def time(self, ttl: Ttl) -> t.Any:
        raise NotImplementedError

    def _new_entry(self, key: str, value: bytes, ttl: Ttl) -> t.Any:
        return super()._new_entry(key, value, self.time(ttl))


@breaks(LIVES)
class ForgetsDays(Timing):
    def time(self, ttl: Ttl) -> t.Any:
        return ttl.seconds + 1 if isinstance(ttl, timedelta) else ttl


@breaks(LIVES)
class ForgetsFractions(Timing):
    def time(self, ttl: Ttl) -> t.Any:
        return math.ceil(ttl_seconds(ttl)) if ttl_seconds(ttl) else None


@breaks(LIVES)
class TakesLongTtlsForDates(Timing):
    def time(self, ttl: Ttl) -> t.Any:
        return 0.001 if (ttl_seconds(ttl) or 0) > 30 * 86400 else ttl


@breaks(LIVES)
class LivesOneInstantLonger(MemoryStore):
    def _find(self, key: str) -> t.Any:
        self._require_open()
        entry = self._entries.get(key)
        return None if entry is None or entry.expires < clock.now() else entry


@breaks(LIVES, "test_each_key_has_its_own_ttl")
class RoundsToQuarterHours(Timing):
    def time(self, ttl: Ttl) -> t.Any:
        seconds = ttl_seconds(ttl)
        return None if seconds is None else math.ceil(seconds / 900) * 900


@breaks(LIVES)
class AddForgetsTtl(MemoryStore):
    def add(self, key: str, value: bytes, ttl: Ttl = None) -> bool:
        return super().add(key, value)


@breaks(LIVES)
class IncrForgetsTtl(MemoryStore):
    def incr(self, key: str, by: int = 1, ttl: Ttl = None) -> int:
        return super().incr(key, by)


@breaks(LIVES)
class SetManyForgetsTtl(MemoryStore):
    def set_many(self, values: t.Any, ttl: Ttl = None) -> None:
        super().set_many(values)


@breaks(LIVES)
class ReadsManyExpired(MemoryStore):
    def get_many(self, keys: t.Any) -> dict[str, bytes]:
        return {key: self._entries[key].value for key in keys if key in self._entries}


@breaks("test_ttl_can_be_very_long")
class OverflowsAt32Bits(Timing):
    def time(self, ttl: Ttl) -> t.Any:
        if (ttl_seconds(ttl) or 0) >= 2**31:
            raise OverflowError("int too large")
        return ttl


@breaks("test_ttl_can_be_very_long")
class WrapsAt64Bits(Timing):
    def time(self, ttl: Ttl) -> t.Any:
        seconds = ttl_seconds(ttl)
        return None if seconds is None else int(seconds * 1000) % 2**63 / 1000 or 1e-9


@breaks("test_ttl_can_be_very_short")
class RoundsDownToForEver(Timing):
    def time(self, ttl: Ttl) -> t.Any:
        return int(ttl_seconds(ttl) or 0) or None


@breaks("test_ttl_can_be_very_short")
class RefusesBelowMilliseconds(Timing):
    def time(self, ttl: Ttl) -> t.Any:
        if int((ttl_seconds(ttl) or 1) * 1000) == 0:
            raise StoreError("invalid expire time")
        return ttl


@breaks("test_no_ttl_means_for_ever")
class HasDefaultTtl(Timing):
    def time(self, ttl: Ttl) -> t.Any:
        return timedelta(days=365) if ttl is None else ttl


@breaks("test_no_ttl_means_for_ever")
class TouchNeverEnds(MemoryStore):
    def touch(self, key: str, ttl: Ttl = None) -> bool:
        return super().touch(key, ttl) if ttl is not None else self.get(key) is not None


class AcceptingTtl(MemoryStore):
    """Makes something of a ttl that is none."""

    def _new_entry(self, key: str, value: bytes, ttl: t.Any) -> t.Any:
        return super()._new_entry(key, value, self.mend(ttl))

    def mend(self, ttl: t.Any) -> t.Any:
        raise NotImplementedError


@breaks("test_wrong_ttl_is_refused")
class ZeroMeansForEver(AcceptingTtl):
    def mend(self, ttl: t.Any) -> t.Any:
        return ttl or None


@breaks("test_wrong_ttl_is_refused")
class NegativeMeansForEver(AcceptingTtl):
    def mend(self, ttl: t.Any) -> t.Any:
        return None if isinstance(ttl, (int, float)) and ttl < 0 else ttl


@breaks("test_wrong_ttl_is_refused")
class NanMeansForEver(AcceptingTtl):
    def mend(self, ttl: t.Any) -> t.Any:
        return None if isinstance(ttl, float) and math.isnan(ttl) else ttl


@breaks("test_wrong_ttl_is_refused")
class TrueIsOne(AcceptingTtl):
    def mend(self, ttl: t.Any) -> t.Any:
        return 1 if ttl is True else ttl


@breaks("test_wrong_ttl_is_refused")
class ReadsTextAsTtl(AcceptingTtl):
    def mend(self, ttl: t.Any) -> t.Any:
        return float(ttl) if isinstance(ttl, str) else ttl


@breaks("test_wrong_ttl_is_refused")
class WritesFirstAndRefusesThen(MemoryStore):
    def set(self, key: str, value: bytes, ttl: Ttl = None) -> None:
        super().set(key, value)
        super().set(key, value, ttl)


class SeesExpired(MemoryStore):
    """Finds in one operation what has expired."""

    expired_is_there = False

    def _find(self, key: str) -> t.Any:
        entry = super()._find(key)
        if entry is None and self.expired_is_there:
            entry = self._entries.get(key)
            return entry if entry is not None and entry.expires > 0 else None
        return entry

    def seeing(self, call: t.Callable[[], t.Any]) -> t.Any:
        self.expired_is_there = True
        try:
            return call()
        finally:
            self.expired_is_there = False


@breaks("test_add_wins_over_expired")
class AddSeesExpired(SeesExpired):
    def add(self, key: str, value: bytes, ttl: Ttl = None) -> bool:
        return self.seeing(lambda: MemoryStore.add(self, key, value, ttl))


@breaks("test_swap_fails_on_expired")
class SwapSeesExpired(SeesExpired):
    def swap(self, key: str, old: bytes, new: bytes, ttl: Ttl = None) -> bool:
        return self.seeing(lambda: MemoryStore.swap(self, key, old, new, ttl))


@breaks("test_touch_fails_on_expired")
class TouchSeesExpired(SeesExpired):
    def touch(self, key: str, ttl: Ttl = None) -> bool:
        return self.seeing(lambda: MemoryStore.touch(self, key, ttl))


@breaks("test_incr_begins_anew_on_expired")
class IncrSeesExpired(SeesExpired):
    def incr(self, key: str, by: int = 1, ttl: Ttl = None) -> int:
        return self.seeing(lambda: MemoryStore.incr(self, key, by, ttl))


@breaks("test_incr_begins_anew_on_expired")
class IncrKeepsExpiry(MemoryStore):
    def incr(self, key: str, by: int = 1, ttl: Ttl = None) -> int:
        if self.get(key) is None and key in self._entries:
            ttl = 60
        return super().incr(key, by, ttl)


@breaks("test_delete_of_expired_is_nothing")
class DeleteOfExpiredFails(MemoryStore):
    def delete(self, key: str) -> None:
        if self.get(key) is None and key in self._entries:
            raise StoreError("it has expired")
        super().delete(key)


@breaks("test_set_replaces_the_ttl")
class SetKeepsTtl(MemoryStore):
    def set(self, key: str, value: bytes, ttl: Ttl = None) -> None:
        entry = self._find(key)
        super().set(key, value, ttl)
        if entry is not None and ttl is None:
            self._put(key, entry._replace(value=value))


@breaks("test_set_replaces_the_ttl")
class SetNeverShortens(MemoryStore):
    def set(self, key: str, value: bytes, ttl: Ttl = None) -> None:
        entry = self._find(key)
        super().set(key, value, ttl)
        if entry is not None and entry.expires > self._find(key).expires:
            self._put(key, entry._replace(value=value))


@breaks("test_swap_replaces_the_ttl")
class SwapKeepsTtl(MemoryStore):
    def swap(self, key: str, old: bytes, new: bytes, ttl: Ttl = None) -> bool:
        entry = self._find(key)
        swapped = super().swap(key, old, new, ttl)
        if swapped:
            self._put(key, entry._replace(value=new))
        return swapped


@breaks("test_swap_replaces_the_ttl")
class SwapOfEqualIsNothing(MemoryStore):
    def swap(self, key: str, old: bytes, new: bytes, ttl: Ttl = None) -> bool:
        return self.get(key) == old if old == new else super().swap(key, old, new, ttl)


@breaks("test_touch_replaces_the_ttl")
class TouchNeverShortens(MemoryStore):
    def touch(self, key: str, ttl: Ttl = None) -> bool:
        entry = self._find(key)
        touched = super().touch(key, ttl)
        if touched and entry.expires > self._find(key).expires:
            self._put(key, entry)
        return touched


@breaks("test_touch_replaces_the_ttl")
class TouchDrops(MemoryStore):
    def touch(self, key: str, ttl: Ttl = None) -> bool:
        return self.get(key) is not None


@breaks("test_lost_write_leaves_the_ttl")
class LostAddTouches(MemoryStore):
    def add(self, key: str, value: bytes, ttl: Ttl = None) -> bool:
        return super().add(key, value, ttl) or not self.touch(key, ttl)


@breaks("test_lost_write_leaves_the_ttl")
class LostSwapTouches(MemoryStore):
    def swap(self, key: str, old: bytes, new: bytes, ttl: Ttl = None) -> bool:
        return super().swap(key, old, new, ttl) or (self.touch(key, ttl) and False)


@breaks("test_incr_leaves_the_ttl")
class IncrTouches(MemoryStore):
    def incr(self, key: str, by: int = 1, ttl: Ttl = None) -> int:
        count = super().incr(key, by, ttl)
        self.touch(key, ttl)
        return count


@breaks("test_incr_leaves_the_ttl")
class IncrEndsTtl(MemoryStore):
    def incr(self, key: str, by: int = 1, ttl: Ttl = None) -> int:
        known = self.get(key) is not None
        count = super().incr(key, by, ttl)
        if known:
            self.touch(key)
        return count


@breaks("test_each_key_has_its_own_ttl")
class HasOneTtl(MemoryStore):
    def set(self, key: str, value: bytes, ttl: Ttl = None) -> None:
        super().set(key, value, ttl)
        for other in list(self._entries):
            self.touch(other, ttl)
