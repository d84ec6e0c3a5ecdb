"""How often a run's config says that checkpoints and evaluations come, in steps, under the names that trainers use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

INTERVALS = {
    "checkpoint": ("checkpoint_interval", "checkpoint_interval_steps", "save_interval", "save_steps", "checkpoint_every"),
    "eval": ("eval_interval", "eval_interval_steps", "eval_steps", "eval_every"),
}


def declared(config: Mapping[str, Any], word: str) -> int | None:
    values = (config.get(name) for name in INTERVALS[word])
    return next((value for value in values if isinstance(value, int) and not isinstance(value, bool) and value > 0), None)
