"""One computation at a time for each key, among the threads and event loops of one process."""

from __future__ import annotations

import asyncio
import threading
import typing as t

from .. import clock
from ..serialization import MISSING
from .tables import Versions


class Flight:
    """A computation that is under way, which others may wait for."""

    def __init__(self, owner: object) -> None:
        #: Who computes: see :meth:`Flights.may_wait`.
        self.owner = owner
        self.value: t.Any = MISSING
        #: The versions of the tables that the value was made from.
        self.tables: Versions = {}
        self.error: BaseException | None = None
        self._done = threading.Event()
        self._waiters: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []
        self._lock = threading.Lock()

    def land(self, value: t.Any = MISSING, error: BaseException | None = None) -> None:
        """Hand the value, or the error, to everybody who waits."""
        self.value, self.error = value, error
        with self._lock:
            self._done.set()
            waiters, self._waiters = self._waiters, []
        for loop, future in waiters:
            loop.call_soon_threadsafe(_finish, future)

    def wait(self, timeout: float) -> bool:
        """Block until it has landed; tell whether it has."""
        return clock.wait_for(self._done, timeout)

    async def wait_async(self, timeout: float) -> bool:
        """Wait until it has landed, letting other tasks run; tell whether it has."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        with self._lock:
            if self._done.is_set():
                return True
            self._waiters.append((loop, future))
        await asyncio.wait([future], timeout=timeout)
        return self._done.is_set()


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class Flights:
    """The computations that are under way in this process."""

    def __init__(self) -> None:
        self._flights: dict[str, Flight] = {}
        #: Which flight each owner waits for.
        self._waits: dict[object, Flight] = {}
        self._lock = threading.Lock()

    def begin(self, key: str, owner: object) -> tuple[Flight, bool]:
        """Return the flight of a key, and whether the caller is the one to compute."""
        with self._lock:
            flight = self._flights.get(key)
            if flight is not None:
                return flight, False
            flight = self._flights[key] = Flight(owner)
            return flight, True

    def end(self, key: str, flight: Flight) -> None:
        """Let the next caller compute anew."""
        with self._lock:
            if self._flights.get(key) is flight:
                del self._flights[key]

    def may_wait(self, flight: Flight, owner: object) -> bool:
        """Note that an owner waits for a flight, unless that would wait for the owner in turn."""
        with self._lock:
            ahead: Flight | None = flight
            while ahead is not None:
                if ahead.owner == owner:
                    return False
                ahead = self._waits.get(ahead.owner)
            self._waits[owner] = flight
            return True

    def stop_waiting(self, owner: object) -> None:
        """Note that an owner no longer waits."""
        with self._lock:
            self._waits.pop(owner, None)
