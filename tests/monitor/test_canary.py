"""What the outside watch hears of the canaries. That they come through the whole pipeline is tested on a served collector."""

from __future__ import annotations

import httpx
import pytest
from holter.frame import Frame
from holter_monitor.alerting.canary import Canary, Perch
from sink import Sink


@pytest.mark.parametrize(("ping_every", "pings"), [(0.0, 3), (3600.0, 1)])
def test_the_watch_is_asked_for_as_often_as_the_policy_says_and_no_oftener(ping_every: float, pings: int) -> None:
    perch = Perch()

    def submit(frame: Frame, _body: bytes) -> None:
        perch.arrived.add(int(frame.step[0]))

    with Sink() as sink, httpx.Client() as http:
        canary = Canary(run="r", submit=submit, sweep=lambda: None, perch=perch, http=http, url=sink.url, every=0.0, ping_every=ping_every)
        assert [canary.fly() for _ in range(3)] == [True] * 3
    assert len(sink.calls) == pings and canary.sent == 3
