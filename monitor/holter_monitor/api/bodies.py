"""Request bodies, never larger than they may be: on the wire, unpacked, and in proportion."""

from __future__ import annotations

import asyncio
import zlib

import zstandard
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope

from holter_monitor.errors import Problem
from holter_monitor.settings import Limits

INLINE_BYTES = 64 << 10
"""Larger bodies are unpacked on another thread: an unpacking of 8 MiB would hold every other client up."""
STEP = 64 << 10
RATIO_FROM = 64 << 10
WINDOW = 8 << 20


def header(scope: Scope, name: bytes) -> bytes | None:
    for key, value in scope["headers"]:  # a generator would cost three times as much, and a frame asks six times
        if key == name:
            found: bytes = value
            return found
    return None


async def read(scope: Scope, receive: Receive, limits: Limits) -> bytes:
    """The whole body, unpacked. Raises `Problem` 400, 413, 415."""
    body = await _receive(scope, receive, limits.body_bytes)
    declared = header(scope, b"content-encoding")
    if declared is None:
        return body
    coding = declared.decode("latin-1").strip().lower()
    if coding in ("identity", ""):
        return body
    unpack = {"zstd": _zstd, "gzip": _gzip}.get(coding)
    if unpack is None:
        raise Problem(415, "Unknown content coding", field="Content-Encoding", value=coding, remedy="send zstd, gzip or identity")
    if len(body) <= INLINE_BYTES:
        return unpack(body, limits)
    return await asyncio.to_thread(unpack, body, limits)


async def _receive(scope: Scope, receive: Receive, limit: int) -> bytes:
    declared = header(scope, b"content-length")
    if declared is not None and declared.isdigit() and int(declared) > limit:
        raise _too_large(int(declared), limit)
    parts: list[bytes] = []
    length = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        part = message.get("body", b"")
        length += len(part)
        if length > limit:
            raise _too_large(length, limit)
        parts.append(part)
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)


def _too_large(length: int, limit: int) -> Problem:
    return Problem(413, "The body is too large", field="body", value=f"{length} bytes", remedy=f"at most {limit} bytes: send several")


def _zstd(body: bytes, limits: Limits) -> bytes:
    try:
        with zstandard.ZstdDecompressor(max_window_size=WINDOW).stream_reader(body, read_across_frames=True) as reader:
            return _bounded(reader.read, len(body), limits)
    except zstandard.ZstdError as error:
        raise Problem(400, "The body cannot be unpacked", field="body", value=str(error), remedy="send a whole zstd frame") from error


def _gzip(body: bytes, limits: Limits) -> bytes:
    machine = zlib.decompressobj(31)
    rest = body

    def step(size: int) -> bytes:
        nonlocal rest
        part = machine.decompress(rest, size)
        rest = machine.unconsumed_tail
        return part

    try:
        unpacked = _bounded(step, len(body), limits)
    except zlib.error as error:
        raise Problem(400, "The body cannot be unpacked", field="body", value=str(error), remedy="send a whole gzip member") from error
    if not machine.eof or machine.unused_data:
        raise Problem(400, "The body cannot be unpacked", field="body", value="cut short or continued", remedy="send one whole gzip member")
    return unpacked


def _bounded(read_some: object, wire: int, limits: Limits) -> bytes:
    assert callable(read_some)
    parts: list[bytes] = []
    length = 0
    while part := read_some(STEP):
        length += len(part)
        if length > limits.decompressed_bytes:
            raise Problem(
                413,
                "The unpacked body is too large",
                field="body",
                value=f"more than {limits.decompressed_bytes} bytes",
                remedy="send several",
            )
        if length > max(RATIO_FROM, wire * limits.ratio):
            raise Problem(
                413,
                "The body unpacks to too much",
                field="body",
                value=f"more than {limits.ratio} times its size",
                remedy="real points do not compress so far",
            )
        parts.append(part)
    return b"".join(parts)
