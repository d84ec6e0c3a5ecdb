"""Finds the files that ship beside the code (`alerts/`, `dashboards/`): in the installed package first, then in the checkout."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def shipped(folder: str) -> Path:
    """The shipped folder of this name; raises `FileNotFoundError`, naming both places, where neither has it."""
    places = [_PACKAGE / "_shipped" / folder, _PACKAGE.parents[1] / folder]
    for place in places:
        if place.is_dir():
            return place
    raise FileNotFoundError(f"{folder!r} is in neither {places[0]} nor {places[1]}: reinstall holter-monitor")
