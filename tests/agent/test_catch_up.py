"""Case 31: what gathered in an outage goes at less than twice the pace at which it gathered, from every agent, and a long one is made up for."""

import pytest
from holter.node.catch_up import CatchUp


def drained(seconds, rate=1.0):
    """`(seconds until nothing waits, frames of the busiest ten seconds)` after an outage, with new frames at `rate` as before."""
    pace, now, sent = CatchUp(), 0.0, []
    pace.failed(now)
    pace.failed(now + seconds / 2)
    back = now = seconds
    while waiting := int(now * rate) - len(sent):
        sent.append(now)
        gap = pace.arrived(now, waiting - 1)
        now += max(gap, 0.002)  # an answer takes a moment
    return now - back, max(sum(at <= other < at + 10 for other in sent) for at in sent[:3000])


@pytest.mark.parametrize("rate", [1.0, 4.0])
@pytest.mark.parametrize("seconds", [5, 20, 120])
def test_a_short_outage_is_made_up_for_at_less_than_twice_the_pace(seconds, rate):
    took, busiest = drained(seconds, rate)
    assert busiest <= 2 * 10 * rate and took <= 2 * seconds


def test_a_night_is_made_up_for_in_minutes():
    took, _ = drained(8 * 3600)
    assert 300 < took < 900


@pytest.mark.parametrize(("seconds", "waiting"), [(4.9, 100), (60, 0)])
def test_a_blip_and_an_outage_in_which_nothing_gathered_hold_nothing_up(seconds, waiting):
    pace = CatchUp()
    pace.failed(0.0)
    assert pace.arrived(seconds, waiting) == 0.0
    assert pace.arrived(seconds + 1, 5) == 0.0


def test_a_second_outage_while_catching_up_keeps_the_first_ones_pace():
    """All that waits, of both, divided by the second would be too fast."""
    pace = CatchUp()
    pace.failed(0.0)
    gap = pace.arrived(100.0, 99)
    pace.failed(101.0)
    assert pace.arrived(107.0, 104) == gap > 0
    assert pace.arrived(107.0, 0) == 0.0 and pace.arrived(108.0, 1) == 0.0
