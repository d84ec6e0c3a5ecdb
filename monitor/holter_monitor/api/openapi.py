"""What FastAPI's document does not know by itself: the frames route, and the problems that any route may answer."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from holter.frame import CONTENT_TYPE

from holter_monitor.api import examples
from holter_monitor.api.gate import FRAMES
from holter_monitor.api.shapes import Problem

PROBLEM = {"content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}}
STATUSES = {
    "400": "not to be understood",
    "401": "no token, or none that counts",
    "403": "not with this token",
    "404": "no such thing, or not yours",
    "409": "in conflict with what is there",
    "413": "too large",
    "415": "of a kind that is not taken",
    "421": "not our name",
    "422": "does not fit",
    "429": "too often",
    "503": "not now; Retry-After says when",
    "507": "no room left",
}
ACK: dict[str, Any] = {
    "type": "object",
    "required": ["ack"],
    "properties": {
        "ack": {"type": "integer"},
        "advice": {"type": "object", "description": "what an operator asks of the run"},
        "stacks": {
            "type": "object",
            "description": "a request for the stacks of the node's ranks",
            "properties": {"id": {"type": "string"}},
        },
    },
}
FRAMES_POST: dict[str, Any] = {
    "tags": ["points"],
    "summary": "A node agent's frame",
    "description": "Frame v1 (see holter.frame). 200 once it is durable; a repeat of (node, boot, seq) is acknowledged and not stored again.",
    "operationId": "post_frame",
    "requestBody": {"required": True, "content": {CONTENT_TYPE: {"schema": {"type": "string", "format": "binary"}}}},
    "responses": {"200": {"description": "durable", "content": {"application/json": {"schema": ACK}}}},
}


def install(app: FastAPI) -> None:
    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _complete(
                get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
            )
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def _complete(document: dict[str, Any]) -> dict[str, Any]:
    document["paths"][FRAMES] = {"post": FRAMES_POST}
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    schemas["Problem"] = Problem.model_json_schema()
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    document["security"] = [{"token": []}, {}]
    for operations in document["paths"].values():
        for operation in operations.values():
            for status, words in STATUSES.items():
                operation["responses"][status] = {"description": words, **PROBLEM}
    examples.complete(document)
    return document
