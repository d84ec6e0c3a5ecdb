"""The engine of one run: frames or records in, findings out."""

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import pytest
from holter.frame import Column, Frame
from holter_monitor.engine import Engine
from holter_monitor.findings import Severity
from holter_monitor.snapshot import SnapshotError
from holter_monitor.stream.steps import RunFacts, Step
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

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


def test_live_a_scan_and_a_restart_in_between_say_the_same():
    """The same records as frames, as a log's steps, and as frames with the engine killed at every 97th: one list of findings of the whole suite."""
    rng = np.random.default_rng(3)
    columns = {
        "loss": 2.0 + 0.02 * rng.standard_normal(900),
        "grad_norm": np.exp(0.1 * rng.standard_normal(900)),
        "step_time_seconds": np.exp(0.01 * rng.standard_normal(900)),
        "data_wait_seconds": 0.01 * np.exp(0.1 * rng.standard_normal(900)),
    }
    columns["loss"][[400, 401]] += 1.0
    columns["loss"][650] = np.nan
    columns["grad_norm"][500:530] *= 40.0
    columns["step_time_seconds"][300:][rng.random(600) < 0.05] *= 9.0

    def live(kill_every):
        engine, said = Engine(FACTS), []
        for step in range(900):
            frame = Frame("r", "1", "node", "boot", step, 0, np.zeros(1, np.int32), np.array([step]), np.array([step * 10**9]))
            frame.metrics = {name: Column(column[step : step + 1]) for name, column in columns.items()}
            said += engine.feed(frame, float(step))
            if kill_every and step % kill_every == 0:
                engine = Engine.restore(engine.snapshot())
        return said + engine.finish()

    scanned, log = Engine(FACTS), []
    for step in range(900):
        log += scanned.feed_step(
            Step.of(step, {name: float(column[step]) for name, column in columns.items()}, time=float(step), attempt="1")
        )
    log += scanned.finish()
    assert {finding.kind for finding in log} >= {"loss_spike", "non_finite", "grad_explosion", "throughput_drop"}
    assert live(None) == log
    assert live(97) == log


def test_a_new_attempt_is_an_undeclared_resume():
    engine = Engine(FACTS, [Listener])
    engine.feed(frame_of([1.0, 1.0], 0), 0.0)
    engine.feed(frame_of([1.0, 1.0], 1, attempt="2"), 1.0)
    assert engine.feed(frame_of([1.0], 2, attempt="1", seq=1), 2.0) == []
    assert engine.dropped == {"stale_attempt": 1}
    assert engine._detectors[0].heard == ["resume"]


def test_a_step_back_to_where_the_training_began_is_a_restart():
    """Not so in a log that opens late: there the first step says nothing of the beginning. Kept in a snapshot."""
    for first, heard in ((0, ["restart", "resume"]), (5000, ["resume"])):
        engine = Engine(FACTS, [Listener])
        engine.feed(frame_of([9.0, 5.0, 3.0], first), 0.0)
        engine = Engine.restore(engine.snapshot(), [Listener])
        engine.feed(frame_of([9.0, 5.0], first, attempt="2"), 1.0)
        engine.finish()
        assert engine._detectors[0].heard == heard


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


numbers = st.sampled_from([-(2**63), -2, -1, 0, 1, 5, 2**31 - 1, 2**40, 2**62, 2**63 - 1])
ranks = st.sampled_from([-(2**31), -2, -1, 0, 1, 3, 7, 131_072, 2**31 - 1])
values = st.floats(allow_nan=True, allow_infinity=True)
events = st.fixed_dictionaries(
    {
        "event": st.sampled_from(
            ["rank_started", "rank_lost", "rank_hung", "checkpoint", "fingerprint", "gpu_error", "watch", "resume", "x"]
        ),
        "rank": st.none() | numbers,
        "step": st.none() | numbers,
        "time_ns": st.integers(0, 2**62),
        "attrs": st.dictionaries(
            st.sampled_from(["mesh", "gpu", "world_size", "xid", "data", "layout", "table", "seconds", "phase", "stacks"]),
            st.none()
            | st.integers()
            | st.text(max_size=4)
            | st.lists(st.integers(), max_size=2)
            | st.dictionaries(st.text(max_size=2), st.integers(-9, 99), max_size=2),
        ),
    }
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_no_frame_that_decodes_can_hurt_the_engine(data):
    """Absurd ranks, steps, values and events: no exception, no detector that falls, and a snapshot after it."""
    engine = Engine(RunFacts(run="r", world_size=2))
    for seq in range(data.draw(st.integers(1, 5))):
        rows = data.draw(st.lists(st.tuples(ranks, numbers, values), max_size=6))
        frame = Frame("r", data.draw(st.sampled_from(["1", "2"])), data.draw(st.sampled_from(["a", "b"])), "boot", seq, 0)
        frame.rank = np.array([row[0] for row in rows], np.int32)
        frame.step = np.array([row[1] for row in rows], np.int64)
        frame.time_ns = np.zeros(len(rows), np.int64)
        for name in data.draw(
            st.sets(st.sampled_from(["loss", "grad_norm", "gpu_sm_clock_hertz", "compute_seconds", "host_disk_free_bytes./"]))
        ):
            frame.metrics[name] = Column(np.array([row[2] for row in rows]))
        frame.events = data.draw(st.lists(events, max_size=3))
        findings = engine.feed(frame, float(seq)) + engine.tick(float(seq))
        assert not [finding for finding in findings if finding.kind == "detector_failed"]
    Engine.restore(engine.snapshot())
    engine.finish()
