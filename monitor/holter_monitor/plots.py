"""The picture of an incident: its metric around the onset, as a PNG that can be read on a phone. For Slack, e-mail and the web page.

Drawing takes some 200 ms of CPU: call it from a worker thread, never from the event loop.
"""

from __future__ import annotations

import io
import math
import textwrap
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_drawing = threading.Lock()
"""matplotlib shares its font cache between figures and is not safe to draw with from two threads."""

INK, FAINT, LINE, SPREAD, PAPER = "#1c1f23", "#6a727c", "#2563c9", "#2563c9", "#ffffff"
SEVERITY = {"critical": "#c8322b", "warning": "#c77d0a", "info": "#4a7ab5"}
LOG_FROM = 40.0
"""Highest over the median from which a positive metric is drawn on a logarithmic axis: what falls to nothing is seen best on a linear one."""
MAX_SERIES = 3
LINES, LETTERS, NAME = 3, 54, 36
"""Lines that the sentence may take, letters in a line, and letters of the run's name: more would leave no room for the curve, or run out of the picture."""
UNITS = {"seconds": "seconds", "bytes": "bytes", "ratio": "ratio", "celsius": "°C", "watts": "watts", "hertz": "hertz"}
SIZES = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))
HEADROOM = 0.14
"""Share of the first plot's height that is kept free over the curve, for the word that names the onset."""


@dataclass(frozen=True, kw_only=True)
class Series:
    """A metric by step. `values` may hold NaN and infinities: they were logged and are marked; `low` and `high` span the ranks."""

    metric: str
    steps: Sequence[int]
    values: Sequence[float | None]
    low: Sequence[float | None] | None = None
    high: Sequence[float | None] | None = None


