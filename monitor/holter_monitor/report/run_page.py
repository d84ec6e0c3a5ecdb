"""A run's account as Markdown for a chat or an issue, and as one HTML page, the plots inside both."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from holter_monitor.client import Series
from holter_monitor.report.account import Account, Row
from holter_monitor.report.sparks import spark
from holter_monitor.report.svg import chart
from holter_monitor.report.words import duration, moment


def markdown(account: Account) -> str:
    marks = [incident["onset_step"] for incident, _ in account.told()]
    plots = [(series.metric, spark(_points(series), marks)) for series in account.series]
    return template("account.md.j2", autoescape=False).render(**_words(account), plots=[plot for plot in plots if plot[1]]) + "\n"


def html(account: Account) -> str:
    marks = [(each["onset_step"], each["severity"], f"{each['kind']} since step {each['onset_step']}") for each, _ in account.told()]
    plots = [(series.metric, chart(_points(series), title=series.metric, marks=marks)) for series in account.series if len(series)]
    return template("account.html.j2", autoescape=True).render(**_words(account), plots=plots)


def _points(series: Series) -> list[tuple[int, float]]:
    return [(int(step), float(value)) for step, value in zip(series.step, series.value, strict=True)]


def template(name: str, *, autoescape: bool) -> Template:
    loader = PackageLoader("holter_monitor.report", ".")
    # Markdown has no escaping that all readers share; what a user named is flattened to one line instead (`flat`).
    environment = Environment(loader=loader, autoescape=autoescape, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)  # noqa: S701
    return environment.get_template(name)


def _words(account: Account) -> dict[str, Any]:
    run, goodput = account.run, account.goodput
    numbers = {attempt["attempt"]: attempt["number"] for attempt in account.attempts}
    return {
        "name": flat(f"{run['project']}/{run['name']}"),
        "state": run["state"],
        "world_size": run["world_size"],
        "last_step": run["last_step"],
        "goodput": None if goodput["goodput"] is None else f"{goodput['goodput']:.1%}",
        "wall": duration(goodput["wall_seconds"] or 0.0),
        "lost": _priced(account, account.lost_seconds),
        "parts": [
            {"cause": cause, "what": name, "time": duration(seconds), "share": f"{share:.1%}", "width": f"{100 * share:.3f}"}
            | {"hours": _hours(account, seconds), "money": _money(account, seconds)}
            for cause, name, seconds, share in account.parts()
        ],
        "attempts": [_attempt(each) for each in account.attempts],
        "failures": goodput["failures"],
        "between": _duration(goodput["seconds_between_failures"]),
        "recover": _duration(goodput["seconds_to_recover"]),
        "breaks": [_break(account, each, numbers.get(each["attempt"], "–")) for each in goodput["breaks"]],
        "checkpoints": _checkpoints(account.checkpoints),
        "incidents": [_incident(account, each, symptoms) for each, symptoms in account.told()],
        "has_price": account.gpu_hour_price is not None,
    }


def _attempt(attempt: Row) -> dict[str, Any]:
    steps = "no step" if attempt["first_step"] is None else f"{attempt['first_step']:,} to {attempt['last_step']:,}"
    lasted = "" if attempt["ended"] is None else duration(max(0.0, _seconds(attempt["ended"]) - _seconds(attempt["started"])))
    return {
        "number": attempt["number"],
        "state": attempt["state"],
        "started": moment(attempt["started"]),
        "lasted": lasted or "–",
        "steps": steps,
    }


def _break(account: Account, broken: Row, number: object) -> dict[str, Any]:
    return {
        "number": number,
        "state": broken["state"],
        "down": _duration(broken["down_seconds"]),
        "startup": duration(broken["startup_seconds"]),
        "recomputed": duration(broken["recomputed_seconds"]),
        "cost": _priced(account, broken["cost_seconds"]),
    }


def _checkpoints(found: Row) -> list[tuple[str, str]]:
    """What there is to resume from; empty where nobody watches."""
    if not found.get("folder"):
        return []
    said = [("place", flat(found["folder"])), ("newest whole", flat(found["newest"] or "none"))]
    if found["newest_written"]:
        said.append(("written", moment(found["newest_written"])))
    if found["copy_folder"]:
        said.append(("newest copied", flat(f"{found['newest_copied'] or 'none'}, to {found['copy_folder']}")))
    if found["keep"]:
        said.append(("retention keeps", str(found["keep"])))
    if found["room"] is not None:
        said.append(("room for", f"{found['room']:,} more"))
    if found["full_seconds"] is not None:
        said.append(("full in", duration(found["full_seconds"])))
    return said + [("does not answer", flat(text)) for text in (found["problem"], found["copy_problem"]) if text]


def _incident(account: Account, incident: Row, symptoms: Sequence[Row]) -> dict[str, Any]:
    cost, causes = incident["cost"], incident["causes"]
    return {
        "severity": incident["severity"],
        "kind": incident["kind"],
        "state": incident["state"],
        "onset": incident["onset_step"],
        "summary": flat(incident["summary"]),
        "cost": _priced(account, cost) if cost else "",
        "cause": flat(causes[0].get("sentence", "")) if causes else "",
        "action": flat(causes[0].get("action", "")) if causes else "",
        "symptoms": ", ".join(sorted({each["kind"].replace("_", " ") for each in symptoms})),
        "url": incident["url"],
    }


def _priced(account: Account, seconds: float) -> str:
    return f"{duration(seconds)}, {_hours(account, seconds)} GPU-hours{_money(account, seconds, ', ')}"


def _hours(account: Account, seconds: float) -> str:
    hours = account.gpu_hours(seconds)
    return f"{hours:,.0f}" if hours >= 1000 else f"{hours:.3g}"


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment.replace("Z", "+00:00")).timestamp()


def _money(account: Account, seconds: float, before: str = "") -> str:
    return "" if account.gpu_hour_price is None else f"{before}{account.gpu_hours(seconds) * account.gpu_hour_price:,.2f}"


def _duration(seconds: float | None) -> str:
    return "–" if seconds is None else duration(seconds)


def flat(text: str) -> str:
    return " ".join(text.replace("|", "¦").split())
