"""The detection engine of one run: frames or records in, findings out. Pure: the same records give the same findings, live, in a scan
and after a restart; time is an argument.

    engine = Engine(RunFacts(run="r1", world_size=8))
    findings = engine.feed(frame, received)        # live
    findings = engine.feed_step(Step.of(17, {"loss": 2.3}))        # a log's record
    findings = engine.tick(now)                    # liveness: also when nothing arrives
    state = engine.snapshot(); engine = Engine.restore(state)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields, is_dataclass, replace
from math import isfinite
from typing import Any, TypeAlias

from holter.frame import Event, Frame

from holter_monitor.detector import Detector, DetectorMaker
from holter_monitor.detectors import DETECTORS
from holter_monitor.findings import Finding, Severity
from holter_monitor.snapshot import SnapshotError, pack, unpack
from holter_monitor.stream.align import StepAligner
from holter_monitor.stream.beginning import Beginning, replay_of
from holter_monitor.stream.cells import Received
from holter_monitor.stream.pace import Pace
from holter_monitor.stream.steps import Arrival, Point, RunFacts, Step, Topology
from holter_monitor.stream.summaries import Summary, summarize

VERSION = 3
Called: TypeAlias = "tuple[Detector, Callable[..., Any]]"
_METHODS = ("update", "observe", "receive", "hear", "sample", "tick", "finish")


class Engine:
    """All detectors of one run, fed step by step. A detector that raises is off for the run and says so; the others go on."""

    def __init__(self, run: RunFacts, detectors: Sequence[DetectorMaker] = DETECTORS) -> None:
        self.run = run
        self.topology = Topology()
        self._detectors: list[Detector] = [make() for make in detectors]
        for detector in self._detectors:
            begin = getattr(detector, "begin", None)
            if begin is not None:
                begin(run)
        self._pace = Pace()
        self._share()
        self._off: set[str] = set()
        self._attempts: list[str] = []
        self._aligner: StepAligner | None = None
        self._last: tuple[str, int] | None = None
        self._beginning = Beginning()
        self._summaries: list[Summary] = []
        self._stale_rows = 0
        self._sort()

    def feed(self, frame: Frame, received: float) -> list[Finding]:
        """Takes in a frame; `received` is the time its log entry carries. Raises nothing."""
        if frame.attempt not in self._attempts:
            self.topology.node_of.clear()
        self.topology.place(frame.rank.tolist(), frame.node)
        for event in frame.events:
            self.topology.learn(event, frame.node)
        findings = self._close(self._align(frame, received))
        self._receive(frame, received, findings)
        for event in frame.events:
            self._hear(event, findings)
        if self._aligner is not None:
            for sample in self._aligner.take_samples():
                self._ask(self._called["sample"], (sample,), findings)
        return findings

    def feed_first(self, arrivals: Sequence[Received]) -> tuple[int, list[Finding]]:
        """Takes in the first of the frames, at least one, as many as can be taken in at once: how many, and what `feed` of one after another would
        have found. Most of a big run's frames only add their rows to a step that others have still to reach."""
        quiet = self._aligner.add_quiet(arrivals) if self._aligner is not None else []
        if not quiet:
            return 1, self.feed(*arrivals[0])
        findings: list[Finding] = []
        for (frame, received), samples in zip(arrivals, quiet, strict=False):
            self.topology.place(frame.rank.tolist(), frame.node)
            self._receive(frame, received, findings)
            for sample in samples:
                self._ask(self._called["sample"], (sample,), findings)
        return len(quiet), findings

    def feed_step(self, step: Step) -> list[Finding]:
        """Takes in one step, as it stands in a log. A step that goes back, or a new attempt, counts as a declared resume; one that goes back to
        where the training began, or a loss that replays its beginning, as a restart: the model is new."""
        findings: list[Finding] = []
        step.topology = self.topology
        if self._last is not None and (step.attempt != self._last[0] or step.number < self._last[1]) and "resume" not in step.words:
            step.say([_implied("resume", step)])
            if self._beginning.goes_back(step.number):
                step.say([_implied("restart", step)])
        onset = self._beginning.take(step.number, step.mean("loss"))
        if onset is not None:
            step.say([replay_of(step, onset)])
        self._last = (step.attempt, step.number)
        for metric, followers in self._followers.items():
            value = step.mean(metric)
            if value is not None and isfinite(value):
                point = Point(metric, step.number, value, step.time, step.attempt, step.words)
                self._ask(followers, (point,), findings)
        self._ask(self._called["observe"], (step,), findings)
        return findings

    def hear(self, event: Event) -> list[Finding]:
        """Takes in one event that belongs to no frame (a log's)."""
        findings: list[Finding] = []
        self._hear(event, findings)
        return findings

    def tick(self, now: float) -> list[Finding]:
        """The time, when nothing arrives: for steps that nobody else will reach any more, and for detectors of silence."""
        findings = self._close(self._aligner.overdue(now) if self._aligner else [])
        self._ask(self._called["tick"], (now,), findings)
        return findings

    def finish(self) -> list[Finding]:
        """The run is over: closes what is pending and lets the detectors say their last."""
        findings = self._close(self._aligner.finish() if self._aligner else [])
        self._ask(self._called["finish"], (), findings)
        return findings

    def take_summaries(self) -> list[Summary]:
        """The summaries of the steps closed by `feed`, `tick` or `finish` since the last call. Records given to `feed_step` make none."""
        summaries, self._summaries = self._summaries, []
        return summaries

    @property
    def dropped(self) -> dict[str, int]:
        """Rows and events that took no part in detection, by reason."""
        counts = dict(self._aligner.dropped) if self._aligner else {}
        return {reason: count for reason, count in {**counts, "stale_attempt": self._stale_rows}.items() if count}

    # ---------------------------------------------------------------- snapshot

    def snapshot(self) -> bytes:
        """The whole state, exactly. Parameters are not in it: they are the code's."""
        return pack(
            {
                "version": VERSION,
                "run": self.run,
                "topology": self.topology,
                "attempts": self._attempts,
                "aligner": self._aligner,
                "last": self._last,
                "beginning": self._beginning,
                "summaries": self._summaries,
                "stale_rows": self._stale_rows,
                "off": self._off,
                "pace": self._pace,
                "detectors": {_name(detector): _state(detector) for detector in self._detectors},
            }
        )

    @classmethod
    def restore(cls, state: bytes, detectors: Sequence[DetectorMaker] = DETECTORS) -> Engine:
        """The engine that `snapshot` described. A detector whose state is of another version starts cold. Raises `SnapshotError`."""
        kept = unpack(state)
        if not isinstance(kept, dict) or kept.get("version") != VERSION:
            raise SnapshotError("the snapshot is of another version of the engine; replay the log from its start")
        engine = cls(kept["run"], detectors)
        engine.topology, engine._attempts, engine._aligner = kept["topology"], kept["attempts"], kept["aligner"]
        engine._last, engine._summaries, engine._off = kept["last"], kept["summaries"], kept["off"]
        engine._beginning = kept["beginning"]
        engine._stale_rows, engine._pace = kept["stale_rows"], kept["pace"]
        engine._share()
        for detector in engine._detectors:
            _recall(detector, kept["detectors"].get(_name(detector)))
        engine._sort()
        return engine

    # ---------------------------------------------------------------- inside

    def _close(self, steps: Sequence[Step]) -> list[Finding]:
        findings: list[Finding] = []
        for step in steps:
            self._summaries.extend(summarize(step))
            findings += self.feed_step(step)
        return findings

    def _align(self, frame: Frame, received: float) -> list[Step]:
        steps: list[Step] = []
        if frame.attempt not in self._attempts:
            if self._aligner is not None:
                steps = self._aligner.finish()
            self._attempts.append(frame.attempt)
            self._aligner = StepAligner(frame.attempt, world_size=self.run.world_size)
        elif frame.attempt != self._attempts[-1]:
            self._stale_rows += frame.rows
            return steps
        assert self._aligner is not None
        return steps + self._aligner.add(frame, received)

    def _share(self) -> None:
        """Gives every detector that judges the run's pace the same one."""
        for detector in self._detectors:
            for name in _shared_names(detector):
                setattr(detector, name, self._pace)

    def _sort(self) -> None:
        """Who is called for what; a detector that is off is called for nothing."""
        self._called: dict[str, list[Called]] = {name: [] for name in _METHODS}
        self._followers: dict[str, list[Called]] = {}
        for detector in self._detectors:
            if _name(detector) in self._off:
                continue
            for name in _METHODS:
                method = getattr(detector, name, None)
                if method is None:
                    continue
                self._called[name].append((detector, method))
                if name == "update":
                    self._followers.setdefault(detector.metric, []).append((detector, method))  # type: ignore[attr-defined]

    def _receive(self, frame: Frame, received: float, findings: list[Finding]) -> None:
        arrival = Arrival(frame.node, frame.boot, frame.attempt, received, frame.rows, tuple([event["event"] for event in frame.events]))
        self._ask(self._called["receive"], (arrival,), findings)

    def _hear(self, event: Event, findings: list[Finding]) -> None:
        self._ask(self._called["hear"], (event, self.topology), findings)

    def _ask(self, called: list[Called], arguments: tuple[Any, ...], findings: list[Finding]) -> None:
        """Calls each of `called`, the hot loop of a scan; one that raises is called no more."""
        for detector, method in called:
            try:
                answer = method(*arguments)
                if answer:
                    findings.extend(self._signed(answer))
            except Exception as error:  # noqa: BLE001 - a detector's fault must not end the run's other detectors; it is said as a finding
                self._off.add(_name(detector))
                findings.append(self._failure(detector, error))
                self._sort()

    def _signed(self, answer: Finding | Iterable[Finding]) -> list[Finding]:
        said = [answer] if isinstance(answer, Finding) else list(answer)
        attempt = self._last[0] if self._last else (self._attempts[-1] if self._attempts else "")
        return [finding if finding.attempt or not attempt else replace(finding, attempt=attempt) for finding in said]

    def _failure(self, detector: Detector, error: Exception) -> Finding:
        attempt, step = self._last or ("", 0)
        return Finding(
            kind="detector_failed",
            severity=Severity.WARNING,
            scope=f"detector {_name(detector)}",
            onset_step=step,
            detected_step=step,
            attempt=attempt,
            summary=f"The detector {_name(detector)} failed and is off for this run: {type(error).__name__}: {error}"[:400],
            evidence={"detector": _name(detector), "error": f"{type(error).__name__}: {error}"[:400]},
        )


def _implied(word: str, step: Step) -> Event:
    return {"event": word, "rank": None, "step": step.number, "time_ns": int(step.time * 1e9), "attrs": {"implied": True}}


def _name(detector: Detector) -> str:
    return type(detector).__qualname__


def _shared_names(detector: object) -> list[str]:
    return [f.name for f in fields(detector) if f.metadata.get("shared")] if is_dataclass(detector) else []


def _state_names(detector: object) -> set[str]:
    return {f.name for f in fields(detector) if not f.init and not f.metadata.get("shared")} if is_dataclass(detector) else set()


def _state(detector: Detector) -> bytes:
    return pack({name: getattr(detector, name) for name in sorted(_state_names(detector))})


def _recall(detector: Detector, kept: Any) -> None:
    try:
        state = unpack(kept, {type(detector).__module__}) if isinstance(kept, bytes) else None
    except SnapshotError:
        return
    if isinstance(state, dict) and set(state) == _state_names(detector):
        for name, value in state.items():
            setattr(detector, name, value)
