"""Stalls against those of a reference run at the same steps."""

import numpy as np
import pytest
from detector_streams import calm, paced, playbook_trace
from holter_monitor.detectors.reference_pace import ReferencePace
from holter_monitor.engine import Engine
from holter_monitor.reference import build, pacing
from holter_monitor.stream.steps import RunFacts


def stalled(count, share, seed=0, speed=1.0, since=0):
    seconds = calm(count, seed=seed, level=speed)
    rng = np.random.default_rng(seed + 100)
    at = since + np.flatnonzero(rng.random(count - since) < share)
    seconds[at] *= np.exp(rng.uniform(1, 3, len(at)))
    return seconds


def reference(seconds):
    return build("short run", [], [], pacing=pacing("step_time_seconds", np.arange(len(seconds)), seconds))


def found(seconds, against, cut=None, **how):
    engine, said = Engine(RunFacts(run="r", reference=reference(against)), [ReferencePace]), []
    for step in paced(seconds, **how):
        step._means.pop("tokens_per_second")
        said += engine.feed_step(step)
        if step.number == cut:
            engine = Engine.restore(engine.snapshot(), [ReferencePace])
    return said + engine.finish()


def test_more_stalls_than_the_reference_had_are_found_though_they_are_flat():
    said = found(stalled(3000, 0.03, seed=1), stalled(3000, 0.002, seed=2))
    assert said and said[0].scope == "stalls" and said[0].detected_step < 2200
    assert said[0].evidence["stalls"] > 5 * said[0].evidence["reference_stalls"] and "where short run had" in said[0].summary
    assert found(stalled(3000, 0.03, seed=1), stalled(3000, 0.002, seed=2), cut=1234) == said


@pytest.mark.parametrize("seed", range(6))
def test_as_many_stalls_as_the_reference_are_silence_whatever_the_speed(seed):
    assert found(stalled(4000, 0.02, seed=seed, speed=3.0), stalled(4000, 0.02, seed=seed + 50)) == []


def test_stalls_that_stop_end_it():
    seconds = stalled(6000, 0.05, seed=3)
    seconds[2500:] = calm(3500, seed=9)
    said = found(seconds, stalled(6000, 0.002, seed=4))
    assert said[-1].is_over and 2500 <= said[-1].end_step <= 3200


def test_a_declared_checkpoint_is_no_stall():
    seconds = calm(3000)
    seconds[::50] *= 6
    assert found(seconds, calm(3000, seed=1), words=dict.fromkeys(range(0, 3000, 50), "checkpoint")) == []


def test_a_reference_without_a_loss_still_has_a_pace():
    made = reference(calm(1000))
    assert made.cell(10.0) == -1 and made.pacing.cell(10) == 0 and made.pacing.cell(5000) == -1
    assert build("short", [], [], pacing=None) is None


def test_the_playbook_s_run_with_drops_against_the_one_without():
    good = list(playbook_trace("throughput_drops_comparison.csv", "Without drops"))
    held = build(
        "without", [], [], pacing=pacing("tokens_per_second", [s.number for s in good], [s.mean("tokens_per_second") for s in good])
    )
    engine, said = Engine(RunFacts(run="r", reference=held), [ReferencePace]), []
    for step in playbook_trace("throughput_drops_comparison.csv", "With drops"):
        said += engine.feed_step(step)
    assert said and said[0].onset_step >= 240 and said[0].detected_step < 1400
