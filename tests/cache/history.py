"""What several processes did with one cache, and the proof that nobody was served what had been invalidated.

There is a *truth* outside the cache: a number for each key, which only ever grows. Whoever changes it does so before it
invalidates, and whoever computes a value looks at it first, so that a value tells by itself how old it is. Every
operation is noted down with when it began and ended, on the clock that all processes of a machine share.
"""

from __future__ import annotations

import bisect
import fcntl
import hashlib
import itertools
import mmap
import os
import time
import typing as t
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec


class Value(t.NamedTuple):
    """What is cached."""

    key: str
    #: What the truth was when it was made.
    truth: int
    #: The operation that made it.
    origin: str
    #: Follows from key and truth, so that two values for one truth would show.
    body: str


def value_of(key: str, truth: int, origin: str) -> tuple[str, int, str, str]:
    """Return the value that an operation makes."""
    return tuple(Value(key, truth, origin, _body(key, truth)))


def _body(key: str, truth: int) -> str:
    return hashlib.sha256(f"{key}@{truth}".encode()).hexdigest() * (1 + truth % 5)


Kind: t.TypeAlias = t.Literal["read", "set", "invalidate"]


class Operation(msgspec.Struct, kw_only=True):
    """One call of the cache."""

    name: str
    kind: Kind
    #: The process that called; who comes in the place of a killed one is another process.
    process: str
    began: float
    #: ``None`` if it never ended, since its process was killed.
    ended: float | None = None
    #: What was read or set; ``None`` where a read found nothing.
    value: Value | None = None
    #: The key that was read.
    key: str = ""
    #: What was set or invalidated, and what the truth was then, at least.
    truths: dict[str, int] = {}
    #: Whether the call takes a stale value.
    stale: bool = False
    #: Whether it raised a StoreError.
    failed: bool = False
    #: Any other exception, which there should not be.
    error: str = ""


class Truth:
    """The source of truth, shared by all processes.

    :param path: of the file that it is in.
    """

    def __init__(self, path: Path, keys: Iterable[str]) -> None:
        self._path = path
        self._places = {key: place for place, key in enumerate(keys)}
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
        os.ftruncate(descriptor, 8 * len(self._places))
        self._numbers = memoryview(mmap.mmap(descriptor, 8 * len(self._places))).cast("Q")
        os.close(descriptor)

    def get(self, key: str) -> int:
        """Return what is true now."""
        return self._numbers[self._places[key]]

    def bump(self, keys: Iterable[str]) -> dict[str, int]:
        """Let something else be true for some keys; return what."""
        descriptor = os.open(self._path, os.O_RDWR)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            for key in keys:
                self._numbers[self._places[key]] += 1
            return {key: self.get(key) for key in keys}
        finally:
            os.close(descriptor)


