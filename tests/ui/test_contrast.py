"""The colours of the page keep WCAG AA: 4.5 to 1 for text on every ground it stands on, badges on their own tint included."""

from __future__ import annotations

import re
from pathlib import Path

import holter_monitor.ui
import pytest

STYLE = (Path(holter_monitor.ui.__file__).parent / "static" / "style.css").read_text()
SCHEMES = {"light": STYLE.index(":root {"), "dark": STYLE.index(':root[data-theme="dark"] {')}
GROUNDS = ("paper", "card", "raised")
TINT = 0.14
"""As much of its own colour as a badge's ground has at most."""


def colors(scheme: str) -> dict[str, str]:
    block = STYLE[SCHEMES[scheme] : STYLE.index("}", SCHEMES[scheme])]
    return dict(re.findall(r"--(\w+): (#[0-9a-f]{6})\b(?![0-9a-f])", block))


def channels(color: str) -> list[int]:
    return [int(color[i : i + 2], 16) for i in (1, 3, 5)]


def light(rgb: list[float]) -> float:
    linear = [c / 255 / 12.92 if c / 255 <= 0.03928 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in rgb]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: list[float], other: list[float]) -> float:
    low, high = sorted((light(one), light(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", ["ink", "soft", "faint", "accent", "critical", "warning", "info"])
def test_text_can_be_read_on_every_ground(scheme: str, name: str) -> None:
    known = colors(scheme)
    for ground in GROUNDS:
        assert contrast(channels(known[name]), channels(known[ground])) >= 4.5, f"{scheme}: {name} on {ground}"


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", ["critical", "warning", "info"])
def test_a_badge_can_be_read_on_its_own_tint(scheme: str, name: str) -> None:
    known = colors(scheme)
    for ground in ("card", "raised"):  # a row that the pointer is on is raised
        tint = [a * TINT + b * (1 - TINT) for a, b in zip(channels(known[name]), channels(known[ground]), strict=True)]
        assert contrast(channels(known[name]), tint) >= 4.5, f"{scheme}: {name} on its tint on {ground}"


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", ["accent", "second", "third", "fourth", "fifth", "ok"])
def test_lines_and_marks_stand_off_their_ground(scheme: str, name: str) -> None:
    known = colors(scheme)
    assert contrast(channels(known[name]), channels(known["card"])) >= 3
