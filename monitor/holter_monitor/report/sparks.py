"""A series as one line of block characters: a plot that every chat, issue and terminal shows."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite, log10
from statistics import median

from holter_monitor.offline.traces import Point
from holter_monitor.report.words import number

WIDTH = 64
_BLOCKS = "▁▂▃▄▅▆▇█"
_NOT_FINITE, _NOTHING = "×", " "


def spark(points: Sequence[Point], marks: Sequence[int] = ()) -> list[str]:
    """The line (of each stretch of steps the value farthest from the usual, which is what costs; `×` where one is not finite), the row of `marks` (steps)
    under it, and what it spans. A range of over 50 to 1 is drawn logarithmic."""
    finite = [value for _, value in points if isfinite(value)]
    if not finite:
        return []
    first, last = min(step for step, _ in points), max(step for step, _ in points)
    low, high, usual = min(finite), max(finite), median(finite)
    is_log = low > 0 and high / low > 50
    cells: list[list[float]] = [[] for _ in range(min(WIDTH, last - first + 1))]
    for step, value in points:
        cells[_cell(step, first, last, len(cells))].append(value)
    line = "".join(_block(values, usual, low, high, is_log=is_log) for values in cells)
    span = f"{number(low)} to {number(high)}{' (logarithmic)' if is_log else ''}, now {number(points[-1][1])}"
    under = [_NOTHING] * len(cells)
    for step in marks:
        if first <= step <= last:
            under[_cell(step, first, last, len(cells))] = "^"
    return [line, *(["".join(under).rstrip()] if "^" in under else []), f"steps {first:,} to {last:,}: {span}"]


def _cell(step: int, first: int, last: int, count: int) -> int:
    return min(count - 1, (step - first) * count // max(1, last - first + 1))


def _block(values: Sequence[float], usual: float, low: float, high: float, *, is_log: bool) -> str:
    if not values:
        return _NOTHING
    if not all(isfinite(value) for value in values):
        return _NOT_FINITE
    shown = max(values, key=lambda value: abs(value - usual))
    if is_log:
        shown, low, high = log10(shown), log10(low), log10(high)
    height = (shown - low) / (high - low) if high > low else 0.0
    return _BLOCKS[min(len(_BLOCKS) - 1, max(0, int(height * len(_BLOCKS))))]
