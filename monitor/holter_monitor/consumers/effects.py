"""What a batch of frames, or their absence, brought: kept until its transaction is through, then told to whoever watches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from holter_monitor.findings import Finding
from holter_monitor.store.ports import Entry

NEWEST_STEPS = 64
"""Steps of one batch that are told to the pages; who was away longer loads the curve anew."""


@dataclass(slots=True)
class Effects:
    """An engine cannot be fed twice: what it said must outlast a store that is away."""

    entries: Sequence[Entry] = ()
    findings: dict[str, list[Finding]] = field(default_factory=dict)
    summaries: list[dict[str, Any]] = field(default_factory=list)
    finished: set[str] = field(default_factory=set)

    def news(self) -> Iterator[dict[str, Any]]:
        """For the event stream."""
        lines: dict[tuple[str, str, int], dict[str, Any]] = {}
        for row in self.summaries:
            lines.setdefault((row["run"], row["attempt"], row["step"]), {})[row["metric"]] = row["mean"]
        for (run, attempt, step), metrics in list(lines.items())[-NEWEST_STEPS:]:
            yield {"type": "step", "run": run, "attempt": attempt, "step": step, "metrics": metrics}
        for run in {entry.frame.run for entry in self.entries}:
            yield {"type": "run", "run": run}
        for run in self.findings:
            yield {"type": "incidents", "run": run}
