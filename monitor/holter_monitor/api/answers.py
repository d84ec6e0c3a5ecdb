"""How an answer travels: packed with zstd or gzip as the client takes it, and not at all (304) where the client has the same one already."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
from collections.abc import Callable
from typing import TypeVar

import zstandard
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

Some = TypeVar("Some", str, bytes)
SMALL = 2_000
"""Bytes below which packing does not pay."""
LARGE = 100_000
"""Bytes from which the event loop would feel it: a thread packs them, and a thread hashes them."""
PLAIN = ("application/json", "application/problem+json", "text/")


def _zstd(body: bytes) -> bytes:
    return zstandard.ZstdCompressor(level=1).compress(body)


def _gzip(body: bytes) -> bytes:
    return gzip.compress(body, compresslevel=1, mtime=0)


CODINGS: dict[str, Callable[[bytes], bytes]] = {"zstd": _zstd, "gzip": _gzip}
"""The best first: of a heat map zstd packs five times as fast, and smaller."""


class Answers:
    """Middleware for answers that come in one piece; event streams and files go through as they are."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        asked = Headers(scope=scope)
        started: Message | None = None

        async def answer(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = message
                return
            if started is None:  # the rest of a stream
                await send(message)
                return
            start, started = started, None
            if not message.get("more_body", False):
                start, message = await _finish(scope, asked, start, message)
            await send(start)
            await send(message)

        await self.app(scope, receive, answer)


async def _finish(scope: Scope, asked: Headers, start: Message, message: Message) -> tuple[Message, Message]:
    body, headers = message.get("body", b""), MutableHeaders(raw=start["headers"])
    if "content-encoding" in headers:
        return start, message
    if scope["method"] == "GET" and start["status"] == 200 and scope["path"].startswith("/api/") and "cache-control" not in headers:
        etag = await _away(_etag, body)
        headers["ETag"], headers["Cache-Control"] = etag, "private, no-cache"  # kept by the browser, asked again each time
        if _has(asked.get("if-none-match", ""), etag):
            for name in ("content-length", "content-type"):
                del headers[name]
            return {**start, "status": 304}, {**message, "body": b""}
    if len(body) >= SMALL and headers.get("content-type", "").startswith(PLAIN):
        headers.add_vary_header("Accept-Encoding")
        coding = _coding(asked.get("accept-encoding", ""))
        if coding is not None:
            body = await _away(CODINGS[coding], body)
            headers["Content-Encoding"], headers["Content-Length"] = coding, str(len(body))
    return start, {**message, "body": body}


async def _away(work: Callable[[bytes], Some], body: bytes) -> Some:
    return work(body) if len(body) < LARGE else await asyncio.to_thread(work, body)


def _etag(body: bytes) -> str:
    return f'W/"{hashlib.blake2b(body, digest_size=12).hexdigest()}"'


def _has(wanted: str, etag: str) -> bool:
    return wanted.strip() == "*" or etag in [each.strip() for each in wanted.split(",")]


def _coding(accepted: str) -> str | None:
    """The best coding that the client takes; `;q=0` is a refusal."""
    taken = {}
    for each in accepted.lower().split(","):
        name, _, parameters = each.partition(";")
        taken[name.strip()] = parameters.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return next((name for name in CODINGS if taken.get(name, taken.get("*", False))), None)
