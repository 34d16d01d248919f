"""The only place that asks for the time, and the only place that waits.

Everything else calls these functions, so that a test can put its own time under the whole package with
:class:`flask_stateful.testing.FakeClock`.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable


class Clock:
    """The system's clock; :func:`install` puts another in its place."""

    def now(self) -> float:
        """Return the wall-clock time as seconds since 1970, UTC."""
        return time.time()

    def monotonic(self) -> float:
        """Return seconds on a clock that never goes back, for measuring spans."""
        return time.monotonic()

    def wait(self, seconds: float) -> None:
        """Block the calling thread for so many seconds."""
        time.sleep(seconds)

    async def wait_async(self, seconds: float) -> None:
        """Let other tasks of the event loop run for so many seconds."""
        await asyncio.sleep(seconds)

    def wait_for(self, event: threading.Event, timeout: float | None) -> bool:
        """Block until the event is set, at most ``timeout`` seconds.

        :return: whether the event is set.
        """
        return event.wait(timeout)

    def acquire(self, lock: threading.Lock, timeout: float) -> bool:
        """Acquire a thread lock, waiting at most ``timeout`` seconds.

        :return: whether the lock is now held.
        """
        return lock.acquire(timeout=timeout)


_current: Clock = Clock()

#: Return the wall-clock time as seconds since 1970, UTC.
now: Callable[[], float] = time.time

#: Return seconds on a clock that never goes back, for measuring spans.
monotonic: Callable[[], float] = time.monotonic


def install(clock: Clock) -> Clock:
    """Make another clock the current one.

    :return: the clock that was current until now.
    """
    global _current, now, monotonic
    previous, _current = _current, clock
    # These are asked several times in every request, so they lead straight to the clock.
    now, monotonic = clock.now, clock.monotonic
    return previous


def wait(seconds: float) -> None:
    """Block the calling thread for so many seconds."""
    _current.wait(seconds)


async def wait_async(seconds: float) -> None:
    """Let other tasks of the event loop run for so many seconds."""
    await _current.wait_async(seconds)


def wait_for(event: threading.Event, timeout: float | None = None) -> bool:
    """Block until the event is set, at most ``timeout`` seconds; tell whether it is set."""
    return _current.wait_for(event, timeout)


def acquire(lock: threading.Lock, timeout: float) -> bool:
    """Acquire a thread lock within ``timeout`` seconds; tell whether it is held."""
    return _current.acquire(lock, timeout)
