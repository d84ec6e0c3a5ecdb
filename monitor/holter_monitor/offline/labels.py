"""What people know to be wrong with a log, and how a detector's incidents are held against it.

Labels are JSON lines, one object a trace::

    {"id": "run_7", "file": "run_7.csv.gz", "labelled": true, "scope": ["loss", "throughput"], "ignore_before_step": 100,
     "events": [{"kind": "loss_spike", "start_step": 400, "end_step": 403, "confidence": "certain", "expected": false}]}

`scope` names the signals that were judged (default: loss and throughput); an incident of another signal is neither right nor wrong. Nothing before
`ignore_before_step` counts. `confidence: "likely"` and `expected: true` (regular evaluations, checkpoints) count neither as miss nor as
false alarm, nor does a restart. `benign` remarks name hard negatives; they need no treatment: what is not an event is healthy.

The rule, in records of the log: an incident that somebody is told of (by default: of severity warning or higher), whose kind speaks of the
event's signal, inside [start, max(end, start + grace) + 20] is the event's own (of several such events, that of its own kind, else the
first). The event is **found** when its first own incident comes within `grace` of its start and nothing was said about that signal in the
20 records before; else it is missed. Every other incident that is not the symptom of one is a **false alarm**; those at most 50 records apart
count once (up to 500 records). Slow steps are scored once a trace, by its first certain one.
"""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from holter_monitor.findings import KINDS
from holter_monitor.imports.records import LogError
from holter_monitor.offline.episodes import Trouble

AFTER_RECORDS = 20
QUIET_RECORDS = 20
MERGED_RECORDS, MERGED_AT_MOST = 50, 500

SIGNALS = {
    "loss": "loss_spike loss_divergence loss_plateau loss_noise loss_shift non_finite grad_explosion grad_vanishing reference_gap",
    "throughput": "throughput_drop throughput_decline throughput_stalls step_locked_stalls data_stall",
    "rank": "straggler gpu_throttle hang rank_lost rank_disagreement",
    "memory": "memory_growth disk_pressure",
}
SIGNAL_OF = {kind: signal for signal, kinds in SIGNALS.items() for kind in kinds.split()}
_ALSO = {"rank": frozenset({"rank", "throughput"})}
"""A slow rank slows the run: either word about it is right."""

_LABEL_KINDS = (
    ("nan", "non_finite"), ("diverg", "loss_divergence"), ("spike", "loss_spike"), ("plateau", "loss_plateau"), ("through", "throughput_drop"),
    ("slow", "throughput_drop"), ("stall", "throughput_stalls"), ("grad", "grad_explosion"), ("noise", "loss_noise"), ("mem", "memory_growth"),
    ("shift", "loss_shift"), ("step", "loss_shift"),
)  # fmt: skip
_NORMAL = ("restart", "resume", "rewind")
_GRACE = {"non_finite": 3, "throughput_drop": 200, "throughput_stalls": 700, "loss_plateau": 1500, "loss_noise": 400}


@dataclass(frozen=True, slots=True)
class Label:
    """What is known of one trace."""

    id: str
    is_labelled: bool
    scope: frozenset[str]
    events: tuple[dict[str, Any], ...]
    ignore_before_step: float


@dataclass(frozen=True, slots=True)
class Expected:
    """One event, in records."""

    kind: str
    start: int
    end: int
    grace: int

    @property
    def signals(self) -> frozenset[str]:
        signal = SIGNAL_OF[self.kind]
        return _ALSO.get(signal, frozenset({signal}))

    @property
    def last(self) -> int:
        return max(self.end, self.start + self.grace) + AFTER_RECORDS


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one expected event."""

    event: Expected
    start_step: int
    trouble: Trouble | None
    """The incident that found it; None when it was missed."""
    late: Trouble | None = None
    """An incident that came too late, or was not the first to be said."""


@dataclass(slots=True)
class Judged:
    """One run held against its label."""

    verdicts: list[Verdict] = field(default_factory=list)
    false: list[Trouble] = field(default_factory=list)
    """The first incident of each false alarm."""


def load(path: Path) -> dict[str, Label]:
    """The labels by the name of the trace's file. Raises `LogError` for a line that is none."""
    labels: dict[str, Label] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise LogError(str(path), str(error), expected="a file of labels, one JSON object a line") from error
    for number, line in enumerate(lines, start=1):
        if line.strip():
            label, name = _label(path, number, line)
            labels[name] = label
    return labels


