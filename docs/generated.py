"""Pages that the code itself writes when the site is built: every finding with its rule, every word of a policy, every route, and the client.

A hook of mkdocs; `make docs` runs it. A page that is made from the code cannot say what the code does not do.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
import tempfile
from collections import defaultdict
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from holter_monitor import ui
from holter_monitor.detectors import DETECTORS
from holter_monitor.diagnosis import CAUSES
from holter_monitor.findings import KINDS, Severity
from mkdocs.structure.files import File, Files
from pydantic import BaseModel


def on_files(files: Files, config: Any) -> Files:
    files.append(File.generated(config, "findings.md", content=findings()))
    files.append(File.generated(config, "policies.md", content=policies()))
    root = Path(config.config_file_path).parent
    files.append(File.generated(config, "changelog.md", abs_src_path=str(root / "CHANGELOG.md")))
    files.append(File.generated(config, "icon.svg", abs_src_path=str(Path(ui.__file__).parent / "static" / "icon.svg")))
    files.append(File.generated(config, "api.md", content=routes()))
    return files


def findings() -> str:
    """One section a kind of finding."""
    by_kind: dict[str, list[Any]] = defaultdict(list)
    for maker in DETECTORS:
        for kind in _kinds(maker):
            by_kind[kind].append(maker)
    lines = [
        "# Findings",
        "",
        "What Holter can say, how it decides, and what it weighs as causes. Made from the code of the detectors.",
        "",
    ]
    for kind in KINDS:
        lines += [f"## {kind}", ""]
        if kind == "detector_failed":
            lines += ["A detector raised an exception and is off for this run; the others go on. Please report it with the evidence.", ""]
        for maker in by_kind[kind]:
            lines += _detector(maker)
        lines += _causes(kind)
    return "\n".join(lines)


def _kinds(maker: Any) -> list[str]:
    """The kinds that a detector's own module speaks of; most speak of one."""
    source = inspect.getsource(sys.modules[maker.__module__])
    own = [kind for kind in KINDS if f'"{kind}"' in source and kind != "detector_failed"]
    return own if maker.kind not in own or len(own) > 1 else [maker.kind]


def _detector(maker: Any) -> list[str]:
    module = inspect.getdoc(sys.modules[maker.__module__]) or ""
    lines = [module, "", inspect.getdoc(maker) or "", ""]
    rows = [(f.name, f.default) for f in fields(maker) if f.init and f.default is not MISSING]
    if rows:
        docs = _field_docs(maker)
        lines += ["| parameter | default | what it buys |", "|---|---|---|"]
        lines += [f"| `{name}` | {default:g} | {docs.get(name, '')} |" for name, default in rows if isinstance(default, int | float)]
        lines.append("")
    return lines


def _field_docs(maker: Any) -> dict[str, str]:
    """The docstrings that stand under the fields, in one line each."""
    import ast

    tree = ast.parse(inspect.getsource(maker)).body[0]
    assert isinstance(tree, ast.ClassDef)
    found: dict[str, str] = {}
    for before, after in zip(tree.body, tree.body[1:], strict=False):
        is_text = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and isinstance(after.value.value, str)
        if isinstance(before, ast.AnnAssign) and isinstance(before.target, ast.Name) and is_text:
            found[before.target.id] = " ".join(after.value.value.split()).replace("|", "\\|")
    return found


def _causes(kind: str) -> list[str]:
    causes = [cause for cause in CAUSES if kind in cause.explains]
    if not causes:
        return []
    lines = ["**Causes that are weighed, and what to do about each:**", ""]
    return [*lines, *(f"- *{cause.name.replace('_', ' ')}*: {_plain(cause.action)}." for cause in causes), ""]


def _plain(text: str) -> str:
    """An action with its placeholders as words."""
    return text.replace("{", "⟨").replace("}", "⟩")


