"""A notice: what one receiver is told about one change of one incident. Plain facts; each notifier words them for its receiver."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

TRANSITIONS = ("trigger", "update", "remind", "acknowledge", "resolve", "digest", "test")


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """The facts of one message. JSON values only, so that it can wait in the outbox through restarts."""

    key: str
    """The idempotency key: the same for every try of this notice, unlike for any other."""
    transition: str
    incident: str
    """The incident's id."""
    kind: str
    severity: str
    """"info", "warning" or "critical"."""
    state: str
    project: str
    run: str
    run_name: str
    summary: str
    onset_step: int
    detected_step: int
    end_step: int | None = None
    world_size: int = 1
    ranks: tuple[int, ...] = ()
    nodes: tuple[str, ...] = ()
    cost_seconds: float | None = None
    causes: tuple[Mapping[str, Any], ...] = ()
    symptoms: tuple[str, ...] = ()
    """Summaries of the incidents that this one explains."""
    evidence: Mapping[str, Any] | None = None
    episode: int = 1
    created: float = 0.0
    """Unix seconds: since when the incident is known."""
    updated: float = 0.0
    link: str = ""
    actor: str | None = None
    note: str | None = None
    """What changed, in words: "warning to critical", a person's note …"""
    conversation: str = ""
    """The incident's name outside, where it isn't its own: that of a symptom which was told before this, its cause, was found."""
    earlier_kinds: tuple[str, ...] = ()
    """What the same conversation was said to be before."""
    thread: str | None = None
    """What the receiver called its first message about this incident (Slack's ts); None before there is one."""
    members: tuple[Notice, ...] = ()
    """Of a digest: the notices that it stands for."""
    image: bytes | None = None
    """A PNG of the evidence, drawn when the notice is sent; it does not wait in the outbox."""

    @property
    def subject(self) -> str:
        """What a receiver with incidents of its own (PagerDuty, Alertmanager) knows this one by: the same from the first message to the last."""
        return self.conversation or self.incident

    @property
    def gpu_hours(self) -> float | None:
        """What the lost time costs on all ranks."""
        return None if self.cost_seconds is None else self.cost_seconds * self.world_size / 3600

    def to_json(self) -> dict[str, Any]:
        facts = asdict(replace(self, image=None))
        del facts["image"]
        return facts

    def groups(self) -> list[tuple[str, str, list[str], str]]:
        """A digest's members, alike ones together: what became of them, kind, names of the runs, the first one's summary."""
        found: dict[tuple[str, str], list[Notice]] = {}
        for member in self.members:
            found.setdefault(("resolved" if member.transition == "resolve" else member.severity, member.kind), []).append(member)
        return [
            (word, kind, [f"{member.project}/{member.run_name}" for member in members], members[0].summary)
            for (word, kind), members in found.items()
        ]

    @classmethod
    def from_json(cls, facts: Mapping[str, Any], **more: Any) -> Notice:
        """Words that this version does not know are left out, so that an older collector can still send what a newer one queued."""
        known = {field.name for field in fields(cls)}
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in facts.items() if name in known
        }
        values["members"] = tuple(cls.from_json(member) for member in facts.get("members", ()))
        return replace(cls(**values), **more)


def digest(notices: list[Notice], key: str, link: str) -> Notice:
    """One notice that stands for many, the worst first."""
    order = ("critical", "warning", "info")
    members = sorted(notices, key=lambda notice: (order.index(notice.severity), notice.created))
    worst = members[0]
    runs = len({notice.run for notice in members})
    opened = sum(notice.transition != "resolve" for notice in members)
    told = [f"{opened} incidents"] if opened else []
    told += [f"{len(members) - opened} resolved"] if opened < len(members) else []
    return replace(
        worst,
        key=key,
        transition="digest",
        incident=key,
        conversation="",
        earlier_kinds=(),
        summary=f"{' and '.join(told)} in {runs} {'run' if runs == 1 else 'runs'}",
        link=link,
        thread=None,
        evidence=None,
        members=tuple(_brief(member) for member in members),
    )


def _brief(notice: Notice) -> Notice:
    """A thousand of these must fit into one message."""
    return replace(
        notice, summary=notice.summary[:300], evidence=None, causes=(), symptoms=(), nodes=notice.nodes[:8], ranks=notice.ranks[:8]
    )


def example(now: float) -> Notice:
    """A message that says of itself that it is a test."""
    return Notice(
        key=f"test:{int(now * 1000)}",
        transition="test",
        incident="holter-test",
        kind="detector_failed",
        severity="info",
        state="resolved",
        project="test",
        run="test",
        run_name="test",
        summary="This is a test of the way from Holter to you. Nothing is wrong, nobody needs to do anything.",
        onset_step=0,
        detected_step=0,
        created=now,
        updated=now,
    )
