"""A backtest on the terminal: one column a setting."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

_ROWS: tuple[tuple[str, Callable[[dict[str, Any]], str]], ...] = (
    ("runs (labelled)", lambda row: f"{row['runs']} ({row['labelled_runs']})"),
    ("records", lambda row: f"{row['records']:,}"),
    ("events found", lambda row: f"{row['found']} of {row['events']}"),
    ("recall", lambda row: _share(row["recall"])),
    ("precision", lambda row: _share(row["precision"])),
    ("right kind named", lambda row: _share(row["right_kind"])),
    ("delay, steps: median / p95", lambda row: f"{_number(row['delay_steps_median'])} / {_number(row['delay_steps_p95'])}"),
    ("delay, tokens: median", lambda row: _number(row["delay_tokens_median"])),
    ("false alarms", lambda row: str(row["false_alarms"])),
    ("  per 100,000 records", lambda row: _number(row["false_alarms_per_100k_records"])),
    ("  the same, healthy runs", lambda row: _number(row["false_alarms_per_100k_records_healthy_runs"])),
    ("  per run-day", lambda row: _number(row["false_alarms_per_run_day"])),
    ("alarms on unlabelled runs", lambda row: str(row["unlabelled_alarms"])),
    ("  per 100,000 records", lambda row: _number(row["unlabelled_alarms_per_100k_records"])),
    ("  per run-day", lambda row: _number(row["unlabelled_alarms_per_run_day"])),
)


def show(console: Console, tallies: list[dict[str, Any]], *, with_details: bool) -> None:
    """Prints the figures of each setting side by side, then by kind; with details, each miss and false alarm of the last one."""
    table = Table(show_edge=False, box=None, pad_edge=False)
    table.add_column("")
    for tally in tallies:
        table.add_column(tally["setting"], justify="right")
    for name, cell in _ROWS:
        table.add_row(name, *(cell(tally) for tally in tallies))
    for kind in sorted({kind for tally in tallies for kind in tally["kinds"]}):
        table.add_row(f"{kind}: found, false", *(_kind(tally["kinds"].get(kind)) for tally in tallies))
    console.print(table)
    if with_details:
        for word, rows in (("missed", tallies[-1]["missed"]), ("false", tallies[-1]["false"])):
            for row in rows:
                console.print(Text(f"{word}: {row['kind']} at step {row['step']:,} of {row['source']}"), soft_wrap=True)
                if row.get("summary"):
                    console.print(Padding(Text(row["summary"], style="dim"), (0, 0, 0, 4), expand=False))


def _kind(row: dict[str, int] | None) -> str:
    return f"{row['found']}/{row['events']}, {row['false_alarms']}" if row else "-"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.3g}" if abs(value) < 1e4 else f"{value:,.0f}"
