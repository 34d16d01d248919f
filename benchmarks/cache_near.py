"""How soon one process sees what another has written, though it holds the old value in its memory."""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import time
import typing as t
from collections.abc import Callable

from .apps import Place
from .cache_peers import stateful_app, store_at
from .harness import percentile
from .report import Gate, Part, Table, figure

#: Seconds between two looks: long enough for other threads of the process to run, as they do where there are requests.
_BETWEEN: t.Final = 0.00005

#: Seconds in which a process has heard from the store that it may hold values.
_PATIENCE: t.Final = 10

_STORES: t.Final = {"SQLite": "seen.sqlite3", "Redis": "redis", "Valkey": "valkey"}

_END: t.Final = -1


def run(place: Place, *, times: int, tick: Callable[[], None]) -> Part:
    """Measure, and judge; a store over which no process holds anything is left out.

    :param times: how often something is written.
    """
    rows, gates = [], []
    for title, where in _STORES.items():
        seen = seen_after(place, where, times)
        tick()
        if seen is not None:
            p50, p99 = percentile(seen, 50), percentile(seen, 99)
            rows.append([title, *map(figure, (p50, p99, max(seen)))])
            gates.append(Gate("C7", f"{title}: what one process wrote is seen by another, p99", p99, 5, "ms"))
    note = "Milliseconds from the beginning of set() until get() in another process returns what was set."
    return Part([Table("Written here, seen there", ("", "p50", "p99", "longest"), rows, note)], gates)


def seen_after(place: Place, where: str, times: int) -> list[float] | None:
    """Return after how many milliseconds another process saw each write; ``None`` where it holds nothing in memory."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    child = context.Process(target=_look, args=(place, where, there), daemon=True)
    child.start()
    there.close()
    try:
        if not here.recv():
            return None
        with _opened(place, where) as cache:
            return [_write(cache, number, here) for number in range(times)]
    finally:
        here.send(_END)
        child.join()


def _write(cache: t.Any, number: int, here: t.Any) -> float:
    here.send(number)
    here.recv()  # it has the old value now
    began = time.monotonic()
    cache.set("seen", number)
    seen_at: float = here.recv()
    return (seen_at - began) * 1000


def _look(place: Place, where: str, there: t.Any) -> None:
    """Wait for each number in a process of its own, and send when it was there."""
    with _opened(place, where) as cache:
        there.send(_holds_values(cache))
        while (number := there.recv()) != _END:
            cache.get("seen")
            there.send(None)
            while cache.get("seen") != number:
                time.sleep(_BETWEEN)
            there.send(time.monotonic())


def _holds_values(cache: t.Any) -> bool:
    """Tell whether values are held in memory, once there was time to find out whether they may be."""
    cache.set("live", True)
    cache.get("live")
    epochs, deadline = cache.runtime.storage.layer.epochs, time.monotonic() + _PATIENCE
    if "epochs" not in cache.runtime.storage.store.abilities:
        return False
    while not epochs.live and time.monotonic() < deadline:
        time.sleep(_BETWEEN)
    return bool(epochs.live)


@contextlib.contextmanager
def _opened(place: Place, where: str) -> t.Iterator[t.Any]:
    with contextlib.ExitStack() as stack:
        own = dataclasses.replace(place, opened=stack)
        app, state = stateful_app(store_at(where, own), memory=True)
        stack.enter_context(app.app_context())
        yield state.cache
