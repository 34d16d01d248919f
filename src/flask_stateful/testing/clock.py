"""A clock that stands still until a test moves it."""

from __future__ import annotations

import os
import threading
import typing as t
from datetime import datetime, timedelta

from .. import clock

#: How long, in real seconds, a waiting thread yields to others that run.
_YIELD = 0.001

_system = clock.Clock()

#: Guards every fake clock: one lock for all, so that a fork has one thing to renew.
_guard = threading.Lock()


def _renew_in_child() -> None:
    """Replace the lock, which a thread that the child does not have may have held while the process forked."""
    global _guard
    _guard = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_in_child)


class FakeClock(clock.Clock):
    """A clock that stands still until a test moves it.

    As a context manager it is the clock of the whole package until the block ends::

        with FakeClock() as clock:
            store.set("key", b"value", ttl=60)
            clock.advance(60)
            assert store.get("key") is None

    It says when things happen, it does not say how fast threads run: those go on in real time. So:

    - :meth:`wait` does not sleep. It lets the time pass at once, and yields to other threads.
    - :meth:`wait_for` and :meth:`acquire` depend on what other threads do, and first try for real. What succeeds takes
      no fake time at all, however slow the machine. Only after ``patience`` real seconds in vain does the time move to
      the end of the timeout, that of the earliest waiter first. With no other thread alive, it does so at once.
    - In *daemon* threads those two never move the time, they wait until somebody else has. A background loop, which
      waits for the event that stops it, follows the time of a test and does not make it. Where a test wants the
      timeout of a daemon thread to pass, it calls :meth:`advance`.

    :param start: the time it shows at first, an aware datetime or seconds since 1970; by default the present.
    :param patience: real seconds that a wait gives other threads before its timeout may be over.
    """

    def __init__(self, start: datetime | float | None = None, *, patience: float = 1.0) -> None:
        self.patience = patience
        self._wall = clock.now() if start is None else _timestamp(start)
        self._monotonic = clock.monotonic()
        #: The threads that wait and may move the time, and when their timeouts are over.
        self._deadlines: dict[threading.Thread, float] = {}
        self._outer: list[clock.Clock] = []
        self._left = False

    def __enter__(self) -> t.Self:
        self._left = False
        self._outer.append(clock.install(self))
        return self

    def __exit__(self, *exc_info: object) -> None:
        clock.install(self._outer.pop())
        self._left = True

    def now(self) -> float:
        """Return the wall-clock time as seconds since 1970, UTC."""
        return self._wall

    def monotonic(self) -> float:
        """Return seconds on a clock that :meth:`set` does not move."""
        return self._monotonic

    def advance(self, by: float | timedelta) -> None:
        """Let time pass.

        :param by: seconds, or a timedelta.
        :raises ValueError: if it is negative; :meth:`set` goes back.
        """
        seconds = by.total_seconds() if isinstance(by, timedelta) else by
        if not seconds >= 0:
            raise ValueError(f"time passes forward, not by {seconds} seconds; set() puts the clock back")
        with _guard:
            self._pass(seconds)

    def set(self, when: datetime | float) -> None:
        """Put the wall clock to a time, as an operator does: no time passes, so :meth:`monotonic` stays.

        :param when: an aware datetime, or seconds since 1970.
        """
        with _guard:
            self._wall = _timestamp(when)

    def wait(self, seconds: float) -> None:
        """Let so many seconds pass at once, and yield to other threads."""
        self.advance(seconds)
        _system.wait(_YIELD if _others_alive() else 0)

    def wait_for(self, event: threading.Event, timeout: float | None) -> bool:
        """Block until the event is set, at most ``timeout`` seconds of this clock.

        :return: whether the event is set.
        """
        return event.wait() if timeout is None else self._try(event.wait, timeout)

    def acquire(self, lock: threading.Lock, timeout: float) -> bool:
        """Acquire a thread lock, waiting at most ``timeout`` seconds of this clock.

        :return: whether the lock is now held.
        """
        return self._try(lambda seconds: lock.acquire(timeout=seconds), timeout)

    def _try(self, attempt: t.Callable[[float], bool], timeout: float) -> bool:
        """Attempt for real until it succeeds, or both patience and the timeout are over."""
        if timeout <= 0:
            return attempt(0)
        me = threading.current_thread()
        with _guard:
            deadline = self._monotonic + timeout
            if not me.daemon:
                self._deadlines[me] = deadline
        try:
            while not attempt(self.patience if _others_alive() else 0):
                if self._reaches(deadline, moves=not me.daemon):
                    return attempt(0)
            return True
        finally:
            with _guard:
                self._deadlines.pop(me, None)

    def _reaches(self, deadline: float, *, moves: bool) -> bool:
        """Tell whether a deadline has come; the thread that calls may move the time there, unless another's is earlier.

        Whoever has to give up earlier may then do what this thread waits for.
        """
        with _guard:
            others = [other for thread, other in self._deadlines.items() if thread.is_alive()]
            if moves and deadline <= min(others):
                self._pass(max(0, deadline - self._monotonic))
                return True
            return self._left or self._monotonic >= deadline

    def _pass(self, seconds: float) -> None:
        """Let time pass; the caller holds the guard."""
        self._monotonic += seconds
        self._wall += seconds


def _timestamp(when: datetime | float) -> float:
    """Return a moment as seconds since 1970."""
    if not isinstance(when, datetime):
        return float(when)
    if when.utcoffset() is None:
        raise ValueError("a naive datetime names no moment; write datetime(..., tzinfo=timezone.utc)")
    return when.timestamp()


def _others_alive() -> bool:
    """Tell whether there is a thread besides the calling one that could do something."""
    return threading.active_count() > 1
