"""Would it have caught it, and how often would it have cried wolf: logs with or without labels through one setting of the detectors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any, TypeAlias

from holter_monitor.alerting.policies import Policy
from holter_monitor.imports.records import LogError
from holter_monitor.offline.episodes import Trouble
from holter_monitor.offline.labels import Judged, Label, judge
from holter_monitor.offline.scan import Scanned, ScanSettings, scan

_DAY = 86400.0
Teller: TypeAlias = Callable[[Trouble], bool]


def is_loud(trouble: Trouble) -> bool:
    """Who is told where there is no policy: warning and higher."""
    return trouble.is_loud


def routed(policy: Policy, project: str, receiver: str | None) -> Teller:
    """Of what this policy tells anybody, or this receiver. Its durations (`hold`, `quiet_hours`) are not replayed: many logs tell no time."""

    def tells(trouble: Trouble) -> bool:
        incident = replace(trouble.incident, project=project)
        routes = [route for route in policy.routes_of(incident, trouble.source) if not route.observe_only]
        told = {name for route in routes for name in route.receivers}
        return bool(told) if receiver is None else receiver in told

    return tells


@dataclass(slots=True)
class Tally:
    """What one setting did on all logs."""

    name: str
    tells: Teller
    judged: list[tuple[Scanned, Judged]] = field(default_factory=list)
    unlabelled: list[Scanned] = field(default_factory=list)
    failures: list[LogError] = field(default_factory=list)

    @property
    def recall(self) -> float | None:
        verdicts = [verdict for _, judged in self.judged for verdict in judged.verdicts]
        return sum(verdict.trouble is not None for verdict in verdicts) / len(verdicts) if verdicts else None

    @property
    def false_alarms_per_100k(self) -> float | None:
        """False alarms on labelled logs; where there are none, all alarms: what a person would have had to look at."""
        runs = [(scanned, len(judged.false)) for scanned, judged in self.judged]
        if not runs:
            runs = [(scanned, self.alarms(scanned)) for scanned in self.unlabelled]
        return _rate(runs)

    def as_json(self) -> dict[str, Any]:
        """All figures; None where there is nothing to measure by."""
        verdicts = [verdict for _, judged in self.judged for verdict in judged.verdicts]
        found = [verdict for verdict in verdicts if verdict.trouble is not None]
        false = sum(len(judged.false) for _, judged in self.judged)
        delays = sorted(verdict.trouble.detected_step - verdict.start_step for verdict in found if verdict.trouble is not None)
        return {
            "setting": self.name,
            "runs": len(self.judged) + len(self.unlabelled),
            "labelled_runs": len(self.judged),
            "records": sum(scanned.records for scanned, _ in self.judged) + sum(scanned.records for scanned in self.unlabelled),
            "events": len(verdicts),
            "found": len(found),
            "recall": self.recall,
            "precision": len(found) / (len(found) + false) if found or false else None,
            "right_kind": _share(sum(v.trouble.kind == v.event.kind for v in found if v.trouble is not None), len(found)),
            "delay_steps_median": median(delays) if delays else None,
            "delay_steps_p95": _percentile(delays, 0.95),
            "delay_tokens_median": _median(self._token_delays()),
            "false_alarms": false,
            "false_alarms_per_100k_records": _rate([(scanned, len(judged.false)) for scanned, judged in self.judged]),
            "false_alarms_per_100k_records_healthy_runs": _rate(
                [(scanned, len(judged.false)) for scanned, judged in self.judged if not judged.verdicts]
            ),
            "false_alarms_per_run_day": _per_day([(scanned, len(judged.false)) for scanned, judged in self.judged]),
            "unlabelled_alarms": sum(map(self.alarms, self.unlabelled)),
            "unlabelled_alarms_per_100k_records": _rate([(scanned, self.alarms(scanned)) for scanned in self.unlabelled]),
            "unlabelled_alarms_per_run_day": _per_day([(scanned, self.alarms(scanned)) for scanned in self.unlabelled]),
            "kinds": self._kinds(),
            "missed": self._missed(),
            "false": self._false(),
            "unreadable": [str(failure) for failure in self.failures],
        }

    def alarms(self, scanned: Scanned) -> int:
        """Incidents that somebody would have been told of; a symptom is told with its cause."""
        return sum(self.tells(trouble) and trouble.cause is None for trouble in scanned.troubles)

    def _token_delays(self) -> list[float]:
        delays = []
        for scanned, judged in self.judged:
            for verdict in judged.verdicts:
                start = scanned.trace.tokens_at(verdict.start_step)
                if verdict.trouble is not None and verdict.trouble.detected_tokens is not None and start is not None:
                    delays.append(verdict.trouble.detected_tokens - start)
        return delays

    def _kinds(self) -> dict[str, dict[str, int]]:
        kinds: dict[str, dict[str, int]] = {}
        for _, judged in self.judged:
            for verdict in judged.verdicts:
                row = kinds.setdefault(verdict.event.kind, {"events": 0, "found": 0, "false_alarms": 0})
                row["events"] += 1
                row["found"] += verdict.trouble is not None
            for trouble in judged.false:
                kinds.setdefault(trouble.kind, {"events": 0, "found": 0, "false_alarms": 0})["false_alarms"] += 1
        return dict(sorted(kinds.items()))

    def _missed(self) -> list[dict[str, Any]]:
        return [
            {"source": scanned.source, "kind": verdict.event.kind, "step": verdict.start_step, "late": verdict.late is not None}
            for scanned, judged in self.judged
            for verdict in judged.verdicts
            if verdict.trouble is None
        ]

    def _false(self) -> list[dict[str, Any]]:
        return [
            {"source": scanned.source, "kind": trouble.kind, "step": trouble.detected_step, "summary": trouble.summary}
            for scanned, judged in self.judged
            for trouble in judged.false
        ]


def backtest(name: str, paths: Iterable[Path], labels: Mapping[str, Label], settings: ScanSettings, *, tells: Teller = is_loud) -> Tally:
    """All logs through one setting; `tells` says of which incidents somebody would have been told."""
    tally = Tally(name, tells)
    for result in scan(paths, replace(settings, with_plots=True)):
        if isinstance(result, LogError):
            tally.failures.append(result)
            continue
        label = labels.get(Path(result.source.partition("#")[0]).name)
        if label is not None and label.is_labelled:
            tally.judged.append((result, judge(label, result.trace.numbers, filter(tells, result.troubles))))
        else:
            tally.unlabelled.append(result)
        result.trace.frames.clear()
        result.trace.metrics.clear()
    return tally


def _rate(runs: list[tuple[Scanned, int]]) -> float | None:
    records = sum(scanned.records for scanned, _ in runs)
    return 1e5 * sum(count for _, count in runs) / records if records else None


def _per_day(runs: list[tuple[Scanned, int]]) -> float | None:
    """Over the runs whose log tells the time."""
    timed = [(scanned.seconds, count) for scanned, count in runs if scanned.seconds]
    days = sum(seconds for seconds, _ in timed) / _DAY
    return sum(count for _, count in timed) / days if days else None


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _median(values: list[float]) -> float | None:
    return median(values) if values else None


def _percentile(ordered: list[int], share: float) -> int | None:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None
