"""What the integrations share: hear a framework's call without ever disturbing it, and name its metrics as Holter does."""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec

_P = ParamSpec("_P")
_log = logging.getLogger("holter")
_ODD = re.compile(r"[^\w.]+")
Names = Mapping[str, tuple[str, float]]
"""The framework's name -> (Holter's name, the factor that makes its unit ours)."""


def harmless(method: Callable[_P, None]) -> Callable[_P, None]:
    """A framework's callback that never raises into the framework."""

    @functools.wraps(method)
    def guarded(*args: _P.args, **kwargs: _P.kwargs) -> None:
        try:
            method(*args, **kwargs)
        except Exception as error:  # noqa: BLE001  never raise into a training loop
            _log.debug("%s was not heard (%s: %s)", method.__name__, type(error).__name__, error)

    return guarded


def after(owner: Any, name: str, hear: Callable[..., None]) -> bool:
    """Call `hear(answer, *args, **kwargs)` after each call of `owner.name` that returned. False where `owner` has no such call."""
    call = getattr(owner, name, None)
    if not callable(call):
        return False
    harmless_hear = harmless(hear)

    @functools.wraps(call)
    def heard(*args: Any, **kwargs: Any) -> Any:
        answer = call(*args, **kwargs)
        harmless_hear(answer, *args, **kwargs)
        return answer

    setattr(owner, name, heard)
    return True


def before(owner: Any, name: str, hear: Callable[..., None]) -> bool:
    """Call `hear(*args, **kwargs)` before each call of `owner.name`. False where `owner` has no such call."""
    call = getattr(owner, name, None)
    if not callable(call):
        return False
    harmless_hear = harmless(hear)

    @functools.wraps(call)
    def heard(*args: Any, **kwargs: Any) -> Any:
        harmless_hear(*args, **kwargs)
        return call(*args, **kwargs)

    setattr(owner, name, heard)
    return True


def either(owner: Any, name: str, asks: Callable[[], bool]) -> bool:
    """`owner.name(...)` answers true also where `asks()` does. False where `owner` has no such call."""
    call = getattr(owner, name, None)
    if not callable(call):
        return False

    @functools.wraps(call)
    def answered(*args: Any, **kwargs: Any) -> Any:
        return call(*args, **kwargs) or asks()

    setattr(owner, name, answered)
    return True


def renamed(values: Mapping[str, Any], names: Names) -> dict[str, Any]:
    """`values` under Holter's names and in its units. An unknown name stays, without the characters that no metric has."""
    found: dict[str, Any] = {}
    for theirs, value in values.items():
        if theirs in names:
            ours, factor = names[theirs]
            found[ours] = value if factor == 1 else value * factor
        else:
            found[_ODD.sub("_", theirs.replace("/", ".")).strip("_")] = value
    return found
