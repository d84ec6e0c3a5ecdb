"""The notifiers' HTTP client cannot be sent into the network: refused at connect, whatever the name looks like."""

from __future__ import annotations

import socket

import httpx
import pytest
from holter_monitor.notify import DeliveryFailed, DeliveryRefused
from holter_monitor.notify.http import client, permitted
from sink import Answer, Sink

PRIVATE = ["127.0.0.1", "127.8.9.1", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1", "::1", "fd00::1", "fc00::1"]
PRIVATE += ["::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "2002:0a00:1::1"]
NEVER = ["169.254.169.254", "169.254.1.1", "169.254.170.2", "100.100.100.200", "fd00:ec2::254", "fd20:ce::254", "0.0.0.0", "0.1.2.3", "::"]
NEVER += ["224.0.0.1", "239.1.1.1", "255.255.255.255", "240.0.0.1", "fe80::1", "fe80::1%eth0", "ff02::1", "192.0.0.192", "198.18.0.1"]
NEVER += ["::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::", "192.0.2.1", "203.0.113.9", "2001:db8::1", "::ffff:0.0.0.0"]
PUBLIC = ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "151.101.1.69"]


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses_need_permission(address: str) -> None:
    assert not permitted(address, allow_private=False) and permitted(address, allow_private=True)


@pytest.mark.parametrize("address", NEVER)
def test_metadata_and_the_like_are_refused_even_then(address: str) -> None:
    assert not permitted(address, allow_private=False) and not permitted(address, allow_private=True)


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_permitted(address: str) -> None:
    assert permitted(address, allow_private=False)


@pytest.mark.parametrize(
    "host",
    ["127.1", "0x7f.1", "2130706433", "0177.0.0.1", "0", "localhost", "[::1]", "[::ffff:127.0.0.1]", "user:pw@127.0.0.1", "127.0.0.1."],
)
def test_no_way_of_writing_loopback_gets_through(host: str) -> None:
    with Sink() as sink, client() as http:
        with pytest.raises((DeliveryRefused, DeliveryFailed, httpx.InvalidURL)):
            http.post(f"http://{host}:{sink.port}/")
        assert sink.calls == []


def test_a_name_is_resolved_once_and_the_checked_address_is_the_one_that_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """DNS rebinding: the second answer would be another one, so there is no second question."""
    asked = []

    def resolver(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1" if len(asked) == 1 else "127.0.0.2", port))]

    with Sink() as sink, client(allow_private=True) as http:
        real = socket.getaddrinfo
        monkeypatch.setattr(
            socket, "getaddrinfo", lambda host, *a, **k: resolver(host, a[0]) if host == "evil.test" else real(host, *a, **k)
        )
        http.post(f"http://evil.test:{sink.port}/x")
        assert asked == ["evil.test"] and sink.calls[0].headers["host"] == f"evil.test:{sink.port}"


def test_a_redirect_inward_is_not_followed() -> None:
    with Sink([Answer(302, b"", {"Location": "http://169.254.169.254/"})]) as sink, client(allow_private=True) as http:
        assert http.post(sink.url).status_code == 302 and len(sink.calls) == 1


@pytest.mark.parametrize("url", ["file:///etc/passwd", "gopher://127.0.0.1/", "ftp://example.com/"])
def test_other_schemes_are_refused(url: str) -> None:
    with client() as http, pytest.raises((DeliveryRefused, httpx.UnsupportedProtocol)):
        http.post(url)