def evidence_png(series: Sequence[Series], incident: Mapping[str, Any]) -> bytes:
    """Draw `series` (the first `MAX_SERIES`, one over the other) with the incident's span. 1088 × 680 pixels for one series.

    `incident` is what REST answers: `run_name, summary, severity, onset_step, detected_step, end_step` are read. Series without a point, or none at
    all, give a picture that says so: an alert without its plot would hide that the plot failed.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = list(series[:MAX_SERIES])
    with _drawing:
        figure = Figure(figsize=(6.4, 4.0 + 1.7 * max(0, len(shown) - 1)), dpi=170, facecolor=PAPER, layout="constrained")
        FigureCanvasAgg(figure)
        figure.suptitle(_sentence(incident), x=0.02, ha="left", size=13, weight="bold", color=INK)
        axes = figure.subplots(max(1, len(shown)), 1, sharex=True, squeeze=False)[:, 0]
        for axis, one in zip(axes, shown, strict=False):
            _draw(axis, one, incident)
        if shown:
            _name_onset(axes[0], incident, shown[0].steps)
        if not any(value is not None for one in shown for value in one.values):
            axes[0].text(0.5, 0.5, "no points in this window", ha="center", va="center", transform=axes[0].transAxes, color=FAINT, size=13)
        axes[-1].set_xlabel(_caption(incident), color=FAINT, size=11.5)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _sentence(incident: Mapping[str, Any]) -> str:
    """What is wrong, and with which run: a phone shows the picture without the message around it."""
    said = str(incident.get("summary") or incident.get("kind") or "incident")
    run = str(incident.get("run_name") or "")
    clipped = run if len(run) <= NAME else f"{run[: NAME // 2]}…{run[-NAME // 2 + 1 :]}"
    lines = textwrap.wrap(f"{clipped}: {said}" if run else said[:1].upper() + said[1:], LETTERS, max_lines=LINES, placeholder=" …")
    return _plain("\n".join(lines))


def _plain(text: str) -> str:
    """Dollar signs would switch matplotlib to mathematics, and names come from strangers."""
    return text.replace("$", r"\$")


def _caption(incident: Mapping[str, Any]) -> str:
    onset, detected, end = (incident.get(key) for key in ("onset_step", "detected_step", "end_step"))
    parts = [f"from step {onset:,}" if onset is not None else "", f"seen at {detected:,}" if detected is not None else ""]
    parts.append(f"over at {end:,}" if end is not None else "still going on")
    return "step      " + "  ·  ".join(part for part in parts if part)


def _draw(axis: Axes, series: Series, incident: Mapping[str, Any]) -> None:
    steps = np.asarray(series.steps, dtype=float)
    values = _floats(series.values)
    finite = np.where(np.isfinite(values), values, np.nan)
    color = SEVERITY.get(str(incident.get("severity")), SEVERITY["info"])
    _dress(axis, series)
    if not steps.size:
        return
    if series.low is not None and series.high is not None:
        axis.fill_between(steps, _floats(series.low), _floats(series.high), color=SPREAD, alpha=0.16, linewidth=0)
    axis.plot(steps, finite, color=LINE, linewidth=1.6, solid_joinstyle="round", marker="o" if steps.size == 1 else None)
    _scale(axis, finite)
    _mark_span(axis, incident, steps, color)
    _mark_non_finite(axis, steps, values, present=[value is not None for value in series.values])


def _floats(values: Sequence[float | None]) -> NDArray[np.float64]:
    return np.array([math.nan if value is None else float(value) for value in values], dtype=np.float64)


def _dress(axis: Axes, series: Series) -> None:
    axis.set_title(_named(series.metric), loc="left", size=12, color=FAINT, pad=5)
    if series.low is not None and series.high is not None and any(one != other for one, other in zip(series.low, series.high, strict=True)):
        axis.set_title("line: mean, band: all ranks", loc="right", size=10, color=FAINT, pad=5)
    axis.tick_params(which="both", labelsize=11.5, colors=FAINT, length=0)
    axis.grid(axis="y", color="#e4e7eb", linewidth=0.8)
    axis.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)
    axis.spines["bottom"].set_color("#c9ced6")
    axis.margins(x=0.01)
    axis.locator_params(axis="x", nbins=5, integer=True)
    axis.xaxis.set_major_formatter("{x:,.0f}")


def _named(metric: str) -> str:
    stem, _, last = metric.rpartition("_")
    return _plain(
        f"{stem.replace('_', ' ')}, {UNITS[last]}" if stem and last in UNITS and "_per_" not in metric else metric.replace("_", " ")
    )


def _short(value: float, _: float = 0) -> str:
    by, letter = next(((by, letter) for by, letter in SIZES if abs(value) >= by), (1.0, ""))
    return f"{value / by:.4g}{letter}"


def _scale(axis: Axes, finite: NDArray[np.float64]) -> None:
    known = finite[np.isfinite(finite)]
    if known.size and known.min() > 0 and known.max() / np.median(known) > LOG_FROM:
        axis.set_yscale("log")
    axis.yaxis.set_major_formatter(_short)


def _mark_span(axis: Axes, incident: Mapping[str, Any], steps: NDArray[np.float64], color: str) -> None:
    onset, detected, end = (incident.get(key) for key in ("onset_step", "detected_step", "end_step"))
    if onset is None:
        return
    last = float(end) if end is not None else float(steps[-1])
    axis.axvspan(float(onset), max(last, float(onset) + 0.5), color=color, alpha=0.10, linewidth=0, zorder=0)
    axis.axvline(float(onset), color=color, linewidth=1.4, zorder=1)  # under the curve: a spike stands exactly where its onset is
    if detected is not None and detected != onset:
        axis.axvline(float(detected), color=color, linewidth=1.2, linestyle=(0, (3, 3)), zorder=1)


def _name_onset(axis: Axes, incident: Mapping[str, Any], steps: Sequence[int]) -> None:
    """The onset's step, over the curve and on the side where there is room."""
    onset = incident.get("onset_step")
    if onset is None or not steps:
        return
    low, high = axis.get_ylim()
    axis.set_ylim(low, high * (high / low) ** HEADROOM if axis.get_yscale() == "log" else high + HEADROOM * (high - low))
    is_left = onset < steps[0] + 0.7 * (steps[-1] - steps[0])
    axis.annotate(
        f"step {onset:,}",
        (float(onset), 1.0),
        xycoords=axis.get_xaxis_transform(),
        xytext=(5 if is_left else -5, -4),
        textcoords="offset points",
        ha="left" if is_left else "right",
        va="top",
        size=11.5,
        weight="bold",
        color=SEVERITY.get(str(incident.get("severity")), SEVERITY["info"]),
    )


def _mark_non_finite(axis: Axes, steps: NDArray[np.float64], values: NDArray[np.float64], *, present: Sequence[bool]) -> None:
    """A NaN that was logged is a mark at the foot of the plot; a value that was not logged is a gap."""
    strange = np.asarray(present) & ~np.isfinite(values)
    if strange.any():
        axis.plot(
            steps[strange],
            np.zeros(int(strange.sum())),
            "x",
            color=SEVERITY["critical"],
            transform=axis.get_xaxis_transform(),
            clip_on=False,
        )
        axis.set_title("× NaN or infinite", loc="right", size=11.5, color=SEVERITY["critical"], pad=5)
