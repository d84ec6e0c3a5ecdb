"""What a person reads of a scan: complete at 80 columns, without colour, and in plain ASCII where the terminal has no more."""

from __future__ import annotations

import io
import math
from pathlib import Path

import pytest
from holter.cli import main
from holter_monitor.offline.scan import Scanned, ScanSettings, scan
from holter_monitor.offline.traces import POINTS, Thinned
from holter_monitor.report import terminal, words
from rich.console import Console


def diverging(path: Path) -> Path:
    rows = []
    for step in range(900):
        calm = 2.5 + 0.02 * math.sin(step * 12.9898)
        loss = calm + 3.0 * (step == 300) + max(0.0, step - 600) * 0.02
        rows.append(
            f"{step},{loss},{1.0 + 0.05 * math.sin(step * 7.1) + 5.0 * (step == 300)},{step * 4_000_000},{'checkpoint' if step % 250 == 249 else ''}"
        )
    path.write_text("step,loss,grad_norm,consumed_tokens,event\n" + "\n".join(rows) + "\n")
    return path


def only(path: Path, **settings: bool) -> Scanned:
    (run,) = (result for result in scan([path], ScanSettings(**settings)) if isinstance(result, Scanned))
    return run


def printed(run: Scanned, encoding: str = "utf-8", width: int = 80) -> str:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding, errors="replace")
    terminal.show(Console(file=file, width=width, highlight=False), run)
    file.flush()
    return raw.getvalue().decode(encoding)


def test_the_report_says_what_when_how_sure_and_what_to_do(tmp_path: Path) -> None:
    text = printed(only(diverging(tmp_path / "run.csv")))
    assert "WARNING loss_spike from step 300 (1.2B tokens)" in text
    assert "% sure)" in text and "Do: " in text and "█" in text and "\x1b" not in text
    assert max(map(len, text.splitlines()[1:])) <= 80


def test_the_rewind_point_lies_at_the_checkpoint_before(tmp_path: Path) -> None:
    run = only(diverging(tmp_path / "run.csv"))
    spike = next(trouble for trouble in run.troubles if trouble.kind == "loss_spike" and trouble.onset_step == 300)
    assert spike.incident.evidence["rewind"]["step"] == 249
    assert spike.causes and spike.causes[0]["cause"] == "bad_batch"


def test_ascii_where_the_terminal_has_no_more(tmp_path: Path) -> None:
    text = printed(only(diverging(tmp_path / "run.csv")), encoding="ascii")
    assert "#" in text and "█" not in text


def test_a_narrow_terminal_loses_nothing(tmp_path: Path) -> None:
    text = printed(only(diverging(tmp_path / "run.csv")), width=50)
    body = text.splitlines()[1:]  # the path above stays whole
    assert "loss_spike" in text and "sure)" in text and max(map(len, body)) <= 64


def test_the_spark_shows_the_spike_above_its_mark(tmp_path: Path) -> None:
    lines = printed(only(diverging(tmp_path / "run.csv"))).splitlines()
    mark = next(place for place, line in enumerate(lines) if line.strip() == "^")
    assert lines[mark - 1][lines[mark].index("^")] == "█"


def test_the_page_stands_alone(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    assert main(["scan", str(diverging(tmp_path / "run.csv")), "--html", str(page)]) == 3
    text = page.read_text()
    assert "<svg" in text and 'class="mark' in text and "<figcaption>loss</figcaption>" in text
    assert "default-src 'none'" in text and "http" not in text.replace("http-equiv", "") and "<script" not in text


@pytest.mark.parametrize(("seconds", "said"), [(0.5, "0.5 s"), (89, "89 s"), (5400, "1.5 h"), (600, "10.0 min"), (3 * 86400, "3.0 d")])
def test_durations(seconds: float, said: str) -> None:
    assert words.duration(seconds) == said


def test_a_thinned_series_is_bounded_and_keeps_its_extremes() -> None:
    series = Thinned()
    for step in range(200_000):
        series.add(step, 99.0 if step == 123_456 else -7.0 if step == 7 else math.sin(step / 999))
    assert len(series.points) <= 2 * POINTS
    assert (123_456, 99.0) in series.points and (7, -7.0) in series.points
    assert [step for step, _ in series.points] == sorted(step for step, _ in series.points)


def test_a_straggler_is_drawn_by_its_own_values(tmp_path: Path) -> None:
    """The mean over all ranks would show nothing."""
    rows = [
        f"{step},{rank},{1.0 + 0.01 * math.sin(step * 7.7 + rank * 3.3) + 0.3 * (rank == 5 and step >= 100)}"
        for step in range(220)
        for rank in range(8)
    ]
    (tmp_path / "ranks.csv").write_text("step,rank,compute_time_s\n" + "\n".join(rows) + "\n")
    run = only(tmp_path / "ranks.csv")
    (trouble,) = (each for each in run.troubles if each.kind == "straggler")
    frame = run.trace.frames[trouble.place]
    assert trouble.ranks == [5] and frame.title == "compute_seconds of rank 5"
    assert max(value for _, value in frame.points) > 1.25
