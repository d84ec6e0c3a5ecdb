"""Errors as RFC 9457 problem documents that name the field, the value and the remedy."""

from __future__ import annotations

import logging
import math
from typing import Any

import msgspec
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from holter.errors import FrameError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from holter_monitor.api.parts import text
from holter_monitor.errors import DiskFull, Problem, Unavailable

logger = logging.getLogger(__name__)
CONTENT_TYPE = "application/problem+json"
REMEDIES = {404: "/docs lists the paths", 405: "/docs lists the methods of each path"}


def respond(problem: Problem, headers: dict[str, str] | None = None) -> Response:
    """The problem as a response."""
    document: dict[str, Any] = {"type": "about:blank", "title": problem.args[0], "status": problem.status}
    if problem.field is not None:
        document["field"] = problem.field
    if problem.value is not None:
        document["value"] = text(problem.value)
    if problem.remedy is not None:
        document["remedy"] = problem.remedy
    sent = dict(headers or {})
    if problem.retry_after is not None:
        sent["Retry-After"] = str(max(1, math.ceil(problem.retry_after)))
    return Response(msgspec.json.encode(document), problem.status, headers=sent, media_type=CONTENT_TYPE)


def of(error: Exception) -> Problem:
    """The problem that an error of the parts is to a caller."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, FrameError):
        return Problem(400, "The frame is malformed", field=error.field, value=error.problem, remedy=error.remedy)
    if isinstance(error, DiskFull):
        return Problem(507, "There is no room left", remedy=f"{error}; free some, the frames wait", retry_after=error.retry_after)
    if isinstance(error, Unavailable):
        return Problem(503, "Not now", remedy=f"{error}; come back", retry_after=error.retry_after)
    raise error


def install(app: FastAPI) -> None:
    """Every error that leaves a route becomes a problem document."""

    async def known(request: Request, error: Exception) -> Response:
        return respond(of(error))

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return respond(Problem(422, "The request does not fit", field=where, value=first.get("input"), remedy=first["msg"]))

    async def plain(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        problem = Problem(error.status_code, str(error.detail), value=request.url.path, remedy=REMEDIES.get(error.status_code))
        return respond(problem, dict(error.headers or {}))

    async def ours(request: Request, error: Exception) -> Response:
        # The server's own middleware raises it again for the log, so it is not swallowed here.
        return respond(Problem(500, "Our fault", value=request.url.path, remedy="the collector's log has the trace; please tell us"))

    app.add_exception_handler(Exception, ours)
    for kind in (Problem, FrameError, Unavailable):
        app.add_exception_handler(kind, known)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, plain)
