"""What the operator asks of the training, read from a word that the node agent writes; empty unless reactions are allowed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Advice:
    """Asked of the training loop, which alone decides. `reason` says why, in a sentence."""

    stop: bool = False
    checkpoint: bool = False
    skip_batch: bool = False
    rewind_to: int | None = None
    """The step to go back to: the newest checkpoint before the trouble."""
    reason: str = ""

    @classmethod
    def of(cls, words: Mapping[str, Any]) -> Advice:
        rewind = words.get("rewind_to")
        return cls(
            stop=words.get("stop") is True,
            checkpoint=words.get("checkpoint") is True,
            skip_batch=words.get("skip_batch") is True,
            rewind_to=rewind if type(rewind) is int and rewind >= 0 else None,
            reason=str(words.get("reason", ""))[:500],
        )


NO_ADVICE = Advice()
