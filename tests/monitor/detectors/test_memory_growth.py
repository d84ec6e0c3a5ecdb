"""Leaks, their forecast, and what only looks like one."""

import numpy as np
import pytest
from detector_streams import feed, paced, ranked
from holter_monitor.detectors.memory_growth import MemoryGrowth
from holter_monitor.findings import Severity
from holter_monitor.stream.steps import Sample, Step

RSS = "process_memory_rss_bytes"


def sawtooth(count=3000, level=4e10, seed=0):
    rng = np.random.default_rng(seed)
    return level * (1 + 0.002 * rng.standard_normal(count) + 0.02 * (np.arange(count) % 170) / 170)


def of_one(values):
    for number, value in enumerate(values):
        yield Step.of(number, {RSS: float(value)})


@pytest.mark.parametrize("a_thousand_steps", [0.015, 0.06, 0.3])
def test_a_leak_under_a_sawtooth_is_found(a_thousand_steps):
    memory = sawtooth()
    memory[800:] *= 1 + a_thousand_steps * np.arange(2200) / 1000
    said = feed(MemoryGrowth(), of_one(memory))
    assert said and 1000 < said[0].detected_step < 2000
    assert said[0].evidence["bytes_per_step"] == pytest.approx(4e10 * a_thousand_steps / 1000, rel=0.6)


@pytest.mark.parametrize("seed", range(6))
def test_a_sawtooth_alone_is_no_leak(seed):
    assert not feed(MemoryGrowth(), of_one(sawtooth(6000, seed=seed)))


def test_a_jump_is_no_leak():
    memory = sawtooth()
    memory[1000:] *= 1.3
    assert not feed(MemoryGrowth(), of_one(memory))


def test_one_rank_of_many_is_named():
    memory = np.stack([sawtooth(seed=rank) for rank in range(8)], axis=1)
    memory[:, 5] *= 1 + 0.1 * np.arange(3000) / 1000
    said = feed(MemoryGrowth(), ranked({RSS: memory}))
    assert said and {finding.ranks for finding in said} == {(5,)}


def test_all_ranks_together_are_one_finding():
    memory = np.stack([sawtooth(seed=rank) for rank in range(64)], axis=1) * (1 + 0.1 * np.arange(3000) / 1000)[:, None]
    said = feed(MemoryGrowth(), ranked({RSS: memory}))
    assert said and {finding.scope for finding in said} == {RSS}


def test_a_host_that_will_run_out_soon_pages_with_the_step_at_which_it_ends():
    detector, said = MemoryGrowth(), []
    total = 1e12
    for number in range(3000):
        for _ in detector.observe(Step.of(number, {})) or []:
            pass
        used = 4e11 + 2e8 * number
        said += (
            detector.sample(
                Sample("node-3", "1", number, 0.0, {"host_memory_total_bytes": total, "host_memory_available_bytes": total - used})
            )
            or []
        )
    assert said[0].nodes == ("node-3",) and said[0].severity == Severity.WARNING
    assert said[0].evidence["forecast_step"] == pytest.approx(3000, rel=0.05)
    assert said[-1].severity == Severity.CRITICAL and "out of memory by about step" in said[-1].summary


def test_logs_without_memory_say_nothing():
    assert not feed(MemoryGrowth(), paced(np.ones(500)))


def test_a_process_that_finds_its_size_is_no_leak():
    """A real small process: 344 MB to 351 MB over its first 700 steps; and a large one whose caches fill, ever more slowly."""
    assert not feed(MemoryGrowth(), of_one(3.44e8 + 1e4 * np.arange(1500)))
    assert not feed(MemoryGrowth(), of_one(4e10 * (1 + 0.1 * (1 - np.exp(-np.arange(3000) / 300)))))


def test_a_leak_whose_end_is_weeks_away_is_recorded_and_warns_nobody():
    detector, said = MemoryGrowth(), []
    for number in range(3000):
        detector.sample(Sample("node-1", "1", number, 0.0, {"host_memory_total_bytes": 2e12, "host_memory_available_bytes": 1.8e12}))
        said += detector.observe(Step.of(number, {RSS: 2e10 + 1e5 * number}, time=1e9 + number)) or []
    assert {finding.severity for finding in said} == {Severity.INFO}


