"""One run's account: what its time went into, what broke, how often, what it cost. From what the collector answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from holter_monitor.client import Client, Series

Row = dict[str, Any]
SHOWN = ("loss", "grad_norm", "tokens_per_second", "step_time_seconds", "data_wait_seconds")
LEAST = 0.0005
"""Share of the wall time below which a part is 0.0 %."""
PARTS = {
    "productive": "effective training time",
    "startup": "starting up",
    "data": "waiting for data",
    "stragglers": "waiting for slow ranks",
    "checkpoints": "checkpoints",
    "evaluations": "evaluations",
    "stalls": "stalls and hangs",
    "recomputed": "steps done again after a restart",
    "down": "down between attempts",
    "other": "in an attempt, in no recorded step",
}
"""A cause of the collector's, as it is said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    run: Row
    attempts: Sequence[Row]
    goodput: Row
    """As `GET /runs/{id}/goodput` answers."""
    incidents: Sequence[Row]
    """Oldest onset first."""
    checkpoints: Row = field(default_factory=dict)
    """As `GET /runs/{id}/checkpoints` answers."""
    series: Sequence[Series] = field(default=())
    gpu_hour_price: float | None = None
    """In whatever currency the reader thinks."""

    def gpu_hours(self, seconds: float) -> float:
        """Wall seconds of the whole run in hours of one rank's GPU."""
        return float(seconds * self.run["world_size"] / 3600)

    def parts(self) -> list[tuple[str, str, float, float]]:
        """(cause, what, seconds, share of the wall time), the parts that round to more than nothing, in a fixed order."""
        wall = self.goodput["wall_seconds"] or 0.0
        found = [(cause, name, float(self.goodput[f"{cause}_seconds"] or 0.0)) for cause, name in PARTS.items()]
        return [(cause, name, seconds, seconds / wall if wall else 0.0) for cause, name, seconds in found if seconds > LEAST * wall]

    @property
    def lost_seconds(self) -> float:
        return max(0.0, (self.goodput["wall_seconds"] or 0.0) - (self.goodput["productive_seconds"] or 0.0))

    def told(self) -> list[tuple[Row, list[Row]]]:
        """The incidents that are nobody's symptom, oldest first, each with its symptoms."""
        known = {incident["id"] for incident in self.incidents}
        roots = [incident for incident in self.incidents if incident.get("parent") not in known]
        return [(root, [each for each in self.incidents if each.get("parent") == root["id"]]) for root in roots]


def read(client: Client, word: str, *, gpu_hour_price: float | None = None, with_series: bool = False) -> Account:
    """The account of the run that `word` means. Raises `ClientError`."""
    run = client.find_run(word)
    known = set(client.metrics(run["id"])) if with_series else set()
    return Account(
        run=run,
        attempts=sorted(client.attempts(run["id"]), key=lambda attempt: int(attempt["number"])),
        goodput=client.goodput(run["id"]),
        incidents=sorted(client.incidents(run=run["id"]), key=lambda incident: int(incident["onset_step"])),
        checkpoints=client.checkpoints(run["id"]),
        series=[client.series(run["id"], metric, max_points=1_500) for metric in SHOWN if metric in known],
        gpu_hour_price=gpu_hour_price,
    )
