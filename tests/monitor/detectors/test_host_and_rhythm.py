"""Disks, schedules that must agree, checkpoints and evaluations that must come."""

import numpy as np
from detector_streams import feed, ranked
from holter_monitor.detectors.disk_pressure import DiskPressure
from holter_monitor.detectors.overdue import Overdue
from holter_monitor.detectors.rank_disagreement import RankDisagreement
from holter_monitor.findings import Severity
from holter_monitor.stream.steps import RunFacts, Sample, Step

FREE, LATENCY = "host_disk_free_bytes./scratch", "host_disk_read_latency_seconds.nvme0n1"


def disk(minutes, free=None, latency=None, node="node-1", detector=None):
    detector = detector or DiskPressure()
    said = []
    for minute in range(minutes):
        detector.observe(Step.of(minute, {}))
        values = {FREE: free(minute)} if free else {LATENCY: latency(minute)}
        said += detector.sample(Sample(node, "1", minute, 1e9 + 60.0 * minute, values)) or []
    return said


def test_a_disk_that_fills_is_said_with_the_time_left_and_pages_near_the_end():
    said = disk(600, free=lambda minute: 1e12 - 1.6e9 * minute)
    assert said[0].severity == Severity.WARNING and 5 < said[0].evidence["seconds_left"] / 3600 <= 6
    assert said[-1].severity == Severity.CRITICAL and "full in about" in said[-1].summary and len(said) == 2


def test_checkpoints_written_and_deleted_fill_nothing():
    assert not disk(600, free=lambda minute: 4e11 - 3e10 * (minute % 12))


def test_a_disk_that_is_cleared_ends_it():
    said = disk(400, free=lambda minute: 1e12 - 3e9 * minute if minute < 280 else 9e11)
    assert said[-1].is_over


def test_slow_reads_on_many_nodes_are_one_device():
    detector, said = DiskPressure(), []
    for minute in range(200):
        detector.observe(Step.of(minute, {}))
        for node in range(8):
            slow = minute > 100 and node < 6
            said += detector.sample(Sample(f"node-{node}", "1", minute, 1e9 + 60.0 * minute, {LATENCY: 0.08 if slow else 0.002})) or []
    assert len({f.scope for f in said}) == 1 and len(said[-1].nodes) >= 4
    assert said[-1].evidence["latency_ratio"] > 10


def test_a_cache_s_jumping_latencies_are_normal():
    rng = np.random.default_rng(0)
    values = 1e-4 * np.exp(rng.normal(0, 0.8, 500))
    assert not disk(500, latency=lambda minute: float(values[minute]))


def rates(count=100, ranks=16):
    return {"lr": np.repeat(3e-4 * np.linspace(1, 0.1, count)[:, None], ranks, axis=1)}


def test_a_rank_on_another_schedule_is_named():
    run = rates()
    run["lr"][40:, 5] *= 1.01
    said = feed(RankDisagreement(), ranked(run))
    assert [(f.ranks, f.onset_step, f.detected_step) for f in said] == [((5,), 40, 42)]


def test_schedules_that_agree_in_float32_agree():
    run = rates()
    run["lr"][:, ::2] = run["lr"][:, ::2].astype(np.float32)
    assert not feed(RankDisagreement(), ranked(run))


