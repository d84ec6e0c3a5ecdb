"""The newest rules, as the contract suite asks of all: units and step numbers mean nothing, nor how a log was cut into frames; a gap poisons nothing."""

import numpy as np
import pytest
from detector_streams import calm, feed, paced, ranked
from holter.frame import Column, Frame
from holter_monitor.detectors.data_position import DataPosition
from holter_monitor.detectors.fresh_node import FreshNode
from holter_monitor.detectors.loss_plateau import LossPlateau
from holter_monitor.detectors.loss_shift import LossShift
from holter_monitor.detectors.loss_spike import LossSpike
from holter_monitor.detectors.throughput_drop import ThroughputDrop
from holter_monitor.detectors.throughput_stalls import ThroughputStalls
from holter_monitor.engine import Engine
from holter_monitor.stream.steps import RunFacts

RNG = np.random.default_rng(11)
ORDER = RNG.integers(0, 2**24, 400).astype(float)
FALL = np.log(2.0 + 9.0 * (1.0 + np.arange(1200) / 20.0) ** -0.5)
PACE = calm(1200)
PACE[[713, 1040, 1041, 1042, 1043]] *= [2.4, 2.0, 2.1, 1.9, 2.2]
HABIT = FALL.copy()
HABIT[[300, 500, 700, 900]] += 0.6
LIVES = {  # attempts, each (first step, values); the metric; who watches
    "data_position": ("batch_hash", [(0, ORDER[:200]), (150, ORDER[:100])], [DataPosition]),
    "beginning": ("loss", [(0, np.exp(np.concatenate([FALL, FALL]) + 0.01 * RNG.standard_normal(2400)))], [LossSpike, LossShift]),
    "habit": ("loss", [(0, np.exp(HABIT + 0.01 * RNG.standard_normal(1200)))], [LossSpike]),
    "bend": (
        "loss",
        [(0, np.exp(np.concatenate([FALL[:600], np.full(1400, FALL[600])]) + 0.01 * np.random.default_rng(0).standard_normal(2000)))],
        [LossPlateau],
    ),
    "lone step and burst": ("step_time_seconds", [(0, PACE)], [ThroughputDrop, ThroughputStalls]),
}


def framed(metric, lives, watching, *, size=16, later=0, holes=()):
    """The findings about one rank whose records come in frames of `size` rows, with their step numbers moved by `later`."""
    engine, said, now, seq = Engine(RunFacts(run="r", world_size=1), watching), [], 1e9, 0
    for number, (first, values) in enumerate(lives, 1):
        for start in range(0, len(values), size):
            part = values[start : start + size]
            seq, now = seq + 1, now + len(part)
            frame = Frame("r", str(number), "node", "boot", seq, int(now * 1e9))
            frame.rank = np.zeros(len(part), np.int32)
            frame.step = np.arange(len(part), dtype=np.int64) + first + start + later
            frame.time_ns = ((now - len(part) + np.arange(len(part))) * 1e9).astype(np.int64)
            present = np.array([start + place not in holes for place in range(len(part))])
            frame.metrics = {metric: Column(np.asarray(part, np.float64), None if present.all() else present)}
            said += engine.feed(frame, now)
    return said + engine.finish()


def told(findings, later=0):
    """What is said, without its numbers."""
    return [(each.kind, each.scope, each.severity, each.onset_step - later, each.detected_step - later) for each in findings]


@pytest.mark.parametrize("size", [5, 10_000])
@pytest.mark.parametrize("case", LIVES.values(), ids=LIVES.keys())
def test_how_a_log_is_cut_into_frames_means_nothing(case, size):
    whole = told(framed(*case))
    assert whole and told(framed(*case, size=size)) == whole


@pytest.mark.parametrize("name", ["data_position", "habit", "bend", "lone step and burst"])
def test_where_the_steps_are_counted_from_means_nothing(name):
    """By a round number: what stands on a round step may be a first checkpoint. A log that opens late has no beginning to go back to."""
    case = LIVES[name]
    assert told(framed(*case, later=640_000), 640_000) == told(framed(*case))


@pytest.mark.parametrize("name", ["beginning", "habit", "bend", "lone step and burst"])
def test_the_unit_of_the_metric_means_nothing(name):
    metric, lives, watching = LIVES[name]
    scaled = [(first, 8.0 * values) for first, values in lives]
    assert told(framed(metric, scaled, watching)) == told(framed(metric, lives, watching))


def test_the_names_of_the_batches_mean_nothing():
    metric, lives, watching = LIVES["data_position"]
    names = dict(zip(ORDER, np.random.default_rng(5).permutation(ORDER), strict=True))
    renamed = [(first, [names[value] for value in values]) for first, values in lives]
    assert told(framed(metric, renamed, watching)) == told(framed(metric, lives, watching))


@pytest.mark.parametrize("case", LIVES.values(), ids=LIVES.keys())
def test_values_that_are_missing_or_no_numbers_poison_nothing(case):
    metric, lives, watching = case
    broken = [(first, np.array(values)) for first, values in lives]
    for _, values in broken:
        values[40:90:7] = np.nan
    expected = {each[:3] for each in told(framed(*case))}
    assert {each[:3] for each in told(framed(*case, holes=range(40, 90, 7)))} == expected
    assert {each[:3] for each in told(framed(metric, broken, watching))} == expected


@pytest.mark.parametrize("unit", [0.125, 8.0])
def test_a_new_node_is_told_whatever_the_unit_of_time(unit):
    def heard(scale):
        said = []
        for name, extra in (("1", 0.0), ("2", 0.25)):
            waits = 0.02 + np.abs(0.005 * np.random.default_rng(3).standard_normal((200, 16)))
            waits[:, 8:] += extra
            columns = {
                "data_wait_seconds": scale * waits,
                "step_time_seconds": scale * np.repeat(1.0 + waits.max(axis=1)[:, None], 16, axis=1),
            }
            said.append(list(ranked(columns, nodes=8, attempt=name)))
        for step in said[1]:
            step.topology.node_of.update(dict.fromkeys(range(8, 16), "spare"))
        return told(feed(FreshNode(), [*said[0], *said[1]]))

    assert heard(1.0) and heard(unit) == heard(1.0)


def test_a_lone_step_costs_the_same_however_fast_the_run_counts_its_tokens():
    said = [feed(ThroughputDrop(), paced(PACE, tokens=tokens)) for tokens in (1.0, 1e6)]
    assert said[0] and [each.cost_seconds for each in said[0]] == pytest.approx([each.cost_seconds for each in said[1]])
