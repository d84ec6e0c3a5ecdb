"""A model that begins anew in mid-run, told by a loss that replays its own beginning; and what only looks like it."""

import numpy as np
import pytest
from holter_monitor.engine import Engine
from holter_monitor.findings import Severity
from holter_monitor.stream.steps import RunFacts, Step

AGAIN = 1200


def course(count, seed):
    """log loss of a fresh model: from 11 down to about 3."""
    rng = np.random.default_rng(seed)
    return np.log(2.0 + 9.0 * (1.0 + np.arange(count) / 20.0) ** -0.5) + 0.01 * rng.standard_normal(count)


def replayed():
    return np.concatenate([course(AGAIN, 0), course(1200, 1)])


def findings(heights, first=0, stride=1, scale=1.0, cut=None):
    engine, said = Engine(RunFacts(run="r")), []
    for index, height in enumerate(heights):
        if index == cut:
            engine = Engine.restore(engine.snapshot())
        values = {"loss": scale * float(np.exp(height)), "grad_norm": 0.5 + 0.01 * (index % 7)}
        said += engine.feed_step(Step.of(first + stride * index, values, time=float(index), attempt="1"))
    return said


def anew(said):
    return [finding for finding in said if finding.evidence.get("after") == "start"]


@pytest.mark.parametrize("stride", [1, 10])
@pytest.mark.parametrize("scale", [1.0, 40.0])
def test_a_loss_that_replays_its_beginning_is_a_new_model(scale, stride):
    said = findings(replayed(), scale=scale, stride=stride)
    (finding,) = anew(said)
    assert (finding.kind, finding.severity, finding.onset_step) == ("loss_shift", Severity.CRITICAL, AGAIN * stride)
    assert finding.detected_step <= (AGAIN + 100) * stride
    assert finding.evidence["level"] < 0.5 * finding.evidence["now"]
    later = {other.kind for other in said if other.detected_step > finding.detected_step}
    assert later == set(), "the new life is judged by itself"


def test_its_spike_ends_where_the_new_model_is_known():
    (ended,) = [finding for finding in findings(replayed()) if finding.kind == "loss_spike" and finding.end_step is not None]
    assert (ended.onset_step, ended.evidence["shape"]) == (AGAIN, "begun anew")


def test_a_snapshot_in_the_middle_of_the_replay_changes_nothing():
    assert findings(replayed(), cut=AGAIN + 9) == findings(replayed())


def test_a_gap_in_the_log_and_a_nan_change_nothing_of_the_onset():
    heights = replayed()
    heights[AGAIN + 3 : AGAIN + 40 : 4] = np.nan
    (finding,) = anew(findings(heights))
    assert finding.onset_step == AGAIN


def test_a_loss_thrown_back_to_its_start_that_stays_there_or_returns_is_none():
    start = course(AGAIN, 0)
    noise = 0.01 * np.random.default_rng(2).standard_normal(800)
    stays = np.concatenate([start, start[0] + noise])
    returns = np.concatenate([start, start[-1] + noise + (start[0] - start[-1]) * np.exp(-np.arange(800) / 4.0)])
    assert anew(findings(stays)) == anew(findings(returns)) == []


def test_a_log_that_opens_late_has_no_beginning():
    assert anew(findings(replayed(), first=50_000)) == []
