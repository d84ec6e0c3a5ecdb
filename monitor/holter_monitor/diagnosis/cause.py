"""What a cause is: a sentence, an action, and clues for and against it. Declarative; a file each, listed in `CAUSES`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from holter_monitor.diagnosis.case import Case
from holter_monitor.ranges import folded, spans

Look: TypeAlias = Callable[[Case], "str | None"]
"""Looks at a case and says what it saw, in half a sentence with the numbers; None if it did not see it."""


@dataclass(frozen=True, slots=True)
class Clue:
    """What raises or lowers the odds of a cause. `weight` is in natural logarithms of odds: 2 = about seven times as likely."""

    weight: float
    look: Look


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """One possible cause. Without a clue for it, it is not named."""

    name: str
    explains: tuple[str, ...]
    """The kinds of incident that it can be behind."""
    sentence: str
    """With the placeholders of `facts`."""
    action: str
    clues: tuple[Clue, ...]
    prior: float = -2.0
    """How common it is where no clue is seen, in log odds against "something else"."""


def facts(case: Case) -> dict[str, Any]:
    """The placeholders of sentences and actions."""
    incident, saved = case.incident, case.checkpoint
    return {
        "place": case.place,
        "ranks": f"{'ranks' if len(incident.ranks) > 1 else 'rank'} {spans(incident.ranks)}" if incident.ranks else "all ranks",
        "nodes": folded(incident.nodes) or ("all nodes" if case.is_everywhere and case.world_size > 1 else "its node"),
        "onset": incident.onset_step,
        "steps": _steps(incident.episode_onset, case.last_step),
        "end": incident.end_step if incident.end_step is not None else incident.detected_step,
        "rewind": "the last checkpoint before it" if saved is None else f"the checkpoint of step {saved.step}",
    }


def _steps(first: int, last: int) -> str:
    if first < 0:
        return "since it began"
    return f"steps {first} to {last}" if last > first else f"around step {first}"


def rises(metric: str, times: float, name: str, *, least: float = 0.0) -> Look:
    """The signal (of any host or device of this family) is so many times what it was, and at least so high."""

    def look(case: Case) -> str | None:
        raised = {
            key: signal
            for key, signal in case.family(metric).items()
            if signal.before > 0 and signal.ratio >= times and signal.since >= least
        }
        if not raised:
            return None
        key, worst = max(raised.items(), key=lambda item: item[1].ratio)
        suffix = key.removeprefix(metric).lstrip(".")
        return f"{name}{f' ({suffix})' if suffix else ''} x{worst.ratio:.1f}: {_short(worst.before)} before, {_short(worst.since)} since"

    return look


def falls(metric: str, below: float, name: str) -> Look:
    """The signal is below this fraction of what it was."""

    def look(case: Case) -> str | None:
        fallen = [signal for signal in case.family(metric).values() if signal.before > 0 and signal.ratio <= below]
        worst = min(fallen, key=lambda signal: signal.ratio, default=None)
        return None if worst is None else f"{name} at {worst.ratio:.0%} of what it was"

    return look


def steady(metric: str, within: float, name: str) -> Look:
    """The signal is there and has not moved by more than this factor, up or down."""

    def look(case: Case) -> str | None:
        family = [signal for signal in case.family(metric).values() if signal.before > 0]
        moved = [signal for signal in family if not 1 / within <= signal.ratio <= within]
        return f"{name} as before" if family and not moved else None

    return look


def peaks(metric: str, at_least: float, name: str) -> Look:
    """Some rank or host reached this value since the onset, and was below it before."""

    def look(case: Case) -> str | None:
        over = [s for s in case.family(metric).values() if s.peak >= at_least and s.before < at_least]
        worst = max(over, key=lambda signal: signal.peak, default=None)
        return None if worst is None else f"{name} reached {_short(worst.peak)} (usual: {_short(worst.before)})"

    return look


def stays(metric: str, below: float, name: str) -> Look:
    """The signal is there, and its mean since the onset is below this value on every host."""

    def look(case: Case) -> str | None:
        family = case.family(metric).values()
        highest = max((signal.since for signal in family), default=None)
        return f"{name}: {highest:.2g}" if highest is not None and highest < below else None

    return look


def grows(metric: str, by: float, name: str) -> Look:
    """A share of the time, of one rank's processes, is larger by at least so much than it was."""

    def look(case: Case) -> str | None:
        signal = case.signals.get(metric)
        if signal is None or signal.since - signal.before < by:
            return None
        who = "" if signal.peak_rank is None else f"rank {signal.peak_rank} "
        return f"{who}{name} {signal.since:.0%} of the time ({signal.before:.0%} before)"

    return look


