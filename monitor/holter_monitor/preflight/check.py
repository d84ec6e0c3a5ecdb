"""One thing looked at before a launch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

Mark: TypeAlias = Literal["ok", "note", "fail"]
UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15}


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """`fail`: do not launch; `note`: look at it. `measured` holds the numbers behind the sentence, units in their names."""

    what: str
    mark: Mark
    found: str
    remedy: str = ""
    measured: dict[str, float] | None = None
    finding: dict[str, Any] | None = None
    """What a detector said, where one did."""


def size(text: str) -> int:
    """Bytes of "800G", "24TB", "512MiB" (binary only where the i says so). Raises `ValueError`."""
    word = text.strip().upper().removesuffix("B")
    is_binary = word.endswith("I")
    word = word.removesuffix("I")
    unit = word[-1:] if word[-1:] in UNITS else ""
    try:
        amount = float(word.removesuffix(unit) if unit else word)
    except ValueError:
        raise ValueError(f"{text!r} is no size: expected a number and a unit, as 800G, 24TB or 512MiB") from None
    step = list(UNITS).index(unit)
    return int(amount * (1024**step if is_binary else UNITS[unit]))


def shown(count: float) -> str:
    """Bytes for people: "1.3 TB"."""
    for unit in ("T", "G", "M", "K"):
        if count >= UNITS[unit]:
            return f"{count / UNITS[unit]:.1f} {unit.replace('K', 'k')}B"
    return f"{count:.0f} B"
