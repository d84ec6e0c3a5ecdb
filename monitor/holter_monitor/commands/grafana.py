"""Put Holter's dashboards, their folder and data sources into a Grafana that you already have; a second push changes nothing."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

import niquests
from grafana_client.api import GrafanaApi
from grafana_client.client import GrafanaException
from pydantic import SecretStr

from holter_monitor.grafana import Sources, push
from holter_monitor.shipped import shipped


def add_arguments(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="grafana_verb", required=True, metavar="push")
    put = verbs.add_parser("push", help="create or update folder, data sources and dashboards")
    put.add_argument("--url", default=os.environ.get("GRAFANA_URL"), help="Grafana's address (default: $GRAFANA_URL)")
    put.add_argument("--token-file", type=Path, help="a service account's token (default: $GRAFANA_TOKEN)")
    put.add_argument("--user", help="instead of a token; the password is $GRAFANA_PASSWORD")
    put.add_argument(
        "--postgres", metavar="HOST:PORT", help="the control store as Grafana reaches it; without it that data source is left alone"
    )
    put.add_argument("--database", default="holter", help="(default: %(default)s)")
    put.add_argument("--database-user", default="grafana_reader", help="(default: %(default)s)")
    put.add_argument("--database-password-file", type=Path)
    put.add_argument(
        "--sslmode", default="require", choices=("disable", "require", "verify-ca", "verify-full"), help="(default: %(default)s)"
    )
    put.add_argument("--prometheus", metavar="URL", help="Prometheus as Grafana reaches it; without it that data source is left alone")
    put.add_argument("--json", action="store_true", help="for programs")


def run(arguments: argparse.Namespace) -> int:
    try:
        sources = Sources(
            postgres=arguments.postgres,
            database=arguments.database,
            user=arguments.database_user,
            password=_secret(arguments.database_password_file),
            sslmode=arguments.sslmode,
            prometheus=arguments.prometheus,
        )
        done = push(_api(arguments), shipped("dashboards"), sources)
    except (GrafanaException, niquests.RequestException, OSError, ValueError) as error:
        print(f"holter grafana push: {arguments.url}: {error}", file=sys.stderr)
        return 2
    if arguments.json:
        print(json.dumps([{"action": action, "what": what} for action, what in done]))
    else:
        print("\n".join(f"{action:<8} {what}" for action, what in done))
    return 0


def _api(arguments: argparse.Namespace) -> Any:
    if not arguments.url:
        raise ValueError("no address; give --url or set GRAFANA_URL")
    if arguments.user:
        return GrafanaApi.from_url(arguments.url, (arguments.user, os.environ.get("GRAFANA_PASSWORD", "")), timeout=15)
    token = _secret(arguments.token_file) or SecretStr(os.environ.get("GRAFANA_TOKEN", ""))
    if not token.get_secret_value():
        raise ValueError("no token; give --token-file, set GRAFANA_TOKEN, or give --user and GRAFANA_PASSWORD")
    return GrafanaApi.from_url(arguments.url, token.get_secret_value(), timeout=15)


def _secret(path: Path | None) -> SecretStr | None:
    return SecretStr(path.read_text().strip()) if path else None