def without(metric: str, look: Look) -> Look:
    """The look, where nobody measured what would tell more."""
    return lambda case: None if case.family(metric) else look(case)


def waits_for_data(case: Case) -> str | None:
    """The ranks wait for data twice as long as before, and a share of the step that matters: twice a microsecond is nothing."""
    wait, step = case.signals.get("data_wait_seconds"), case.signals.get("step_time_seconds")
    if wait is None or wait.ratio < 2.0 or (step is not None and wait.since < 0.05 * step.since):
        return None
    return f"data wait x{wait.ratio:.1f}: {_short(wait.before)} s before, {_short(wait.since)} s since" if wait.before > 0 else None


def says(key: str, accept: Callable[[Any], bool], sentence: str) -> Look:
    """The incident's own evidence has this value. `{value}` in the sentence is the value."""

    def look(case: Case) -> str | None:
        value = case.incident.evidence.get(key)
        try:
            return sentence.format(value=value) if value is not None and accept(value) else None
        except (TypeError, ValueError):
            return None

    return look


def mentions(pattern: Callable[[str], bool], sentence: str, *keys: str) -> Look:
    """A text of the evidence (or the summary) mentions it."""

    def look(case: Case) -> str | None:
        texts = [case.incident.summary, *(str(case.incident.evidence.get(key, "")) for key in keys)]
        return sentence if any(pattern(text.lower()) for text in texts) else None

    return look


def beside(*kinds: str, sentence: str = "") -> Look:
    """Another incident of one of these kinds began about the same time."""

    def look(case: Case) -> str | None:
        found = next((other for other in case.others if other.kind in kinds), None)
        return None if found is None else sentence or f"at the same time: {found.kind.replace('_', ' ')}, {found.summary}"

    return look


def happened(*words: str, before: int = 200, after: int = 5) -> Look:
    """One of these events was declared or seen near the onset."""

    def look(case: Case) -> str | None:
        found = case.near(*words, before=before, after=after)
        if not found:
            return None
        attrs = found[-1].attrs
        what = attrs.get("evidence")  # a sentence, where there is one
        if not isinstance(what, str):
            what = ", ".join(f"{key} {value}" for key, value in list(attrs.items())[:3] if isinstance(value, (str, int, float)))
        at = "" if found[-1].step is None else f" at step {found[-1].step}"
        return f"{found[-1].word.replace('_', ' ')}{at}" + (f" ({what[:120]})" if what else "")

    return look


_PEER = ("connection", "peer", "broken pipe", "nccl", "gloo", "distbackend", "timed out")


def raised(case: Case) -> str | None:
    """A rank ended by an exception of its own. One that complains of its peer (a reset connection, NCCL) only followed from the peer's end."""
    for event in case.near("rank_failed"):
        words = f"{event.attrs.get('type', '')}: {event.attrs.get('message', '')}"
        if not any(word in words.lower() for word in _PEER):
            return f"rank {event.rank} raised {words[:160]}"
    return None


def given(one_of: tuple[Look, ...], look: Look) -> Look:
    """The look, where one of the others saw something: what clears one suspect accuses another only of what was done."""
    return lambda case: look(case) if any(other(case) for other in one_of) else None


def everywhere(sentence: str) -> Look:
    return lambda case: sentence if case.is_everywhere and case.world_size > 1 else None


def local(sentence: str) -> Look:
    return lambda case: None if case.is_everywhere else f"{sentence}: {case.place}"


def kind_is(kind: str, sentence: str = "") -> Look:
    """The kind itself is the clue; the sentence, or the incident's own summary, is what is seen."""
    return lambda case: (sentence or case.incident.summary) if case.incident.kind == kind else None


def _short(value: float) -> str:
    for limit, unit, name in ((1e12, 1e12, " T"), (1e9, 1e9, " G"), (1e6, 1e6, " M"), (1e4, 1e3, " k")):
        if abs(value) >= limit:
            return f"{value / unit:.3g}{name}"
    return f"{value:.3g}"
