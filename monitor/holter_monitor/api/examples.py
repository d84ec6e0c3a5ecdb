"""Examples for the OpenAPI document, made from its own schemas and a word for each name, so that none can say what a route does not answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

RUN, MOMENT = "4f1c0a52be0b4b0c9a3c2f6d8e7a1b90", "2026-11-25T08:16:47Z"
WORDS: dict[str, tuple[Any, ...]] = {
    "run": (RUN,),
    "id": (RUN, 17),
    "incident": ("9b2e6c41d07f83a5e1c4",),
    "silence": ("c0ffee12",),
    "project": ("smol",),
    "name": ("3b",),
    "run_name": ("3b",),
    "metric": ("loss",),
    "metrics": ("loss,grad_norm",),
    "kind": ("loss_spike",),
    "severity": ("critical",),
    "state": ("open",),
    "scope": ("run",),
    "attempt": ("1", 0),
    "attempts": ("1",),
    "node": ("node-00017",),
    "nodes": ("node-00017",),
    "group": ("node-00017",),
    "by": ("node",),
    "agg": ("median",),
    "align": ("tokens",),
    "event": ("checkpoint",),
    "rank": (42,),
    "ranks": (42,),
    "world_size": (384,),
    "step": (1200,),
    "steps": (1200,),
    "from_step": (1000,),
    "to_step": (2000,),
    "onset_step": (1180,),
    "detected_step": (1183,),
    "last_step": (1200,),
    "first_step": (0,),
    "end_step": (1195,),
    "value": (2.31,),
    "mean": (2.31,),
    "min": (2.28,),
    "max": (2.9,),
    "center": (2.31,),
    "x": (1.2e9,),
    "values": ("AAATQA==",),
    "time": (1764058607.0, MOMENT),
    "limit": (50,),
    "max_points": (1000,),
    "columns": (120,),
    "summary": ("loss 6.1 stands 9.3 deviations above 2.31",),
    "reason": ("planned maintenance",),
    "author": ("ada",),
    "actor": ("ada",),
    "note": ("rewinding to step 1150",),
    "url": ("http://127.0.0.1:8787/#/incidents/9b2e6c41d07f83a5e1c4",),
    "goodput": (0.93,),
    "reference": ("smol/1b",),
    "scopes": ("read",),
    "boot": ("0f6d2b7c",),
    "matchers": ("loss_*",),
    "items": ("loss",),
    "status": ("ok",),
}
OWN = {
    ("RunShape", "state"): "running",
    ("AttemptShape", "state"): "running",
    ("/api/v1/runs", "state"): "running",
    ("IncidentShape", "id"): WORDS["incident"][0],
    ("IncidentDetail", "id"): WORDS["incident"][0],
    ("SilenceShape", "id"): WORDS["silence"][0],
    ("SeriesShape", "rank"): None,
}
"""Where a name has another word: by the schema that it stands in, or by the path of its parameter."""
KEYS = {"matchers": "kind", "": "status", "dropped": "ring_full"}
"""What an object of free keys is keyed by, where it is not a metric."""
MOMENTS = ("created", "updated", "acknowledged", "resolved", "started", "ended", "starts", "ends", "first_seen", "last_seen", "at")
KINDS: dict[str, tuple[type, ...]] = {"string": (str,), "integer": (int,), "number": (int, float), "boolean": (bool,)}
PLAIN: dict[str, Any] = {"string": "text", "integer": 1, "number": 1.5, "boolean": False, "null": None}


def complete(document: dict[str, Any]) -> None:
    """Give every JSON answer of the document and every parameter an example."""
    schemas = document["components"]["schemas"]
    for path, operations in document["paths"].items():
        for operation in operations.values():
            for parameter in operation.get("parameters", []):
                if "examples" not in parameter["schema"]:
                    name = parameter["name"]
                    parameter.setdefault("example", OWN[path, name] if (path, name) in OWN else example(parameter["schema"], schemas, name))
            for status, response in operation["responses"].items():
                content = response.get("content", {}).get("application/json")
                if content and content.get("schema") and status.startswith("2"):
                    content.setdefault("example", example(content["schema"], schemas, ""))


def example(schema: Mapping[str, Any], schemas: Mapping[str, Any], name: str) -> Any:
    if "$ref" in schema:
        return example(schemas[schema["$ref"].rsplit("/", 1)[1]], schemas, name)
    for choice in ("anyOf", "allOf", "oneOf"):
        if choice in schema:
            return example(schema[choice][0], schemas, name)
    if "const" in schema or "enum" in schema:
        return schema.get("const", schema.get("enum", [None])[0])
    kind = schema.get("type", "object")
    if kind == "array":
        return [example(schema["items"], schemas, name)]
    if kind == "object":
        owner, keyed = schema.get("title", ""), schema.get("additionalProperties")
        if isinstance(keyed, dict):
            return {KEYS.get(name, "loss"): example(keyed, schemas, name or "status")}
        parts = schema.get("properties", {}).items()
        return {key: OWN[owner, key] if (owner, key) in OWN else example(part, schemas, key) for key, part in parts}
    words = (MOMENT,) if kind == "string" and name in MOMENTS else WORDS.get(name, ())
    return next((word for word in words if isinstance(word, KINDS.get(kind, ()))), PLAIN[kind])
