"""Data after a resume against data before it: batches by their hash, counters by their count."""

import numpy as np
import pytest
from holter_monitor.detectors.data_position import DataPosition
from holter_monitor.engine import Engine
from holter_monitor.stream.steps import RunFacts, Step

ORDER = [float(value) for value in np.random.default_rng(7).integers(0, 2**24, 4_000)]


def heard(*lives, words=(), metric="batch_hash"):
    """What is said of attempts, each `(first step, values)`; `words` are declared at the first step of the last one."""
    engine = Engine(RunFacts(run="r"), [DataPosition])
    said = []
    for attempt, (first, values) in enumerate(lives, 1):
        for number, value in enumerate(values, first):
            events = [{"event": word, "rank": 0, "step": number, "time_ns": 0, "attrs": {}} for word in words]
            is_declared = number == first and attempt == len(lives)
            record = {} if value is None else {metric: value}
            said += engine.feed_step(Step.of(number, record | {"loss": 2.0}, attempt=str(attempt), events=events if is_declared else ()))
    return said


def test_a_loader_that_goes_on_where_it_stood_is_silence():
    assert heard((0, ORDER[:100]), (60, ORDER[60:140])) == []
    assert heard((0, ORDER[:100]), (100, ORDER[100:140])) == []


def test_a_loader_that_starts_anew_repeats_the_data():
    for first in (60, 100):
        (finding,) = heard((0, ORDER[:100]), (first, ORDER[:40]))
        assert (finding.scope, finding.onset_step, finding.detected_step) == ("repeated", first, first + 3)
        assert finding.evidence["steps_of_data"] == first and "not restored" in finding.summary and finding.is_over


def test_data_that_was_left_out_is_told_where_it_is_known():
    (finding,) = heard((0, ORDER[:200]), (100, ORDER[120:160]))
    assert (finding.scope, finding.evidence["steps_of_data"]) == ("skipped", -20)


def test_an_order_drawn_anew_is_recorded_but_pages_nobody():
    (finding,) = heard((0, ORDER[:100]), (60, ORDER[2_000:2_040]))
    assert finding.scope == "other" and finding.severity.word == "info"
    assert heard((0, ORDER[:100]), (100, ORDER[2_000:2_040])) == [], "steps that are new may have any data"


def test_data_that_goes_round_by_itself_is_no_repetition():
    epoch = ORDER[:50]
    assert heard((0, epoch * 3), (150, epoch)) == []
    (finding,) = heard((0, epoch * 3), (130, epoch))
    assert finding.scope == "repeated"


@pytest.mark.parametrize("word", ["data_stage_change", "batch_size_change"])
def test_a_declared_change_excuses(word):
    assert heard((0, ORDER[:100]), (60, ORDER[:40]), words=[word]) == []


def test_a_long_run_remembers_its_begin_and_its_end():
    long = [float(value) for value in np.random.default_rng(1).integers(0, 2**24, 9_000)]
    (finding,) = heard((0, long), (9_000, long[:20]))
    assert finding.evidence["position_step"] == 0
    (finding,) = heard((0, long), (9_000, long[8_500:8_520]))
    assert finding.evidence["steps_of_data"] == 500


def test_equal_batches_say_nothing():
    assert heard((0, [7.0] * 100), (60, [7.0] * 40)) == []


def test_a_training_that_begins_anew_is_a_new_one():
    assert heard((0, ORDER[:100]), (0, ORDER[:40])) == []


@pytest.mark.parametrize("metric", ["data_position", "consumed_samples", "consumed_tokens"])
def test_a_count_that_stands_elsewhere(metric):
    counts = [1_024.0 * step for step in range(1, 101)]
    assert heard((0, counts), (60, counts[60:]), metric=metric) == []
    assert heard((0, counts), (100, [1_024.0 * step for step in range(101, 120)]), metric=metric) == []
    (finding,) = heard((0, counts), (60, counts[40:]), metric=metric)
    assert finding.scope == f"{metric} repeated" and finding.severity.word == "warning"
    assert finding.evidence["steps_of_data"] == pytest.approx(20)
    (finding,) = heard((0, counts), (60, counts[75:]), metric=metric)
    assert finding.scope == f"{metric} skipped"


def test_a_count_that_begins_anew_is_only_recorded():
    counts = [1_024.0 * step for step in range(1, 101)]
    (finding,) = heard((0, counts), (60, counts), metric="consumed_samples")
    assert finding.severity.word == "info" and "began anew" in finding.summary


def test_gaps_and_single_steps_are_borne():
    assert heard((0, [None] * 10), (5, [None, ORDER[1]]), (3, ORDER[:2])) == []


def test_where_the_names_had_stopped_a_round_of_the_data_is_no_repetition():
    """A loop of short steps names its first batches only: a loader that starts anew is still told, an epoch is not taken for one."""
    named = [*ORDER[:64], *[None] * 200]
    assert heard((0, named), (150, ORDER[30:70])) == []
    (finding,) = heard((0, named), (150, ORDER[:40]))
    assert (finding.scope, finding.evidence["steps_of_data"]) == ("repeated", 150)
