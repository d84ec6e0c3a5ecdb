"""Puts the shipped dashboards, their folder and data sources into an existing Grafana. What is there already is brought to the shipped state."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from grafana_client.client import GrafanaClientError
from pydantic import SecretStr

FOLDER = "holter"


@dataclass(frozen=True, kw_only=True)
class Sources:
    """Where the two data sources point. None leaves a source as it is in Grafana; there must be one of our uid then."""

    postgres: str | None = None
    """`host:port` as Grafana reaches it."""
    database: str = "holter"
    user: str = "grafana_reader"
    password: SecretStr | None = field(default=None)
    sslmode: str = "require"
    prometheus: str | None = None
    """Its URL as Grafana reaches it."""


def push(api: Any, dashboards: Path, sources: Sources) -> list[tuple[str, str]]:
    """`api` is a `grafana_client.GrafanaApi`. What was done, as (`created`, `updated` or `kept`, name). Twice in a row is once.
    Raises `grafana_client`'s `GrafanaException`."""
    done = [_folder(api)]
    done += [_source(api, wanted) for wanted in data_sources(dashboards, sources)]
    return done + [_dashboard(api, path) for path in sorted((dashboards / "grafana").glob("*.json"))]


def data_sources(dashboards: Path, sources: Sources) -> list[dict[str, Any]]:
    """The shipped data sources, pointed to where the caller's servers are; those without a place are left out."""
    shipped = yaml.safe_load((dashboards / "provisioning" / "datasources" / "holter.yml").read_text())["datasources"]
    by_type = {source["type"]: source for source in shipped}
    found = []
    if sources.postgres:
        postgres = by_type["grafana-postgresql-datasource"]
        settings = {**postgres["jsonData"], "database": sources.database, "sslmode": sources.sslmode}
        secret = {"password": sources.password.get_secret_value()} if sources.password else {}
        found.append({**postgres, "url": sources.postgres, "user": sources.user, "jsonData": settings, "secureJsonData": secret})
    if sources.prometheus:
        found.append({**by_type["prometheus"], "url": sources.prometheus, "isDefault": False})
    return [{key: value for key, value in source.items() if key != "editable"} for source in found]


def _folder(api: Any) -> tuple[str, str]:
    if _found(api.folder.get_folder, FOLDER) is not None:
        return "kept", "folder Holter"
    api.folder.create_folder("Holter", uid=FOLDER)
    return "created", "folder Holter"


def _source(api: Any, wanted: Mapping[str, Any]) -> tuple[str, str]:
    name = f"data source {wanted['name']}"
    if _found(api.datasource.get_datasource_by_uid, wanted["uid"]) is None:
        api.datasource.create_datasource(dict(wanted))
        return "created", name
    api.datasource.update_datasource_by_uid(wanted["uid"], dict(wanted))
    return "updated", name


def _dashboard(api: Any, path: Path) -> tuple[str, str]:
    """Left alone where Grafana holds the same already: each save would be a new version in its history."""
    wanted = json.loads(path.read_text())
    name = f"dashboard {wanted['title']}"
    there = _found(api.dashboard.get_dashboard, wanted["uid"])
    if there is not None and _content(there["dashboard"]) == _content(wanted) and there.get("meta", {}).get("folderUid") == FOLDER:
        return "kept", name
    api.dashboard.update_dashboard(
        {"dashboard": {**wanted, "id": None}, "folderUid": FOLDER, "overwrite": True, "message": "holter grafana push"}
    )
    return "updated" if there is not None else "created", name


def _content(dashboard: Mapping[str, Any]) -> dict[str, Any]:
    """Without what Grafana numbers itself."""
    return {key: value for key, value in dashboard.items() if key not in ("id", "version", "iteration")}


def _found(get: Any, uid: str) -> Any:
    try:
        return get(uid)
    except GrafanaClientError as error:
        if error.status_code == 404:
            return None
        raise
