"""A process that uses a cache as a test tells it to: ``python -m tests.cache.worker OPTIONS``, see :class:`Options`.

Each line of its standard input is a command with its arguments, as a JSON list. Each line of its standard output is an
event and what belongs to it.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import typing as t

import msgspec
from flask import Flask

from flask_stateful import Stateful
from flask_stateful.cache import engine
from flask_stateful.testing import FakeClock

from .conftest import PATIENCE


class Options(msgspec.Struct, kw_only=True):
    """What a worker has to know."""

    #: Of the store.
    url: str
    #: How long a lease of this worker counts, in seconds.
    lease: float = 600.0
    #: What the clock shows, in seconds since 1970, if it is to stand still until the test moves it.
    fake_clock: float | None = None


class Worker:
    """What a test can tell it, each by its name."""

    def __init__(self, options: Options) -> None:
        t.cast("t.Any", engine).LEASE = options.lease
        self._state = Stateful()
        self._app = Flask("shop")
        self._app.config.update(
            SECRET_KEY="a key for tests, long enough",
            STATEFUL_STORE={"default": "memory://", "cache": options.url},
            STATEFUL_STORE_TIMEOUT=PATIENCE,
        )
        self._state.init_app(self._app)
        self._gate = threading.Event()
        self._clock = FakeClock(options.fake_clock)
        self._speaking = threading.Lock()
        if options.fake_clock is not None:
            self._clock.__enter__()

    def tell(self, event: str, what: t.Any = None) -> None:
        """Tell the test what happens."""
        with self._speaking:
            print(json.dumps([event, what]), flush=True)

    def ask(self, count: int, options: dict[str, t.Any]) -> None:
        """Let some threads ask for the value at once."""
        barrier = threading.Barrier(count)

        def visit() -> None:
            barrier.wait(PATIENCE)
            with self._app.app_context():
                self.tell("got", self._state.cache.get_or_set("key", self._compute, **options))

        for _ in range(count):
            threading.Thread(target=visit).start()

    def _compute(self) -> str:
        self.tell("computes", os.getpid())
        assert self._gate.wait(PATIENCE * 4)
        return f"by {os.getpid()}"

    def set(self, value: t.Any, options: dict[str, t.Any]) -> None:
        with self._app.app_context():
            self._state.cache.set("key", value, **options)
        self.tell("set")

    def get(self) -> None:
        with self._app.app_context():
            self.tell("has", self._state.cache.get("key"))

    def stats(self) -> None:
        with self._app.app_context():
            self.tell("stats", self._state.cache.stats)

    def open(self) -> None:
        """Let whoever computes come to the end."""
        self._gate.set()

    def advance(self, seconds: float) -> None:
        self._clock.advance(seconds)
        self.tell("advanced")

    def line_up(self, count: int) -> None:
        """Wait until so many threads stand in line for the one who computes, or looks, for this process."""
        with self._app.app_context():
            flights = self._state.cache.runtime.engine._flights
        pause = threading.Event()
        while len(flights._waits) < count:
            pause.wait(0.005)
        self.tell("lined up")


def main(options: Options) -> None:
    """Do what the test says, until it says no more."""
    worker = Worker(options)
    worker.tell("ready")
    with contextlib.suppress(KeyboardInterrupt):
        for line in sys.stdin:
            command, *arguments = json.loads(line)
            getattr(worker, command)(*arguments)
    os._exit(0)


if __name__ == "__main__":
    main(msgspec.json.decode(sys.argv[1], type=Options))
