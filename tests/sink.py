"""A receiver that is a real HTTP server on loopback: answers by script, records what came, can be as strict as its model."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Answer:
    """What the sink does with one request."""

    status: int = 200
    body: bytes = b"ok"
    headers: dict[str, str] = field(default_factory=dict)
    misdeed: str = ""
    """"hang" (says nothing), "reset", "dribble" (a byte every 0.2 s, for ever), "slow_headers", "endless" (body without end)."""


@dataclass(frozen=True)
class Call:
    at: float
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Sink:
    """`with Sink() as sink:` then `sink.url`. Answers come from `script` first, then from `judge`, else 200 "ok"."""

    def __init__(self, script: Iterable[Answer] = (), judge: Callable[[Call], Answer | None] = lambda _: None, port: int = 0) -> None:
        self.script = deque(script)
        self.judge = judge
        self.calls: list[Call] = []
        self._closing = threading.Event()
        self._arrived = threading.Condition()
        self._server = ThreadingHTTPServer(("127.0.0.1", port), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    @property
    def port(self) -> int:
        return self._server.server_address[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Sink:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()

    def wait(self, count: int, timeout: float = 20.0) -> list[Call]:
        """The calls, once there are so many; fails when they do not come in time."""
        with self._arrived:
            assert self._arrived.wait_for(lambda: len(self.calls) >= count, timeout), f"{len(self.calls)} of {count} calls came"
            return list(self.calls)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        sink = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # head and body are two writes: the second would wait 40 ms for an acknowledgement

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                call = Call(time.time(), self.path, {name.lower(): value for name, value in self.headers.items()}, body)
                with sink._arrived:
                    sink.calls.append(call)
                    answer = sink.script.popleft() if sink.script else sink.judge(call) or Answer()
                    sink._arrived.notify_all()
                getattr(self, f"_{answer.misdeed or 'answer'}")(answer)

            do_GET = do_PUT = do_POST

            def _answer(self, answer: Answer) -> None:
                self.send_response(answer.status)
                for name, value in {"Content-Length": str(len(answer.body)), **answer.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                try:
                    self.wfile.write(answer.body)
                except OSError:
                    self.close_connection = True

            def _hang(self, _: Answer) -> None:
                sink._closing.wait(60)
                self.close_connection = True

            def _reset(self, _: Answer) -> None:
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()
                self.close_connection = True

            def _slow_headers(self, _: Answer) -> None:
                self._trickle(b"HTTP/1.1 200 OK\r\nX-Slow: ", b"a", 0.2)

            def _dribble(self, answer: Answer) -> None:
                self._trickle(f"HTTP/1.1 {answer.status} OK\r\nContent-Length: 100000\r\n\r\n".encode(), b"a", 0.2)

            def _endless(self, answer: Answer) -> None:
                self._trickle(f"HTTP/1.1 {answer.status} OK\r\n\r\n".encode(), b"a" * 65536, 0.0)

            def _trickle(self, head: bytes, again: bytes, pause: float) -> None:
                """The head, then the same bytes again and again, for at most a minute."""
                self.close_connection = True
                ends = time.monotonic() + 60
                try:
                    self.wfile.write(head)
                    while time.monotonic() < ends and not sink._closing.wait(pause):
                        self.wfile.write(again)
                except OSError:
                    return

            def log_message(self, *_: object) -> None:
                pass

        return Handler
