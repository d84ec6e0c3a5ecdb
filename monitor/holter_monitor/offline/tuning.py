"""Detector parameters said as words: `--set loss_spike.threshold=10`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import fields
from functools import partial
from typing import Any

from holter_monitor.detector import DetectorMaker


class SettingError(ValueError):
    """A `--set` that names no parameter, or a value that it cannot take."""


def tuned(settings: Iterable[str], detectors: Sequence[DetectorMaker]) -> tuple[DetectorMaker, ...]:
    """The detectors with `detector.parameter=value` applied; `detector.off=true` leaves one out. Raises `SettingError`."""
    changes: dict[str, dict[str, Any]] = {}
    known = {name_of(maker): maker for maker in detectors}
    for setting in settings:
        name, parameter, text = _split(setting)
        if name not in known:
            raise SettingError(f"{setting!r}: no detector {name!r}; there are {', '.join(sorted(known))}")
        changes.setdefault(name, {})[parameter] = True if parameter == "off" else _value(known[name], name, parameter, text)
    makers: list[DetectorMaker] = []
    for name, maker in known.items():
        change = changes.get(name, {})
        if not change.pop("off", False):
            makers.append(_checked(name, partial(maker, **change)) if change else maker)
    return tuple(makers)


def name_of(maker: DetectorMaker) -> str:
    """`LossSpike` -> `loss_spike`."""
    made = maker.func if isinstance(maker, partial) else maker
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", getattr(made, "__name__", str(made))).lower()


def _split(setting: str) -> tuple[str, str, str]:
    path, equals, text = setting.partition("=")
    name, dot, parameter = path.strip().partition(".")
    if not (equals and dot and name and parameter):
        raise SettingError(f"{setting!r} is not DETECTOR.PARAMETER=VALUE")
    return name, parameter, text.strip()


def _value(maker: DetectorMaker, name: str, parameter: str, text: str) -> Any:
    made = maker()
    parameters = {each.name: getattr(made, each.name) for each in fields(made) if each.init}  # type: ignore[arg-type]
    if parameter not in parameters:
        raise SettingError(f"{name} has no parameter {parameter!r}; it has {', '.join(sorted(parameters)) or 'none'}")
    default = parameters[parameter]
    try:
        if isinstance(default, bool):
            return {"true": True, "false": False}[text.lower()]
        return type(default)(text) if isinstance(default, (int, str)) else float(text)
    except (ValueError, KeyError) as error:
        raise SettingError(f"{name}.{parameter}={text!r}: expected a {type(default).__name__} like {default!r}") from error


def _checked(name: str, maker: DetectorMaker) -> DetectorMaker:
    try:
        maker()
    except (ValueError, TypeError) as error:
        raise SettingError(f"{name}: {error}") from error
    return maker
