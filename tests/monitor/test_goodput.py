"""Where wall time went: shares that add up, whatever the clocks say."""

from __future__ import annotations

import numpy as np
import pytest
from holter_monitor import goodput
from holter_monitor.goodput import CAUSES, Life
from holter_monitor.store.goodput import steadied
from hypothesis import given, settings
from hypothesis import strategies as st


def life(seconds, *, first=0, start=None, end=None, at=1_000.0, counted=None, **more):
    """Steps one after another from `at` on, the process as long as they."""
    seconds = np.array(seconds, float)
    finish = more.pop("finish", None)
    finish = at + np.cumsum(seconds) if finish is None else np.array(finish, float)
    count = len(seconds)
    return Life(
        **{"attempt": "a", "start": at if start is None else start, "end": finish[-1] if end is None else end}
        | {"step": np.arange(first, first + count), "finish": finish, "seconds": seconds, "waited": np.zeros(count)}
        | {"counted": np.ones(count, bool) if counted is None else np.array(counted)}
        | more
    )


def parts(*lives):
    return {cause: pytest.approx(seconds, abs=1e-6) for cause, seconds in goodput.account(lives).totals().items() if seconds > 1e-9}


def test_a_calm_run_is_all_productive():
    assert parts(life([2.0] * 50)) == {"productive": 100.0}


def test_each_cause_takes_its_own():
    seconds, waited = np.full(100, 2.0), np.zeros(100)
    seconds[0] = 30.0  # compilation
    seconds[40] = 10.0  # nobody knows why
    seconds[50], waited[50] = 7.0, 5.0
    seconds[60] = 12.0  # a checkpoint that told its length, and a stall beside it
    seconds[70] = 6.0  # an evaluation that did not
    seconds[80:90] = 3.0  # a slow rank
    dragged = np.where((np.arange(100) >= 80) & (np.arange(100) < 90), 1.0, 0.0)
    pauses = {"checkpoints": np.zeros(100), "evaluations": np.zeros(100)}
    pauses["checkpoints"][60:62] = 8.0
    pauses["evaluations"][69:71] = np.inf
    run = life(seconds, waited=waited, dragged=dragged, planned=pauses, start=900.0)
    assert parts(run) == {
        "productive": 200.0,
        "startup": 100.0 + 28.0,
        "stalls": 8.0 + 2.0,
        "data": 5.0,
        "checkpoints": 8.0,
        "evaluations": 4.0,
        "stragglers": 10.0,
    }


def test_a_constant_wait_for_data_is_lost_though_no_step_stands_out():
    assert parts(life([2.0] * 50, waited=np.full(50, 0.5))) == {"productive": 75.0, "data": 25.0}


def test_a_crash_costs_its_repeated_steps_and_the_time_down():
    one = life([1.0] * 60, counted=[True] * 50 + [False] * 10, state="lost")
    two = life([1.0] * 70, first=50, at=1_660.0, start=1_630.0)
    assert parts(one, two) == {"productive": 120.0, "recomputed": 10.0, "down": 570.0, "startup": 30.0}
    (broken,) = goodput.breaks([one, two])
    assert (broken.down_seconds, broken.startup_seconds, broken.recomputed_seconds) == pytest.approx((570.0, 30.0, 10.0))
    assert broken.recovery_seconds == pytest.approx(600.0) and broken.cost_seconds == pytest.approx(610.0)


def test_what_follows_the_last_step_is_a_stall_only_if_it_hung():
    assert parts(life([1.0] * 30, end=1_130.0, is_hung=True)) == {"productive": 30.0, "stalls": 100.0}
    assert parts(life([1.0] * 30, end=1_130.0)) == {"productive": 30.0, "other": 100.0}


def test_steps_sent_after_the_fact_are_their_own_clock():
    """A thousand steps posted in one second claim 2 s each; goodput was 1,000 of that second once."""
    one = life([2.0] * 500, finish=np.linspace(5_000.0, 5_000.4, 500), start=4_999.0, state="lost")
    two = life([2.0] * 500, first=500, finish=np.linspace(5_000.6, 5_001.0, 500), start=5_000.5)
    assert parts(one, two) == {"productive": 2_000.0}


def test_attempts_that_overlap_are_counted_once():
    """A process that outlives its requeue: its time is the newer one's from there on."""
    one, two = life([1.0] * 100), life([1.0] * 100, first=50, at=1_060.0)
    total = goodput.account([one, two])
    assert total.wall_seconds == pytest.approx(160.0)


@given(
    st.lists(
        st.lists(
            st.tuples(st.floats(0, 100), st.floats(-50, 100), st.floats(0, 200), st.booleans()),
            min_size=1,
            max_size=60,
        ),
        min_size=1,
        max_size=4,
    ),
    st.randoms(use_true_random=False),
)
@settings(deadline=None, max_examples=60)
def test_whatever_the_clocks_say_the_parts_are_the_whole(attempts, chance):
    lives, at = [], 1_000.0
    for rows in attempts:
        seconds, gaps, waited, counted = (np.array(column) for column in zip(*rows, strict=True))
        finish = at + np.cumsum(gaps) + seconds
        start = float(finish[0] - seconds[0]) - chance.choice([0.0, 30.0])
        end = float(finish.max()) + chance.choice([0.0, 500.0])
        dragged = np.full(len(rows), chance.choice([0.0, 3.0]))
        lives.append(life(seconds, finish=finish, start=start, end=end, waited=waited, counted=counted, dragged=dragged))
        at = float(finish[-1]) + chance.choice([-100.0, 0.0, 400.0])
    ledger = goodput.account(lives)
    assert (ledger.seconds >= -1e-9).all() and (ledger.finish >= ledger.begin).all()
    assert (ledger.begin[1:] >= ledger.finish[:-1] - 1e-6).all(), "no second twice"
    np.testing.assert_allclose(ledger.seconds.sum(axis=1), ledger.finish - ledger.begin, atol=1e-6)
    assert ledger.wall_seconds <= ledger.finish.max() - ledger.begin.min() + 1e-6
    hours = ledger.binned(37.0)
    for cause in CAUSES:
        assert sum(row[2] for row in hours if row[1] == cause) == pytest.approx(ledger.totals()[cause], abs=1e-5)
    assert all(sum(row[2] for row in hours if row[0] == begin) <= 37.0 + 1e-6 for begin in {row[0] for row in hours})


def test_a_clock_that_was_set_is_told_from_a_machine_that_stood():
    """Both look the same in the steps: the collector has waited for the one and not for the other."""
    step, seconds = np.arange(100), np.full(100, 1.0)
    even = 5000.0 + np.arange(100.0)
    for leap in (3600.0, -3600.0):
        was_set = even + np.where(step >= 50, leap, 0.0)
        mended = steadied(step, seconds, was_set, (4999.0, 5100.0))
        assert mended is not None and mended[-1] == 5100.0 and np.allclose(np.diff(mended), 1.0)
    stood = even + np.where(step >= 50, 3600.0, 0.0)
    assert steadied(step, seconds, stood, (4999.0, 5100.0 + 3600.0)) is None
    assert steadied(step, seconds, even, (4999.0, 5100.0)) is None
    assert steadied(step, seconds, stood, (9000.0, 9002.0)) is None, "replayed in two seconds: the collector knows nothing"
