"""The chart: horizontal bars as SVG, drawn by hand so that it stays small and follows the reader's colour scheme."""

from __future__ import annotations

import typing as t
from collections.abc import Sequence
from html import escape

from .report import Panel

_WIDTH, _LEFT, _RIGHT = 860, 300, 70
_BAR, _GAP, _HEAD, _PAD = 11, 9, 62, 16

_STYLE: t.Final = """
    svg { --card: #ffffff; --ink: #1d2430; --soft: #5a6475; --a: #b9c2cf; --b: #2563c9; --c: #1a7f4b; }
    @media (prefers-color-scheme: dark) {
      svg { --card: #14181f; --ink: #e8ecf2; --soft: #9eabbd; --a: #4b5768; --b: #79a8ff; --c: #4cc38a; }
    }
    .card { fill: var(--card); }
    text { fill: var(--ink); }
    .head { font-size: 15px; font-weight: 600; }
    .ours { font-weight: 600; }
    .soft { fill: var(--soft); font-size: 11px; }
    .untouched { fill: var(--a); }
    .read { fill: var(--b); }
    .write { fill: var(--c); }
    .hit { fill: var(--b); }
"""


def draw(panels: Sequence[Panel]) -> str:
    """Return the chart of some panels, one below the other."""
    parts, top = list[str](), 0
    for panel in panels:
        parts += _panel(panel, top)
        top += _height(panel)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {top + _PAD}" role="img"'
            ' font-family="system-ui, sans-serif" font-size="13">',
            f"  <title>{escape('; '.join(panel.title for panel in panels))}</title>",
            f"  <style>{_STYLE}  </style>",
            f'  <rect class="card" width="{_WIDTH}" height="{top + _PAD}" rx="12"/>',
            *parts,
            "</svg>",
            "",
        ]
    )


def _height(panel: Panel) -> int:
    return _HEAD + len(panel.bars) * _row_height(panel)


def _row_height(panel: Panel) -> int:
    return len(panel.series) * _BAR + _GAP


def _panel(panel: Panel, top: int) -> list[str]:
    parts = [f'  <text class="head" x="{_PAD}" y="{top + 30}">{escape(panel.title)}</text>']
    for number, name in enumerate(panel.series):
        x = _LEFT + number * 90
        parts.append(f'  <rect class="{name}" x="{x}" y="{top + 40}" width="{_BAR}" height="{_BAR}"/>')
        parts.append(f'  <text class="soft" x="{x + 16}" y="{top + 50}">{name}</text>')
    longest = max(value for _, values in panel.bars for value in values)
    scale = (_WIDTH - _LEFT - _RIGHT) / longest
    for row, (label, values) in enumerate(panel.bars):
        parts += _bars(label, zip(panel.series, values, strict=True), top + _HEAD + row * _row_height(panel), scale)
    return parts


def _bars(label: str, values: t.Iterable[tuple[str, float]], top: int, scale: float) -> list[str]:
    ours = ' class="ours"' if label.startswith("Flask-Stateful") else ""
    bars = list(values)
    middle = top + (len(bars) - 1) * _BAR // 2 + 9
    parts = [f'  <text{ours} x="{_LEFT - 10}" y="{middle}" text-anchor="end">{escape(label)}</text>']
    for number, (name, value) in enumerate(bars):
        y, length = top + number * _BAR, max(value * scale, 1)
        parts.append(f'  <rect class="{name}" x="{_LEFT}" y="{y}" width="{length:.1f}" height="{_BAR - 1}"/>')
        parts.append(f'  <text class="soft" x="{_LEFT + length + 5:.1f}" y="{y + 9}">{_figure(value)}</text>')
    return parts


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"
