"""Frames of many nodes become one step after another."""

import random

import numpy as np
import pytest
from holter.frame import Column, Frame, decode, encode
from holter_monitor.snapshot import pack, unpack
from holter_monitor.stream.align import StepAligner


def frame(rank, step, *, seq=0, node="a", metrics=None, events=(), attempt="1"):
    count = len(step)
    metrics = {"loss": [1.0] * count} if metrics is None else metrics
    return Frame(
        run="r",
        attempt=attempt,
        node=node,
        boot="b",
        seq=seq,
        sent_ns=0,
        rank=np.array(rank, np.int32),
        step=np.array(step, np.int64),
        time_ns=np.arange(count, dtype=np.int64),
        metrics={name: column(values) for name, values in metrics.items()},
        events=list(events),
    )


def column(values):
    present = np.array([value is not None for value in values])
    return Column(np.array([np.nan if value is None else value for value in values], float), None if present.all() else present)


def numbers(steps):
    return [step.number for step in steps]


def test_a_step_closes_when_all_ranks_reached_it():
    aligner = StepAligner("1", world_size=2)
    assert aligner.add(frame([0, 0], [0, 1], node="a"), 0.0) == []
    (step,) = aligner.add(frame([1], [0], node="b", metrics={"loss": [3.0]}), 1.0)
    assert step.number == 0
    assert step.mean("loss") == 2.0
    assert list(step.missing) == []


def test_a_silent_rank_is_waited_for_once():
    aligner = StepAligner("1", world_size=2, deadline_seconds=10)
    aligner.add(frame([0, 1], [0, 0]), 0.0)
    assert aligner.add(frame([0], [1], seq=1), 1.0) == []
    (late,) = aligner.add(frame([], [], seq=2), 11.0)
    assert (late.number, list(late.missing)) == (1, [1])
    (next_step,) = aligner.add(frame([0], [2], seq=3), 12.0)
    assert (next_step.number, list(next_step.missing)) == (2, [1])
    assert aligner.add(frame([1], [2], seq=4), 13.0) == []
    assert aligner.dropped == {"late_row": 1}
    assert aligner.add(frame([0], [3], seq=5), 14.0) == [], "the rank is back and waited for"


def test_a_rewind_is_a_new_lap():
    aligner = StepAligner("1", world_size=2)
    steps = aligner.add(frame([0, 0, 0, 0, 1, 1, 1, 1], [5, 6, 4, 5, 5, 6, 4, 5]), 0.0)
    assert numbers(steps) == [5, 6, 4, 5]
    steps = aligner.add(frame([0, 1], [2, 2], seq=1), 0.0)
    assert numbers(steps) == [2]


def test_a_slip_of_one_rank_does_not_carry_the_others_away():
    """Rank 3 reports one step far ahead and comes back: the others' steps go on as before."""
    aligner, closed = StepAligner("1", world_size=4, deadline_seconds=10), []
    for number in range(300):
        steps = [number, number, number, 10**9 if number == 50 else number]
        closed += numbers(aligner.add(frame([0, 1, 2, 3], steps, seq=number), float(number)))
    assert closed[:280] == list(range(280))
    assert aligner.dropped["ran_ahead"] > 0


def test_more_metrics_than_fit_are_left_out_and_counted():
    aligner = StepAligner("1", world_size=100, max_cells=1000)
    wide = {f"m{index}": [1.0] for index in range(50)}
    aligner.add(frame([0], [0], metrics=wide), 0.0)
    assert len(aligner.rows) == 10
    assert aligner.dropped["metric"] == 40


def test_an_overtaken_frame_is_late_and_no_rewind():
    aligner = StepAligner("1", world_size=1)
    aligner.add(frame([0], [5], seq=2), 0.0)
    assert aligner.add(frame([0], [4], seq=1), 0.0) == []
    assert numbers(aligner.add(frame([0], [6], seq=3), 0.0)) == [6]


def test_samples_do_not_count_as_reaching_a_step_and_their_newest_value_is_kept():
    aligner = StepAligner("1", world_size=1)
    hot = {"loss": [None, None], "gpu_temperature_celsius": [60.0, 70.0]}
    assert aligner.add(frame([0, 0], [-1, 3], metrics=hot), 0.0) == []
    (step,) = aligner.add(frame([0], [3], seq=1), 0.0)
    assert step.mean("gpu_temperature_celsius") == 70.0
    (step,) = aligner.add(frame([0], [4], seq=2), 0.0)
    assert step.mean("gpu_temperature_celsius") == 70.0


def test_absent_is_not_nan():
    aligner = StepAligner("1", world_size=3)
    (step,) = aligner.add(frame([0, 1, 2], [0, 0, 0], metrics={"loss": [None, np.nan, 2.0], "mfu": [None, None, None]}), 0.0)
    values, present = step.column("loss")
    assert list(present) == [False, True, True]
    assert np.isnan(values[1])
    assert step.mean("loss") == 2.0
    assert step.column("mfu") is None


