"""A wrapper that lets an outage of a remote store cost one timeout instead of one for each request."""

from __future__ import annotations

import os
import threading
import typing as t
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping

from .. import clock
from ..epochs import Epochs
from ..errors import StoreError, StoreUnavailable
from .base import Store, Ttl

P = t.ParamSpec("P")
T = t.TypeVar("T")

#: What a probe reads. What is found there does not matter.
_PROBED_KEY = "flask-stateful:check"

#: The stores whose locks a forked child makes anew.
_stores: weakref.WeakSet[GuardedStore] = weakref.WeakSet()


class _Phase:
    """A time during which the store is up, or one during which it is down; the next one is another object."""

    down = False


class _Outage(_Phase):
    """A time during which the store is down.

    :param delay: seconds until the first probe.
    """

    down = True

    def __init__(self, delay: float) -> None:
        self.postpone(delay)

    def postpone(self, delay: float) -> None:
        """Let the next probe be so many seconds away."""
        self.delay = delay
        self.probe_at = clock.monotonic() + delay
        self.probing = False


class GuardedStore(Store):
    """Wraps a remote store, and does not ask it again while it is known to be down.

    After the first :exc:`~flask_stateful.errors.StoreUnavailable` every call raises that at once. When ``probe_after``
    seconds have passed, one caller reads from the store; all others still fail at once. If the store answers, that
    caller's call and all later ones go to it again; else the wait doubles.

    A call that was under way when the store was found to be down, and fails only after it is up again, tells nothing
    new: its caller gets the error, and the store counts as up. :meth:`check` always asks it, and changes nothing.

    :param inner: the store that is wrapped, and closed with this one.
    :param probe_after: seconds from the failure to the first probe.
    :param max_probe_after: the most seconds between two probes.
    :param on_down: called with the error when the store is found to be down, once for each outage.
    :param on_up: called when it answers again. Neither may raise.
    """

    def __init__(
        self,
        inner: Store,
        *,
        probe_after: float = 1.0,
        max_probe_after: float = 30.0,
        on_down: Callable[[StoreUnavailable], object] | None = None,
        on_up: Callable[[], object] | None = None,
    ) -> None:
        self.inner = inner
        self.probe_after = probe_after
        self.max_probe_after = max_probe_after
        self.on_down = on_down
        self.on_up = on_up
        self.max_value_bytes = inner.max_value_bytes
        # Stores declare these for their class; here they are those of the inner store.
        declared = ("abilities", "shared", "persistent", "remote")
        vars(self).update({name: getattr(inner, name) for name in declared})
        self._phase = _Phase()
        self._lock = threading.Lock()
        _stores.add(self)

    @property
    def durable(self) -> bool:
        """Whether the inner store keeps every record until its ttl is over."""
        return self._call(lambda: self.inner.durable)

    def get(self, key: str) -> bytes | None:
        """Return the value at a key, or ``None`` where there is none."""
        return self._call(self.inner.get, key)

    def set(self, key: str, value: bytes, ttl: Ttl = None) -> None:
        """Write a value and its ttl, whatever was there."""
        self._call(self.inner.set, key, value, ttl)

    def add(self, key: str, value: bytes, ttl: Ttl = None) -> bool:
        """Write a value only where there is none."""
        return self._call(self.inner.add, key, value, ttl)

    def swap(self, key: str, old: bytes, new: bytes, ttl: Ttl = None) -> bool:
        """Replace a value, and its ttl, only if it still equals ``old``."""
        return self._call(self.inner.swap, key, old, new, ttl)

    def delete(self, key: str) -> None:
        """Remove a value; where there is none, do nothing."""
        self._call(self.inner.delete, key)

    def touch(self, key: str, ttl: Ttl = None) -> bool:
        """Give an existing value a new ttl."""
        return self._call(self.inner.touch, key, ttl)

    def incr(self, key: str, by: int = 1, ttl: Ttl = None) -> int:
        """Add to a counter."""
        return self._call(self.inner.incr, key, by, ttl)

    def get_many(self, keys: Iterable[str]) -> dict[str, bytes]:
        """Return the values of those keys that have one."""
        return self._call(self.inner.get_many, keys)

    def set_many(self, values: Mapping[str, bytes], ttl: Ttl = None) -> None:
        """Write several values with one ttl."""
        self._call(self.inner.set_many, values, ttl)

    def delete_many(self, keys: Iterable[str]) -> None:
        """Remove several values."""
        self._call(self.inner.delete_many, keys)

    def scan(self, prefix: str) -> Iterator[str]:
        """Yield the keys that begin with a text."""
        keys = self._call(self.inner.scan, prefix)
        while (key := self._call(lambda: next(keys, None))) is not None:
            yield key

    def purge_expired(self) -> int:
        """Remove what has expired, in small batches."""
        return self._call(self.inner.purge_expired)

    def watch(self, prefix: str, changed: Callable[[str | None], None]) -> Callable[[], None]:
        """Call ``changed`` with each key under a prefix that anyone changes."""
        return self._call(self.inner.watch, prefix, changed)

    def epochs(self, prefix: str) -> Epochs:
        """Return the inner store's table that tells which keys under a prefix were changed."""
        return self.inner.epochs(prefix)

    def sibling(self, name: str) -> Store:
        """Return the inner store's sibling; where that is the inner store, this one."""
        sibling = self.inner.sibling(name)
        return self if sibling is self.inner else sibling

    def check(self) -> list[str]:
        """Ask the inner store, also while it counts as down."""
        return self.inner.check()

    def close(self) -> None:
        """Close the inner store."""
        self.inner.close()

    def __repr__(self) -> str:
        return f"<GuardedStore {self.inner!r}{' (down)' if self._phase.down else ''}>"

    def _call(self, operation: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        phase = self._phase
        if phase.down:
            phase = self._probe()
        try:
            return operation(*args, **kwargs)
        except StoreUnavailable as error:
            self._fail(phase, error)
            raise

    def _fail(self, phase: _Phase, error: StoreUnavailable) -> None:
        """Begin an outage, if the phase in which the failed call began still lasts."""
        with self._lock:
            if self._phase is not phase:
                return
            self._phase = _Outage(self.probe_after)
        if self.on_down is not None:
            self.on_down(error)

    def _probe(self) -> _Phase:
        """End the outage if it is time to ask, nobody else does, and the store answers.

        :return: the phase in which the store is up.
        :raises StoreUnavailable: if it does not answer, or is not to be asked now.
        """
        phase = self._claim()
        if not isinstance(phase, _Outage):
            return phase
        try:
            self.inner.get(_PROBED_KEY)
        except StoreUnavailable:
            phase.postpone(min(2 * phase.delay, self.max_probe_after))
            raise
        except StoreError:
            pass  # an answer all the same
        except BaseException:
            phase.probing = False
            raise
        self._phase = phase = _Phase()
        if self.on_up is not None:
            self.on_up()
        return phase

    def _claim(self) -> _Phase:
        """Return the outage, now that this caller alone is to probe it; or the phase that has followed."""
        with self._lock:
            phase = self._phase
            if isinstance(phase, _Outage):
                wait = phase.probe_at - clock.monotonic()
                if phase.probing or wait > 0:
                    when = "now" if phase.probing else f"in {wait:.1f} s"
                    raise StoreUnavailable(f"the store did not answer and was not asked again; that happens {when}")
                phase.probing = True
            return phase

    def renew_after_fork(self) -> None:
        """Begin anew in a child, without what threads that it does not have may have held."""
        self._lock = threading.Lock()
        if isinstance(self._phase, _Outage):
            self._phase.probing = False


def _renew_in_child() -> None:
    for store in _stores:
        store.renew_after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_in_child)
