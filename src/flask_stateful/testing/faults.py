"""A store that fails on a plan, and counts its calls."""

from __future__ import annotations

import dataclasses
import functools
import os
import threading
import typing as t
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

from .. import clock
from ..epochs import Epochs
from ..errors import StoreError, StoreUnavailable
from ..stores.base import Store, Ttl

T = t.TypeVar("T")

Kind: t.TypeAlias = t.Literal["unavailable", "error", "slow", "lost_reply", "duplicated", "truncated", "dropped"]

#: What each operation that can be dropped or cut answers when nothing was done.
_NOTHING: dict[str, Callable[[], object]] = {
    "get": lambda: None,
    "set": lambda: None,
    "add": lambda: False,
    "swap": lambda: False,
    "delete": lambda: None,
    "touch": lambda: False,
    "get_many": dict,
    "set_many": lambda: None,
    "delete_many": lambda: None,
    "scan": lambda: iter(()),
    "purge_expired": lambda: 0,
}

_OPERATIONS = frozenset({*_NOTHING, "incr", "check", "watch"})

#: The operations in which a kind of fault can happen.
_WHERE: dict[Kind, frozenset[str]] = {
    "unavailable": _OPERATIONS,
    "error": _OPERATIONS,
    "slow": _OPERATIONS,
    "lost_reply": _OPERATIONS - {"scan", "watch"},
    "duplicated": _OPERATIONS - {"scan", "watch"},
    "truncated": frozenset({"get", "get_many"}),
    "dropped": frozenset(_NOTHING),
}


#: Guards every plan and its counts: one lock for all, so that a fork has one thing to renew.
_guard = threading.Lock()


def _renew_in_child() -> None:
    """Replace the lock, which a thread that the child does not have may have held while the process forked."""
    global _guard
    _guard = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_in_child)


@dataclasses.dataclass(frozen=True)
class Fault:
    """One way to fail, and when.

    .. code-block:: text

        "unavailable"   nothing is done, StoreUnavailable is raised
        "error"         nothing is done, StoreError is raised
        "slow"          waits first, by the package's clock, and then works
        "lost_reply"    it is done, but StoreUnavailable is raised, as if the answer had not arrived
        "duplicated"    it is done twice, as by a client that sent it again; the second answer counts
        "truncated"     only the first half of a value is read
        "dropped"       nothing is done and no error raised: reads find nothing, writes answer None or False

    :param kind: one of the above.
    :param on: the name of an operation, or several; by default every one in which the kind can happen.
    :param key: only calls with this key, or with one for which a function is true; of a batch, one is enough.
    :param nth: only these of the calls that match, counted from 1: a number, or several, such as ``range(1, 4)`` for
        the first three.
    :param seconds: how long a slow call waits.
    :raises ValueError: if that kind of fault cannot happen in one of the operations.
    """

    kind: Kind
    on: str | Collection[str] = ()
    _: dataclasses.KW_ONLY
    key: str | Callable[[str], bool] | None = None
    nth: int | Collection[int] | None = None
    seconds: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in _WHERE:
            raise ValueError(f"a fault is one of {', '.join(_WHERE)}, not {self.kind!r}")
        if wrong := self._operations - _WHERE[self.kind]:
            possible = ", ".join(sorted(_WHERE[self.kind]))
            raise ValueError(f"{', '.join(sorted(wrong))} cannot be {self.kind!r}; these can: {possible}")

    @property
    def _operations(self) -> frozenset[str]:
        return frozenset([self.on] if isinstance(self.on, str) else self.on) or _WHERE[self.kind]

    def concerns(self, operation: str, keys: Iterable[str]) -> bool:
        """Tell whether it is about such a call."""
        if operation not in self._operations:
            return False
        if self.key is None:
            return True
        return any(self.key(key) if callable(self.key) else self.key == key for key in keys)

    def strikes(self, count: int) -> bool:
        """Tell whether it happens at the so-manyth call that it is about."""
        if self.nth is None:
            return True
        return count == self.nth if isinstance(self.nth, int) else count in self.nth


