"""A run's account as Markdown for a chat or an issue, and as one HTML page with its plots inside."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from holter_monitor.report.account import Account, Row
from holter_monitor.report.svg import chart
from holter_monitor.report.words import duration


def markdown(account: Account) -> str:
    return template("account.md.j2", autoescape=False).render(**_words(account)) + "\n"


def html(account: Account) -> str:
    marks = [(each["onset_step"], each["severity"], f"{each['kind']} since step {each['onset_step']}") for each in account.incidents]
    plots = [
        (series.metric, chart(list(zip(series.step, series.value, strict=True)), title=series.metric, marks=marks))
        for series in account.series
        if len(series)
    ]
    return template("account.html.j2", autoescape=True).render(**_words(account), plots=plots)


def template(name: str, *, autoescape: bool) -> Template:
    loader = PackageLoader("holter_monitor.report", ".")
    # Markdown has no escaping that all readers share; what a user named is flattened to one line instead (`flat`).
    environment = Environment(loader=loader, autoescape=autoescape, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)  # noqa: S701
    return environment.get_template(name)


def _words(account: Account) -> dict[str, Any]:
    run, goodput = account.run, account.goodput
    return {
        "name": flat(f"{run['project']}/{run['name']}"),
        "state": run["state"],
        "world_size": run["world_size"],
        "last_step": run["last_step"],
        "goodput": None if goodput["goodput"] is None else f"{goodput['goodput']:.1%}",
        "wall": duration(goodput["wall_seconds"] or 0.0),
        "parts": [(name, duration(seconds), f"{share:.1%}", _money(account, seconds)) for name, seconds, share in account.parts()],
        "attempts": [_attempt(each) for each in account.attempts],
        "failures": goodput["failures"],
        "between": _duration(goodput["seconds_between_failures"]),
        "recover": _duration(goodput["seconds_to_recover"]),
        "incidents": [_incident(account, each) for each in account.incidents],
        "has_price": account.gpu_hour_price is not None,
    }


def _attempt(attempt: Row) -> dict[str, Any]:
    steps = "no step" if attempt["first_step"] is None else f"steps {attempt['first_step']:,} to {attempt['last_step']:,}"
    return {
        "number": attempt["number"],
        "state": attempt["state"],
        "started": attempt["started"],
        "ended": attempt["ended"] or "–",
        "steps": steps,
    }


def _incident(account: Account, incident: Row) -> dict[str, Any]:
    cost, causes = incident["cost"], incident["causes"]
    return {
        "severity": incident["severity"],
        "kind": incident["kind"],
        "state": incident["state"],
        "onset": incident["onset_step"],
        "summary": flat(incident["summary"]),
        "cost": "" if not cost else f"{duration(cost)} lost, {account.gpu_hours(cost):.3g} GPU-hours{_money(account, cost, ', ')}",
        "cause": flat(causes[0].get("sentence", "")) if causes else "",
        "action": flat(causes[0].get("action", "")) if causes else "",
        "url": incident["url"],
    }


def _money(account: Account, seconds: float, before: str = "") -> str:
    return "" if account.gpu_hour_price is None else f"{before}{account.gpu_hours(seconds) * account.gpu_hour_price:,.2f}"


def _duration(seconds: float | None) -> str:
    return "–" if seconds is None else duration(seconds)


def flat(text: str) -> str:
    return " ".join(text.replace("|", "¦").split())
