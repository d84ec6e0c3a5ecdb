"""What the operator said of a run's checkpoints: where they lie, where their copies go, how often they come, how many are kept."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from holter.errors import SettingsError

PREFIX = "HOLTER_CHECKPOINT_"
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "": 1.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """`HOLTER_CHECKPOINTS` and `HOLTER_CHECKPOINT_*` of the first rank's environment, or `checkpoints=` of `holter.init`."""

    folder: str
    """A directory, or the address of one that fsspec can open (`s3://bucket/run`)."""
    copy: str = ""
    """Where every checkpoint must arrive, too."""
    complete: str = ""
    """A file that a whole checkpoint holds (`COMPLETE`, `*.done`), or that lies beside it (`{name}.done`)."""
    every: float = 0.0
    """Seconds from one to the next; 0: learned."""
    keep: int = 0
    """How many retention leaves; 0: learned."""
    check: str = "pieces"
    """How contents are compared with the copy's: `pieces` (beginning, middle and end of each file), `all`, or `sizes`."""

    def __post_init__(self) -> None:
        if self.check not in ("pieces", "all", "sizes"):
            raise SettingsError(f"{PREFIX}CHECK is {self.check!r}; give pieces, all or sizes")
        if self.copy and self.copy.rstrip("/") == self.folder.rstrip("/"):
            raise SettingsError(f"{PREFIX}COPY names the folder of the checkpoints itself: {self.folder}")


def read(environment: Mapping[str, str], given: str | Mapping[str, object] | None = None) -> Plan | None:
    """None where nobody named a folder. Raises `SettingsError`."""
    words: dict[str, object] = {
        word: text
        for word in ("copy", "complete", "every", "keep", "check")
        if (text := environment.get(PREFIX + word.upper(), "").strip())
    }
    words["folder"] = environment.get("HOLTER_CHECKPOINTS", "").strip()
    words.update({"folder": given} if isinstance(given, str) else dict(given or {}))
    unknown = set(words) - set(Plan.__dataclass_fields__)
    if unknown:
        raise SettingsError(f"checkpoints= has {', '.join(sorted(map(str, unknown)))}; it knows {', '.join(Plan.__dataclass_fields__)}")
    if not words["folder"]:
        return None
    every, keep = seconds(words.pop("every", 0.0)), _count(words.pop("keep", 0))
    return Plan(every=every, keep=keep, **{word: str(value) for word, value in words.items()})


def stored(words: object) -> Plan | None:
    """The plan in a ring, which may be of another version of this package."""
    try:
        return Plan(**words) if isinstance(words, dict) else None
    except (TypeError, SettingsError):
        return None


def seconds(value: object) -> float:
    """Of 7200, "7200", "2h", "90 m". Raises `SettingsError`."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd]?)", str(value).strip())
    if not found:
        raise SettingsError(f"{PREFIX}EVERY is {value!r}; give seconds, or a number and s, m, h or d, as 2h")
    return float(found[1]) * _UNITS[found[2]]


def _count(value: object) -> int:
    if not re.fullmatch(r"\d{1,6}", str(value).strip()):
        raise SettingsError(f"{PREFIX}KEEP is {value!r}; give how many checkpoints are kept, as 3")
    return int(str(value))
