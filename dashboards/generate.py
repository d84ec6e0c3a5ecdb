"""Write the dashboards' JSON into `grafana/`; `--check` compares and writes nothing (exit code 1 when the committed files differ)."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import fleet
import itself
import ranks
import run
import troubles
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from meanings import MEANINGS

FOLDER = Path(__file__).parent / "grafana"
BUILDERS = (fleet.build, run.build, ranks.build, troubles.build, itself.build)


def rendered() -> dict[str, str]:
    """The files' contents by name."""
    boards = [build().build() for build in BUILDERS]
    for board in boards:
        for panel in board.panels or []:
            for one in (panel, *(getattr(panel, "panels", None) or [])):
                _describe(one)
    return {f"{board.uid}.json": json.dumps(board, cls=JSONEncoder, indent=1, sort_keys=True) + "\n" for board in boards}


def _describe(panel: Any) -> None:
    """A panel says what it shows; its own words go before those of `MEANINGS`."""
    if panel.type_val != "row" and not panel.description:
        panel.description = MEANINGS[panel.title]


def main() -> int:
    files = rendered()
    stale = [name for name, text in files.items() if not (FOLDER / name).exists() or (FOLDER / name).read_text() != text]
    stale += [path.name for path in FOLDER.glob("*.json") if path.name not in files]
    if "--check" in sys.argv:
        sys.stderr.writelines(f"{name} is not what the code says; run python dashboards/generate.py\n" for name in stale)
        return 1 if stale else 0
    for path in FOLDER.glob("*.json"):
        path.unlink()
    for name, text in files.items():
        (FOLDER / name).write_text(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
