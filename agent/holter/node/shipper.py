"""Takes frames from the spools to the collector: one at a time, oldest first, each until it is acknowledged or refused for good."""

from __future__ import annotations

import http.client
import json
import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from holter.frame import CONTENT_TYPE, Frame, decode, encode
from holter.node.backoff import LONGEST_DELAY, Backoff
from holter.node.catch_up import CatchUp
from holter.node.envelope import field_of, hollow, parts, seq_of, stamp
from holter.node.finality import Finality
from holter.node.quarantine import Quarantine
from holter.node.records import Record
from holter.node.spool import Spool
from holter.node.transport import Answer, Transport
from holter.settings import Settings

_log = logging.getLogger("holter.node")
TOKEN_EVERY = 60.0
IDLE = -1.0
HURRIED_DELAY = 5.0
"""An agent that is about to end asks so often at least: a longer wait could be its last."""


@dataclass(eq=False)
class Destination:
    """One run at the collector: what to say when it is created, its frames, and its id once it is known."""

    about: dict[str, Any]
    spool: Spool
    run_id: str = ""
    advice: dict[str, Any] = field(default_factory=dict)
    """What the collector last advised; the agent's loop shows it to the ranks."""
    stacks_asked: dict[str, Any] = field(default_factory=dict)
    """The newest request for stacks, `{"id": …}`."""
    not_before: float = 0.0
    """Monotonic time before which this run is left alone, so that one the collector does not want holds up no other."""
    untold: dict[str, int] = field(default_factory=dict)
    """Losses, by reason, that the collector would not even hear of; the next frame of the run declares them again."""

    def take_untold(self) -> dict[str, int]:
        taken, self.untold = self.untold, {}
        return taken

    def add_untold(self, lost: dict[str, int]) -> None:
        for reason, count in lost.items():
            self.untold[reason] = self.untold.get(reason, 0) + count


@dataclass
class Refused:
    """A frame, or a part of one, that the collector will never take, and the losses that it would not hear of either."""

    data: bytes
    rows: int
    events: int
    untold: dict[str, int]


def _taken_by_another(data: bytes, record: Record) -> Refused:
    """A frame whose identity a copy of this agent has used for another: the run's next frame declares what was lost with it."""
    found = hollow(data, "frame_refused")
    return Refused(data, record.rows, record.events, found[1] if found else {"frame_refused": record.rows + record.events})


