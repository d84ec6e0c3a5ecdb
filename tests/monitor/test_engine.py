"""The engine of one run: frames or records in, findings out."""

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import pytest
from holter.frame import Column, Frame
from holter_monitor.engine import Engine
from holter_monitor.findings import Severity
from holter_monitor.snapshot import SnapshotError
from holter_monitor.steps import RunFacts, Step

FACTS = RunFacts(run="r", world_size=1)


@dataclass(kw_only=True)
class Broken:
    kind: ClassVar[str] = "loss_spike"
    seen: int = field(init=False, default=0)

    def observe(self, step):
        self.seen += 1
        if step.number == 3:
            raise ValueError("three")


@dataclass(kw_only=True)
class Listener:
    kind: ClassVar[str] = "hang"
    heard: list[str] = field(init=False, default_factory=list)

    def hear(self, event, topology):
        self.heard.append(event["event"])

    def observe(self, step):
        self.heard += sorted(step.words)


def losses(seed=0, count=600):
    return 2.0 + 0.02 * np.random.default_rng(seed).standard_normal(count)


def frame_of(values, first, *, attempt="1", seq=0, events=()):
    count = len(values)
    return Frame(
        "r",
        attempt,
        "node",
        "boot",
        seq,
        0,
        np.zeros(count, np.int32),
        np.arange(first, first + count, dtype=np.int64),
        np.arange(count, dtype=np.int64),
        {"loss": Column(np.asarray(values, float))},
        list(events),
    )


def test_a_detector_that_raises_is_off_and_says_so():
    engine = Engine(FACTS, [Broken, Listener])
    said = [finding for number in range(10) for finding in engine.feed_step(Step.of(number, {"loss": 1.0}))]
    (finding,) = said
    assert (finding.kind, finding.severity, finding.onset_step) == ("detector_failed", Severity.WARNING, 3)
    assert "three" in finding.summary
    again = Engine.restore(engine.snapshot(), [Broken, Listener])
    assert again.feed_step(Step.of(3, {"loss": 1.0})) == [], "it stays off after a restart"


def test_splitting_a_log_into_frames_changes_nothing():
    values = losses()
    values[400] = 3.0
    answers = []
    for size in (1, 7, 600):
        engine = Engine(FACTS)
        said = []
        for seq, first in enumerate(range(0, len(values), size)):
            said += engine.feed(frame_of(values[first : first + size], first, seq=seq), float(first))
        answers.append(said)
    assert answers[0] == answers[1] == answers[2]
    assert [finding.onset_step for finding in answers[0]] == [400, 400]


def test_splitting_the_frames_of_many_ranks_changes_nothing():
    """Rows of four ranks on two nodes, in frames of one step, of nine and of all steps: the same findings of the whole suite."""
    rng = np.random.default_rng(0)
    loss = 2.0 + 0.02 * rng.standard_normal((700, 4))
    loss[500] += 1.0
    compute = 0.5 + 0.005 * rng.standard_normal((700, 4))
    compute[300:, 3] *= 1.4
    answers = []
    for size in (1, 9, 700):
        engine, said = Engine(RunFacts(run="r", world_size=4)), []
        for seq, first in enumerate(range(0, 700, size)):
            for node, ranks in (("a", (0, 1)), ("b", (2, 3))):
                rows = [(step, rank) for step in range(first, min(first + size, 700)) for rank in ranks]
                step, rank = (np.array(column) for column in zip(*rows, strict=True))
                frame = Frame("r", "1", node, "boot", seq, 0, rank.astype(np.int32), step.astype(np.int64), step.astype(np.int64) * 10**9)
                frame.metrics = {"loss": Column(loss[step, rank]), "compute_seconds": Column(compute[step, rank])}
                said += engine.feed(frame, 0.0)
        answers.append(said + engine.finish())
    assert {finding.kind for finding in answers[0]} >= {"loss_spike", "straggler"}
    assert answers[0] == answers[1] == answers[2]


def test_a_new_attempt_is_an_undeclared_resume():
    engine = Engine(FACTS, [Listener])
    engine.feed(frame_of([1.0, 1.0], 0), 0.0)
    engine.feed(frame_of([1.0, 1.0], 1, attempt="2"), 1.0)
    assert engine.feed(frame_of([1.0], 2, attempt="1", seq=1), 2.0) == []
    assert engine.dropped == {"stale_attempt": 1}
    assert engine._detectors[0].heard == ["resume"]


def test_summaries_leave_non_finite_values_out():
    engine = Engine(RunFacts(run="r", world_size=4), [])
    frame = Frame("r", "1", "n", "b", 0, 0, np.arange(4, dtype=np.int32), np.zeros(4, np.int64), np.zeros(4, np.int64))
    frame.metrics["loss"] = Column(np.array([1.0, 2.0, np.nan, 6.0]))
    engine.feed(frame, 0.0)
    (line,) = engine.take_summaries()
    assert (line.count, line.mean, line.min, line.max, line.median) == (4, 3.0, 1.0, 6.0, 2.0)
    assert (line.min_rank, line.max_rank, line.non_finite) == (0, 3, 1)
    assert engine.take_summaries() == []


def test_a_snapshot_of_another_version_is_refused():
    with pytest.raises(SnapshotError):
        Engine.restore(b"\x93\x01\x02\x03")
