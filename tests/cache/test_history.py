"""Four processes, random operations, outages: no value is served after it was invalidated. And the proof can fail."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import select
import sys
import threading
import typing as t
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flask_stateful.cache import engine
from flask_stateful.cache.debts import Debts
from flask_stateful.cache.engine import Engine, _compute_only
from flask_stateful.cache.entries import Entry
from flask_stateful.cache.layer import Held, Layer
from flask_stateful.cache.pages import Page
from flask_stateful.cache.storage import CacheStorage, Call
from flask_stateful.cache.tags import EVERYTHING
from flask_stateful.epochs import Epochs
from flask_stateful.errors import StoreError
from tests.services import Launch, Redis, Valkey

from .history import Operation, Summary, Value, faults, now, read_notes, summary, value_of
from .players import Child, Player, Script

#: How long each history is.
SECONDS = float(os.environ.get("STATEFUL_HISTORY_SECONDS", "2"))

PROCESSES = 4

#: How often the server, or a process, is killed at least.
TROUBLES = 3

#: Seconds that a copy in memory may outlive what was invalidated on a server, which tells of it afterwards.
LAG = 1.0

#: What the in-process layer may hold, where it is on.
MEMORY = 1 << 20


class Crew:
    """The processes that make a history, and who comes in the place of those that are killed."""

    def __init__(self, folder: Path, url: str, memory: int) -> None:
        self._options: dict[str, t.Any] = {"folder": str(folder), "url": url, "memory": memory}
        self._born = 0
        self._children: list[Child] = []

    def __enter__(self) -> Crew:
        for _ in range(PROCESSES):
            self._bear()
        for child in self._children:
            child.begin()
        return self

    def __exit__(self, *exc_info: object) -> None:
        for child in self._children:
            child.kill()

    def _bear(self) -> Child:
        self._born += 1
        self._children.append(Child(Script(name=f"p{self._born}", seed=random.getrandbits(32), **self._options)))
        return self._children[-1]

    def replace(self) -> None:
        """Kill the one that has played for longest, and put another in its place."""
        self._bear().begin()
        self._children.pop(0).kill()

    def play(self, trouble: Callable[[], None]) -> None:
        """Make trouble again and again, and let everybody come to the end in peace."""
        until = now() + SECONDS
        for count in itertools.count():
            if count >= TROUBLES and now() > until:
                break
            pause(random.uniform(0, 0.3))
            trouble()
        pause(0.3)
        for child in self._children:
            child.end()


def pause(seconds: float) -> None:
    select.select([], [], [], seconds)


def assert_nothing_is_wrong(folder: Path, *, lag: float = 0.0) -> Summary:
    """Check the history that was left in a folder, and that it means something."""
    history = read_notes(folder.glob("*.notes"))
    wrong = faults(history, lag=lag)
    assert not wrong, "\n".join([f"{len(wrong)} faults:", *wrong[:20]])
    made = summary(history)
    assert min(made.hits, made.computed, made.invalidated) > 50
    return made


@pytest.mark.parametrize("memory", [MEMORY, 0], ids=["memory", "no-memory"])
def test_nothing_stale_while_processes_are_killed(tmp_path: Path, memory: int) -> None:
    """S2: on SQLite nobody is served what was invalidated, though processes die in the middle of everything."""
    with Crew(tmp_path, f"sqlite:///{tmp_path / 'cache.sqlite3'}", memory) as crew:
        crew.play(crew.replace)
    assert assert_nothing_is_wrong(tmp_path).processes > PROCESSES


@pytest.mark.parametrize("memory", [MEMORY, 0], ids=["memory", "no-memory"])
@pytest.mark.parametrize("kind", [Redis, Valkey])
def test_nothing_stale_while_the_server_is_killed(
    tmp_path: Path, launch: Launch, kind: type[Redis], memory: int
) -> None:
    """S2: on Redis and Valkey nobody is served what was invalidated, though the server is killed and comes back."""
    server = launch(kind, "--appendonly", "yes", "--appendfsync", "always", "--save", "")

    def crash() -> None:
        server.kill()
        server.start()

    with Crew(tmp_path, server.url, memory) as crew:
        crew.play(crash)
    assert assert_nothing_is_wrong(tmp_path, lag=LAG if memory else 0).failed > 0


def test_nothing_stale_among_threads(tmp_path: Path) -> None:
    """S2: in the memory of one process nobody is served what was invalidated, though the store fails now and then."""
    assert play_alone(tmp_path, SECONDS) == []
    assert assert_nothing_is_wrong(tmp_path).failed > 0


def play_alone(folder: Path, seconds: float, round: int = 0) -> list[str]:
    """Play with the threads of this process; return what was wrong."""
    player = Player(Script(name=f"alone{round}", seed=round, threads=8, folder=str(folder), url="", memory=MEMORY))
    player.begin()
    pause(seconds)
    player.end()
    player.close()
    return faults(read_notes(folder.glob("*.notes")))


@pytest.fixture(autouse=True)
def eager_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let threads take turns often, so that one overtakes another wherever it can; put back what players change."""
    monkeypatch.setattr(engine, "LEASE", engine.LEASE)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