class Notes:
    """Where one process notes down what it does; what was noted survives that the process is killed."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def write(self, operation: Operation) -> None:
        """Note an operation down. What is noted again later, under the same name, counts instead."""
        os.write(self._descriptor, msgspec.json.encode(operation) + b"\n")

    def close(self) -> None:
        os.close(self._descriptor)


def now() -> float:
    """Return the time on the clock that all processes share."""
    return time.clock_gettime(time.CLOCK_MONOTONIC)


def read_notes(paths: Iterable[Path]) -> list[Operation]:
    """Return what several processes noted down."""
    decode = msgspec.json.Decoder(Operation).decode
    lines = itertools.chain.from_iterable(path.read_bytes().splitlines() for path in paths)
    return list({operation.name: operation for operation in map(decode, lines)}.values())


def faults(history: Iterable[Operation], *, lag: float = 0.0) -> list[str]:
    """Return what is wrong with a history, one sentence for each fault.

    :param lag: seconds after the end of an invalidation during which the old value may still be served.
    """
    history = list(history)
    found = [f"{operation.name} raised {operation.error}" for operation in history if operation.error]
    made = {operation.name: operation for operation in history}
    floors = _floors(history, lag)
    for read in history:
        if read.kind == "read" and read.failed:
            found.append(f"{read.name} raised what the store did, instead of a value")
        if read.kind == "read" and read.value is not None:
            found += _damage(read)
            if not read.stale:
                found += _staleness(read, read.value, floors, made)
    return found


class _Floors(t.NamedTuple):
    """The invalidations of one key that a reader has to respect."""

    #: From when on, in rising order.
    since: list[float]
    #: The invalidations, in the same order.
    by: list[Operation]
    #: What the truth was, at least, in the most recent of those up to each.
    highest: list[int]


def _floors(history: Iterable[Operation], lag: float) -> Mapping[tuple[str, str], _Floors]:
    """Return the invalidations by key and process: ``""`` for those that all processes have to respect.

    One that failed is repeated before its own process is served again, and so only that has to respect it.
    """
    ended: dict[tuple[str, str], list[tuple[float, str, Operation]]] = defaultdict(list)
    for operation in history:
        if operation.kind == "read" or operation.ended is None or operation.error:
            continue
        if operation.failed and operation.kind == "set":
            continue
        process, since = (operation.process, operation.ended) if operation.failed else ("", operation.ended + lag)
        for key in operation.truths:
            ended[key, process].append((since, operation.name, operation))
    floors: dict[tuple[str, str], _Floors] = {}
    for (key, process), items in ended.items():
        items.sort(key=lambda item: item[:2])
        truths = [operation.truths[key] for _, _, operation in items]
        highest = list(itertools.accumulate(truths, max))
        floors[key, process] = _Floors([since for since, _, _ in items], [item[2] for item in items], highest)
    return floors


def _damage(read: Operation) -> list[str]:
    """Return what is wrong with a value, whenever it was read."""
    value = read.value
    assert value is not None
    if value.key != read.key:
        return [f"{read.name} asked for {read.key} and got {value.key}"]
    if value.body != _body(value.key, value.truth):
        return [f"{read.name} got another value of {value.key} for truth {value.truth}"]
    return []


def _staleness(
    read: Operation,
    value: Value,
    floors: Mapping[tuple[str, str], _Floors],
    made: Mapping[str, Operation],
) -> list[str]:
    """Return whether a value was older than an invalidation that had ended when it was asked for."""
    maker = made.get(value.origin)
    for process in ("", read.process):
        known = floors.get((read.key, process))
        if known is None:
            continue
        count = bisect.bisect_left(known.since, read.began)
        if count == 0 or known.highest[count - 1] <= value.truth:
            continue
        for by in known.by[:count]:
            if by.truths[read.key] > value.truth and not _set_meanwhile(maker, by):
                return [
                    f"{read.name} began after {by.name} had ended, of truth {by.truths[read.key]}, and got truth"
                    f" {value.truth} by {value.origin}"
                ]
    return []


def _set_meanwhile(maker: Operation | None, invalidation: Operation) -> bool:
    """Tell whether a ``set()`` wrote a value that may have come after an invalidation: then its caller wanted that."""
    if maker is None or maker.kind != "set":
        return False
    return maker.ended is None or maker.ended >= invalidation.began


class Summary(t.NamedTuple):
    """What a history is made of, to see that it means something."""

    #: Reads that got a value which another operation had made.
    hits: int
    #: Reads that made their value themselves.
    computed: int
    #: Invalidations and sets that ended without error.
    invalidated: int
    #: Operations that raised a StoreError.
    failed: int
    #: Processes that took part.
    processes: int


def summary(history: Iterable[Operation]) -> Summary:
    """Count what a history is made of."""
    history = list(history)
    values = [(operation.name, operation.value) for operation in history if operation.kind == "read"]
    return Summary(
        hits=sum(value is not None and value.origin != name for name, value in values),
        computed=sum(value is not None and value.origin == name for name, value in values),
        invalidated=sum(o.kind != "read" and o.ended is not None and not o.failed for o in history),
        failed=sum(operation.failed for operation in history),
        processes=len({operation.process for operation in history}),
    )
