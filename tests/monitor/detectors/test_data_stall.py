"""Waiting for data: its share of the step."""

import numpy as np
import pytest
from detector_streams import calm, feed, paced
from holter_monitor.detectors.data_stall import DataStall
from holter_monitor.findings import Severity


def waiting(gain, seed=0, count=2000):
    rng = np.random.default_rng(seed)
    waits = 0.015 * np.exp(0.3 * rng.standard_normal(count))
    waits[1000:] += gain * np.clip(np.arange(count - 1000) / 400, 0, 1)
    return calm(count, seed) + waits, waits


@pytest.mark.parametrize("gain", [0.1, 0.25, 1.5])
def test_growing_waits_are_found(gain):
    seconds, waits = waiting(gain)
    said = feed(DataStall(), paced(seconds, waits=waits))
    assert said and 1000 <= said[0].detected_step < 1600 and said[0].onset_step >= 950
    assert said[-1].severity == (Severity.CRITICAL if gain > 1 else Severity.WARNING)
    assert said[-1].cost_seconds == pytest.approx((waits[1000:] - 0.015).sum(), rel=0.25)


def test_steady_waits_are_not_even_large_ones():
    rng = np.random.default_rng(1)
    waits = 0.2 * np.exp(0.3 * rng.standard_normal(2000))
    assert not feed(DataStall(), paced(calm(2000) + waits, waits=waits))


def test_a_wait_that_passes_ends():
    seconds, waits = waiting(0.3)
    seconds[1500:] -= waits[1500:] - 0.015
    waits[1500:] = 0.015
    said = feed(DataStall(), paced(seconds, waits=waits))
    assert said[-1].is_over and 1500 <= said[-1].end_step <= 1580