def test_events_hang_on_the_step_they_name():
    aligner = StepAligner("1", world_size=1)
    said = {"event": "checkpoint", "rank": 0, "step": 1, "time_ns": 0, "attrs": {}}
    first, second = aligner.add(frame([0, 0], [0, 1], events=[said]), 0.0)
    assert first.words == set()
    assert second.words == {"checkpoint"}


def test_hosts_speak_apart():
    aligner = StepAligner("1", world_size=1)
    aligner.add(frame([-1], [0], metrics={"host_cpu_ratio": [0.5], "loss": [None]}), 0.0)
    (sample,) = aligner.take_samples()
    assert (sample.node, sample.values) == ("a", {"host_cpu_ratio": 0.5})


def test_memory_is_bounded_when_a_rank_stays_behind():
    aligner = StepAligner("1", world_size=2, max_pending=16)
    closed = [step for number in range(100) for step in aligner.add(frame([0], [number], seq=number), 0.0)]
    assert len(aligner.pending) <= 16
    assert numbers(closed) == list(range(100))


def test_nonsense_rows_are_counted():
    aligner = StepAligner("1", world_size=1)
    assert aligner.add(frame([-7, 10**9, 0], [1, 1, 2**60]), 0.0) == []
    assert aligner.dropped == {"row_out_of_range": 3}


def test_state_survives_a_snapshot():
    aligner = StepAligner("1", world_size=2)
    aligner.add(frame([0, 0], [0, 1], metrics={"loss": [1.0, 2.0], "gpu_power_watts": [None, 300.0]}), 0.0)
    again = unpack(pack(aligner))
    for one in (aligner, again):
        steps = one.add(frame([1, 1], [0, 1], node="b"), 1.0)
        assert numbers(steps) == [0, 1]
        assert steps[1].mean("loss") == 1.5
        assert steps[1].mean("gpu_power_watts") == 300.0


METRICS = (("loss",), ("loss", "mfu"), ("mfu", "gpu_power_watts"), ("gpu_power_watts",), ("loss", "gpu_power_watts", "host_cpu_ratio"))
WORDS = ["next"] * 20 + ["next two", "back", "silent", "overtaken", "host", "new rank", "out of range", "event", "empty"]


def traffic(rng):
    """What five agents of two ranks send: mostly the next step; also rewinds, overtaken frames, samples, a host's rows, nonsense, events, silence."""
    arrivals, seqs, steps = [], [1] * 5, [0] * 10
    for now in range(40):
        for node in rng.sample(range(5), 5):
            word = rng.choice(WORDS)
            if word == "silent":
                continue
            seqs[node] += 1
            rows = [(rank, step) for rank in (2 * node, 2 * node + 1) for step in goes(word, steps, rank)]
            rows += {"host": [(-1, steps[2 * node])], "new rank": [(12 + node, 3)], "out of range": [(-5, 0), (2 * node, 2**50)]}.get(
                word, []
            )
            rank, step = zip(*rows, strict=True) if rows else ((), ())
            columns = {name: [rng.choice([None, np.nan, 1.0, 2.0, 3.0]) for _ in rows] for name in rng.choice(METRICS)}
            said = [{"event": "rank_finished", "rank": 2 * node, "step": None, "time_ns": 0, "attrs": {}}] if word == "event" else []
            seq = seqs[node] - (2 if word == "overtaken" else 0)
            arrivals.append((decode(encode(frame(rank, step, seq=seq, node=str(node), metrics=columns, events=said))), now * 1.5))
    return arrivals


def goes(word, steps, rank):
    """The steps of the rank's rows in this frame."""
    if word in ("host", "empty"):
        return range(0)
    if word == "back":
        steps[rank] = max(0, steps[rank] - 4)
    first = steps[rank]
    steps[rank] += 2 if word == "next two" else 1
    return range(first, steps[rank])


@pytest.mark.parametrize("seed", range(60))
def test_frames_taken_in_at_once_are_as_those_taken_in_one_by_one(seed):
    rng = random.Random(seed)
    rest, batch, max_pending = traffic(rng), rng.randint(4, 30), rng.choice([8, 1024])
    one, many = (StepAligner("1", world_size=10, deadline_seconds=6.0, max_pending=max_pending) for _ in range(2))
    alone = [step for arrival in rest for step in one.add(*arrival)]
    together, samples, at_once = [], [], 0
    while rest:
        quiet = many.add_quiet(rest[:batch])
        at_once += len(quiet)
        samples += [sample for of in quiet for sample in of]
        if not quiet:
            together += many.add(*rest[0])
            samples += many.take_samples()
        rest = rest[max(1, len(quiet)) :]
    assert at_once > 20
    assert pack(samples) == pack(one.take_samples())
    assert [told(step) for step in alone] == [told(step) for step in together]
    assert kept(one) == kept(many)


def told(step):
    columns = {name: tuple(part.tobytes() for part in step.column(name)) for name in step.metrics}
    return (step.number, step.time, step.words, step.missing.tolist(), columns)


def kept(aligner):
    """The aligner's state, whatever the order in which the pending steps came."""
    aligner.pending = {key: aligner.pending[key] for key in aligner.order}
    return pack(aligner)
