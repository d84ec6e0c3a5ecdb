"""Stacks of a run's ranks, equal ones together: "383 ranks in all_reduce, rank 17 in read"."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from holter_monitor.ranges import spans

MAX_STACK = 4_000
MAX_PLACES = 64
MAX_RANKS = 1_048_576
ELSEWHERE = f"(one of more than {MAX_PLACES} places)"
_NAMED = 4
"""So many ranks are named in a sentence, more are counted."""
_SAID = 4


@dataclass(slots=True)
class Stacks:
    """Where ranks stand, by the newest word of each."""

    groups: dict[str, set[int]] = field(default_factory=dict)

    def add(self, told: object) -> bool:
        """Take in an agent's `[{"ranks": [...], "stack": "..."}]`; True if somebody stands where nobody stood. What is no such list is left out."""
        is_new = False
        for group in told if isinstance(told, list) else []:
            ranks, stack = _read(group)
            if not ranks:
                continue
            if stack not in self.groups and len(self.groups) >= MAX_PLACES:
                stack = ELSEWHERE
            is_new = is_new or stack not in self.groups
            for others in self.groups.values():
                others.difference_update(ranks)
            self.groups.setdefault(stack, set()).update(ranks)
        self.groups = {stack: ranks for stack, ranks in self.groups.items() if ranks}
        return is_new

    def listed(self, at_most: int = MAX_PLACES, named: int = MAX_RANKS) -> list[dict[str, Any]]:
        """The fewest ranks first: who stands elsewhere is the one to look at. At most so many groups, and ranks named in each."""
        ordered = sorted(self.groups.items(), key=lambda item: (len(item[1]), min(item[1])))
        return [
            {"ranks": sorted(ranks)[:named], "count": len(ranks), "where": where(stack), "stack": stack}
            for stack, ranks in ordered[:at_most]
        ]

    def sentence(self) -> str:
        """The places by their innermost function, the most ranks first."""
        places: dict[str, set[int]] = {}
        for stack, ranks in self.groups.items():
            places.setdefault(where(stack), set()).update(ranks)
        ordered = sorted(places.items(), key=lambda item: (-len(item[1]), min(item[1])))
        said = [f"{_named(ranks)} in {place}" for place, ranks in ordered[:_SAID]]
        return ", ".join(said + ([f"{len(ordered) - _SAID} more places"] if len(ordered) > _SAID else []))


def where(stack: str) -> str:
    """The innermost function and its file, in the words of py-spy, of faulthandler, or of the kernel."""
    first = stack.partition("\n")[0].strip()
    if spied := re.fullmatch(r"(.+?) \((.+?)(:\d+)?\)", first):
        return f"{spied[1]} ({spied[2].rpartition('/')[2]}{spied[3] or ''})"
    if dumped := re.fullmatch(r'File "(.+)", line (\d+) in (.+)', first):
        return f"{dumped[3]} ({dumped[1].rpartition('/')[2]}:{dumped[2]})"
    return first[:200] or "an unknown place"


def _named(ranks: set[int]) -> str:
    if len(ranks) > _NAMED:
        return f"{len(ranks)} ranks"
    return f"rank{'s' if len(ranks) > 1 else ''} {spans(ranks)}"


def _read(group: object) -> tuple[set[int], str]:
    if not isinstance(group, dict) or not isinstance(group.get("ranks"), list):
        return set(), ""
    ranks = {rank for rank in group["ranks"] if type(rank) is int and 0 <= rank < MAX_RANKS}
    stack = str(group.get("stack") or "nothing to be seen")[:MAX_STACK]
    return ranks, stack.encode(errors="replace").decode()  # half a surrogate can stand in JSON, and in no snapshot
