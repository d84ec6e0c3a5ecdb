"""Line charts as inline SVG: no script, no picture files, sharp at any size."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite, log10

from markupsafe import Markup, escape

from holter_monitor.offline.traces import Point
from holter_monitor.report.words import number

WIDTH, HEIGHT = 760, 150
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 8, 8, 20
_LABEL = Markup('<text x="{}" y="{}" class="{}">{}</text>')


def chart(points: Sequence[Point], *, title: str, marks: Sequence[tuple[int, str, str]] = ()) -> Markup:
    """A series over its steps. `marks` are `(step, class, text)` lines across it. A range of over 50 to 1 is drawn logarithmic."""
    finite = [(step, value) for step, value in points if isfinite(value)]
    if not finite:
        return Markup("")
    low, high = min(value for _, value in finite), max(value for _, value in finite)
    is_log = low > 0 and high / low > 50
    scale = _Scale(finite[0][0], max(step for step, _ in finite), *((log10(low), log10(high)) if is_log else (low, high)))
    paths = _paths(points, scale, is_log=is_log)
    lines = Markup("").join(_mark(scale, *mark) for mark in marks)
    labels = Markup("").join(
        _LABEL.format(x, y, name, text)
        for x, y, name, text in (
            (_LEFT - 4, _TOP + 9, "axis end", number(high)),
            (_LEFT - 4, HEIGHT - _BOTTOM, "axis end", number(low)),
            (_LEFT, HEIGHT - 5, "axis", f"step {finite[0][0]:,}"),
            (WIDTH - _RIGHT, HEIGHT - 5, "axis end", f"{finite[-1][0]:,}"),
        )
    )
    head = Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}"><title>{}</title>').format(WIDTH, HEIGHT, title, title)
    return head + lines + Markup('<path d="{}" class="line"/>').format(paths) + labels + Markup("</svg>")


class _Scale:
    def __init__(self, first: int, last: int, low: float, high: float) -> None:
        self.first, self.low = first, low
        self.across = (WIDTH - _LEFT - _RIGHT) / max(1, last - first)
        self.up = (HEIGHT - _TOP - _BOTTOM) / (high - low) if high > low else 0.0

    def x(self, step: int) -> float:
        return _LEFT + min(max(step - self.first, 0) * self.across, WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        return HEIGHT - _BOTTOM - (value - self.low) * self.up


def _paths(points: Sequence[Point], scale: _Scale, *, is_log: bool) -> str:
    """The line; broken where the value is not finite or the step goes back (another attempt)."""
    said: list[str] = []
    pen, before = "M", None
    for step, value in points:
        if not isfinite(value) or (is_log and value <= 0):
            pen = "M"
            continue
        if before is not None and step < before:
            pen = "M"
        said.append(f"{pen}{scale.x(step):.1f} {scale.y(log10(value) if is_log else value):.1f}")
        pen, before = "L", step
    return " ".join(said)


def _mark(scale: _Scale, step: int, name: str, text: str) -> Markup:
    x = f"{scale.x(step):.1f}"
    return Markup('<line x1="{}" x2="{}" y1="{}" y2="{}" class="mark {}"><title>{}</title></line>').format(
        x, x, _TOP, HEIGHT - _BOTTOM, escape(name), text
    )
