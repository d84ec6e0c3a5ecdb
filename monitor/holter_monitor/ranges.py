"""Ranges instead of lists: 384 ranks are one line of a message."""

from __future__ import annotations

import re
from collections.abc import Iterable

_SHOWN = 12


def spans(numbers: Iterable[int]) -> str:
    """0, 1, 2, 3, 7 is "0-3, 7"."""
    return ", ".join(_ranges(numbers, 1))


def folded(names: Iterable[str]) -> str:
    """Names that differ in their last number only: gpu-01, gpu-02, gpu-03 is "gpu-[01-03]"."""
    groups: dict[tuple[str, int], list[int]] = {}
    shown: list[str] = []
    for name in sorted(set(names)):
        match = re.fullmatch(r"(.*\D)(\d{1,9})", name)
        if match is None:
            shown.append(name)
        else:
            groups.setdefault((match[1], len(match[2])), []).append(int(match[2]))
    for (stem, width), numbers in groups.items():
        ranges = _ranges(numbers, width)
        shown.append(f"{stem}{ranges[0]}" if len(numbers) == 1 else f"{stem}[{','.join(ranges)}]")
    return ", ".join(shown[:_SHOWN]) + (f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else "")


def _ranges(numbers: Iterable[int], width: int) -> list[str]:
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    shown = [f"{first:0{width}d}" if first == last else f"{first:0{width}d}-{last:0{width}d}" for first, last in runs[:_SHOWN]]
    return shown + ([f"{len(runs) - _SHOWN} more ranges"] if len(runs) > _SHOWN else [])
