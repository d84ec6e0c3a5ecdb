"""The fleet's account as Markdown and as one HTML page: what `GET /goodput` answers, said to people."""

from __future__ import annotations

from typing import Any

from holter_monitor.report.account import LEAST, PARTS, Row
from holter_monitor.report.run_page import flat, template
from holter_monitor.report.words import duration, moment

MAX_ROWS = 50


def markdown(fleet: Row, price: float | None) -> str:
    return template("fleet.md.j2", autoescape=False).render(**_words(fleet, price)) + "\n"


def html(fleet: Row, price: float | None) -> str:
    return template("fleet.html.j2", autoescape=True).render(**_words(fleet, price))


def _words(fleet: Row, price: float | None) -> dict[str, Any]:
    hours = fleet["gpu_hours"]
    wall = hours["wall"]
    return {
        "since": moment(fleet["since"]),
        "until": moment(fleet["until"]),
        "runs": fleet["runs"],
        "goodput": _percent(fleet["goodput"]),
        "wall": _hours(wall),
        "lost_money": None if price is None else f"{(wall - hours['productive']) * price:,.2f}",
        "parts": [
            (
                cause,
                name,
                _hours(hours[cause]),
                f"{hours[cause] / wall:.1%}",
                f"{100 * hours[cause] / wall:.3f}",
                _money(hours[cause], price),
            )
            for cause, name in PARTS.items()
            if hours[cause] > LEAST * wall
        ],
        "failures": fleet["failures"],
        "between": _duration(fleet["seconds_between_failures"]),
        "recover": _duration(fleet["seconds_to_recover"]),
        "projects": [_share(share, f"{share['project']} ({share['runs']})") for share in fleet["projects"][:MAX_ROWS]],
        "items": [_share(share, f"{share['project']}/{share['name']}") for share in fleet["items"][:MAX_ROWS]],
        "left_out": max(0, len(fleet["items"]) - MAX_ROWS),
        "incidents": [_incident(each, price) for each in fleet["incidents"][:MAX_ROWS]],
        "has_price": price is not None,
    }


def _share(share: Row, name: str) -> dict[str, Any]:
    hours = share["gpu_hours"]
    lost = sorted(((value, cause) for cause, value in hours.items() if cause not in ("wall", "productive") and value > 0), reverse=True)
    most = ", ".join(f"{PARTS[cause]} {_hours(value)}" for value, cause in lost[:2])
    return {
        "name": flat(name),
        "goodput": _percent(share["goodput"]),
        "wall": _hours(hours["wall"]),
        "lost": _hours(hours["wall"] - hours["productive"]),
        "most": most,
        "failures": share["failures"],
    }


def _incident(row: Row, price: float | None) -> dict[str, Any]:
    return {
        "severity": row["severity"],
        "kind": row["kind"],
        "run": flat(f"{row['project']}/{row['run_name']}"),
        "onset": row["onset_step"],
        "summary": flat(row["summary"]),
        "cost": f"{duration(row['cost_seconds'])} lost, {_hours(row['gpu_hours'])} GPU-hours{_money(row['gpu_hours'], price, ', ')}",
    }


def _hours(hours: float) -> str:
    return f"{hours:,.0f}" if hours >= 1000 else f"{hours:.3g}"


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.1%}"


def _money(hours: float, price: float | None, before: str = "") -> str:
    return "" if price is None else f"{before}{hours * price:,.2f}"


def _duration(seconds: float | None) -> str:
    return "–" if seconds is None else duration(seconds)
