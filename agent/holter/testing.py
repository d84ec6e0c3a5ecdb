"""A collector to test against: a real HTTP server on loopback that speaks the contract of ingest and keeps what it got."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

from holter.errors import FrameError
from holter.frame import Event, Frame, decode


@dataclass(frozen=True)
class Reply:
    """A scripted answer. `body` None means what a collector would say; `seconds` is how long it takes over it."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    seconds: float = 0.0
    is_stored: bool = False
    """Keep the frame although the answer is not 200: the answer that is lost after the commit."""


class CollectorStandIn:
    """Stands in for `holter serve`. `script` maps a path to replies that are used up first; after them every frame is taken.

    >>> with CollectorStandIn().serving() as collector:
    ...     run = holter.init(url=collector.url)
    """

    def __init__(self, *, port: int = 0, token: str = "") -> None:
        self.port = port
        self.token = token
        self.runs: dict[str, dict[str, Any]] = {}
        self.frames: list[Frame] = []
        self.repeats = 0
        self.requests: list[tuple[float, str, str]] = []
        """`(monotonic time, path, Authorization)` of every request."""
        self.script: dict[str, list[Reply]] = {"/api/v1/runs": [], "/api/v1/frames": []}
        self.advice: dict[str, Any] = {}
        self.stacks_asked: dict[str, Any] = {}
        """A request for stacks, as it rides in every acknowledgement."""
        self.max_body_bytes = 0
        self._changed = threading.Condition()
        self._server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @contextmanager
    def serving(self) -> Iterator[CollectorStandIn]:
        """Listen on `port` (0: a free one, kept for the next time)."""
        self.start()
        try:
            yield self
        finally:
            self.stop()

    def start(self) -> None:
        server = ThreadingHTTPServer(("127.0.0.1", self.port), _handler(self))
        server.daemon_threads = True
        self.port = server.server_address[1]
        self._server = server
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    # -- what arrived ----------------------------------------------------------------------------------------------------------

    @property
    def events(self) -> list[Event]:
        with self._changed:
            return [event for frame in self.frames for event in frame.events]

    def points(self, metric: str, rank: int | None = None) -> list[tuple[int, float]]:
        """`(step, value)` of every value of `metric`, in the order of arrival."""
        found: list[tuple[int, float]] = []
        with self._changed:
            for frame in self.frames:
                column = frame.metrics.get(metric)
                if column is None:
                    continue
                is_wanted = np.ones(frame.rows, bool) if column.present is None else column.present
                if rank is not None:
                    is_wanted = is_wanted & (frame.rank == rank)
                found += zip(frame.step[is_wanted].tolist(), column.values[is_wanted].astype(float).tolist(), strict=True)
        return found

    def wait_for(self, condition: Callable[[CollectorStandIn], object], seconds: float = 20.0) -> None:
        """Return once `condition(self)` holds. Raises `TimeoutError`."""
        until = time.monotonic() + seconds
        while not condition(self):
            if time.monotonic() > until:
                raise TimeoutError(f"not within {seconds} s; got {len(self.frames)} frames, events {[e['event'] for e in self.events]}")
            with self._changed:
                self._changed.wait(0.05)

    def wait_for_event(self, word: str, seconds: float = 20.0) -> Event:
        self.wait_for(lambda self: any(event["event"] == word for event in self.events), seconds)
        return next(event for event in self.events if event["event"] == word)

    # -- answering -------------------------------------------------------------------------------------------------------------

    def answer(self, path: str, authorization: str, body: bytes) -> Reply:
        with self._changed:
            self.requests.append((time.monotonic(), path, authorization))
            replies = self.script.get(path)
            if replies is None:
                return Reply(404)
            scripted = replies.pop(0) if replies else None
            if scripted is not None and not scripted.is_stored and scripted.status != 200:
                return scripted
            if scripted is not None and scripted.body is not None and not scripted.is_stored:
                return scripted
            if self.token and authorization != f"Bearer {self.token}":
                return Reply(401)
            reply = self._create(body) if path == "/api/v1/runs" else self._ingest(body)
            self._changed.notify_all()
            return reply if scripted is None else Reply(scripted.status, scripted.headers, scripted.body or reply.body, scripted.seconds)

    def _create(self, body: bytes) -> Reply:
        about = json.loads(body)
        run_id = f"{about['project']}-{about['name']}"
        self.runs[run_id] = about
        return Reply(200, body=json.dumps({"id": run_id, **about}).encode())

    def _ingest(self, body: bytes) -> Reply:
        if self.max_body_bytes and len(body) > self.max_body_bytes:
            return Reply(413)
        try:
            frame = decode(body)
        except FrameError as error:
            return Reply(400, body=json.dumps({"title": str(error)}).encode())
        if frame.run not in self.runs:
            return Reply(409)
        if any((known.node, known.boot, known.seq) == (frame.node, frame.boot, frame.seq) for known in self.frames):
            self.repeats += 1
        else:
            self.frames.append(frame)
        asked = {"advice": self.advice, "stacks": self.stacks_asked}
        return Reply(200, body=json.dumps({"ack": frame.seq, **{key: value for key, value in asked.items() if value}}).encode())


def _handler(collector: CollectorStandIn) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # head and body are two writes: the second would wait 40 ms for an acknowledgement

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            reply = collector.answer(self.path, self.headers.get("Authorization", ""), body)
            time.sleep(reply.seconds)
            content = reply.body if reply.body is not None else b"{}"
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_words: object) -> None:
            return

    return Handler
