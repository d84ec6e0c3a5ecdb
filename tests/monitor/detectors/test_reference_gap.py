"""A run held against its reference: a lasting gap is found within four windows, noise and another data order are not."""

import numpy as np
import pytest
from holter_monitor.detectors.reference_evaluations import ReferenceEvaluations
from holter_monitor.detectors.reference_gap import ReferenceGap
from holter_monitor.engine import Engine
from holter_monitor.reference import build
from holter_monitor.stream.steps import RunFacts, Step

TOKENS = 2_000_000
REFERENCE_STEPS = 4_000


def curve(tokens):
    return 2.5 + 4 * np.exp(-tokens / 5e8)


def reference(seed=1, **more):
    tokens = TOKENS * np.arange(1, REFERENCE_STEPS + 1)
    return build("small", tokens, curve(tokens) + np.random.default_rng(seed).normal(0, 0.05, len(tokens)), **more)


def losses(steps, gap=0.0, seed=2, since=0):
    """Half the reference's batch, another data order; `gap` relative from step `since` on."""
    tokens = TOKENS / 2 * np.arange(1, steps + 1)
    noise = np.random.default_rng(seed).normal(0, 0.07, steps)
    return (curve(tokens) + noise) * np.where(np.arange(steps) >= since, 1 + gap, 1.0)


def findings(values, held_against=None, restart_at=None, **config):
    engine = Engine(RunFacts(run="r", reference=held_against or reference(), config=config), [ReferenceGap])
    said = []
    for step, loss in enumerate(values):
        said += engine.feed_step(Step.of(step, {"loss": loss, "tokens": TOKENS / 2}))
        if step == restart_at:
            engine = Engine.restore(engine.snapshot(), [ReferenceGap])
    return said


def test_a_gap_of_three_percent_is_found_within_five_windows():
    [found] = findings(losses(4_000, gap=0.03, since=1_280))
    assert found.kind == "reference_gap"
    assert 1_152 <= found.onset_step <= 1_408
    assert found.detected_step <= 1_280 + 5 * 128 + 128
    assert found.evidence["reference"] == "small"


@pytest.mark.parametrize("seed", range(20))
def test_the_same_curve_in_another_order_is_silent(seed):
    assert findings(losses(6_000, seed=seed)) == []


def test_a_gap_that_closes_ends_the_finding():
    values = losses(6_000)
    values[1_000:3_000] *= 1.02
    first, last = findings(values)
    assert first.end_step is None
    assert (last.onset_step, last.is_over) == (first.onset_step, True)


def test_a_restart_of_the_collector_changes_nothing():
    values = losses(4_000, gap=0.02)
    assert findings(values, restart_at=300) == findings(values)


def test_a_rewind_gives_back_its_tokens():
    engine = Engine(RunFacts(run="r", reference=reference()), [ReferenceGap])
    detector = engine._detectors[0]
    for step in [*range(100), *range(50, 100)]:
        engine.feed_step(Step.of(step, {"loss": 2.0, "tokens": 10.0}))
    assert detector.place.tokens == 1_000.0


def test_without_tokens_runs_are_aligned_by_step():
    steps = np.arange(3_000)
    small = build("small", steps, curve(steps * TOKENS) + np.random.default_rng(0).normal(0, 0.02, 3_000), unit="step")
    engine = Engine(RunFacts(run="r", reference=small), [ReferenceGap])
    values = (curve(steps * TOKENS) + np.random.default_rng(9).normal(0, 0.02, 3_000)) * 1.02
    said = [finding for step, loss in enumerate(values) for finding in engine.feed_step(Step.of(step, {"loss": loss}))]
    assert [finding.evidence["aligned_by"] for finding in said] == ["step"]


TASKS = ("hellaswag", "arc", "piqa")


def evaluated(values, expect, *, tasks=TASKS, late=0, ranks=1, every=500, count=2_000):
    """Results of each `every`-th step, `values` above the reference's at equal tokens, told `late` steps after the step that they are of, by all ranks."""
    known = [(task, position * 1e9, 0.3 + position / 100) for task in TASKS for position in range(99)]
    facts = RunFacts(run="r", reference=reference(evaluations=known), config={"expect": expect})
    engine = Engine(facts, [ReferenceEvaluations])
    said = []
    for step in range(count):
        engine.feed_step(Step.of(step, {"loss": float(curve(step * 1e6)), "tokens": TOKENS / 2}))
        of = step - late
        if of > 0 and of % every == every - 1:
            above = values(of) if callable(values) else values
            metrics = dict.fromkeys(tasks, 0.3 + (of + 1) * TOKENS / 2 / 1e9 / 100 + above)
            for rank in range(ranks):
                said += engine.hear({"event": "eval", "rank": rank, "step": of, "time_ns": 0, "attrs": {"metrics": metrics}})
    return said


NOT_BELOW = {"evaluations": "not_below_reference"}


def test_evaluations_below_the_reference_are_said_where_the_user_expects_better():
    [found] = evaluated(-0.05, NOT_BELOW)
    assert (found.scope, found.onset_step) == ("evaluations", 499)
    assert "3 of 3" in found.summary


def test_evaluations_are_not_judged_without_an_expectation_nor_when_better():
    assert evaluated(-0.05, {}) == []
    assert evaluated(+0.05, NOT_BELOW) == []


def test_a_result_counts_once_however_many_ranks_say_it_and_a_single_bad_one_is_nothing():
    assert evaluated(lambda step: -0.05 if step < 600 else 0.05, NOT_BELOW, ranks=8) == []


def test_a_late_result_is_held_against_the_reference_at_its_own_step():
    assert evaluated(+0.0001, NOT_BELOW, late=480) == []
    assert len(evaluated(-0.0001, NOT_BELOW, late=480)) == 1


def test_evaluations_that_are_no_worse_any_more_end_it():
    said = evaluated(lambda step: -0.05 if step < 1000 else 0.05, NOT_BELOW, every=200)
    assert [finding.is_over for finding in said] == [False, True]


def test_of_a_single_task_four_in_a_row_are_needed():
    assert evaluated(-0.05, NOT_BELOW, tasks=("piqa",), every=600) == []
    [found] = evaluated(-0.05, NOT_BELOW, tasks=("piqa",), every=400)
    assert "4 times in a row" in found.summary


def test_a_reference_that_is_too_short_is_none():
    assert build("short", range(100), range(100)) is None
