"""Who makes a history: processes that do whatever comes to their minds with one cache.

A player is a process of its own: ``python -m tests.cache.players SCRIPT``, with a :class:`Script` as JSON. It says when
it is ready; a line on its standard input lets it begin, and another one end.
"""

from __future__ import annotations

import contextlib
import contextvars
import os
import random
import select
import subprocess
import sys
import threading
import typing as t
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
from flask import Flask, Response, make_response

from flask_stateful import Stateful
from flask_stateful.cache import engine
from flask_stateful.errors import StoreError
from flask_stateful.stores.base import Store
from flask_stateful.stores.guarded import GuardedStore
from flask_stateful.stores.memory import MemoryStore
from flask_stateful.testing import FaultyStore

from .conftest import PATIENCE
from .history import Notes, Operation, Truth, Value, now, value_of

ROOT = Path(__file__).parent.parent.parent

#: Values under keys of one's own, and their tags. Only these are set.
OWN: t.Final[dict[str, tuple[str, ...]]] = {"plain": (), "red": ("a",), "both": ("a", "b")}

#: Results of two cached functions, each with a tag.
FUNCTIONS: t.Final = {"one": "a", "two": "b"}
RESULTS: t.Final = [f"{function}/{argument}" for function in FUNCTIONS for argument in (0, 1)]

#: Answers of a cached view with the tag ``a``. The second one varies by a header.
PAGES: t.Final = ["page/0", "page/1"]

#: A value that is served stale.
STALE: t.Final = "stale"

KEYS: t.Final = (*OWN, *RESULTS, *PAGES, STALE)

#: How long a lease counts here, in seconds: who is killed while computing is to be replaced often.
LEASE: t.Final = 0.2


class Script(msgspec.Struct, kw_only=True):
    """What one player has to know."""

    #: Of the store; ``""`` for one in the memory of the process, which fails from time to time.
    url: str
    #: How many bytes the in-process layer may hold.
    memory: int
    #: Where the truth is, and the notes are left.
    folder: str
    name: str
    threads: int = 2
    seed: int = 0


