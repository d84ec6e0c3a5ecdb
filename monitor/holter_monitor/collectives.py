"""Who waits in which collective and who never entered it: the flight recorders of many ranks held against each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from holter_monitor.ranges import spans

MAX_GROUPS = 4_096
MAX_RANKS = 1_048_576
_NAMED = 4


@dataclass(slots=True)
class Place:
    """How far one rank came in one process group."""

    enqueued: int
    pending: int | None
    """The first collective that it entered and that did not complete; None while it waits for none."""
    call: str
    """What it called there, with the sizes: ranks that differ in it can never meet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    sentence: str
    waiting: list[int]
    never_entered: list[int]
    """The ranks that the others wait for and that wait for nobody themselves."""
    called_otherwise: list[int]
    """Ranks at the same number with another operation or other sizes."""


@dataclass(slots=True)
class Collectives:
    """By process group, how far each rank came: the newest dump of a rank counts."""

    groups: dict[str, dict[int, Place]] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    members: dict[str, list[int]] = field(default_factory=dict)

    def add(self, rank: object, told: object) -> bool:
        """Take in a rank's `groups` (`holter.node.flight.summary`); False where it is no such list."""
        if type(rank) is not int or not 0 <= rank < MAX_RANKS or not isinstance(told, list):
            return False
        for group in told[:64]:
            key = str(group.get("group"))[:120] if isinstance(group, dict) else ""
            enqueued = group.get("enqueued") if isinstance(group, dict) else None
            if type(enqueued) is not int or (key not in self.groups and len(self.groups) >= MAX_GROUPS):
                continue
            pending = group.get("pending")
            self.groups.setdefault(key, {})[rank] = Place(enqueued, pending if type(pending) is int else None, _call(group))
            self.names[key] = _text(group.get("name")) or key
            members = group.get("ranks")
            if isinstance(members, list) and members and key not in self.members:
                self.members[key] = [each for each in members[:16_384] if type(each) is int]
        return True

    def verdict(self, world_size: int) -> Verdict | None:
        """Of all groups in which somebody waits, the one that says most; None while nobody waits."""
        busy = {rank for places in self.groups.values() for rank, place in places.items() if place.pending is not None}
        found = [self._judge(key, busy, world_size) for key in self.groups if any(p.pending is not None for p in self.groups[key].values())]
        # A rank that is missing here and waits elsewhere is missing for a reason that another group tells.
        return max(
            found,
            key=lambda each: (
                bool(set(each.never_entered) - busy),
                bool(each.called_otherwise),
                bool(each.never_entered),
                len(each.waiting),
            ),
            default=None,
        )

    def _judge(self, key: str, busy: set[int], world_size: int) -> Verdict:
        places = self.groups[key]
        number, _ = Counter(place.pending for place in places.values() if place.pending is not None).most_common(1)[0]
        assert number is not None
        waiting = sorted(rank for rank, place in places.items() if place.pending == number)
        call, _ = Counter(places[rank].call for rank in waiting).most_common(1)[0]
        otherwise = [rank for rank in waiting if places[rank].call != call]
        absent = sorted(rank for rank, place in places.items() if place.enqueued < number)
        # Who has not come because it waits elsewhere itself is no culprit; if all of them do, each is as good as the others.
        never = [rank for rank in absent if rank not in busy] or absent
        members = self.members.get(key) or range(world_size)
        silent = sorted(set(members) - set(places))
        alike = [rank for rank in waiting if rank not in otherwise]
        said = [f"{_ranks(alike)} wait{'s' if len(alike) == 1 else ''} in {call}, number {number} of {self.names[key]}"]
        said += [f"{_ranks(never)} never entered it"] if never else []
        said += [f"{_ranks(otherwise)} called {places[otherwise[0]].call} there"] if otherwise else []
        said += [f"no dump from {_ranks(silent)}"] if silent else []
        return Verdict(sentence="; ".join(said), waiting=waiting, never_entered=never, called_otherwise=otherwise)


def _call(group: dict[str, Any]) -> str:
    sizes = group.get("sizes")
    shapes = (
        [f"[{', '.join(str(each) for each in size[:8])}]" for size in sizes[:4] if isinstance(size, list)]
        if isinstance(sizes, list)
        else []
    )
    return " ".join(part for part in (_text(group.get("op")) or "a collective", *shapes, _text(group.get("dtype"))) if part)


def _text(value: object) -> str:
    return value[:120].encode(errors="replace").decode() if isinstance(value, str) else ""


def _ranks(ranks: Iterable[int]) -> str:
    numbers = list(ranks)
    return f"{len(numbers)} ranks" if len(numbers) > _NAMED else f"rank{'s' if len(numbers) > 1 else ''} {spans(numbers)}"