def _label(path: Path, number: int, line: str) -> tuple[Label, str]:
    expected = 'a label such as {"id": …, "file": …, "labelled": true, "events": [{"kind": …, "start_step": …}]}'
    try:
        row = json.loads(line)
        events = tuple(dict(event) for event in row.get("events") or ())
        for event in events:
            if event.get("start_step") is not None:
                float(event["start_step"])
            str(event["kind"])
        label = Label(
            str(row["id"]), bool(row.get("labelled", True)), frozenset(row.get("scope") or ("loss", "throughput")), events,
            float(row.get("ignore_before_step") or float("-inf")),
        )  # fmt: skip
        return label, Path(str(row.get("file") or f"{row['id']}.csv.gz")).name
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise LogError(str(path), f"{type(error).__name__}: {error}", expected=expected, line=number) from error


def kind_of(word: str) -> str | None:
    """A label's word as one of Holter's kinds; None for what is normal or unknown."""
    word = word.lower()
    if word in SIGNAL_OF:
        return word
    if word in KINDS or any(part in word for part in _NORMAL):
        return None
    return next((kind for part, kind in _LABEL_KINDS if part in word), None)


def judge(label: Label, numbers: Sequence[int], alarms: Iterable[Trouble]) -> Judged:
    """Holds the incidents of a run that somebody was told of against its label; `numbers` is the step of each record."""
    expected, ignored = _windows(label, numbers)
    judged_alarms = sorted((each for each in alarms if SIGNAL_OF.get(each.kind) in label.scope), key=lambda each: each.detected_record)
    own: list[list[Trouble]] = [[] for _ in expected]
    rest: list[Trouble] = []
    for trouble in judged_alarms:
        at, signal = trouble.detected_record, SIGNAL_OF[trouble.kind]
        open_now = [place for place, event in enumerate(expected) if signal in event.signals and event.start <= at <= event.last]
        owner = next((place for place in open_now if expected[place].kind == trouble.kind), open_now[0] if open_now else None)
        if owner is not None:
            own[owner].append(trouble)
        elif trouble.cause is None and not any(start - 2 <= at <= end + AFTER_RECORDS for start, end in ignored):
            rest.append(trouble)
    judged = Judged(false=_merged(rest))
    for event, mine in zip(expected, own, strict=True):
        judged.verdicts.append(_verdict(event, numbers[event.start], mine, rest))
    return judged


def _verdict(event: Expected, step: int, own: list[Trouble], rest: list[Trouble]) -> Verdict:
    if not own:
        return Verdict(event, step, None)
    was_quiet = not any(
        SIGNAL_OF[trouble.kind] in event.signals and event.start - QUIET_RECORDS <= trouble.detected_record < event.start
        for trouble in rest
    )
    first = own[0]
    in_time = first.detected_record - event.start <= event.grace
    return Verdict(event, step, first) if was_quiet and in_time else Verdict(event, step, None, first)


def _windows(label: Label, numbers: Sequence[int]) -> tuple[list[Expected], list[tuple[int, int]]]:
    expected: list[Expected] = []
    ignored: list[tuple[int, int]] = []
    ordered = list(numbers)
    is_sorted = all(before <= after for before, after in pairwise(ordered))
    if label.ignore_before_step > float("-inf"):
        ignored.append((0, next((place for place, number in enumerate(ordered) if number >= label.ignore_before_step), len(ordered))))
    has_slow = False
    for event in label.events:
        window = _window(event, ordered, is_sorted=is_sorted)
        if window is None:
            continue
        kind = kind_of(str(event["kind"]))
        is_slow = kind == "throughput_drop"
        is_certain = event.get("confidence", "certain") == "certain" and not event.get("expected")
        if kind is None or not is_certain or SIGNAL_OF[kind] not in label.scope or (is_slow and has_slow):
            ignored.append(window)
            continue
        has_slow |= is_slow
        expected.append(Expected(kind, *window, _grace(kind, *window)))
    return expected, ignored


def _window(event: dict[str, Any], numbers: list[int], *, is_sorted: bool) -> tuple[int, int] | None:
    start = event.get("start_step")
    if start is None:
        return None
    end = max(float(start), float(event["end_step"]) if event.get("end_step") is not None else float(start))
    if is_sorted:
        first, behind = bisect_left(numbers, float(start)), bisect_right(numbers, end)
        return (first, max(first, behind - 1)) if first < len(numbers) else None
    inside = [place for place, number in enumerate(numbers) if float(start) <= number <= end]
    if not inside:
        inside = [place for place, number in enumerate(numbers) if number >= float(start)][:1]
    return (inside[0], inside[-1]) if inside else None


def _grace(kind: str, start: int, end: int) -> int:
    if kind in _GRACE:
        return _GRACE[kind]
    return max(10, end - start + 5) if kind == "loss_spike" else max(100, (end - start) // 2)


def _merged(troubles: list[Trouble]) -> list[Trouble]:
    firsts: list[Trouble] = []
    last = start = -(10**9)
    for trouble in troubles:
        at = trouble.detected_record
        if at - last > MERGED_RECORDS or at - start > MERGED_AT_MOST:
            firsts.append(trouble)
            start = at
        last = at
    return firsts
