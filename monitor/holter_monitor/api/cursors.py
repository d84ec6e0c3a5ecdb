"""Where a page ended, as an opaque word: base64 of a JSON list, checked when it comes back."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

from holter_monitor.errors import Problem


def write(*values: float | str) -> str:
    return base64.urlsafe_b64encode(json.dumps(values).encode()).decode().rstrip("=")


def read(cursor: str | None, *kinds: type) -> tuple[Any, ...] | None:
    """The values that `write` put in. Raises `Problem` 400 for a word that it never wrote."""
    if cursor is None:
        return None
    try:
        values = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        if isinstance(values, list) and len(values) == len(kinds) and all(isinstance(v, k) for v, k in zip(values, kinds, strict=True)):
            return tuple(values)
    except (binascii.Error, ValueError, RecursionError):
        pass
    raise Problem(400, "No such cursor", field="cursor", value=cursor, remedy="send the `next` of the page before, or none")
