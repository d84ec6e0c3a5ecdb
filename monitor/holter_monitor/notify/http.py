"""The HTTP client of notifiers: it reaches public addresses only, ends in time, and reads little.

Outgoing webhooks are written by users, so they must not become a way into the network: the name is resolved here, the address is checked,
and the connection goes to that very address (a second look-up could answer something else). No redirects, no proxies, no cookies. All of
one request, connect to last byte, fits into one deadline, so a receiver that dribbles cannot hold its worker.
"""

from __future__ import annotations

import logging
import socket
import ssl
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

import httpcore
import httpx

from holter_monitor.notify.errors import DeliveryFailed, DeliveryRefused

DEADLINE_SECONDS = 10.0
LONGEST_ANSWER = 64 * 1024
_METADATA = {
    ip_address(text) for text in ("169.254.169.254", "169.254.170.2", "100.100.100.200", "192.0.0.192", "fd00:ec2::254", "fd20:ce::254")
}
_NAT64 = ip_network("64:ff9b::/96")
# Permitted where the policy says `allow_private`; link-local, multicast, unspecified and reserved addresses never are.
_PRIVATE = [
    ip_network(text) for text in ("127.0.0.0/8", "::1/128", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")
]


class _NoPaths(logging.Filter):
    """httpx logs every URL, and the path of a Slack webhook is its secret."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(f"{arg.scheme}://{arg.host}/***" if isinstance(arg, httpx.URL) else arg for arg in record.args)
        return True


logging.getLogger("httpx").addFilter(_NoPaths())


def client(*, allow_private: bool = False, deadline_seconds: float = DEADLINE_SECONDS) -> httpx.Client:
    """A client for one receiver."""
    transport = _Guarded(allow_private=allow_private, deadline_seconds=deadline_seconds, tls=ssl.create_default_context())
    return httpx.Client(transport=transport, trust_env=False, follow_redirects=False, headers={"User-Agent": "holter-monitor"})


def permitted(address: str, *, allow_private: bool) -> bool:
    """Whether a request may go to this IP address."""
    ip = ip_address(address.partition("%")[0])
    for inner in _embedded(ip):
        if inner in _METADATA:
            return False
        if any(inner.version == network.version and inner in network for network in _PRIVATE):
            if not allow_private:
                return False
        elif not inner.is_global or inner.is_multicast or inner.is_reserved:
            return False
    return True


def _embedded(ip: IPv4Address | IPv6Address) -> list[IPv4Address | IPv6Address]:
    """The IPv4 address that an IPv6 address stands for, where it stands for one; else the address itself."""
    if isinstance(ip, IPv4Address):
        return [ip]
    if ip.ipv4_mapped:
        return [ip.ipv4_mapped]
    if ip.sixtofour:
        return [ip.sixtofour]
    if ip.teredo:
        return list(ip.teredo)
    if ip in _NAT64:
        return [IPv4Address(int(ip) & 0xFFFFFFFF)]
    return [ip]


def resolve(host: str, port: int, *, allow_private: bool) -> str:
    """The first permitted address of the host. Raises `DeliveryFailed` (no answer) or `DeliveryRefused` (no permitted address)."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise DeliveryFailed(f"{host} cannot be resolved: {error}") from None
    addresses = [str(entry[4][0]) for entry in found]
    for address in addresses:
        if permitted(address, allow_private=allow_private):
            return address
    raise DeliveryRefused(
        f"{host} is {addresses[0]}, an address that receivers may not have; if it is meant, set `allow_private: true` in the policy "
        "or HOLTER_ALLOW_PRIVATE_RECEIVERS=1 (addresses of cloud metadata stay refused)"
    )


class _Timed(httpcore.NetworkStream):
    """A connection whose every wait ends with the request's deadline."""

    def __init__(self, stream: httpcore.NetworkStream, ends: float) -> None:
        self.stream, self.ends = stream, ends

    def _left(self) -> float:
        left = self.ends - time.monotonic()
        if left <= 0:
            raise httpcore.ReadTimeout("the request's deadline has passed")
        return left

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self.stream.read(max_bytes, self._left())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self.stream.write(buffer, self._left())

    def close(self) -> None:
        self.stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _Timed(self.stream.start_tls(ssl_context, server_hostname, self._left()), self.ends)

    def get_extra_info(self, info: str) -> Any:
        return self.stream.get_extra_info(info)


class _Backend(httpcore.NetworkBackend):
    """Connects to the address that was checked, and to no other."""

    def __init__(self, *, allow_private: bool, ends: float) -> None:
        self.allow_private, self.ends = allow_private, ends

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        address = resolve(host, port, allow_private=self.allow_private)
        left = max(0.1, self.ends - time.monotonic())
        return _Timed(httpcore.SyncBackend().connect_tcp(address, port, min(left, 5.0)), self.ends)


@dataclass(kw_only=True)
class _Guarded(httpx.BaseTransport):
    """A transport with a connection of its own for each request: alerts are few, and a stale connection would cost a retry."""

    allow_private: bool
    deadline_seconds: float
    tls: ssl.SSLContext

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        ends = time.monotonic() + self.deadline_seconds
        pool = httpcore.ConnectionPool(
            ssl_context=self.tls,
            network_backend=_Backend(allow_private=self.allow_private, ends=ends),
            max_keepalive_connections=0,
        )
        try:
            answer = pool.handle_request(
                httpcore.Request(
                    method=request.method,
                    url=httpcore.URL(
                        scheme=request.url.raw_scheme, host=request.url.raw_host, port=request.url.port, target=request.url.raw_path
                    ),
                    headers=request.headers.raw,
                    content=request.read(),
                )
            )
            body = b"".join(_some(answer))
        except httpcore.UnsupportedProtocol:
            raise DeliveryRefused(f"{request.url.scheme!r} is not a scheme of receivers; use https or http") from None
        except (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError, OSError) as error:
            raise DeliveryFailed(f"{request.url.host}: {type(error).__name__} {error}".strip()) from None
        finally:
            pool.close()
        return httpx.Response(answer.status, headers=_plain(answer.headers), content=body)


def _some(answer: httpcore.Response) -> Iterator[bytes]:
    """The body, as far as it comes within the deadline and the cap. The status has been said; what is cut off, the notifier judges."""
    left = LONGEST_ANSWER
    try:
        for chunk in answer.iter_stream():
            yield chunk[:left]
            left -= len(chunk)
            if left <= 0:
                return
    except (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError):
        return


def _plain(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    # The body is handed on as it came, at most 64 KiB: inflating it could make it any size.
    return [(name, value) for name, value in headers if name.lower() not in (b"content-encoding", b"content-length", b"transfer-encoding")]
