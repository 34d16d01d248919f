"""What is printed and written: tables, and the gates with their verdicts."""

from __future__ import annotations

import dataclasses
import typing as t
from collections.abc import Iterable, Sequence


@dataclasses.dataclass(frozen=True)
class Gate:
    """A figure that must not exceed a limit, or not fall below it."""

    code: str
    what: str
    value: float
    limit: float
    #: ``"x"`` for ratios, ``""`` for counts.
    unit: str = "x"
    at_least: bool = False

    @property
    def passed(self) -> bool:
        """Whether the figure keeps to the limit."""
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    @property
    def verdict(self) -> str:
        """The outcome in a word."""
        return "kept" if self.passed else "**missed**"


@dataclasses.dataclass(frozen=True)
class Table:
    """A title, a head and rows of text."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""

    def __str__(self) -> str:
        """Return the table as Markdown."""
        widths = [max(map(len, column)) for column in zip(self.head, *self.rows, strict=True)]
        lines = [_line(self.head, widths), _line(["-" * width for width in widths], widths)]
        lines += [_line(row, widths) for row in self.rows]
        return "\n".join([f"## {self.title}", "", *([self.note, ""] if self.note else []), *lines, ""])


@dataclasses.dataclass(frozen=True)
class Panel:
    """One panel of the chart: for each label its bars, one for each series."""

    title: str
    series: Sequence[str]
    bars: Sequence[tuple[str, Sequence[float]]]


@dataclasses.dataclass(frozen=True)
class Part:
    """What one part of the benchmarks has found."""

    tables: list[Table] = dataclasses.field(default_factory=list[Table])
    gates: list[Gate] = dataclasses.field(default_factory=list[Gate])
    panels: list[Panel] = dataclasses.field(default_factory=list[Panel])

    def __add__(self, other: Part) -> Part:
        return Part(self.tables + other.tables, self.gates + other.gates, self.panels + other.panels)


def gate_table(gates: Iterable[Gate]) -> Table:
    """Return the gates as a table."""
    rows = [
        (
            gate.code,
            gate.what,
            f"{'>=' if gate.at_least else '<='} {figure(gate.limit, gate.unit)}",
            figure(gate.value, gate.unit),
            gate.verdict,
        )
        for gate in sorted(gates, key=lambda gate: gate.code)
    ]
    return Table("Gates", ("", "what", "limit", "measured", "verdict"), rows)


def figure(value: float, unit: str = "") -> str:
    """Return a figure with as many digits as it deserves."""
    digits = 0 if value == int(value) or abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f}{' ' if unit else ''}{unit}"


def _line(cells: t.Iterable[str], widths: Sequence[int]) -> str:
    return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"
