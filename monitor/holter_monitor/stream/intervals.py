"""How often a run's config says that checkpoints and evaluations come: in steps, under the names that trainers use, or in time, as it is expected."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

INTERVALS = {
    "checkpoint": ("checkpoint_interval", "checkpoint_interval_steps", "save_interval", "save_steps", "checkpoint_every"),
    "eval": ("eval_interval", "eval_interval_steps", "eval_steps", "eval_every"),
}


def declared(config: Mapping[str, Any], word: str) -> int | None:
    values = (config.get(name) for name in INTERVALS[word])
    return next((value for value in values if isinstance(value, int) and not isinstance(value, bool) and value > 0), None)


_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def expected_seconds(config: Mapping[str, Any], word: str) -> float:
    """Of `config={"expect": {"eval_every": "2h"}}` (or `checkpoint_every`); 0.0 where it says nothing that can be read."""
    expected = config.get("expect")
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd])", str(expected.get(f"{word}_every")).strip()) if isinstance(expected, dict) else None
    return float(found[1]) * _UNITS[found[2]] if found else 0.0
