"""Plans, and who carries them out.

What a call for a cached value does is written once, as a *plan*: a generator that yields a step whenever it must wait
or compute, and is handed what came of it. :func:`run` carries a plan out in a thread, :func:`run_async` in an event
loop.
"""

from __future__ import annotations

import asyncio
import functools
import threading
import typing as t
from collections.abc import Awaitable, Callable, Generator
from contextlib import AbstractContextManager

from .. import clock
from ..serialization import MISSING
from .flights import Flight
from .tables import Reading, Tables, Versions

Plan: t.TypeAlias = Generator["Step", t.Any, t.Any]


class Compute(t.NamedTuple):
    """A step: compute the value. Handed back is an :class:`Outcome`."""

    #: Notes which tables the value is made from.
    reading: Callable[[], AbstractContextManager[Reading]] | None = None


class Check(t.NamedTuple):
    """A step: ask whether tables have changed. Handed back is a :data:`~.tables.Verdict`."""

    tables: Tables
    versions: Versions


class Private(t.NamedTuple):
    """What a computation returns in place of a value that nobody else may have."""

    reason: str
    value: t.Any = None


class Lasting(t.NamedTuple):
    """What a computation returns for a value that is fresh for another time than its call says."""

    value: t.Any
    #: Seconds; ``None`` for ever.
    ttl: float | None


class Pause(t.NamedTuple):
    """A step: wait so many seconds."""

    seconds: float


class Join(t.NamedTuple):
    """A step: wait for another's computation. Handed back is whether it has landed."""

    flight: Flight
    timeout: float


class Outcome(t.NamedTuple):
    """What computing came to."""

    value: t.Any = MISSING
    error: BaseException | None = None
    #: Where the value is fresh for another time than its call says.
    lasting: Lasting | None = None
    #: What was read for it.
    reading: Reading | None = None

    def get(self) -> t.Any:
        """Return the value, or raise the error."""
        if self.error is not None:
            raise self.error
        refusal = self.reading.refusal if self.reading is not None else None
        return self.value if refusal is None or isinstance(self.value, Private) else Private(refusal, self.value)

    @property
    def tables(self) -> Versions:
        """The versions of the tables that were read."""
        return self.reading.versions if self.reading is not None else {}


class Refresh(t.NamedTuple):
    """A step: carry out another plan when nobody waits for it."""

    plan: Plan


Step: t.TypeAlias = Compute | Check | Pause | Join | Refresh


#: Runs a function when nobody waits for it.
Later: t.TypeAlias = Callable[[Callable[[], object]], None]


def run(plan: Plan, compute: Callable[[], t.Any], later: Later, recompute: Callable[[], t.Any] | None = None) -> t.Any:
    """Carry out a plan in this thread.

    :param recompute: computes later, where ``compute`` needs what will have gone by then.
    """
    handed: t.Any = None
    while True:
        try:
            step = plan.send(handed)
        except StopIteration as stop:
            return stop.value
        if isinstance(step, Compute):
            handed = _outcome(compute, step)
        elif isinstance(step, Check):
            handed = step.tables.check(step.versions)
        elif isinstance(step, Join):
            handed = step.flight.wait(step.timeout)
        elif isinstance(step, Pause):
            clock.wait(step.seconds)
        else:
            later(functools.partial(run, step.plan, recompute or compute, later))


async def run_async(
    plan: Plan,
    compute: Callable[[], Awaitable[t.Any]],
    later: Later,
    recompute: Callable[[], Awaitable[t.Any]] | None = None,
) -> t.Any:
    """Carry out a plan in this event loop, letting other tasks run while it waits."""
    handed: t.Any = None
    while True:
        try:
            step = plan.send(handed)
        except StopIteration as stop:
            return stop.value
        if isinstance(step, Compute):
            handed = await _outcome_async(compute, step)
        elif isinstance(step, Check):
            handed = await step.tables.check_async(step.versions)
        elif isinstance(step, Join):
            handed = await step.flight.wait_async(step.timeout)
        elif isinstance(step, Pause):
            await clock.wait_async(step.seconds)
        else:
            later(functools.partial(asyncio.run, run_async(step.plan, recompute or compute, later)))


def owner() -> object:
    """Return who is calling: an event loop's task, or a thread."""
    try:
        return asyncio.current_task() or threading.get_ident()
    except RuntimeError:
        return threading.get_ident()


def _outcome_of(value: t.Any, reading: Reading | None = None) -> Outcome:
    if isinstance(value, Lasting):
        return Outcome(value.value, lasting=value, reading=reading)
    return Outcome(value, reading=reading)


def _outcome(compute: Callable[[], t.Any], step: Compute) -> Outcome:
    try:
        if step.reading is None:
            return _outcome_of(compute())
        with step.reading() as reading:
            value = compute()
        return _outcome_of(value, reading)
    except Exception as error:
        return Outcome(error=error)


async def _outcome_async(compute: Callable[[], Awaitable[t.Any]], step: Compute) -> Outcome:
    try:
        if step.reading is None:
            return _outcome_of(await compute())
        with step.reading() as reading:
            value = await compute()
        return _outcome_of(value, reading)
    except Exception as error:
        return Outcome(error=error)
