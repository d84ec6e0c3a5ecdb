"""One HTTP request with one deadline for all of it: a collector that dribbles a byte a second must not hold the agent."""

from __future__ import annotations

import base64
import contextlib
import http.client
import socket
import ssl
import threading
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import SplitResult, unquote, urlsplit

CONNECT_SECONDS = 2.0
READ_SECONDS = 5.0
REQUEST_SECONDS = 10.0
MAX_ANSWER_BYTES = 64 * 1024
_LOOPBACK = ("localhost", "127.", "::1")


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. `retry_after` is the header as it stands, or an empty string."""

    status: int
    body: bytes
    retry_after: str


class Transport:
    """Keeps one connection to the collector. Not thread-safe. Redirects are not followed: a token is for the collector alone."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._base = parts.path.rstrip("/")
        self._secure = parts.scheme == "https"
        self._host = parts.hostname or "127.0.0.1"
        self._port = parts.port or (443 if self._secure else 80)
        self._url = url
        self._connection: http.client.HTTPConnection | None = None

    def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Raises `OSError` or `http.client.HTTPException` when no whole answer came in time."""
        expired = threading.Event()
        timer = threading.Timer(REQUEST_SECONDS, self._expire, (expired,))
        timer.daemon = True
        timer.start()
        try:
            proxy = self._proxy()
            # Behind a tunnel the collector would hear the proxy's password.
            shown = _credentials(proxy) if proxy and not self._secure else {}
            response = self._response(path, body, {**headers, **shown})
            found = response.read(MAX_ANSWER_BYTES + 1)
            if len(found) > MAX_ANSWER_BYTES:
                raise http.client.HTTPException(f"an answer of more than {MAX_ANSWER_BYTES} bytes")
            if response.will_close:
                self.close()
            return Answer(response.status, found, response.headers.get("Retry-After", ""))
        except BaseException:
            self.close()
            if expired.is_set():
                raise TimeoutError(f"no whole answer in {REQUEST_SECONDS:.0f} s") from None
            raise
        finally:
            timer.cancel()

    def _response(self, path: str, body: bytes, headers: dict[str, str]) -> http.client.HTTPResponse:
        is_kept = self._connection is not None
        try:
            connection = self._connected()
            connection.request("POST", self._target(path), body, headers)
            return connection.getresponse()
        except (ConnectionError, http.client.BadStatusLine):
            if not is_kept:
                raise
            # A kept connection that the collector closed meanwhile says nothing about the collector: once more on a new one.
            self.close()
            connection = self._connected()
            connection.request("POST", self._target(path), body, headers)
            return connection.getresponse()

    def _target(self, path: str) -> str:
        path = self._base + path
        return f"http://{self._host}:{self._port}{path}" if self._proxy() and not self._secure else path

    def _expire(self, expired: threading.Event) -> None:
        expired.set()
        connection = self._connection
        sock = connection.sock if connection is not None else None
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _connected(self) -> http.client.HTTPConnection:
        if self._connection is not None and self._connection.sock is not None:
            return self._connection
        proxy = self._proxy()
        host, port = (proxy.hostname or "", proxy.port or 3128) if proxy else (self._host, self._port)
        connection: http.client.HTTPConnection
        if self._secure:
            connection = http.client.HTTPSConnection(host, port, timeout=CONNECT_SECONDS, context=ssl.create_default_context())
        else:
            connection = http.client.HTTPConnection(host, port, timeout=CONNECT_SECONDS)
        if proxy and self._secure:
            connection.set_tunnel(self._host, self._port, _credentials(proxy))
        self._connection = connection
        connection.connect()
        connection.sock.settimeout(READ_SECONDS)
        return connection

    def _proxy(self) -> SplitResult | None:
        """The proxy that the environment names for the collector; never for loopback."""
        if self._host.startswith(_LOOPBACK) or urllib.request.proxy_bypass(self._host):
            return None
        found = urllib.request.getproxies().get("https" if self._secure else "http")
        return urlsplit(found) if found else None

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.close()


def _credentials(proxy: SplitResult) -> dict[str, str]:
    """What a proxy written as `http://user:password@host` asks for."""
    if proxy.username is None:
        return {}
    pair = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return {"Proxy-Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}
