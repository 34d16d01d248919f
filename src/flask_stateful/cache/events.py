"""What happens in the cache of one application: counted, and told to those who listen."""

from __future__ import annotations

import typing as t

from .. import signals

if t.TYPE_CHECKING:
    from blinker import Signal

#: Every event, and the signal that tells of it.
EVENTS: t.Final[dict[str, Signal | None]] = {
    #: A value was served fresh, from this process's memory.
    "hits_memory": signals.cache_hit,
    #: A value was served fresh, from the store.
    "hits_store": signals.cache_hit,
    #: A value was served after it had expired.
    "hits_stale": signals.cache_hit,
    #: There was no value that could be served.
    "misses": signals.cache_miss,
    #: A value was computed anew while the old one was served.
    "refreshes": signals.cache_refreshed,
    #: That failed; the old value is served on.
    "refresh_errors": signals.cache_error,
    #: The store failed while it was read or written.
    "store_errors": signals.cache_error,
    #: What lay in the store was no value of ours, and was replaced.
    "undecodable": signals.cache_error,
    #: A value could not be encoded, and was not stored.
    "unencodable": signals.cache_error,
    #: A value was longer than the store takes, and was not stored.
    "too_large": signals.cache_error,
    #: A value was made from one visitor's state, and was not stored.
    "private": None,
    #: A value was computed from what had been invalidated meanwhile, and was not stored.
    "overtaken": None,
    #: There was a value, and a table that it was made from has changed.
    "outdated": None,
}


class Events:
    """Counts and tells what happens in the cache of one application.

    :param app: the application, which is the sender of the signals.
    """

    def __init__(self, app: object) -> None:
        self._app = app
        self._counters = dict.fromkeys(EVENTS, 0)
        #: How often memory alone has served a value: whoever does adds to it, for nothing happens as often.
        self.recalled = 0

    @property
    def counters(self) -> dict[str, int]:
        """How often each event has happened in this process. Threads may rarely lose one count to another."""
        return {**self._counters, "hits_memory": self._counters["hits_memory"] + self.recalled}

    def note(self, event: str, name: str) -> None:
        """Count an event, and tell those who listen.

        :param name: what log lines call the value.
        """
        self._counters[event] += 1
        self.tell(event, name)

    def tell(self, event: str, name: str) -> None:
        """Tell those who listen of an event that is counted already."""
        signal = EVENTS[event]
        if signal is not None and signal.receivers:
            signal.send(self._app, name=name, event=event)
