"""A scan on the terminal: a headline for each run, a few lines for each incident. Reads at 80 columns and without colour."""

from __future__ import annotations

from math import isfinite

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from holter_monitor.findings import Severity
from holter_monitor.imports.records import LogError
from holter_monitor.offline.episodes import Trouble
from holter_monitor.offline.scan import Scanned
from holter_monitor.offline.traces import Frame
from holter_monitor.report.words import action, certainty, duration, extent, number, verdict, when

STYLES = {Severity.INFO: "dim", Severity.WARNING: "yellow", Severity.CRITICAL: "bold red"}
SHOWN_TROUBLES = 12
"""Incidents of one run that are shown; the rest are counted. `--all` shows them all."""
_BLOCKS, _ASCII = "▁▂▃▄▅▆▇█", "_.-~=+*#"
_SPARK_WIDTH = 60


def show(console: Console, run: Scanned, *, limit: int = SHOWN_TROUBLES) -> None:
    """Prints one run."""
    loud = [trouble for trouble in run.troubles if trouble.is_loud and trouble.cause is None]
    _headline(console, run, len(loud))
    for trouble in loud[:limit]:
        _trouble(console, trouble, run.trace.frames.get(trouble.place))
        for symptom in run.troubles:
            if symptom.cause is trouble:
                console.print(
                    _indented(
                        Text.assemble("with it: ", (symptom.kind, STYLES[symptom.severity]), f" {when(symptom)}: {symptom.summary}"), 4
                    )
                )
    if len(loud) > limit:
        console.print(Text(f"  … and {len(loud) - limit} more (--all shows them)", style="dim"))
    quiet = sum(not trouble.is_loud for trouble in run.troubles)
    if quiet:
        console.print(Text(f"  {quiet} {'note' if quiet == 1 else 'notes'} below warning (--json has them)", style="dim"))
    if run.broken:
        console.print(Text(f"  {run.broken:,} broken {'line' if run.broken == 1 else 'lines'} skipped", style="yellow"))
    for note in run.notes[:6]:
        console.print(_indented(Text(note, style="dim"), 4))


def _headline(console: Console, run: Scanned, count: int) -> None:
    style = "bold red" if count else "green" if run.is_judged else "yellow"
    console.print(Text(run.source, style="bold"), soft_wrap=True)  # a path must stay whole to be copied
    console.print(_indented(Text.assemble((verdict(run, count), style), (f" · {extent(run)}", "dim")), 2))


def _trouble(console: Console, trouble: Trouble, frame: Frame | None) -> None:
    console.print()
    console.print(
        Padding(
            Text.assemble((f"{trouble.severity.word.upper()} {trouble.kind}", STYLES[trouble.severity]), f" {when(trouble)}"), (0, 0, 0, 2)
        )
    )
    console.print(_indented(Text(trouble.summary), 4))
    if frame is not None and len(frame.points) > 2 and any(isfinite(value) for _, value in frame.points):
        console.print(_indented(_spark(frame, trouble, is_ascii=not _has_blocks(console)), 4))
    lost = f"{duration(trouble.cost_seconds)} lost" if trouble.cost_seconds else ""
    told = " · ".join(part for part in (certainty(trouble), lost) if part)
    if told:
        console.print(_indented(Text(told), 4))
    if action(trouble):
        console.print(_indented(Text(f"Do: {action(trouble)}"), 4))


def _indented(text: Text, width: int) -> Padding:
    return Padding(text, (0, 0, 0, width), expand=False)


def _has_blocks(console: Console) -> bool:
    return (console.encoding or "").lower().startswith("utf")


def _spark(frame: Frame, trouble: Trouble, *, is_ascii: bool) -> Text:
    """The metric around the incident, `^` under its onset (its detection, if the onset lies further back); a value that was not finite is `!`."""
    points = frame.points
    bucket = max(1, -(-len(points) // _SPARK_WIDTH))
    buckets = [points[start : start + bucket] for start in range(0, len(points), bucket)]
    finite = [value for _, value in points if isfinite(value)]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    marks = _ASCII if is_ascii else _BLOCKS
    line = "".join(_mark([value for _, value in each], low, high, marks) for each in buckets)
    marked = trouble.onset_step if points[0][0] <= trouble.onset_step else trouble.detected_step
    at = next((place for place, each in enumerate(buckets) if each[-1][0] >= marked), len(buckets) - 1)
    span = f"{frame.title} {number(low)}{'..' if is_ascii else '…'}{number(high)}, steps {points[0][0]:,}-{points[-1][0]:,}"
    return Text.assemble((line, "cyan"), "\n", " " * at + "^", "\n", (span, "dim"))


def _mark(values: list[float], low: float, high: float, marks: str) -> str:
    if not all(map(isfinite, values)):
        return "!"
    middle = (low + high) / 2
    # Of several values in one column the one furthest from the middle is drawn: a spike must not be averaged away.
    value = max(values, key=lambda each: abs(each - middle))
    return marks[min(int((value - low) / (high - low) * len(marks)), len(marks) - 1)] if high > low else marks[0]


def close(console: Console, runs: list[Scanned], failures: list[LogError]) -> None:
    """The last lines: all runs together, and what could not be read."""
    loud = [sum(trouble.is_loud and trouble.cause is None for trouble in run.troubles) for run in runs]
    console.print()
    blind = sum(not run.is_judged for run in runs)
    summary = f"{len(runs)} {'run' if len(runs) == 1 else 'runs'}, {sum(run.records for run in runs):,} records: "
    if any(loud):
        summary += f"{sum(loud)} {'incident' if sum(loud) == 1 else 'incidents'} in {sum(map(bool, loud))} of them"
    else:
        summary += "healthy" if blind < len(runs) else "nothing in them that could be judged"
    summary += f", {blind} not judged" if 0 < blind < len(runs) else ""
    if runs:
        console.print(Text(summary, style="bold"))
    if failures:
        console.print(Text(f"{len(failures)} {'log' if len(failures) == 1 else 'logs'} could not be read", style="red"))