class Player:
    """One process, or the threads of one that act as one."""

    def __init__(self, script: Script) -> None:
        folder = Path(script.folder)
        self.script = script
        self.truth = Truth(folder / "truth", KEYS)
        self.notes = Notes(folder / f"{script.name}.notes")
        self.faulty = FaultyStore(MemoryStore())
        self._over = threading.Event()
        t.cast("t.Any", engine).LEASE = LEASE
        self._threads: list[threading.Thread] = []
        self.state = Stateful()
        self.app = self._make_app()
        self._functions = {name: self._function(name, tag) for name, tag in FUNCTIONS.items()}
        self._page = self._view()

    def _make_app(self) -> Flask:
        app = Flask("players")
        store: Store | str = self.script.url or self.faulty
        app.config.update(
            SECRET_KEY="a key for tests, long enough",
            STATEFUL_STORE={"default": "memory://", "cache": store},
            STATEFUL_STORE_TIMEOUT=PATIENCE,
            STATEFUL_CACHE_MEMORY=self.script.memory,
        )
        self.state.init_app(app)
        return app

    def _function(self, name: str, tag: str) -> t.Any:
        def function(argument: int) -> t.Any:
            return self.compute(f"{name}/{argument}")

        function.__qualname__ = name
        return self.state.cache.memoize(ttl=0.3, tags=[tag])(function)

    def _view(self) -> t.Any:
        @self.app.get("/page/<int:number>")
        @self.state.cache.view(ttl=0.3, tags=["a"])
        def page(number: int) -> Response:
            response = make_response(list(self.compute(f"page/{number}")))
            if number:
                response.vary.add("X-Variant")
            return response

        return page

    def begin(self) -> None:
        """Let all threads play until :meth:`end`."""
        self._threads += [threading.Thread(target=self._play, args=(n,)) for n in range(self.script.threads)]
        if not self.script.url:
            self._threads.append(threading.Thread(target=self._fail_at_times))
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """Let all threads come to their end."""
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _fail_at_times(self) -> None:
        chance = random.Random(f"outage/{self.script.seed}")
        while not self._over.wait(chance.uniform(0, 0.1)):
            self.faulty.fail("unavailable")
            self._over.wait(chance.uniform(0, 0.02))
            self.faulty.mend()

    def close(self) -> None:
        with self.app.app_context():
            self.state.cache.runtime.storage.store.close()
        self.notes.close()

    def _play(self, number: int) -> None:
        name = f"{self.script.name}/{number}"
        chance = random.Random(f"{self.script.seed}/{name}")
        moves: list[Callable[[], Operation]] = [
            *(self._read, self._compute, self._call, self._visit, self._invalidate, self._set)
        ]
        with self.app.app_context():
            count = 0
            while not self._over.is_set():
                count += 1
                _turn.set(_Turn(f"{name}/{count}", chance))
                (move,) = chance.choices(moves, [20, 25, 25, 20, 12, 8])
                self.notes.write(move())

    # What a player does

    def compute(self, key: str) -> tuple[str, int, str, str]:
        """Look at the truth, take some time, and make a value of what was seen."""
        turn = _turn.get()
        truth = self.truth.get(key)
        if turn.chance.random() < 0.5:
            _pause(turn.chance.uniform(0, 0.01))
        return value_of(key, truth, turn.name)

    def _read(self) -> Operation:
        key = _turn.get().chance.choice(list(OWN))
        return self._look(key, lambda: self.state.cache.get(key))

    def _compute(self) -> Operation:
        key = _turn.get().chance.choice([*OWN, STALE])
        options: dict[str, t.Any] = {"ttl": 0.02, "stale": 1} if key == STALE else {"ttl": 0.3, "tags": OWN[key]}
        context = contextvars.copy_context()

        def compute() -> t.Any:
            # A refresh runs in a thread of its own.
            return context.copy().run(self.compute, key)

        return self._look(key, lambda: self.state.cache.get_or_set(key, compute, **options))

    def _call(self) -> Operation:
        key = _turn.get().chance.choice(RESULTS)
        name, argument = key.split("/")
        return self._look(key, lambda: self._functions[name](int(argument)))

    def _visit(self) -> Operation:
        chance = _turn.get().chance
        key, variant = chance.choice(PAGES), chance.choice("xy")

        def visit() -> t.Any:
            response = self.app.test_client().get(f"/{key}", headers={"X-Variant": variant})
            assert response.status_code == 200
            return response.json

        return self._look(key, visit)

    def _look(self, key: str, ask: Callable[[], t.Any]) -> Operation:
        read = self._begin("read", key=key, stale=key == STALE)
        with self._noting(read):
            got = ask()
            read.value = None if got is None else Value(*got)
        return read

    def _set(self) -> Operation:
        key = _turn.get().chance.choice(list(OWN))
        truths = self.truth.bump([key])
        made = self._begin("set", truths=truths)
        # Should this process be killed now, nobody knows whether the value was written.
        self.notes.write(made)
        with self._noting(made):
            value = value_of(key, truths[key], made.name)
            self.state.cache.set(key, value, ttl=1, tags=OWN[key])
        return made

    def _invalidate(self) -> Operation:
        chance, cache = _turn.get().chance, self.state.cache
        one, tag, function = chance.choice(KEYS), chance.choice("ab"), chance.choice(list(FUNCTIONS))
        tagged = [key for key, tags in OWN.items() if tag in tags] + [r for r in RESULTS if FUNCTIONS[r[:3]] == tag]
        tagged += PAGES if tag == "a" else []
        what: list[tuple[list[str], Callable[[], None]]] = [
            ([one], lambda: self._forget(one)),
            (tagged, lambda: cache.invalidate_tags(tag)),
            ([key for key in RESULTS if key.startswith(function)], self._functions[function].forget_all),
            (PAGES, self._page.forget_all),
            (list(KEYS), cache.clear),
        ]
        ((keys, invalidate),) = chance.choices(what, [6, 3, 1, 1, 1])
        made = self._begin("invalidate", truths=self.truth.bump(keys))
        with self._noting(made):
            invalidate()
        return made

    def _forget(self, key: str) -> None:
        if key in RESULTS:
            name, argument = key.split("/")
            self._functions[name].forget(int(argument))
        elif key in PAGES:
            with self.app.test_request_context(f"/{key}"):
                self._page.forget()
        else:
            self.state.cache.delete(key)

    def _begin(self, kind: t.Any, **known: t.Any) -> Operation:
        return Operation(name=_turn.get().name, kind=kind, process=self.script.name, began=now(), **known)

    @contextlib.contextmanager
    def _noting(self, operation: Operation) -> Iterator[None]:
        """Note when a call ends, and how."""
        try:
            yield
        except StoreError:
            operation.failed = True
        except Exception as error:
            operation.error = repr(error)
        operation.ended = now()


class _Turn(t.NamedTuple):
    """The operation that a thread is at."""

    name: str
    chance: random.Random


_turn: contextvars.ContextVar[_Turn] = contextvars.ContextVar("turn")


def _pause(seconds: float) -> None:
    select.select([], [], [], seconds)


class Child:
    """A player in a process of its own."""

    def __init__(self, script: Script) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.cache.players", msgspec.json.encode(script).decode()],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def begin(self) -> None:
        """Wait until it is ready, and let it play."""
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"
        self._tell()

    def end(self) -> None:
        """Let it come to its end, and wait for that."""
        self._tell()
        assert self._process.wait(PATIENCE * 4) == 0
        self._close()

    def _tell(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()

    def kill(self) -> None:
        """End it as a crash does."""
        self._process.kill()
        self._process.wait()
        self._close()

    def _close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


def main(script: Script) -> None:
    """Play."""
    # Outages of a moment are to be over in a moment.
    t.cast("t.Any", GuardedStore.__init__).__kwdefaults__.update(probe_after=0.005, max_probe_after=0.05)
    player = Player(script)
    print("ready", flush=True)
    sys.stdin.readline()
    player.begin()
    sys.stdin.readline()
    player.end()
    player.close()
    # Refreshes that are under way are nobody's concern any more.
    os._exit(0)


if __name__ == "__main__":
    main(msgspec.json.decode(sys.argv[1], type=Script))
