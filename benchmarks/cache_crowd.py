"""A crowd: several processes of many callers that ask one cache for the same value, at once and then all the time."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import multiprocessing
import time
import typing as t
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from .apps import Place

PROCESSES: t.Final = 2
CALLERS: t.Final = 16

#: Seconds that computing takes, that a value is fresh, and that a caller pauses when all ask all the time.
COMPUTING, TTL, _PAUSE = 0.1, 1, 0.01

#: Seconds in which a refresh surely begins that was asked for.
_SETTLED: t.Final = 0.1

#: When something began and ended, on a clock that all processes share.
Span: t.TypeAlias = tuple[float, float]

#: Returns the value of a number; for an event loop, what is awaited for it.
Ask: t.TypeAlias = Callable[[int], t.Any]


#: Makes what asks, in each process anew; it is given what computes.
Build: t.TypeAlias = Callable[[Place, Ask], Ask]


class Contender(t.NamedTuple):
    """One cache that a crowd meets."""

    title: str
    build: Build
    library: str = "flask"
    is_async: bool = False
    #: How often a value may be computed for all; ``None`` where that is not ours to judge.
    limit: int | None = None
    #: Whether it was told to serve what has expired while it is computed anew.
    stale: bool = False


@dataclasses.dataclass
class Seen:
    """What one process saw; a list has an item for each number that was asked for."""

    cold: list[list[Span]] = dataclasses.field(default_factory=list[list[Span]])
    expired: list[list[Span]] = dataclasses.field(default_factory=list[list[Span]])
    steady: list[Span] = dataclasses.field(default_factory=list[Span])
    #: Each computation: for which number, and when.
    computed: dict[str, list[tuple[int, Span]]] = dataclasses.field(default_factory=dict[str, list[tuple[int, Span]]])


def meet(contender: Contender, place: Place, *, times: int, seconds: float) -> list[Seen]:
    """Let a crowd meet a cache, and return what each process saw.

    :param times: for how many values all ask at once.
    :param seconds: how long they ask all the time.
    :raises RuntimeError: if something went wrong in one of them.
    """
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(PROCESSES), context.SimpleQueue()
    arguments = (contender, place, (times, seconds), barrier, results)
    children = [context.Process(target=_crowd, args=arguments, daemon=True) for _ in range(PROCESSES)]
    for child in children:
        child.start()
    seen = [results.get() for _ in children]
    for child in children:
        child.join()
    if not all(isinstance(each, Seen) for each in seen):
        raise RuntimeError(f"{contender.title}: {seen}")
    return seen


def _crowd(contender: Contender, place: Place, extent: tuple[int, float], barrier: t.Any, results: t.Any) -> None:
    """Take part, and send what was seen; what goes wrong is sent as text."""
    own = dataclasses.replace(place, opened=contextlib.ExitStack())
    try:
        with own.opened:
            results.put(_take_part(contender, own, extent, barrier.wait))
    except Exception as error:
        barrier.abort()
        results.put(repr(error))


def _take_part(contender: Contender, place: Place, extent: tuple[int, float], together: Callable[[], object]) -> Seen:
    (times, seconds), seen, computing = extent, Seen(), _Computing()
    ask_all = _callers(contender, place, computing)

    def phase(name: str, work: Callable[[], None]) -> None:
        together()
        work()
        computing.settle()
        together()
        seen.computed[name] = computing.take()

    def ask_each(into: list[list[Span]]) -> None:
        for number in range(times):
            together()
            into.append(ask_all(number, 0))
            computing.settle()

    phase("cold", lambda: ask_each(seen.cold))
    time.sleep(TTL)
    phase("expired", lambda: ask_each(seen.expired))
    phase("steady", lambda: seen.steady.extend(ask_all(0, seconds)))
    return seen


class _Computing:
    """What computes the value of a number, and remembers that it did."""

    def __init__(self) -> None:
        self._begun = 0
        self._done: list[tuple[int, Span]] = []

    def compute(self, number: int) -> int:
        began = self._begin()
        time.sleep(COMPUTING)
        return self._end(number, began)

    async def compute_async(self, number: int) -> int:
        began = self._begin()
        await asyncio.sleep(COMPUTING)
        return self._end(number, began)

    def settle(self) -> None:
        """Wait until nothing is being computed, nor about to be."""
        time.sleep(_SETTLED)
        while self._begun > len(self._done):
            time.sleep(_SETTLED)

    def take(self) -> list[tuple[int, Span]]:
        """Return what was computed since the last time."""
        done, self._done, self._begun = self._done, [], 0
        return done

    def _begin(self) -> float:
        self._begun += 1
        return time.monotonic()

    def _end(self, number: int, began: float) -> int:
        self._done.append((number, (began, time.monotonic())))
        return number


def _callers(contender: Contender, place: Place, computing: _Computing) -> Callable[[int, float], list[Span]]:
    """Return a function that lets all callers ask for a number, once or for so many seconds."""
    if contender.is_async:
        loop = place.keep(asyncio.new_event_loop())

        async def compute_async(number: int) -> int:
            return await computing.compute_async(number)

        awaited = contender.build(place, compute_async)

        async def all_of(number: int, seconds: float) -> list[Span]:
            asked = await asyncio.gather(*(_ask_async(awaited, number, seconds) for _ in range(CALLERS)))
            return [span for spans in asked for span in spans]

        return lambda number, seconds: loop.run_until_complete(all_of(number, seconds))
    pool = place.opened.enter_context(ThreadPoolExecutor(CALLERS))

    def compute(number: int) -> int:  # a function: not every cache takes methods
        return computing.compute(number)

    ask = contender.build(place, compute)

    def all_asked(number: int, seconds: float) -> list[Span]:
        asked = [pool.submit(_ask, ask, number, seconds) for _ in range(CALLERS)]
        return [span for future in asked for span in future.result()]

    return all_asked


def _ask(ask: Ask, number: int, seconds: float) -> list[Span]:
    spans, until = list[Span](), time.monotonic() + seconds
    while not spans or time.monotonic() < until:
        began = time.monotonic()
        ask(number)
        spans.append((began, time.monotonic()))
        time.sleep(_PAUSE if seconds else 0)
    return spans


async def _ask_async(ask: Ask, number: int, seconds: float) -> list[Span]:
    spans, until = list[Span](), time.monotonic() + seconds
    while not spans or time.monotonic() < until:
        began = time.monotonic()
        await ask(number)
        spans.append((began, time.monotonic()))
        await asyncio.sleep(_PAUSE if seconds else 0)
    return spans
