"""The embedded web page: static files, served by the collector itself. No build step, no request to anybody else."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

STATIC = Path(__file__).parent / "static"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",
}
"""`no-cache`: asked again each time, answered 304 by its ETag; an upgrade never mixes two versions of the page."""


class _Files(StaticFiles):
    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers.update(HEADERS)
        return response


def mount(app: FastAPI) -> None:
    """`/` is the page, `/ui/…` its files. The page holds no data: it asks the REST, with the reader's own token."""

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(STATIC / "index.html", headers=HEADERS)

    @app.get("/runs/{rest:path}", include_in_schema=False)
    @app.get("/incidents/{rest:path}", include_in_schema=False)
    async def place(request: Request) -> RedirectResponse:
        """Links in messages have no `#`: some mail readers eat what follows it."""
        return RedirectResponse(f"/#{request.url.path}", 307, headers=HEADERS)

    app.mount("/ui", GZipMiddleware(_Files(directory=STATIC), minimum_size=2_000), name="ui")
