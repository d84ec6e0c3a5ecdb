"""The door, plain ASGI in front of everything: host, origin, token, scope, rate, size. What passes has a caller and a body that is small and whole."""

from __future__ import annotations

import re
from http.cookies import CookieError, SimpleCookie

import msgspec
import numpy as np
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from holter_monitor.api import bodies, problems
from holter_monitor.api.callers import Caller
from holter_monitor.api.parts import Parts
from holter_monitor.api.rates import Rates
from holter_monitor.errors import Problem, Unavailable

FRAMES = "/api/v1/frames"
OPEN = ("/healthz", "/api/v1/session")
GUARDED = ("/api/", "/metrics", "/readyz", "/docs", "/redoc", "/openapi.json")
"""What lies elsewhere are the web page's files: no data in them, and one cannot log in without."""
COOKIE = "holter_token"
WRITES = re.compile(r"/api/v1/(frames|runs|runs/[^/]+/points|otlp/v1/metrics)$")
SAFE = ("GET", "HEAD", "OPTIONS")
STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*"')
DEPTH = np.zeros(256, np.int8)
DEPTH[[ord("["), ord("{")]] = 1
DEPTH[[ord("]"), ord("}")]] = -1
REASONS = {401: "token", 403: "forbidden", 413: "size", 421: "host", 429: "rate", 503: "busy"}
"""Status → why the door refused, for the meters."""
LOCAL = ("localhost", "127.0.0.1", "[::1]")


def needed_scope(method: str, path: str) -> str | None:
    """The scope that a request needs; None where the door stands open. A path that nobody thought of needs one all the same."""
    if path in OPEN or not path.startswith(GUARDED):
        return None
    if method in SAFE:
        return "read"
    return "write" if method == "POST" and WRITES.fullmatch(path) else "operate"


