"""One run's account: what its time went into, what broke, how often, what it cost. From what the collector answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from holter_monitor.client import Client, Series

Row = dict[str, Any]
SHOWN = ("loss", "grad_norm", "tokens_per_second", "step_time_seconds", "data_wait_seconds")
PARTS = {
    "productive_seconds": "steps that count",
    "slow_seconds": "slow steps (stalls, checkpoints, evaluations)",
    "starting_seconds": "starting up",
    "repeated_seconds": "steps done again after a restart",
    "down_seconds": "down between attempts",
    "other_seconds": "in an attempt, in no recorded step",
}
BROKEN = ("failed", "lost", "preempted")
"""How an attempt ends that did not end by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    run: Row
    attempts: Sequence[Row]
    goodput: Row
    """As `GET /runs/{id}/goodput` answers."""
    incidents: Sequence[Row]
    """Oldest onset first."""
    series: Sequence[Series] = field(default=())
    gpu_hour_price: float | None = None
    """In whatever currency the reader thinks."""

    @property
    def num_failures(self) -> int:
        return sum(attempt["state"] in BROKEN for attempt in self.attempts)

    @property
    def seconds_between_failures(self) -> float | None:
        """Mean time between failures: what the attempts lived, over how many broke."""
        lived = sum(_seconds(attempt["started"], attempt["ended"] or self.run["updated"]) for attempt in self.attempts)
        return lived / self.num_failures if self.num_failures else None

    @property
    def seconds_to_recover(self) -> float | None:
        """Mean time to recover: from the end of a broken attempt to the start of the next."""
        pairs = zip(self.attempts, self.attempts[1:], strict=False)
        gaps = [_seconds(one["ended"], after["started"]) for one, after in pairs if one["state"] in BROKEN and one["ended"]]
        return sum(gaps) / len(gaps) if gaps else None

    def gpu_hours(self, seconds: float) -> float:
        """Wall seconds of the whole run in hours of one rank's GPU."""
        return float(seconds * self.run["world_size"] / 3600)

    def parts(self) -> list[tuple[str, float, float]]:
        """(what, seconds, share of the wall time), the parts that are there, in a fixed order."""
        wall = self.goodput["wall_seconds"] or 0.0
        found = [(name, float(self.goodput[key] or 0.0)) for key, name in PARTS.items()]
        return [(name, seconds, seconds / wall if wall else 0.0) for name, seconds in found if seconds > 0]


def read(client: Client, word: str, *, gpu_hour_price: float | None = None, with_series: bool = False) -> Account:
    """The account of the run that `word` means. Raises `ClientError`."""
    run = client.find_run(word)
    known = set(client.metrics(run["id"])) if with_series else set()
    return Account(
        run=run,
        attempts=sorted(client.attempts(run["id"]), key=lambda attempt: int(attempt["number"])),
        goodput=client.goodput(run["id"]),
        incidents=sorted(client.incidents(run=run["id"]), key=lambda incident: int(incident["onset_step"])),
        series=[client.series(run["id"], metric, max_points=1_500) for metric in SHOWN if metric in known],
        gpu_hour_price=gpu_hour_price,
    )


def _seconds(start: str, end: str) -> float:
    return (_moment(end) - _moment(start)).total_seconds()


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))