class Shipper(threading.Thread):
    """The thread that waits for the network, so that the agent's loop never does."""

    def __init__(self, settings: Settings, quarantine: Path) -> None:
        super().__init__(name="holter-shipper", daemon=True)
        self._settings = settings
        self._token = settings.current_token()
        self._transport = Transport(settings.url)
        self._quarantine = Quarantine(quarantine)
        self._token_refused_at = float("-inf")
        self._destinations: list[Destination] = []
        self._wake = threading.Condition()
        self._backoff = Backoff()
        self._finality = Finality()
        self._catch_up = CatchUp()
        self.is_hurried = False
        """What waits goes as fast as it can: the agent is about to end."""
        self._is_stopping = False
        self._problem = ""
        self.acked_rows = 0
        self.acked_events = 0
        self.settled_at = float("-inf")
        """Monotonic time at which a frame last arrived, or was refused for good."""

    def add(self, destination: Destination) -> None:
        with self._wake:
            self._destinations.append(destination)
            self._wake.notify()

    def remove(self, destination: Destination) -> None:
        with self._wake:
            self._destinations.remove(destination)

    def wake(self) -> None:
        """There is something new to ship."""
        with self._wake:
            self._wake.notify()

    def stop(self) -> None:
        with self._wake:
            self._is_stopping = True
            self._wake.notify()

    def run(self) -> None:
        while not self._is_stopping:
            try:
                wait = self._ship_next()
            except Exception:  # noqa: BLE001
                # The shipper's guard: what it cannot understand it must survive, or a blind agent looks healthy.
                _log.exception("shipping failed")
                wait = self._backoff.delay()
            if wait:
                self._pause(wait)

    def _pause(self, seconds: float) -> None:
        with self._wake:
            if self._is_stopping:
                return
            if seconds == IDLE:
                self._wake.wait(1.0)
                return
            # A back-off is kept even when new frames come.
            until = time.monotonic() + seconds
            while not self._is_stopping and (left := until - time.monotonic()) > 0:
                self._wake.wait(left)

    def _ship_next(self) -> float:
        """Ship one frame; the answer is how long to wait before the next."""
        if self._is_token_refused():
            return 1.0
        for destination in list(self._destinations):
            if destination.not_before > time.monotonic() or (record := destination.spool.peek()) is None:
                continue
            if not destination.run_id:
                wait = self._create_run(destination)
                if wait > 0:
                    return wait
                if not destination.run_id:
                    continue
            return self._ship(destination, record)
        return IDLE

    def _create_run(self, destination: Destination) -> float:
        try:
            answer = self._post("/api/v1/runs", json.dumps(destination.about, default=str).encode(), "application/json")
        except (OSError, http.client.HTTPException) as error:
            return self._trouble(f"{type(error).__name__}: {error}")
        if answer.status in (200, 201):
            run_id = field_of(answer.body, "id")
            if isinstance(run_id, str | int) and str(run_id):
                destination.run_id = str(run_id)
                return 0.0
            return self._trouble("an answer to POST /runs without an id")
        if answer.status in (400, 404, 409, 422):
            return self._leave_alone(destination, f"POST /runs: status {answer.status}")
        return self._refused(answer, "POST /runs")

    def _ship(self, destination: Destination, record: Record) -> float:
        data = stamp(record.payload, destination.run_id)
        if data is None:
            self._quarantine.keep(record.payload, "damaged in the spool")
            destination.add_untold({"frame_damaged": record.rows + record.events})
            destination.spool.ack(record.number)
            return 0.0
        try:
            answer = self._post("/api/v1/frames", data, CONTENT_TYPE)
        except (OSError, http.client.HTTPException) as error:
            return self._trouble(f"{type(error).__name__}: {error}")
        if answer.status == 200:
            return self._acknowledged(destination, record, answer.body)
        if answer.status in (400, 415) and self._finality.is_final(answer, data):
            refused: list[Refused] = []
            return self._declare(data, record.rows, record.events, refused) or self._settle(destination, record, refused)
        if answer.status == 409 and field_of(answer.body, "field") == "seq":
            return self._settle(destination, record, [_taken_by_another(data, record)])
        if answer.status == 409:
            destination.run_id = ""
            return self._leave_alone(destination, "the run is unknown to the collector")
        if answer.status in (413, 422):
            return self._split(destination, record, decode(data))
        return self._refused(answer, "POST /frames")

    def _acknowledged(self, destination: Destination, record: Record, body: bytes) -> float:
        if field_of(body, "ack") != seq_of(record.payload):
            # A proxy's page, a captive portal: nothing says that the frame is safe.
            return self._trouble("an answer 200 that acknowledges nothing")
        advice = field_of(body, "advice")
        if isinstance(advice, dict):
            destination.advice = advice
        asked = field_of(body, "stacks")
        if isinstance(asked, dict):
            destination.stacks_asked = asked
        return self._settle(destination, record)

    def _settle(self, destination: Destination, record: Record, refused: Sequence[Refused] = ()) -> float:
        """The record has arrived, or it is known what of it never will. What was refused is counted here and not before: a record that has
        to come again is counted once."""
        if self._problem:
            _log.info("the collector takes frames again")
            self._problem = ""
        self._backoff.reset()
        self.acked_rows += record.rows - sum(part.rows for part in refused)
        self.acked_events += record.events - sum(part.events for part in refused)
        for part in refused:
            self._quarantine.keep(part.data, "its rows or events are counted as lost")
            destination.add_untold(part.untold)
        destination.spool.ack(record.number)
        self.settled_at = time.monotonic()
        gap = self._catch_up.arrived(self.settled_at, sum(found.spool.num_waiting for found in self._destinations))
        return 0.0 if self.is_hurried else gap

    def _split(self, destination: Destination, record: Record, frame: Frame) -> float:
        """Too large, or one row of it cannot be taken: send it in parts."""
        refused: list[Refused] = []
        return self._ship_parts(frame, refused) or self._settle(destination, record, refused)

    def _ship_parts(self, frame: Frame, refused: list[Refused]) -> float:
        """The parts get a boot made from the frame's own, so a repeat is still known as one."""
        for part in parts(frame):
            data = encode(part)
            try:
                answer = self._post("/api/v1/frames", data, CONTENT_TYPE)
            except (OSError, http.client.HTTPException) as error:
                return self._trouble(f"{type(error).__name__}: {error}")
            wait = 0.0
            if answer.status in (413, 422) and len(parts(part)) > 1:
                wait = self._ship_parts(part, refused)
            elif self._finality.is_final(answer, data):
                wait = self._declare(data, part.rows, len(part.events), refused)
            elif answer.status != 200 or field_of(answer.body, "ack") != part.seq:
                return self._refused(answer, "POST /frames")
            if wait > 0:
                return wait
        return 0.0

    def _declare(self, data: bytes, rows: int, events: int, refused: list[Refused]) -> float:
        """In place of a frame that is refused: what is lost with it, at once, so that neither our end nor the run's takes the counts along."""
        found = hollow(data, "frame_refused")
        declaration, lost = found or (b"", {"frame_refused": rows + events})
        if declaration and rows + events:
            try:
                answer = self._post("/api/v1/frames", declaration, CONTENT_TYPE)
            except (OSError, http.client.HTTPException) as error:
                return self._trouble(f"{type(error).__name__}: {error}")
            if answer.status == 200 and field_of(answer.body, "ack") == seq_of(data):
                lost = {}
            elif not self._finality.is_final(answer, declaration):
                return self._refused(answer, "POST /frames")
        refused.append(Refused(data, rows, events, lost))
        return 0.0

    def _refused(self, answer: Answer, what: str) -> float:
        if answer.status in (401, 403):
            return self._unauthorised(answer, what)
        return self._trouble(f"{what}: status {answer.status}", answer.retry_after)

    def _unauthorised(self, answer: Answer, what: str) -> float:
        self._token_refused_at = time.monotonic()
        self._trouble(f"{what}: status {answer.status}, the token is not accepted")
        return 0.01 if not self._is_token_refused() else 1.0

    def _is_token_refused(self) -> bool:
        """Whether to wait for another token: the file is looked at each second, the same token is tried again once a minute."""
        token = self._settings.current_token()
        if token != self._token:
            self._token, self._token_refused_at = token, float("-inf")
        return time.monotonic() - self._token_refused_at < TOKEN_EVERY

    def _leave_alone(self, destination: Destination, problem: str) -> float:
        destination.not_before = time.monotonic() + self._trouble(problem)
        return 0.0

    def _trouble(self, problem: str, retry_after: str = "") -> float:
        self._catch_up.failed(time.monotonic())
        if problem != self._problem:
            self._problem = problem
            _log.warning("frames wait in the spool: %s", problem)
        return self._backoff.delay(retry_after, HURRIED_DELAY if self.is_hurried else LONGEST_DELAY)

    def _post(self, path: str, body: bytes, content_type: str) -> Answer:
        headers = {"Content-Type": content_type, "Accept": "application/json", "User-Agent": "holter-agent"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        return self._transport.post(path, body, headers)
