"""Ranges instead of lists: 384 ranks are one line of a message."""

from __future__ import annotations

import re
from collections.abc import Iterable

_SHOWN = 12


def spans(numbers: Iterable[int]) -> str:
    """0, 1, 2, 3, 7 is "0-3, 7"."""
    return ", ".join(_ranges(numbers, 1))


def folded(names: Iterable[str], at_most: int = _SHOWN) -> str:
    """Names that differ in their last number only: gpu-01, gpu-02, gpu-03 is "gpu-[01-03]". At most so many names or groups of names."""
    groups: dict[tuple[str, int], list[int]] = {}
    shown: list[str] = []
    for name in sorted(set(names)):
        match = re.fullmatch(r"(.*\D)(\d{1,9})", name)
        if match is None:
            shown.append(name)
        else:
            groups.setdefault((match[1], len(match[2])), []).append(int(match[2]))
    for (stem, width), numbers in groups.items():
        ranges = _ranges(numbers, width, at_most)
        shown.append(f"{stem}{ranges[0]}" if len(numbers) == 1 else f"{stem}[{','.join(ranges)}]")
    return ", ".join(shown[:at_most]) + (f" and {len(shown) - at_most} more" if len(shown) > at_most else "")


def _ranges(numbers: Iterable[int], width: int, at_most: int = _SHOWN) -> list[str]:
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    shown = [f"{first:0{width}d}" if first == last else f"{first:0{width}d}-{last:0{width}d}" for first, last in runs[:at_most]]
    return shown + ([f"{len(runs) - at_most} more ranges"] if len(runs) > at_most else [])
