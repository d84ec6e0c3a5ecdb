"""What the demo shows: the live step line, the incidents as they open, the message as it was received."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.panel import Panel
from rich.text import Text

BARS = "▁▂▃▄▅▆▇█"
WIDTH = 40
PLAIN_EVERY = 50
"""Steps between two lines where the output is no terminal."""
COLORS = {"critical": "bold red", "warning": "yellow", "info": "cyan"}


def spark(values: Sequence[float], width: int = WIDTH) -> str:
    """The last `width` values as bars; flat for equal ones."""
    recent = list(values[-width:])
    low, high = min(recent, default=0.0), max(recent, default=0.0)
    if high <= low:
        return BARS[0] * len(recent)
    return "".join(BARS[int((value - low) / (high - low) * (len(BARS) - 1))] for value in recent)


class Screen:
    """A terminal gets one line that lives; a pipe gets a plain line now and then."""

    def __init__(self, picture: Path | None = None) -> None:
        self.picture = picture
        self.console = Console(highlight=False, record=picture is not None, width=100 if picture else None)
        self._live = Live(Text(""), console=self.console, refresh_per_second=8, transient=True) if sys.stdout.isatty() else None
        self._losses: list[float] = []
        self._printed = -PLAIN_EVERY

    def __enter__(self) -> Screen:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()
        if self.picture:
            # rich points at web fonts; a picture in a README makes no request.
            self.picture.write_text(re.sub(r"@font-face \{.*?\}", "", self.console.export_svg(title="holter demo"), flags=re.DOTALL))

    def say(self, line: str, style: str = "") -> None:
        self.console.print(Text(line, style))

    def step(self, step: int, values: Mapping[str, float | None]) -> None:
        """One step: `values` holds loss, grad_norm, tokens_per_second and data_wait_seconds, each the mean over ranks or None."""
        loss = values.get("loss")
        if loss is not None:
            self._losses.append(loss)
        line = f"step {step:>5}  loss {_number(loss, 4)}  grad {_number(values.get('grad_norm'), 3)}"
        line += (
            f"  {_number(values.get('tokens_per_second'), 0)} tok/s a rank  wait {_number(_milli(values.get('data_wait_seconds')), 1)} ms"
        )
        if self._live:
            self._live.update(Text.assemble((line, ""), "  ", (spark(self._losses), "green")))
        elif step >= self._printed + PLAIN_EVERY:
            self._printed = step
            self.say(line)

    def incident(self, incident: Mapping[str, Any]) -> None:
        style = COLORS.get(str(incident["severity"]), "")
        self.say(f"● {incident['severity']}  {incident['kind']}  since step {incident['onset_step']}: {incident['summary']}", style)

    def message(self, message: Mapping[str, Any]) -> None:
        self.console.print(Panel(Text(plain(message)), title="received by the Slack stand-in", border_style="magenta", expand=False))


def plain(message: Mapping[str, Any]) -> str:
    """The readable lines of a Block Kit message, or its fallback text."""
    lines = [line for block in message.get("blocks", []) for line in _lines(block)]
    return "\n".join(lines) or str(message.get("text", message))


def _lines(block: Mapping[str, Any]) -> list[str]:
    texts = [block.get("text"), *block.get("fields", []), *block.get("elements", [])]
    return [found for found in map(_text, texts) if found]


def _text(element: Any) -> str:
    if isinstance(element, Mapping):
        inner = element.get("text")
        url = f" <{element['url']}>" if "url" in element else ""
        return (_text(inner) if isinstance(inner, Mapping) else str(inner or "")) + url
    return ""


def _number(value: float | None, digits: int) -> str:
    return "—" if value is None else f"{value:,.{digits}f}"


def _milli(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1000