def test_a_pipeline_stage_with_its_own_rate_is_a_parameter_group():
    run = rates()
    run["lr"][:, 12:] *= 2
    assert not feed(RankDisagreement(), ranked(run, mesh=lambda rank: {"pp": rank // 4}))


def noisy(steps=120, ranks=8, tp=2, equal="all"):
    """A loss that is one number on all ranks, one in each tensor-parallel pair, or each rank's own."""
    draws = np.random.default_rng(7).normal(2.0, 0.1, (steps, ranks))
    if equal == "all":
        draws[:] = draws[:, :1]
    elif equal == "tp":
        draws[:] = np.repeat(draws[:, ::tp], tp, axis=1)
    return draws


def pairs(rank):
    return {"dp": rank // 2, "tp": rank % 2}


def test_a_gradient_norm_that_was_equal_and_is_not_any_more_names_its_ranks():
    norms = noisy()
    norms[80:, 3] += 0.01
    [found] = feed(RankDisagreement(), ranked({"grad_norm": norms}))
    assert (found.metric, found.ranks, found.onset_step, found.detected_step) == ("grad_norm", (3,), 80, 82)


def test_a_loss_that_differs_within_a_tensor_parallel_pair_names_the_pair():
    losses = noisy(equal="tp")
    losses[80:, 5] += 0.01
    [found] = feed(RankDisagreement(), ranked({"loss": losses}, mesh=pairs))
    assert (found.ranks, found.onset_step) == ((4, 5), 80)


def test_a_loss_of_each_rank_s_own_is_never_judged():
    assert not feed(RankDisagreement(), ranked({"loss": noisy(equal="none")}, mesh=pairs))
    assert not feed(RankDisagreement(), ranked({"loss": noisy(equal="tp")}, mesh=pairs))


def steps(events, *, count=1000, attempt="1", first=0, seconds=1.0):
    for number in range(first, first + count):
        said = (
            [{"event": events[number], "rank": 0, "step": number, "time_ns": 0, "attrs": {"path": f"/ckpt/{number}"}}]
            if number in events
            else []
        )
        yield Step.of(number, {}, time=1e9 + seconds * number, attempt=attempt, events=said)


def test_a_missing_checkpoint_is_overdue_after_twice_its_rhythm_and_ends_when_it_comes():
    times = dict.fromkeys([100, 200, 300, 400, 500, 900], "checkpoint")
    said = feed(Overdue(), steps(times))
    assert [f.kind for f in said] == ["checkpoint_overdue"] * 2
    assert said[0].onset_step == 600 and 700 <= said[0].detected_step <= 710 and said[1].end_step == 900


def test_a_declared_interval_needs_no_learning():
    detector = Overdue()
    detector.begin(RunFacts(run="r", config={"eval_interval": 100, "eval_steps": True}))
    said = feed(detector, steps({}, count=400))
    assert [f.kind for f in said] == ["eval_overdue"] and said[0].detected_step <= 210


def test_a_run_that_slows_down_is_not_overdue_by_time_alone():
    times = dict.fromkeys(range(100, 1000, 100), "checkpoint")
    slow = [
        *steps(times, count=550),
        *(
            Step.of(s.number, {}, time=s.time * 1.0 + 40 * (s.number - 550), attempt="1", events=s.events)
            for s in steps(times, first=550, count=449)
        ),
    ]
    assert not feed(Overdue(), slow)


def test_an_attempt_that_does_not_find_the_newest_checkpoint_says_so():
    times = dict.fromkeys([100, 200, 300, 400], "checkpoint")
    said = feed(Overdue(), [*steps(times, count=450), *steps({}, first=101, count=50, attempt="2")])
    (finding,) = said
    assert finding.kind == "checkpoint_lost" and finding.evidence["steps_again"] == 300 and "/ckpt/400" in finding.summary


def test_an_attempt_that_goes_on_from_the_newest_checkpoint_is_normal():
    times = dict.fromkeys([100, 200, 300, 400], "checkpoint")
    assert not feed(Overdue(), [*steps(times, count=450), *steps({}, first=401, count=50, attempt="2")])


def test_a_checkpoint_that_is_told_some_steps_late_is_of_the_step_it_names():
    """Its event came with a later frame: an attempt that starts right after it has lost nothing."""
    before = list(steps({}, count=450))
    before[404].say([{"event": "checkpoint", "rank": 0, "step": 400, "time_ns": 0, "attrs": {"path": "/ckpt/400"}}])
    assert not feed(Overdue(), [*before, *steps({}, first=401, count=50, attempt="2")])
