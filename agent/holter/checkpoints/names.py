"""Which entries of a folder are checkpoints, and of which step."""

from __future__ import annotations

import re
from collections.abc import Iterable

KEPT = 64
"""Newest checkpoints that are looked at; a folder may hold thousands."""
_NAMED = re.compile(r"(?:checkpoint|ckpt|step|iter|iteration|epoch|ep)s?[-_=]?(\d{1,18})", re.IGNORECASE)
_FILE = re.compile(r"\.(?:pt|pth|ckpt|bin|safetensors|npz|tar)$", re.IGNORECASE)
_SHARD = re.compile(r"\d+-of-\d+")


def step_of(name: str) -> int:
    """The step that a checkpoint's name tells; -1 where it tells none."""
    numbers = _NAMED.findall(name) or re.findall(r"\d{1,18}", name)
    return int(numbers[-1]) if numbers else -1


def newest(entries: Iterable[str]) -> list[str]:
    """The newest checkpoints among the entries of a folder, oldest first. A folder holds logs, too."""
    return sorted(filter(_is_checkpoint, entries), key=lambda name: (step_of(name), name))[-KEPT:]


def _is_checkpoint(name: str) -> bool:
    if name.startswith(".") or _SHARD.search(name) or step_of(name) < 0:
        return False
    return bool(name.isdecimal() or _NAMED.search(name) or _FILE.search(name))
