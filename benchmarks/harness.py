"""How everything here is timed: interleaved rounds, medians, and ratios of figures from the same round.

Other work on the machine changes absolute figures by a factor of two from one minute to the next. So all contenders
take turns in short blocks, in an order that rotates from round to round, and two of them are only ever compared within
one round, where they met the same conditions.
"""

from __future__ import annotations

import gc
import statistics
import time
import timeit
import typing as t
from collections.abc import Callable, Iterable, Mapping, Sequence

T = t.TypeVar("T")


class Cell(t.NamedTuple):
    """One thing that is measured: somebody who does something."""

    contender: str
    operation: str


#: Does its work for a short while and returns one figure.
Block: t.TypeAlias = Callable[[], float]


def measure(blocks: Mapping[Cell, Block], rounds: int, turn_done: Callable[[], None] = lambda: None) -> Timings:
    """Run every block once in each round, in an order that rotates.

    :param turn_done: called after each round, to show that something happens.
    """
    cells = list(blocks)
    gc.collect()
    gc.freeze()  # what is there by now need not be looked at again before each block
    figures: list[dict[Cell, float]] = []
    try:
        for turn in range(rounds):
            shift = turn % len(cells)
            figures.append({cell: blocks[cell]() for cell in [*cells[shift:], *cells[:shift]]})
            turn_done()
    finally:
        gc.unfreeze()  # the contenders of the next part need not share the memory with these
    return Timings(figures)


def median_time(call: Callable[[T], object], arguments: Iterable[T]) -> float:
    """Return the median time of a call in microseconds, with the garbage collector switched off."""
    return statistics.median(times(call, arguments))


def loop_time(statement: str, names: dict[str, t.Any], seconds: float = 0.001) -> float:
    """Return what a statement takes in microseconds, also one that takes less than looking at the clock.

    It is written into a loop, as :mod:`timeit` does, so that nothing is called but what it calls.

    :param seconds: how long each of five loops takes, roughly; their median counts.
    """
    timer = timeit.Timer(statement, globals=names)
    number = max(1, min(1000, int(seconds / max(timer.timeit(1), 1e-7))))
    return statistics.median(timer.repeat(5, number)) / number * 1e6


def times(call: Callable[[T], object], arguments: Iterable[T]) -> list[float]:
    """Return how long each call took, in microseconds, with the garbage collector switched off."""
    clock, spans = time.perf_counter_ns, list[float]()
    gc.collect()
    gc.disable()
    try:
        for argument in arguments:
            began = clock()
            call(argument)
            spans.append((clock() - began) / 1000)
    finally:
        gc.enable()
    return spans


def percentile(values: Iterable[float], percent: float) -> float:
    """Return the value that so many percent of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


class Timings:
    """What was measured: for each round, one figure for each cell."""

    def __init__(self, rounds: Sequence[Mapping[Cell, float]]) -> None:
        self.rounds = rounds

    def median(self, cell: Cell) -> float:
        """Return the median of a cell's figures."""
        return statistics.median(figures[cell] for figures in self.rounds)

    def quiet(self, cell: Cell) -> float:
        """Return the smallest of a cell's figures: what it takes when nobody disturbs."""
        return min(figures[cell] for figures in self.rounds)

    def ratio(self, cell: Cell, other: Cell) -> float:
        """Return the median over the rounds of one figure divided by the other."""
        return statistics.median(figures[cell] / figures[other] for figures in self.rounds)

    def added(self, cell: Cell, base: Cell) -> float:
        """Return the median over the rounds of what a cell takes more than another."""
        return statistics.median(figures[cell] - figures[base] for figures in self.rounds)

    def added_ratio(self, cell: Cell, other: Cell, base: Cell) -> float:
        """Return the median over the rounds of what one cell adds to a base, divided by what another adds to it."""
        return statistics.median(
            (figures[cell] - figures[base]) / (figures[other] - figures[base]) for figures in self.rounds
        )
