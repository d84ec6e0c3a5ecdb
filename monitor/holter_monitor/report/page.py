"""A scan as one HTML page that needs nothing else: plots inside, no script, everything from a log escaped."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from holter_monitor.imports.records import LogError
from holter_monitor.offline.episodes import Trouble
from holter_monitor.offline.scan import Scanned
from holter_monitor.offline.traces import SHOWN
from holter_monitor.report import words
from holter_monitor.report.svg import chart

MAX_MARKS = 200
"""Incidents marked in one plot."""


def render(runs: list[Scanned], failures: list[LogError]) -> str:
    """The whole page."""
    environment = Environment(loader=PackageLoader("holter_monitor.report", "."), autoescape=True, undefined=StrictUndefined)
    return environment.get_template("page.html.j2").render(
        runs=[_run(run) for run in runs], failures=[str(failure) for failure in failures]
    )


def _run(run: Scanned) -> dict[str, Any]:
    loud = [trouble for trouble in run.troubles if trouble.is_loud]
    count = sum(trouble.cause is None for trouble in loud)
    return {
        "source": run.source,
        "extent": words.extent(run),
        "broken": run.broken,
        "notes": run.notes,
        "verdict": words.verdict(run, count),
        "count": count,
        "plots": [
            (
                metric,
                chart(thinned.points, title=metric, marks=[_mark(trouble) for trouble in loud if trouble.metric == metric][:MAX_MARKS]),
            )
            for metric, thinned in run.trace.metrics.items()
            if thinned.points and metric in SHOWN
        ],
        "troubles": [_trouble(run, trouble) for trouble in run.troubles],
    }


def _mark(trouble: Trouble) -> tuple[int, str, str]:
    return trouble.onset_step, trouble.severity.word, f"{trouble.kind} {words.when(trouble)}"


def _trouble(run: Scanned, trouble: Trouble) -> dict[str, Any]:
    frame = run.trace.frames.get(trouble.place)
    return {
        "severity": trouble.severity.word,
        "kind": trouble.kind,
        "when": words.when(trouble),
        "summary": trouble.summary,
        "part_of": f"{trouble.cause.kind} from step {trouble.cause.onset_step:,}" if trouble.cause else "",
        "certainty": words.certainty(trouble),
        "lost": words.duration(trouble.cost_seconds) if trouble.cost_seconds else "",
        "action": words.action(trouble),
        "plot": chart(frame.points, title=f"{frame.title} around step {trouble.onset_step}", marks=[_mark(trouble)]) if frame else "",
    }