class Gate:
    def __init__(self, app: ASGIApp, frames: ASGIApp, parts: Parts) -> None:
        self.app, self._frames, self._access, self._meters = app, frames, parts.access, parts.meters
        self._settings = settings = parts.settings
        self._rates = Rates(settings.limits)
        self._in_flight = 0
        named = {settings.host.lower(), *(host.lower() for host in settings.allowed_hosts), *LOCAL}
        self._hosts = named | {settings.url.split("://", 1)[1].split("/", 1)[0].rsplit(":", 1)[0].lower()}
        self._checks_hosts = settings.is_loopback or bool(settings.allowed_hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            scope["holter.caller"] = await self._admit(scope)
        except (Problem, Unavailable) as error:
            await self._refuse(problems.of(error), scope, receive, send)
            return
        if scope["path"] == FRAMES and scope["method"] == "POST":
            await self._frames(scope, receive, send)
        else:
            await self._pass(scope, receive, send)

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        limits = self._settings.limits
        if self._in_flight >= limits.in_flight and scope["path"] != "/api/v1/stream":
            await self._refuse(Problem(503, "Too many requests at once", remedy="come back", retry_after=1), scope, receive, send)
            return
        counts = scope["path"] != "/api/v1/stream"
        self._in_flight += counts
        try:
            if scope["method"] not in SAFE:
                receive = await self._read_body(scope, receive)
            await self.app(scope, receive, _guarded(send, scope["path"]))
        except Problem as problem:
            await self._refuse(problem, scope, receive, send)
        except ClientDisconnect:
            pass
        finally:
            self._in_flight -= counts

    async def _read_body(self, scope: Scope, receive: Receive) -> Receive:
        """The body read, unpacked and looked at, handed on as one piece."""
        body = await bodies.read(scope, receive, self._settings.limits)
        if body and bodies.header(scope, b"content-type") != b"application/x-protobuf":
            check_json(body, self._settings.limits.json_depth)
        scope["headers"] = [pair for pair in scope["headers"] if pair[0] not in (b"content-encoding", b"content-length")]
        scope["headers"].append((b"content-length", str(len(body)).encode()))
        pieces: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return pieces.pop() if pieces else await receive()

        return replay

    async def _admit(self, scope: Scope) -> Caller | None:
        path, method = scope["path"], scope["method"]
        self._check_host(scope)
        if "\0" in path or b"%00" in scope.get("query_string", b""):
            raise Problem(400, "A NUL in the address", field="path", value=path, remedy="leave it out: no name has one")
        token, is_cookie = _token(scope)
        if method not in SAFE:
            self._check_origin(scope, must_be_there=is_cookie)
        needed = needed_scope(method, path)
        if needed is None:
            return None
        caller = await self._access.admit(token, (scope.get("client") or ("?", 0))[0])
        if needed not in caller.scopes:
            raise Problem(
                403,
                "The token's scope is too small",
                field="Authorization",
                value=" ".join(sorted(caller.scopes)),
                remedy=f"it needs {needed}",
            )
        self._rates.admit(caller, needed)
        return caller

    def _check_host(self, scope: Scope) -> None:
        """A web page elsewhere can have its own name resolve to 127.0.0.1; the Host header still tells which name it used."""
        if not self._checks_hosts:
            return
        host = (bodies.header(scope, b"host") or b"").decode("latin-1").lower()
        name = host if host.startswith("[") and host.endswith("]") else host.rsplit(":", 1)[0]
        if name not in self._hosts:
            raise Problem(
                421, "Not our name", field="Host", value=host, remedy="use the address of --host, or add the name with --allowed-host"
            )

    @staticmethod
    def _check_origin(scope: Scope, *, must_be_there: bool) -> None:
        origin = (bodies.header(scope, b"origin") or b"").decode("latin-1")
        host = (bodies.header(scope, b"host") or b"").decode("latin-1")
        foreign = origin and origin.partition("://")[2].lower() != host.lower()
        if foreign or (must_be_there and not origin) or bodies.header(scope, b"sec-fetch-site") == b"cross-site":
            raise Problem(
                403, "Not from our own page", field="Origin", value=origin, remedy="programs send no Origin, but a token in Authorization"
            )

    async def _refuse(self, problem: Problem, scope: Scope, receive: Receive, send: Send) -> None:
        self._meters.refused.labels(REASONS.get(problem.status, "other")).inc()
        headers = {"WWW-Authenticate": "Bearer"} if problem.status == 401 else {}
        if scope["method"] not in SAFE:
            headers["Connection"] = "close"  # what is left of the body is not worth reading
        await problems.respond(problem, headers)(scope, receive, send)


def check_json(body: bytes, depth: int) -> None:
    """Raises `Problem` 400 for what is not strict JSON (NaN, 1e999, half a surrogate) or nested deeper than `depth`: parsers recurse."""
    steps = DEPTH[np.frombuffer(STRINGS.sub(b"", body), np.uint8)]
    if len(steps) and int(np.cumsum(steps, dtype=np.int32).max()) > depth:
        raise Problem(400, "Nested too deep", field="body", remedy=f"at most {depth} levels")
    try:
        msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        remedy = 'strict JSON in UTF-8; numbers that are not finite are the strings "NaN", "Infinity", "-Infinity"'
        raise Problem(400, "Not JSON", field="body", value=str(error), remedy=remedy) from error
    if b"\\u0000" in body:
        raise Problem(400, "A NUL in the text", field="body", value="\\u0000", remedy="leave it out: not every store can hold it")


def _token(scope: Scope) -> tuple[str | None, bool]:
    """The token and whether it came as a cookie."""
    words = (bodies.header(scope, b"authorization") or b"").decode("latin-1").split()
    if words:
        return (words[1] if len(words) == 2 and words[0].lower() == "bearer" else ""), False
    raw = bodies.header(scope, b"cookie")
    if raw is None:
        return None, False
    try:
        found = SimpleCookie(raw.decode("latin-1")).get(COOKIE)
    except CookieError:
        return None, False
    return (found.value, True) if found else (None, False)


def _guarded(send: Send, path: str) -> Send:
    """The answer with the headers that every answer has."""
    headers = [(b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer"), (b"x-frame-options", b"DENY")]
    if path.startswith(("/api/", "/metrics", "/readyz")):
        headers.append((b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"))
        headers.append((b"cache-control", b"no-store"))

    async def guarded(message: Message) -> None:
        if message["type"] == "http.response.start":
            there = {key for key, _ in message["headers"]}
            message["headers"] = [*message["headers"], *(pair for pair in headers if pair[0] not in there)]
        await send(message)

    return guarded