def gpu_memory(allocated, reserved, used):
    for number, row in enumerate(zip(allocated, reserved, used, strict=True)):
        names = ("gpu_memory_allocated_bytes", "gpu_memory_reserved_bytes", "gpu_memory_used_bytes")
        yield Step.of(number, dict(zip(names, map(float, row), strict=True)) | {"gpu_memory_total_bytes": 8e10}, time=1e9 + number)


def test_an_allocator_that_reserves_more_for_the_same_tensors_is_fragmented():
    rng = np.random.default_rng(0)
    allocated = 4e10 * (1 + 0.001 * rng.standard_normal(2500))
    reserved = 4.6e10 + 8e6 * np.clip(np.arange(2500) - 500, 0, None) + 1e7 * rng.standard_normal(2500)
    said = feed(MemoryGrowth(), gpu_memory(allocated, reserved, reserved + 1.5e9))
    assert {f.metric for f in said} == {"gpu_memory_reserved_bytes"} and said[0].evidence["fragmented"]
    assert "fragmented" in said[0].summary and said[-1].evidence["forecast_step"] == pytest.approx(500 + 3.4e10 / 8e6, rel=0.1)


def test_a_leak_of_tensors_is_told_once_by_what_is_allocated():
    rng = np.random.default_rng(0)
    allocated = 4e10 + 8e6 * np.clip(np.arange(2500) - 500, 0, None) + 1e7 * rng.standard_normal(2500)
    said = feed(MemoryGrowth(), gpu_memory(allocated, allocated + 6e9, allocated + 7.5e9))
    assert {f.metric for f in said} == {"gpu_memory_allocated_bytes"} and not said[0].evidence["fragmented"]


@pytest.mark.parametrize("distances", [[10] * 1600 + [1] * 2000, [1] * 1600 + [10] * 1600], ids=["denser", "sparser"])
def test_the_forecast_holds_when_a_log_changes_how_often_it_writes(distances):
    """The same leak of 2 MB a step to a ceiling of 80 GB, whatever lies between two records; a block of 100 records is no unit of anything."""
    numbers = np.cumsum(distances)
    end = int((8e10 - 4e10) / 2e6)
    said = []
    detector = MemoryGrowth()
    for number in numbers[numbers < 0.97 * end].tolist():
        memory = {"gpu_memory_allocated_bytes": 4e10 + 2e6 * number, "gpu_memory_total_bytes": 8e10}
        said += detector.observe(Step.of(number, memory, time=1e9 + 3.0 * number)) or []
    assert len(said) >= 2 and {finding.scope for finding in said} == {"gpu_memory_allocated_bytes"}
    for finding in said:
        assert finding.evidence["bytes_per_step"] == pytest.approx(2e6, rel=0.02)
        assert finding.evidence["forecast_step"] == pytest.approx(end, rel=0.03)
        left = 3.0 * (end - finding.detected_step)
        assert finding.evidence["forecast_seconds"] == pytest.approx(left, rel=0.1, abs=400)


def test_a_host_is_forecast_by_the_clock_while_its_steps_become_slower():
    """10 GB a minute of 1 TB: the steps say less and less of it, the time says it as ever."""
    detector, said, now, step = MemoryGrowth(), [], 1e9, 0
    for sampled in range(1600):
        now, step = now + 15.0, sampled if sampled < 800 else 800 + (sampled - 800) // 8
        detector.step = step
        free = 9e11 - 2.5e8 * sampled
        row = {"host_memory_total_bytes": 1e12, "host_memory_available_bytes": free}
        said += [(finding, free / 2.5e8 * 15.0) for finding in detector.sample(Sample("node-3", "1", step, now, row)) or []]
    assert len(said) > 1
    for finding, left in said:
        assert finding.evidence["forecast_seconds"] == pytest.approx(left, rel=0.08)


def test_a_restart_that_repeats_steps_does_not_turn_the_rate_round():
    detector, said = MemoryGrowth(), []
    for place in range(2600):
        number = place if place < 1300 else place - 400
        memory = {"gpu_memory_allocated_bytes": 3e10 + 8e6 * place, "gpu_memory_total_bytes": 8e10}
        said += detector.observe(Step.of(number, memory, time=1e9 + place)) or []
    assert said and all(finding.evidence["bytes_per_step"] > 7e6 for finding in said)
