"""The way of a metric, gone once: a point is sent to the collector and asked for again. On the way the clocks are compared."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime

import httpx

from holter_monitor.client import Client
from holter_monitor.errors import ClientError
from holter_monitor.preflight.check import Check

PROJECT = "preflight"
WAIT_SECONDS = 15.0
SKEW_SECONDS = 2.0
"""The collector tells its time in whole seconds."""


def look(url: str, token: str | None) -> Iterator[Check]:
    yield from _clock(url)
    try:
        with Client(url, token=token) as client:
            yield _flow(client)
    except ClientError as error:
        yield Check(
            what="metrics",
            mark="fail",
            found=str(error),
        )


def _clock(url: str) -> Iterator[Check]:
    try:
        answer = httpx.get(f"{url.rstrip('/')}/healthz", timeout=5)
        skew = parsedate_to_datetime(answer.headers["date"]).timestamp() + 0.5 - time.time()
    except (httpx.HTTPError, KeyError, ValueError):
        return  # that it is away is said once, by the metrics
    way = "behind" if skew > 0 else "ahead of"
    if abs(skew) > SKEW_SECONDS:
        yield Check(what="clock", mark="fail", found=f"{abs(skew):.0f} s {way} the collector's", remedy="set the clock (chrony, ntpd)")
    else:
        yield Check(
            what="clock", mark="ok", found=f"within {SKEW_SECONDS:.0f} s of the collector's", measured={"skew_seconds": round(skew, 1)}
        )


def _flow(client: Client) -> Check:
    run = client.create_run(PROJECT, socket.gethostname())["id"]
    attempt = f"probe-{time.time_ns()}"
    started = time.monotonic()
    client.append(run, attempt, [{"step": 0, "rank": 0, "probe": 1.0}, {"event": "rank_finished", "rank": 0}], key=attempt)
    while time.monotonic() < started + WAIT_SECONDS:
        if "probe" in client.metrics(run) and len(client.series(run, "probe", attempt=attempt)):
            seconds = time.monotonic() - started
            return Check(
                what="metrics", mark="ok", found=f"a point came back after {seconds:.1f} s", measured={"round_trip_seconds": seconds}
            )
        time.sleep(0.1)
    remedy = "look at /readyz and the collector's log: its sample writer may stand still"
    return Check(
        what="metrics", mark="fail", found=f"a point was acknowledged and not to be read {WAIT_SECONDS:.0f} s later", remedy=remedy
    )
