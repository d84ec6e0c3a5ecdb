"""Every check runs on every entry of DETECTORS: what the engine relies on, whatever a detector is about."""

import copy
import functools

import numpy as np
import pytest
from holter_monitor.detectors import DETECTORS
from holter_monitor.engine import Engine
from holter_monitor.findings import KINDS, Finding
from holter_monitor.stream.steps import RunFacts, Step

RANKS = 8
METRICS = {
    "loss": (2.5, 0.02),
    "grad_norm": (0.5, 0.05),
    "step_time_seconds": (0.8, 0.01),
    "tokens_per_second": (1e5, 1e3),
    "compute_seconds": (0.6, 0.005),
    "data_wait_seconds": (0.01, 0.002),
    "process_memory_rss_bytes": (4e9, 1e7),
    "gpu_temperature_celsius": (60.0, 1.0),
    "gpu_sm_clock_hertz": (1.9e9, 1e6),
    "gpu_memory_used_bytes": (6e10, 1e7),
}


@functools.cache
def stream(seed=0, count=900, troubled=True, first=0):
    """The same steps for every detector: none may change what it is given."""
    return tuple(made(seed, count, troubled, first))


def made(seed, count, troubled, first):
    """Steps of 8 ranks; a troubled stream has a bit of everything, so that detectors have something to say and to keep."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        values = np.array([level + spread * rng.standard_normal(RANKS) for level, spread in METRICS.values()])
        present = np.ones(values.shape, bool)
        events = []
        if troubled:
            values[0] += 1.5 * (number in (400, 401)) + (number > 700) * 0.6
            values[1] *= 30.0 if 500 <= number < 540 else 1.0
            values[2] *= 4.0 if number > 300 and rng.random() < 0.1 else 1.0
            values[4][3] *= 1.3 if number > 450 else 1.0
            values[6] *= 1 + max(0, number - 200) / 1000
            present &= rng.random(values.shape) > 0.01
            values[0][2] = np.nan if number == 610 else values[0][2]
            events = [{"event": "checkpoint", "rank": 0, "step": number, "time_ns": 0, "attrs": {}}] if number % 100 == 0 else []
        rows = {name: place for place, name in enumerate(METRICS)}
        step = Step.of_ranks(first + number, np.arange(RANKS, dtype=np.int32), rows, values, present, time=1e9 + number, attempt="1")
        step.say(events)
        yield step


def run(engine, steps):
    said = []
    for step in steps:
        said += engine.feed_step(step)
        if step.number % 10 == 0:
            said += engine.tick(step.time)
    return said


def engine_of(make):
    return Engine(RunFacts(run="r", world_size=RANKS), [make])


@pytest.fixture(params=DETECTORS, ids=lambda make: getattr(make, "__name__", repr(make)))
def make(request):
    return request.param


def test_it_is_named_and_documented(make):
    detector = make()
    assert detector.kind in KINDS
    assert (type(detector).__doc__ or "").strip(), "what the signature does not say: why, limits, source"


def test_it_answers_with_findings_of_known_kinds_in_json_values(make):
    for finding in run(engine_of(make), stream()):
        assert isinstance(finding, Finding)
        assert finding.kind in KINDS, finding
        assert finding.kind != "detector_failed", finding.summary
        assert finding.onset_step <= finding.detected_step
        assert "\n" not in finding.summary
        assert_json(finding.evidence)


def assert_json(value):
    if isinstance(value, dict):
        assert all(isinstance(key, str) for key in value)
        for inner in value.values():
            assert_json(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            assert_json(inner)
    else:
        assert value is None or type(value) in (str, bool, int, float), (type(value), value)
        assert not isinstance(value, float) or np.isfinite(value), "non-finite numbers travel as strings"


def test_a_quiet_stream_is_met_with_silence(make):
    assert run(engine_of(make), stream(troubled=False, count=1500)) == []


@pytest.mark.parametrize("cut", [0, 5, 120, 402, 520, 611, 750])
def test_a_snapshot_in_mid_stream_changes_no_later_answer(make, cut):
    steps = list(stream())
    whole = engine_of(make)
    run(whole, steps[:cut])
    again = Engine.restore(whole.snapshot(), [make])
    assert again.snapshot() == whole.snapshot()
    assert run(again, steps[cut:]) == run(whole, steps[cut:])
    assert again.snapshot() == whole.snapshot()


def test_it_leaves_its_input_alone(make):
    engine = engine_of(make)
    for step in stream(count=450):
        values, present = (column.copy() for column in (step._matrix, step._present))
        engine.feed_step(step)
        np.testing.assert_array_equal(step._matrix, values)
        np.testing.assert_array_equal(step._present, present)


def test_the_same_records_give_the_same_findings(make):
    assert run(engine_of(make), stream()) == run(engine_of(make), stream())


def test_step_numbers_mean_nothing(make):
    def said(first):
        findings = run(engine_of(make), stream(first=first))
        return [(f.kind, f.severity, f.scope, f.onset_step - first, f.detected_step - first, f.is_over) for f in findings]

    assert said(5_000_000) == said(0)


def test_its_memory_is_bounded(make):
    """64 KiB a run plus 256 bytes a rank and metric, whatever the length of the stream."""
    engine = engine_of(make)
    sizes = []
    for step in stream(count=3000):
        engine.feed_step(step)
        if step.number in (1500, 2999):
            sizes.append(len(engine.snapshot()))
    assert sizes[1] <= 64 * 1024 + 256 * RANKS * len(METRICS)
    assert sizes[1] <= 1.5 * sizes[0] + 2048


def test_nothing_at_all_and_rubbish_are_survived(make):
    engine = engine_of(make)
    rubbish = [np.nan, np.inf, -np.inf, 0.0, -1.0, 1e308, 1e-308]
    for number in range(300):
        values = {name: rubbish[(number + place) % len(rubbish)] for place, name in enumerate(METRICS)}
        for finding in engine.feed_step(Step.of(number, values if number % 3 else {})):
            assert finding.kind != "detector_failed", finding.summary
    for finding in engine.tick(0.0) + engine.finish():
        assert finding.kind != "detector_failed", finding.summary


def test_a_nan_or_a_gap_never_poisons_the_state(make):
    """After NaNs and missing values the same trouble is found as without them."""
    holes = set(range(50, 300, 29))
    clean, holed = engine_of(make), engine_of(make)
    later = {"clean": [], "holed": []}
    for step in stream():
        copied = copy.deepcopy(step)
        if step.number in holes:
            copied._matrix[:] = np.nan
        if step.number + 1 in holes:
            copied._present[:] = False
        found = clean.feed_step(step), holed.feed_step(copied)
        for name, findings in zip(later, found, strict=True):
            later[name] += [finding.kind for finding in findings if step.number > 320 and finding.kind != "non_finite"]
    assert set(later["clean"]) == set(later["holed"])


SCALES = {
    "loss": 4.0,
    "grad_norm": 0.125,
    "tokens_per_second": 2.0,
    "step_time_seconds": 2.0,
    "compute_seconds": 2.0,
    "data_wait_seconds": 2.0,
}


def test_the_unit_of_a_metric_means_nothing(make):
    """A loss in bits, a norm before the division, times of a machine half as fast: the same findings at the same steps.

    Memory, clocks and temperatures stay: their absolute size says something.
    """

    def said(scales):
        scaled = np.array([scales.get(name, 1.0) for name in METRICS])[:, None]
        steps = []
        for step in stream():
            other = Step.of_ranks(step.number, step.ranks, step._rows, step._matrix * scaled, step._present, time=step.time, attempt="1")
            other.say(step.events)
            steps.append(other)
        return [(f.kind, f.severity, f.scope, f.onset_step, f.detected_step, f.is_over) for f in run(engine_of(make), steps)]

    assert said(SCALES) == said({})
