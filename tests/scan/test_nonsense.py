"""What is not a log, or only in part: named, counted, survived."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path

import pytest
import zstandard
from holter.cli import main
from holter_monitor import imports
from holter_monitor.imports.files import LINE_BYTES, LogFile
from holter_monitor.imports.records import LogError, Record
from holter_monitor.offline.scan import Scanned, ScanSettings, scan
from hypothesis import given, settings
from hypothesis import strategies as st

HEADER = b"step,loss\n"


def scanned(path: Path) -> tuple[list[Scanned], list[LogError]]:
    results = list(scan([path], ScanSettings()))
    return [run for run in results if isinstance(run, Scanned)], [error for error in results if isinstance(error, LogError)]


def records(path: Path) -> list[Record]:
    log = LogFile(path)
    importer = imports.recognise(log.head())
    assert importer is not None
    return list(importer.read(log, {}))


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress])
def test_a_log_cut_off_in_its_compression_is_an_error_and_its_beginning_is_scanned(tmp_path: Path, pack: object) -> None:
    import random

    noise = random.Random(0)
    whole = HEADER + b"".join(b"%d,%.9f\n" % (step, 2.5 + noise.random()) for step in range(30_000))
    path = tmp_path / "log.csv.gz"
    path.write_bytes(pack(whole)[:-30_000])  # type: ignore[operator]
    (run,), (error,) = scanned(path)
    assert 1000 < run.records < 30_000 and "read only in part" in run.notes
    assert error.line is not None and error.line > 1000 and "cut off" in str(error) and str(path) in str(error)


NO_LOGS = [
    b"", b"\n\n\n", bytes(range(256)) * 100, b"\x1f\x8bnot gzip at all", b"hello\nworld\n", b"PAR1 but no parquet", b"\x00" * 5000,
    b'{"log_history": "none"}', b'{"log_history": [', b"[" * 100_000, b'{"loss": [1, 2', b"step,loss\n", b":W&B\xe1\xbe\x00",
]  # fmt: skip


@pytest.mark.parametrize("content", NO_LOGS)
def test_a_file_that_is_no_log_is_an_error_with_its_name_and_what_was_expected(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "thing"
    path.write_bytes(content)
    runs, (error,) = scanned(path)
    assert not runs and str(path) in str(error) and "; expected " in str(error)


def test_broken_lines_are_named_skipped_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(HEADER + b"1,2.5\n2,oops\n3\n4,2.5,6\n5.5,2.5\n6,\xff\xfe\n\n7,2.5\n" + b'8,"2.5\n')
    (run,), errors = scanned(path)
    assert not errors and run.records == 2 and run.broken == 6
    assert run.notes[:3] == [
        "line 3: loss is 'oops'; expected a number, nan, inf or nothing",
        "line 4: 1 cells; expected 2",
        "line 5: 3 cells; expected 2",
    ]


def test_a_line_of_10_megabytes_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(HEADER + b"1,2.5\n" + b"9" * (10 * LINE_BYTES) + b"\n2,2.5\n")
    (run,), errors = scanned(path)
    assert not errors and run.records == 2 and run.broken == 1 and "line 3: longer than" in run.notes[0]


def test_a_file_that_is_one_line_of_10_megabytes_is_no_log(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"x" * 10_000_000)
    runs, (error,) = scanned(path)
    assert not runs and "no log that Holter knows" in str(error)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "latin-1"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    """UTF-16 without a mark is not told from binary; every other way to save a CSV is read, umlauts in other columns or not."""
    path = tmp_path / "log.csv"
    path.write_bytes("step,loss,größe\n1,2.5,groß\n2,nan,klein\n".encode(encoding))
    if encoding == "utf-16-le":
        assert imports.recognise(LogFile(path).head()) is None
        return
    first, second = records(path)
    assert first.values["loss"] == 2.5 and math.isnan(second.values["loss"])


WORDS = [
    ("nan", math.nan), ("NaN", math.nan), ("-nan", math.nan), ("nan(ind)", math.nan), ("1.#QNAN", math.nan), ("inf", math.inf),
    ("-Infinity", -math.inf), ("1e400", math.inf), ("", None), ("NA", None), ("null", None), ("None", None), ("-", None), (" 2.5 ", 2.5),
    ("1,234.5", 1234.5), ("+3", 3.0),
]  # fmt: skip


@pytest.mark.parametrize(("cell", "value"), WORDS)
def test_words_for_numbers(tmp_path: Path, cell: str, value: float | None) -> None:
    path = tmp_path / "log.csv"
    path.write_text(f'step,loss,lr\n1,"{cell}",0.1\n')
    (record,) = records(path)
    said = record.values.get("loss")
    assert said == value or (value is not None and math.isnan(value) and said is not None and math.isnan(said))


@pytest.mark.parametrize(
    ("cell", "time"),
    [("1700000000.5", 1700000000.5), ("1700000000500", 1700000000.5), ("1700000000500000000", 1700000000.5), ("2023-11-14T22:13:20.5Z", 1700000000.5),
     ("2023-11-14 22:13:20.500000001", 1700000000.5), ("2023-11-14 23:13:20.500+01:00", 1700000000.5), ("12.5", 12.5), ("", None)],
)  # fmt: skip
def test_words_for_times(tmp_path: Path, cell: str, time: float | None) -> None:
    path = tmp_path / "log.csv"
    path.write_text(f"step,loss,timestamp\n1,2.5,{cell}\n")
    assert records(path)[0].time == time


def test_decimal_commas_between_semicolons(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("step;loss;lr\n1;2,5;1,5e-4\n2;-3,25;0\n")
    assert [record.values for record in records(path)] == [{"loss": 2.5, "lr": 1.5e-4}, {"loss": -3.25, "lr": 0.0}]


def test_of_two_columns_of_one_name_the_first_counts(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("step,loss,loss,train/loss\n1,2.5,9.9,8.8\n")
    (run,), _ = scanned(path)
    assert records(path)[0].values == {"loss": 2.5, "train_loss": 8.8}
    assert "column 'loss' stands 2 times; the first counts" in run.notes


@pytest.mark.parametrize("step", ["nan", "1.5", "1e300", "later", "99999999999999999999"])
def test_a_step_that_is_no_step_breaks_its_line(tmp_path: Path, step: str) -> None:
    path = tmp_path / "log.csv"
    path.write_text(f"step,loss\n1,2.5\n{step},2.5\n3,2.5\n")
    (run,), _ = scanned(path)
    assert run.records == 2 and run.broken == 1


def test_a_folder_is_walked_and_what_is_no_log_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    (tmp_path / "deep" / "er" / "log.csv").write_bytes(HEADER + b"1,2.5\n")
    (tmp_path / "config.json").write_text(json.dumps({"model": {"layers": 3}, "vocab": ["a", "b"]}, indent=1))
    (tmp_path / "requirements.txt").write_text("torch==2.0\n")
    (tmp_path / "people.csv").write_text("name,age\nann,3\n")
    (tmp_path / "empty.log").write_text("")
    (tmp_path / ".hidden.csv").write_bytes(HEADER)
    (tmp_path / "loop").symlink_to(tmp_path)
    runs, errors = scanned(tmp_path)
    assert [run.source for run in runs] == [str(tmp_path / "deep" / "er" / "log.csv")] and not errors


def test_a_folder_without_logs_is_not_healthy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.txt").write_text("nothing\n")
    assert main(["scan", str(tmp_path), "--json"]) == 2
    out, err = capsys.readouterr()
    assert json.loads(out) == [] and "no log in it" in err


def test_of_columns_that_nobody_knows_it_is_not_said_that_they_are_healthy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "odd.jsonl").write_text("".join(f'{{"step": {step}, "wobble": {step % 3}}}\n' for step in range(9)))
    assert main(["scan", str(tmp_path / "odd.jsonl")]) == 2
    said = capsys.readouterr().out
    assert "not judged" in said and "healthy" not in said and "--map" in said
    (tmp_path / "plain.jsonl").write_text("".join(f'{{"step": {step}, "loss": 2.0}}\n' for step in range(9)))
    assert main(["scan", str(tmp_path)]) == 0
    assert "healthy, 1 not judged" in capsys.readouterr().out


def test_a_folder_that_may_not_be_listed_and_a_file_that_may_not_be_read_are_errors(tmp_path: Path) -> None:
    (tmp_path / "dangling.csv").symlink_to(tmp_path / "nowhere")
    assert main(["scan", str(tmp_path / "dangling.csv")]) == 2


def test_a_run_column_that_is_no_run_is_an_error_not_a_thousand_engines(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("run,step,loss\n" + "".join(f"r{number},1,2.5\n" for number in range(1500)))
    _, (error,) = scanned(path)
    assert "over 1000 runs" in str(error)


def test_a_log_says_only_text_whatever_it_holds(tmp_path: Path) -> None:
    """Names from a log reach a terminal and a page: no markup of either kind takes effect."""
    path = tmp_path / "[red]log.csv"
    rows = "".join(f"<script>alert(1)</script>,{step},{'nan' if step == 80 else 2.5}\n" for step in range(100))
    path.write_text("run,step,loss\n" + rows)
    page = tmp_path / "page.html"
    assert main(["scan", str(path), "--html", str(page)]) == 3
    text = page.read_text()
    assert "<script" not in text and "&lt;script&gt;" in text and "[red]log.csv" in text


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=400), st.sampled_from(["", *imports.FORMATS]))
def test_any_bytes_give_records_or_a_log_error(tmp_path_factory: pytest.TempPathFactory, content: bytes, format: str) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "log"
    path.write_bytes(content)
    for result in scan([path], ScanSettings(format=format or None)):
        assert isinstance(result, (Scanned, LogError))


LINES = [
    b"step,loss,rank\n", b"1,2,3\n", b'{"step": 1, "loss": NaN}\n', b'{"step": {"a": [1]}, "loss": true}\n', b"iteration 5/ 10 | lm loss: 1 |\n",
    b"s:1 trl:x\n", b"step:1/2 train_loss:1 train_time:1ms\n", b":::MLLOG {}\n", b"\xff\xfe", b"\x1f\x8b\x08", b"-5,1,0\n",
    b':::MLLOG {"key": "train_loss", "value": [], "metadata": {"step": 1e99}}\n', b"iter 1: loss nan, time 1ms\n", b"step: 1  loss: 1e999 tps: ,\n",
    b":W&B\xe1\xbe\x00", b"PAR1", b":::MLLOG {\"metadata\": 3, \"key\": [1]}\n", b"99999999999999999999,1,1\n",
]  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(LINES), max_size=12), st.sampled_from(["", *imports.FORMATS]))
def test_any_mixture_of_half_logs_gives_records_or_a_log_error(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], format: str
) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "log"
    path.write_bytes(b"".join(lines))
    for result in scan([path], ScanSettings(format=format or None)):
        assert isinstance(result, (Scanned, LogError))