# The proof can fail: each of these is a cache that breaks one rule


def forgets_nothing(patch: pytest.MonkeyPatch) -> None:
    """Its invalidations do nothing."""
    patch.setattr(Debts, "add", lambda self, names: None)
    patch.setattr(Layer, "changed", lambda self, keys: None)


def forgets_later(patch: pytest.MonkeyPatch) -> None:
    """Its invalidations return before they are done."""
    pay = CacheStorage.pay

    def in_the_end(self: CacheStorage) -> None:
        with contextlib.suppress(StoreError):
            pay(self)

    def later(self: CacheStorage) -> None:
        if self._owed_keys or self._owed_tags:
            threading.Timer(0.005, in_the_end, [self]).start()

    patch.setattr(CacheStorage, "pay", later)


def remembers_no_failure(patch: pytest.MonkeyPatch) -> None:
    """It forgets what it has to forget when the store is down."""
    pay = CacheStorage.pay

    def once(self: CacheStorage) -> None:
        try:
            pay(self)
        finally:
            self._owed_keys, self._owed_tags = Debts(), Debts()

    patch.setattr(CacheStorage, "pay", once)


def writes_late_results(patch: pytest.MonkeyPatch) -> None:
    """It writes what was computed, whatever happened meanwhile."""
    put = CacheStorage.put
    patch.setattr(CacheStorage, "put", lambda self, call, data, replaces: put(self, call, data, replaces=None))


def looks_at_tags_too_late(patch: pytest.MonkeyPatch) -> None:
    """It gives a value the versions that its tags have after it was computed."""
    write = Engine._write

    def late(self: Engine, call: Call, value: t.Any, versions: t.Any, **more: t.Any) -> bool:
        with contextlib.suppress(StoreError):
            versions = self.storage.tags.read((EVERYTHING, *call.tags))
        return write(self, call, value, versions, **more)

    patch.setattr(Engine, "_write", late)


def joins_whatever_is_under_way(patch: pytest.MonkeyPatch) -> None:
    """It serves what was begun before an invalidation to those who ask after it."""

    def alone(self: Engine, call: Call, owner: object, lead: t.Any) -> t.Any:
        flight, leads = self._flights.begin(call.key, owner)
        if leads:
            return (yield from self._fly(call.key, flight, lead))
        if (yield from self._join(flight, owner)):
            return flight.value
        return (yield from _compute_only())

    patch.setattr(Engine, "_alone", alone)


def trusts_its_memory(patch: pytest.MonkeyPatch) -> None:
    """It serves what it holds without looking whether that was changed."""
    patch.setattr(Epochs, "is_unchanged", lambda self, marks: True)


def marks_too_late(patch: pytest.MonkeyPatch) -> None:
    """It holds what it read as of now, not as of when it began to read."""
    put = Layer.put

    def late(self: Layer, held: Held) -> None:
        held.marks = tuple((slot, self.epochs.table[slot]) for slot, _ in held.marks)  # type: ignore[misc]
        put(self, held)

    patch.setattr(Layer, "put", late)


def leaves_variants_behind(patch: pytest.MonkeyPatch) -> None:
    """It forgets where the variants of a page are, and finds them again."""
    patch.setattr("flask_stateful.cache.views.signpost", lambda vary: Page(0, (), b"", 0.0, vary))


def mixes_keys_up(patch: pytest.MonkeyPatch) -> None:
    """It keeps all values of one's own under one key."""
    patch.setattr("flask_stateful.cache.runtime.value_key", lambda namespace, key: "players:cache:one")


def fails(patch: pytest.MonkeyPatch) -> None:
    """It has an error of its own."""
    patch.setattr(Entry, "tags", property(lambda self: {}["missing"]))


