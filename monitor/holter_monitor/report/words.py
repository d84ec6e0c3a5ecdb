"""How a scan's numbers are said to people."""

from __future__ import annotations

from datetime import datetime, timezone

from holter_monitor.offline.episodes import Trouble
from holter_monitor.offline.scan import Scanned

_DURATIONS = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"))


def duration(seconds: float) -> str:
    """`5400` -> `1.5 h`."""
    for width, unit in _DURATIONS:
        if seconds >= 1.5 * width:
            return f"{seconds / width:.1f} {unit}"
    return f"{seconds:.3g} s"


def moment(text: str) -> str:
    """RFC 3339 as people write it: `2026-11-25 16:00:00 UTC`."""
    return f"{datetime.fromisoformat(text.replace('Z', '+00:00')).astimezone(timezone.utc):%Y-%m-%d %H:%M:%S} UTC"


def number(value: float) -> str:
    """Four digits that matter, without an exponent as long as a person can read it: `14,050`, `0.0012`."""
    size = abs(value)
    if size >= 1e7 or 0 < size < 1e-4:
        return f"{value:.3e}"
    return f"{value:,.0f}" if size >= 1e4 else f"{value:.4g}"


def tokens(count: float) -> str:
    """`40.24e9` -> `40.24B tokens`."""
    for power, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if count >= power:
            return f"{count / power:.4g}{unit} tokens"
    return f"{count:.0f} tokens"


def extent(run: Scanned) -> str:
    """How much of a run was looked at."""
    parts = [f"{run.records:,} records", f"steps {run.first_step or 0:,}–{run.last_step or 0:,}"]
    if run.num_attempts > 1:
        parts.append(f"{run.num_attempts} attempts")
    if run.num_ranks > 1:
        parts.append(f"{run.num_ranks} ranks")
    if run.seconds:
        parts.append(duration(run.seconds))
    return " · ".join(parts)


def when(trouble: Trouble) -> str:
    """`step 366, seen at 370, not over`; in tokens too where the log counts them."""
    parts = [f"from step {trouble.onset_step:,}"]
    if trouble.onset_tokens:
        parts[0] += f" ({tokens(trouble.onset_tokens)})"
    if trouble.detected_step != trouble.onset_step:
        parts.append(f"seen at {trouble.detected_step:,}")
    parts.append("not over at the end" if trouble.end_step is None else f"over by {trouble.end_step:,}")
    if len(trouble.ranks) == 1:
        parts.append(f"rank {trouble.ranks[0]}")
    elif trouble.ranks:
        parts.append(f"{len(trouble.ranks)} ranks: {', '.join(map(str, trouble.ranks[:6]))}{' …' if len(trouble.ranks) > 6 else ''}")
    return ", ".join(parts)


def certainty(trouble: Trouble) -> str:
    """How sure: the best cause's confidence where a diagnosis was made, else how far it stands over its threshold."""
    if trouble.causes:
        best = trouble.causes[0]
        return f"{best['cause'].replace('_', ' ')} ({best['confidence']:.0%} sure)"
    return f"score {trouble.score:.3g}" if trouble.score else ""


def action(trouble: Trouble) -> str:
    """What to do: against the likely cause, or where to look for one."""
    if trouble.causes:
        return str(trouble.causes[0].get("action") or "")
    return "; ".join(f"look at {lead}" for lead in (trouble.incident.evidence.get("look_at") or ())[:2])


def verdict(run: Scanned, count: int) -> str:
    """In a word or two, `count` incidents being worth telling."""
    if count:
        return f"{count} {'incident' if count == 1 else 'incidents'}"
    return "healthy" if run.is_judged else "not judged"
