"""Takes frames from the spools to the collector: one at a time, oldest first, each until it is acknowledged or refused for good."""

from __future__ import annotations

import contextlib
import email.utils
import http.client
import json
import logging
import os
import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from holter.frame import CONTENT_TYPE, Frame, decode, encode
from holter.node.envelope import field_of, parts, seq_of, stamp
from holter.node.records import Record
from holter.node.spool import Spool
from holter.node.transport import Answer, Transport
from holter.settings import Settings

_log = logging.getLogger("holter.node")
FIRST_DELAY = 0.5
LONGEST_DELAY = 30.0
LONGEST_RETRY_AFTER = 300.0
SPREAD = 0.25
"""Of what the collector asked for: a long wait has gathered more agents, so they come back over a longer time."""
TOKEN_EVERY = 60.0
MAX_QUARANTINED = 32
IDLE = -1.0


class Backoff:
    """Full jitter, doubling; the collector's own word is kept, with the jitter on top: agents that were told the same come back spread."""

    def __init__(self) -> None:
        self.tries = 0

    def delay(self, retry_after: str = "") -> float:
        """Seconds to wait, never none. `retry_after` is seconds or a date; what is neither is ignored."""
        asked = min(max(_seconds(retry_after) or 0.0, 0.0), LONGEST_RETRY_AFTER)
        top = max(min(LONGEST_DELAY, FIRST_DELAY * 2.0**self.tries), asked * SPREAD)
        self.tries += 1
        return asked + random.uniform(FIRST_DELAY / 2, top)  # noqa: S311  jitter, no secret

    def reset(self) -> None:
        self.tries = 0


def _seconds(text: str) -> float | None:
    if not text:
        return None
    try:
        return float(int(text))
    except (ValueError, OverflowError):
        pass
    try:
        return email.utils.parsedate_to_datetime(text).timestamp() - time.time()
    except (ValueError, TypeError, OverflowError):
        return None


@dataclass
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
    refused: dict[str, int] = field(default_factory=dict)
    """Rows and events that the collector refused for good, by reason, since they were last told."""

    def take_refused(self) -> dict[str, int]:
        taken, self.refused = self.refused, {}
        return taken


class Shipper(threading.Thread):
    """The thread that waits for the network, so that the agent's loop never does."""

    def __init__(self, settings: Settings, quarantine: Path) -> None:
        super().__init__(name="holter-shipper", daemon=True)
        self._settings = settings
        self._token = settings.current_token()
        self._transport = Transport(settings.url)
        self._quarantine = quarantine
        self._token_refused_at = float("-inf")
        self._destinations: list[Destination] = []
        self._wake = threading.Condition()
        self._backoff = Backoff()
        self._is_stopping = False
        self._problem = ""
        self.acked_rows = 0
        self.acked_events = 0

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
            self._refuse(destination, record, record.payload, "frame_damaged")
            return 0.0
        try:
            answer = self._post("/api/v1/frames", data, CONTENT_TYPE)
        except (OSError, http.client.HTTPException) as error:
            return self._trouble(f"{type(error).__name__}: {error}")
        if answer.status == 200:
            return self._acknowledged(destination, record, answer.body)
        if answer.status in (400, 415):
            self._refuse(destination, record, data, "frame_refused")
            return 0.0
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
        self._settle(destination, record)
        advice = field_of(body, "advice")
        if isinstance(advice, dict):
            destination.advice = advice
        asked = field_of(body, "stacks")
        if isinstance(asked, dict):
            destination.stacks_asked = asked
        return 0.0

    def _settle(self, destination: Destination, record: Record, refused: Sequence[Frame] = ()) -> None:
        if self._problem:
            _log.info("the collector takes frames again")
            self._problem = ""
        self._backoff.reset()
        self.acked_rows += record.rows - sum(part.rows for part in refused)
        self.acked_events += record.events - sum(len(part.events) for part in refused)
        destination.spool.ack(record.number)

    def _split(self, destination: Destination, record: Record, frame: Frame) -> float:
        """Too large, or one row of it cannot be taken: send it in parts. What is refused is counted once all the others have arrived:
        a record that has to come again is counted once."""
        refused: list[Frame] = []
        wait = self._ship_parts(frame, refused)
        if wait > 0:
            return wait
        for part in refused:
            self._put_aside(destination, encode(part), "frame_refused", part.rows + len(part.events))
        self._settle(destination, record, refused)
        return 0.0

    def _ship_parts(self, frame: Frame, refused: list[Frame]) -> float:
        """The parts get a boot made from the frame's own, so a repeat is still known as one."""
        for part in parts(frame):
            try:
                answer = self._post("/api/v1/frames", encode(part), CONTENT_TYPE)
            except (OSError, http.client.HTTPException) as error:
                return self._trouble(f"{type(error).__name__}: {error}")
            if answer.status in (413, 422) and len(parts(part)) > 1:
                wait = self._ship_parts(part, refused)
                if wait > 0:
                    return wait
            elif answer.status in (400, 413, 415, 422):
                refused.append(part)
            elif answer.status != 200 or field_of(answer.body, "ack") != part.seq:
                return self._refused(answer, "POST /frames")
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
        if problem != self._problem:
            self._problem = problem
            _log.warning("frames wait in the spool: %s", problem)
        return self._backoff.delay(retry_after)

    def _refuse(self, destination: Destination, record: Record, data: bytes, reason: str) -> None:
        self._put_aside(destination, data, reason, record.rows + record.events)
        destination.spool.ack(record.number)

    def _put_aside(self, destination: Destination, data: bytes, reason: str, count: int) -> None:
        """Keep a refused frame for a person to look at; it is never sent again."""
        destination.refused[reason] = destination.refused.get(reason, 0) + count
        _log.error("the collector refused a frame (%s); it is kept in %s", reason, self._quarantine)
        with contextlib.suppress(OSError):
            self._quarantine.mkdir(parents=True, exist_ok=True, mode=0o700)
            kept = sorted(self._quarantine.glob("*.frame"), key=lambda path: path.stat().st_mtime)
            for old in kept[: max(0, len(kept) - MAX_QUARANTINED + 1)]:
                old.unlink()
            (self._quarantine / f"{time.time_ns()}-{os.getpid()}.frame").write_bytes(data)

    def _post(self, path: str, body: bytes, content_type: str) -> Answer:
        headers = {"Content-Type": content_type, "Accept": "application/json", "User-Agent": "holter-agent"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        return self._transport.post(path, body, headers)