def lets_the_store_fail(patch: pytest.MonkeyPatch) -> None:
    """It hands the store's failure to those who want a value."""

    def failing(self: Engine, call: Call, owner: object) -> t.Any:
        self.storage.look(call)
        yield from _compute_only()

    patch.setattr(Engine, "_without_store", failing)


STALENESS = "had ended, of truth"


@pytest.mark.parametrize(
    ("breaks", "found"),
    [
        (forgets_nothing, STALENESS),
        (forgets_later, STALENESS),
        (remembers_no_failure, STALENESS),
        (writes_late_results, STALENESS),
        (looks_at_tags_too_late, STALENESS),
        (joins_whatever_is_under_way, STALENESS),
        (trusts_its_memory, STALENESS),
        (marks_too_late, STALENESS),
        (leaves_variants_behind, STALENESS),
        (mixes_keys_up, "asked for"),
        (fails, "KeyError"),
        (lets_the_store_fail, "instead of a value"),
    ],
)
def test_broken_cache_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, breaks: Callable[[pytest.MonkeyPatch], None], found: str
) -> None:
    """Whatever rule a cache breaks, playing with it for long enough shows that."""
    breaks(monkeypatch)
    for number in range(200):
        folder = tmp_path / str(number)
        folder.mkdir()
        if any(found in fault for fault in play_alone(folder, 0.3, number)):
            return
    pytest.fail("nothing was found")


# The proof itself, on histories made by hand


def read(began: float, truth: int, origin: str, **more: t.Any) -> Operation:
    value = Value(*value_of("k", truth, origin))
    made: dict[str, t.Any] = {"name": f"read at {began}", "process": "p1", "key": "k", "value": value, **more}
    return Operation(kind="read", began=began, ended=began + 1, **made)


def write(kind: t.Any, began: float, ended: float | None, truth: int, **more: t.Any) -> Operation:
    made: dict[str, t.Any] = {"name": f"{kind} at {began}", "process": "p2", **more}
    return Operation(kind=kind, began=began, ended=ended, truths={"k": truth}, **made)


@pytest.mark.parametrize(
    ("history", "wrong"),
    [
        ([write("invalidate", 1, 2, 5), read(3, 5, "x")], 0),
        ([write("invalidate", 1, 2, 5), read(3, 4, "x")], 1),
        ([write("invalidate", 1, 2, 5), read(1.5, 4, "x")], 0),
        ([write("invalidate", 1, 2, 5), read(3, 4, "x", stale=True)], 0),
        ([write("invalidate", 1, None, 5), read(3, 4, "x")], 0),
        ([write("invalidate", 1, 2, 5), write("invalidate", 1.5, 1.6, 4), read(3, 4, "x")], 1),
        ([write("invalidate", 1, 2, 5, failed=True), read(3, 4, "x")], 0),
        ([write("invalidate", 1, 2, 5, failed=True), read(3, 4, "x", process="p2")], 1),
        ([write("set", 1, 2, 5), read(3, 4, "x")], 1),
        ([write("set", 1, 2, 5, failed=True), read(3, 4, "x", process="p2")], 0),
        ([write("set", 1, 2, 5), read(3, 5, "set at 1")], 0),
        ([write("invalidate", 1, 2, 5), write("set", 1.5, 3, 4), read(4, 4, "set at 1.5")], 0),
        ([write("invalidate", 1, 2, 5), write("set", 0, 0.5, 4), read(4, 4, "set at 0")], 1),
        ([write("invalidate", 1, 2, 5), write("set", 0, None, 4), read(4, 4, "set at 0")], 0),
        (
            [write("set", 0, 2, 4), write("invalidate", 1, 2, 5), write("invalidate", 3, 4, 6), read(5, 4, "set at 0")],
            1,
        ),
        ([read(1, 4, "x", key="other")], 1),
        ([read(1, 4, "x", value=Value("k", 4, "x", "another"))], 1),
        ([read(1, 4, "x", error="KeyError()")], 1),
        ([read(1, 4, "x", failed=True)], 1),
    ],
)
def test_proof(history: list[Operation], wrong: int) -> None:
    """What began after an invalidation had ended is not older than that; a set that may have come later is no fault."""
    assert len(faults(history)) == wrong


def test_proof_allows_a_lag() -> None:
    """Where copies may be stale for a moment, they are for no longer than that."""
    history = [write("invalidate", 1, 2, 5), read(2.4, 4, "x"), read(2.6, 4, "x")]
    assert len(faults(history, lag=0.5)) == 1