def policies() -> str:
    """Every word of a policy file, part by part."""
    from holter_monitor.alerting import policies as module
    from holter_monitor.notify import NOTIFIERS

    lines = [
        "# Policies, word by word",
        "",
        "The files in `--policies`; [Alerts](alerting.md) shows one at work. A word that is not here is an error.",
        "",
    ]
    for part in (
        module.Policy,
        module.Route,
        module.Match,
        module.Escalation,
        module.Hours,
        module.Maintenance,
        module.Reaction,
        module.Heartbeat,
    ):
        docs = _field_docs(part)
        lines += [f"## {_PLACES[part.__name__]}", "", inspect.getdoc(part) or "", "", "| word | default | |", "|---|---|---|"]
        for name, field in part.model_fields.items():
            default = "(must be given)" if field.is_required() else _written(field.get_default(call_default_factory=True))
            lines.append(f"| `{field.alias or name}` | {default} | {docs.get(name, '')} |")
        lines.append("")
    lines += ["## `receivers.NAME`", "", "By `type`, and the words that each takes.", "", "| type | words | |", "|---|---|---|"]
    for kind, notifier in NOTIFIERS.items():
        words = ", ".join(f"`{f.name}`" for f in fields(notifier)) or "none"
        lines.append(f"| `{kind}` | {words} | {' '.join((inspect.getdoc(notifier) or '').split())} |")
    return "\n".join([*lines, ""])


_PLACES = {
    "Policy": "A file",
    "Route": "`routes`",
    "Match": "`match`",
    "Escalation": "`escalate`",
    "Hours": "`quiet_hours`, `hours`",
    "Maintenance": "`maintenance`",
    "Reaction": "`reactions`",
    "Heartbeat": "`heartbeat`",
}


def _written(value: Any) -> str:
    """A default as one would write it in the file."""
    if value is None or value == [] or isinstance(value, BaseModel):
        return ""
    if isinstance(value, list) and isinstance(value[0], Severity):
        return "any"
    if isinstance(value, list | dict):
        return f"`{json.dumps(value)}`"
    return f"{value:g} s" if isinstance(value, float) else f"`{json.dumps(value)}`"


def routes() -> str:
    """Every route with its scope and first line, and the client's methods; the whole document is at `/docs` of a running collector."""
    from fastapi import FastAPI
    from holter_monitor.api.gate import needed_scope
    from holter_monitor.app import build
    from holter_monitor.settings import Settings

    with tempfile.TemporaryDirectory() as folder:
        inner = build(Settings(data=Path(folder), port=0)).app
        assert isinstance(inner, FastAPI)
        document = inner.openapi()
    lines = ["# REST", "", "A running collector shows this with schemas and examples at `/docs`, and as JSON at `/openapi.json`.", ""]
    lines += ["A token (`Authorization: Bearer hlt_…`) needs the scope of the route; see [security](security.md).", ""]
    lines += ["| route | scope | what it does |", "|---|---|---|"]
    for path, methods in document["paths"].items():
        for method, about in methods.items():
            said = (about.get("description") or about.get("summary") or "").strip().split("\n")[0].replace("|", "\\|")
            lines.append(f"| `{method.upper()} {path}` | {needed_scope(method.upper(), path) or 'none'} | {said} |")
    lines += ["", "Frames travel to `POST /api/v1/frames` (see [the wire](architecture.md)).", ""]
    return "\n".join([*lines, *_client()])


def _client() -> list[str]:
    """The Python client's public methods with their signatures."""
    from holter_monitor.client import Client

    lines = [
        "## From Python",
        "",
        f"`holter_monitor.client.Client`: {inspect.getdoc(Client)} [In a notebook](notebooks.md) shows it at work.",
        "",
    ]
    lines += ["| method | what it does |", "|---|---|"]
    for name, method in inspect.getmembers(Client, inspect.isfunction):
        if not name.startswith("_"):
            signature = re.sub(r"^\(self(, )?", "(", str(inspect.signature(method)).partition(" -> ")[0])
            said = " ".join((inspect.getdoc(method) or "").split())
            lines.append("| `{}` | {} |".format(f"{name}{signature}".replace("'", ""), said.replace("|", "\\|")))
    return [*lines, ""]