class FaultyStore(Store):
    """Stands in for a store, fails on a plan, and counts what is called.

    ::

        store = FaultyStore(MemoryStore())
        store.fail("unavailable")                           # every call, from now on
        store.mend()                                        # all is well again
        store.fail(Fault("lost_reply", "set", nth=2))       # the second set is done, but says it was not
        assert store.calls["get"] == 3

    The plan can be changed at any time, also while other threads use the store. Several faults that strike the same
    call all happen, the one planned first on the outside.

    :param inner: the store that does the work; it is closed with this one.
    :param faults: what to begin with, each a :class:`Fault` or just its kind.
    """

    def __init__(self, inner: Store, *faults: Fault | Kind) -> None:
        self.inner = inner
        #: How often each operation was called, by its name, whether or not it failed.
        self.calls: Counter[str] = Counter()
        #: Whether the plan is followed; ``False`` suspends it.
        self.active = True
        self.max_value_bytes = inner.max_value_bytes
        # Stores declare these for their class; here they depend on the inner store.
        declared = ("abilities", "shared", "persistent", "remote")
        vars(self).update({name: getattr(inner, name) for name in declared})
        self._plan: list[_Planned] = []
        self.fail(*faults)

    def fail(self, *faults: Fault | Kind) -> None:
        """Add faults to the plan."""
        planned = [_Planned(fault if isinstance(fault, Fault) else Fault(fault)) for fault in faults]
        with _guard:
            self._plan += planned

    def mend(self) -> None:
        """Take every fault off the plan."""
        with _guard:
            self._plan.clear()

    def reset(self) -> None:
        """Count from zero again, the calls and what :attr:`Fault.nth` goes by; the plan stays."""
        with _guard:
            self.calls.clear()
            for planned in self._plan:
                planned.count = 0

    @property
    def durable(self) -> bool:
        """Whether the inner store keeps every record until its ttl is over."""
        return self.inner.durable

    def get(self, key: str) -> bytes | None:
        """Return the value at a key, or ``None`` where there is none."""
        return self._call("get", [key], lambda: self.inner.get(key))

    def set(self, key: str, value: bytes, ttl: Ttl = None) -> None:
        """Write a value and its ttl, whatever was there."""
        self._call("set", [key], lambda: self.inner.set(key, value, ttl))

    def add(self, key: str, value: bytes, ttl: Ttl = None) -> bool:
        """Write a value only where there is none."""
        return self._call("add", [key], lambda: self.inner.add(key, value, ttl))

    def swap(self, key: str, old: bytes, new: bytes, ttl: Ttl = None) -> bool:
        """Replace a value, and its ttl, only if it still equals ``old``."""
        return self._call("swap", [key], lambda: self.inner.swap(key, old, new, ttl))

    def delete(self, key: str) -> None:
        """Remove a value; where there is none, do nothing."""
        self._call("delete", [key], lambda: self.inner.delete(key))

    def close(self) -> None:
        """Close the inner store."""
        self.inner.close()

    def epochs(self, prefix: str) -> Epochs:
        """Return the inner store's table that tells which keys under a prefix were changed."""
        return self.inner.epochs(prefix)

    def sibling(self, name: str) -> Store:
        """Return the inner store's sibling, which has no faults; where that is the inner store, this one."""
        sibling = self.inner.sibling(name)
        return self if sibling is self.inner else sibling

    def check(self) -> list[str]:
        """Reach the store once and describe what an operator should mend."""
        return self._call("check", [], self.inner.check)

    def touch(self, key: str, ttl: Ttl = None) -> bool:
        """Give an existing value a new ttl."""
        return self._call("touch", [key], lambda: self.inner.touch(key, ttl))

    def incr(self, key: str, by: int = 1, ttl: Ttl = None) -> int:
        """Add to a counter."""
        return self._call("incr", [key], lambda: self.inner.incr(key, by, ttl))

    def get_many(self, keys: Iterable[str]) -> dict[str, bytes]:
        """Return the values of those keys that have one."""
        keys = list(keys)
        return self._call("get_many", keys, lambda: self.inner.get_many(keys))

    def set_many(self, values: Mapping[str, bytes], ttl: Ttl = None) -> None:
        """Write several values with one ttl."""
        self._call("set_many", values, lambda: self.inner.set_many(values, ttl))

    def delete_many(self, keys: Iterable[str]) -> None:
        """Remove several values."""
        keys = list(keys)
        self._call("delete_many", keys, lambda: self.inner.delete_many(keys))

    def scan(self, prefix: str) -> Iterator[str]:
        """Yield the keys that begin with a text."""
        return self._call("scan", [prefix], lambda: self.inner.scan(prefix))

    def purge_expired(self) -> int:
        """Remove what has expired."""
        return self._call("purge_expired", [], self.inner.purge_expired)

    def watch(self, prefix: str, changed: Callable[[str | None], None]) -> Callable[[], None]:
        """Call ``changed`` with each key under a prefix that anyone changes."""
        return self._call("watch", [prefix], lambda: self.inner.watch(prefix, changed))

    def _call(self, operation: str, keys: Iterable[str], work: Callable[[], T]) -> T:
        """Count a call, and do it with the faults that strike it."""
        with _guard:
            self.calls[operation] += 1
            plan = self._plan if self.active else []
            striking = [planned.fault for planned in plan if planned.strikes(operation, keys)]
        for fault in reversed(striking):
            work = functools.partial(_happen, fault.kind, fault.seconds, operation, work)
        return work()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} for {self.inner!r}>"


@dataclasses.dataclass
class _Planned:
    """A fault, and how many calls it was about."""

    fault: Fault
    count: int = 0

    def strikes(self, operation: str, keys: Iterable[str]) -> bool:
        """Count a call that the fault is about, and tell whether it happens now."""
        if not self.fault.concerns(operation, keys):
            return False
        self.count += 1
        return self.fault.strikes(self.count)


def _happen(kind: Kind, seconds: float, operation: str, work: Callable[[], t.Any]) -> t.Any:
    """Do a piece of work with one fault."""
    match kind:
        case "unavailable":
            raise StoreUnavailable("planned: the store is not there") from ConnectionRefusedError("planned")
        case "error":
            raise StoreError("planned: the store failed") from OSError("planned")
        case "lost_reply":
            work()
            raise StoreUnavailable("planned: the reply was lost") from TimeoutError("planned")
        case "slow":
            clock.wait(seconds)
            return work()
        case "duplicated":
            work()
            return work()
        case "truncated":
            return _truncated(work())
        case "dropped":
            return _NOTHING[operation]()


def _truncated(found: bytes | dict[str, bytes] | None) -> bytes | dict[str, bytes] | None:
    """Return the first half of what was read."""
    if isinstance(found, dict):
        return {key: value[: len(value) // 2] for key, value in found.items()}
    return None if found is None else found[: len(found) // 2]
