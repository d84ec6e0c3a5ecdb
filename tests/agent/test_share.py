"""What is done at every step stays a small share of it."""

from holter.share import Share


def done(share, took_ns, apart_ns, times):
    """How often it was done, at most `times`."""
    for count in range(1, times + 1):
        began = count * apart_ns
        if not share.may_go_on(began, began + took_ns):
            return count
    return times


def test_it_goes_on_while_it_is_cheap_and_stops_where_it_is_not():
    assert done(Share(), 10_000, 100_000_000, 1_000) == 1_000
    assert done(Share(), 10_000, 1_000_000, 1_000) == 64, "10 us of each millisecond"
    assert done(Share(always=1), 10_000, 1_000_000, 10) == 1


def test_a_long_pause_is_no_reason_to_go_on_for_ever():
    share = Share()
    assert done(share, 10_000, 1_000_000, 63) == 63
    assert share.may_go_on(10**12, 10**12 + 10_000)
    began = 10**12
    for count in range(1, 2_000_000):
        if not share.may_go_on(began + count * 100_000, began + count * 100_000 + 10_000):
            break
    assert count < 100_000
