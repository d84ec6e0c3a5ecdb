"""`POST /session`: a browser hands in a token and gets it back as a cookie that no script can read."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from pydantic import Field

from holter_monitor.api.gate import COOKIE
from holter_monitor.api.parts import TheParts
from holter_monitor.api.shapes import Shape

router = APIRouter(prefix="/api/v1/session", tags=["session"])


class Login(Shape):
    token: str = Field(min_length=1, max_length=200)


class WhoAmI(Shape):
    name: str
    scopes: list[str]
    project: str


@router.post("", response_model=WhoAmI)
def log_in(login: Login, parts: TheParts, request: Request, response: Response) -> WhoAmI:
    caller = parts.access.caller(login.token, request.client.host if request.client else "?")
    is_secure = parts.settings.certificate is not None or parts.settings.behind_proxy
    response.set_cookie(COOKIE, login.token, httponly=True, samesite="strict", secure=is_secure, max_age=30 * 86_400)
    return WhoAmI(name=caller.name, scopes=sorted(caller.scopes), project=caller.project)


@router.delete("", status_code=204)
def log_out() -> Response:
    response = Response(status_code=204)
    response.delete_cookie(COOKIE, httponly=True, samesite="strict")
    return response
