"""Each format, by a small log in its real shape: recognised by content, read to the number."""

from __future__ import annotations

import bz2
import gzip
import lzma
import math
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
import zstandard
from holter_monitor import imports
from holter_monitor.imports.files import LogFile, find
from holter_monitor.imports.records import Record

LOGS = Path(__file__).parents[1] / "data" / "logs"


def read(path: Path, *, format: str | None = None, columns: dict[str, str] | None = None) -> tuple[str, list[Record], LogFile]:
    (log,) = find(path)
    importer = imports.FORMATS[format] if format else imports.recognise(log.head())
    assert importer is not None, f"{path.name} was not recognised"
    return importer.name, list(importer.read(log, columns or {})), log


@pytest.mark.parametrize(
    ("file", "format", "records"),
    [
        ("megatron.log", "megatron", 5), ("nanotron.log", "nanotron", 3), ("torchtitan.log", "torchtitan", 2), ("llmc_main.log", "llmc", 5),
        ("llmc_stdout.txt", "llmc-output", 2), ("modded_nanogpt.log", "modded-nanogpt", 4), ("nanogpt.log", "nanogpt", 3), ("mllog.txt", "mllog", 4),
        ("trainer_state.json", "trainer_state", 4), ("wandb_history.jsonl", "jsonl", 4), ("wandb_chart.csv", "csv", 5), ("long.csv", "csv", 3),
        ("keyvalue.log", "keyvalue", 3), ("transformers.log", "transformers-output", 4), ("ranks.tsv", "csv", 4),
        ("build_nanogpt.log", "build-nanogpt", 4), ("boxes.log", "boxes", 2),
    ],
)  # fmt: skip
def test_a_format_is_told_by_content(tmp_path: Path, file: str, format: str, records: int) -> None:
    """Under a name that says nothing."""
    copy = tmp_path / "log"
    copy.write_bytes((LOGS / file).read_bytes())
    name, found, _ = read(copy)
    assert (name, len(found)) == (format, records)


def test_megatron() -> None:
    _, records, log = read(LOGS / "megatron.log")
    first, _, third, saved, validated = records
    assert first.step == 1 and first.values["loss"] == 10.95636 and first.values["step_time_seconds"] == pytest.approx(11.8734)
    assert first.values["lr"] == 1.5e-7 and first.values["grad_norm"] == 14.25 and first.values["tflops"] == 58.1
    assert math.isnan(third.values["loss"]) and third.values["nan_steps"] == 1 and third.time is not None and first.time is not None
    assert third.time - first.time == 4
    assert (saved.step, saved.words) == (3, ("checkpoint",)) and validated.values == {"eval_loss": 10.8}
    assert log.broken.count == 1 and "line 14" in log.broken.named[0] and "oops" in log.broken.named[0]


def test_nanotron_numbers_with_letters() -> None:
    _, (first, second, saved), _ = read(LOGS / "nanotron.log")
    assert (
        first.values["consumed_tokens"] == 262_000
        and first.values["step_time_seconds"] == 11.5
        and first.values["tokens_per_second"] == 22_800
    )
    assert first.values["loss"] == 11.2 and second.values["step_time_seconds"] == 0.987
    assert (saved.step, saved.words) == (2, ("checkpoint",))


def test_torchtitan_prints_colours_thousands_and_every_rank() -> None:
    _, (first, second), _ = read(LOGS / "torchtitan.log")
    assert first.values["loss"] == 8.1309 and first.values["tokens_per_second"] == 7282 and first.values["mfu"] == pytest.approx(0.0017)
    assert first.values["gpu_memory_used_bytes"] == 1.5 * 2**30
    assert math.isnan(second.values["loss"]) and second.values["grad_norm"] == math.inf
    assert second.time is not None and first.time is not None and second.time - first.time == pytest.approx(0.5)


def test_llmc_and_its_kin() -> None:
    main = read(LOGS / "llmc_main.log")[1]
    assert main[0].values == {"eval_loss": 11.0095} and main[1].values == {"loss": 11.0116, "lr": 1e-6, "grad_norm": 14.96}
    assert math.isnan(main[3].values["loss"])
    output = read(LOGS / "llmc_stdout.txt")[1][1]
    assert output.step == 2 and output.values["step_time_seconds"] == 0.8125 and output.values["tokens_per_second"] == 645277
    assert output.values["mfu"] == pytest.approx(0.521) and output.values["loss"] == 10.961012
    modded = read(LOGS / "modded_nanogpt.log")[1]
    assert [record.time for record in modded] == [0.0, 0.5, 1.02, 1.56] and modded[1].values == {"loss": 10.8252}
    nano = read(LOGS / "nanogpt.log")[1]
    assert nano[0].values == {"eval_loss": 10.9890} and nano[2].values == {
        "loss": 10.5412,
        "step_time_seconds": pytest.approx(0.56194),
        "mfu": pytest.approx(0.312),
    }


def test_build_nanogpt_and_boxes() -> None:
    built = read(LOGS / "build_nanogpt.log")[1]
    assert (
        [record.step for record in built] == [250, 250, 250, 251]
        and built[0].values == {"eval_loss": 6.1283}
        and built[3].values == {"loss": 6.081}
    )
    first, second = read(LOGS / "boxes.log")[1]
    assert (first.step, first.values) == (1, {"ep_rew_mean": 21.5, "loss": 8.31})
    assert second.step == 2 and math.isnan(second.values["loss"])


def test_a_rounded_step_is_scaled_and_a_setting_is_no_step(tmp_path: Path) -> None:
    """LeRobot prints `step:1K`, five times in a row, after `cfg.steps=50000`; others put separators into the number."""
    said = [("800", 2.2), ("1K", 1.2), ("1K", 1.0), ("10,000", 0.9)]
    lines = ["INFO cfg.steps=50000 (50K)", *(f"INFO step:{step} smpl:13K loss:{loss} grdn:4.5 data_s:0.08" for step, loss in said)]
    path = tmp_path / "train.txt"
    path.write_text("\n".join(lines))
    found = read(path)[1]
    assert [record.step for record in found] == [800, 1000, 1000, 10_000]
    assert found[0].values["grad_norm"] == 4.5 and found[0].values["data_wait_seconds"] == 0.08


def test_mllog() -> None:
    _, (loss, stats, evaluation, accuracy), log = read(LOGS / "mllog.txt")
    assert (loss.step, loss.values, loss.time) == (10, {"loss": 7.52}, 1700000010.0)
    assert (stats.step, stats.values) == (20, {"samples_per_second": 401.5, "loss": 6.9})
    assert evaluation.words == ("eval",) and accuracy.values == {"eval_accuracy": 0.71}
    assert log.broken.count == 0, "a line cut off before its closing brace is none of MLLOG's"


def test_trainer_state_tells_nan_and_leaves_the_final_average_out() -> None:
    _, records, _ = read(LOGS / "trainer_state.json")
    assert [record.step for record in records] == [1, 2, 2, 3]
    assert math.isnan(records[1].values["loss"]) and records[2].values["eval_loss"] == 3.0 and records[3].values["loss"] == 3.1


def test_what_the_trainer_prints_among_its_progress_bars() -> None:
    _, records, log = read(LOGS / "transformers.log")
    assert [record.values.get("loss") for record in records if "loss" in record.values][:2] == [1.5545, 1.3465]
    assert math.isnan(records[3].values["loss"]) and records[2].values["eval_loss"] == 1.4 and log.broken.count == 0
    assert all(record.step is None for record in records)


def test_only_the_last_of_several_checkpoints_states_is_read(tmp_path: Path) -> None:
    for number in (500, 1000, 90):
        (tmp_path / f"checkpoint-{number}").mkdir()
        (tmp_path / f"checkpoint-{number}" / "trainer_state.json").write_bytes((LOGS / "trainer_state.json").read_bytes())
    assert [log.path.parent.name for log in find(tmp_path)] == ["checkpoint-1000"]


def test_wandb_history() -> None:
    _, records, log = read(LOGS / "wandb_history.jsonl")
    assert [record.step for record in records] == [0, 1, 1, 3]
    assert records[0].values == {"loss": 3.0, "nested_a": 1.0} and math.isnan(records[1].values["loss"])
    assert records[2].values == {"eval_loss": 2.0} and records[0].time == 1700000000.5
    assert log.broken.named == ["line 4: no JSON object; expected one object a line"]


def test_a_wandb_chart_holds_one_run_per_column() -> None:
    _, records, _ = read(LOGS / "wandb_chart.csv")
    assert [(record.run, record.step, record.values["loss"]) for record in records[:4]] == [
        ("calm-1", 0, 3.0), ("wild-2", 0, 3.1), ("calm-1", 1, 2.9), ("calm-1", 2, 2.8),
    ]  # fmt: skip
    assert records[4].run == "wild-2" and math.isnan(records[4].values["loss"])


def test_a_long_table_is_pivoted() -> None:
    _, records, _ = read(LOGS / "long.csv")
    assert [(record.run, record.values) for record in records] == [
        ("big", {"consumed_tokens": 1000.0, "hellaswag": 0.3, "mmlu": 0.25}),
        ("big", {"consumed_tokens": 2000.0, "hellaswag": 0.4, "mmlu": 0.26}),
        ("small", {"consumed_tokens": 1000.0, "hellaswag": 0.2}),
    ]


def test_key_value_lines_and_units() -> None:
    _, (first, second, _), _ = read(LOGS / "keyvalue.log")
    assert first.step == 10 and first.values["loss"] == 2.31 and first.values["lr"] == 3e-4 and first.values["step_time_seconds"] == 0.56
    assert math.isnan(second.values["loss"])


def test_columns_events_and_ranks() -> None:
    _, records, _ = read(LOGS / "ranks.tsv")
    assert [(record.step, record.rank) for record in records] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert records[2].words == ("checkpoint", "eval")


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress, bz2.compress, zstandard.compress], ids=["gzip", "xz", "bzip2", "zstd"])
def test_compression_is_undone_whatever_the_name(tmp_path: Path, pack: object) -> None:
    (tmp_path / "log.csv").write_bytes(pack(b"step,loss\n1,2.5\n"))  # type: ignore[operator]
    assert read(tmp_path / "log.csv")[1] == [Record({"loss": 2.5}, step=1)]


def test_map_names_a_column_and_the_axis(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("n,kl,step\n7,2.5,99\n")
    _, records, _ = read(tmp_path / "log.csv", format="csv", columns={"kl": "loss", "n": "step"})
    assert records == [Record({"loss": 2.5}, step=7)]


def test_parquet_keeps_null_and_nan_apart(tmp_path: Path) -> None:
    import pyarrow as arrow
    from pyarrow import parquet

    table = arrow.table({"_step": [0, 1, 2], "train/loss": [3.0, None, float("nan")], "note": ["a", "b", "c"], "list": [[1], [2], [3]]})
    parquet.write_table(table, tmp_path / "history.parquet")
    name, records, _ = read(tmp_path / "history.parquet")
    assert name == "parquet" and [record.step for record in records] == [0, 1, 2]
    assert records[0].values == {"loss": 3.0} and records[1].values == {} and math.isnan(records[2].values["loss"])


def test_tensorboard_event_files_of_a_folder_are_one_log(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.compat.proto import event_pb2, summary_pb2
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    def scalar(writer: EventFileWriter, step: int, tag: str, value: float, wall: float) -> None:
        summary = summary_pb2.Summary(value=[summary_pb2.Summary.Value(tag=tag, simple_value=value)])
        writer.add_event(event_pb2.Event(wall_time=wall, step=step, summary=summary))

    for number, steps in enumerate((range(3), range(1, 4))):
        writer = EventFileWriter(str(tmp_path), filename_suffix=f".{number}")
        for step in steps:
            scalar(writer, step, "Loss/train", 3.0 - step, 100.0 + step)
            scalar(writer, step, "learning-rate", 1e-3, 100.0 + step)
        tensor = TensorProto(dtype=1, float_val=[0.5])
        summary = summary_pb2.Summary(value=[summary_pb2.Summary.Value(tag="grad-norm", tensor=tensor)])
        writer.add_event(event_pb2.Event(wall_time=110.0, step=3, summary=summary))
        writer.close()
    name, records, _ = read(tmp_path)
    assert name == "tfevents" and [record.step for record in records] == [0, 1, 2, 3, 1, 2, 3]
    assert records[1].values == {"loss": 2.0, "lr": pytest.approx(1e-3)} and records[1].time == 101.0
    assert records[3].values == {"grad_norm": 0.5}
    assert records[6].values == {"loss": 0.0, "lr": pytest.approx(1e-3), "grad_norm": 0.5}


def wandb_log(rows: list[dict[str, str]]) -> bytes:
    """A `.wandb` file, written from the published formats alone."""

    def field(number: int, content: bytes) -> bytes:
        key, size = number << 3 | 2, len(content)
        head = bytes([key]) if key < 128 else bytes([key & 127 | 128, key >> 7])
        return head + (bytes([size]) if size < 128 else bytes([size & 127 | 128, size >> 7])) + content

    out = bytearray(b":W&B" + struct.pack("<HB", 0xBEE1, 0))
    for row in rows:
        items = b"".join(field(1, field(1, key.encode()) + field(16, value.encode())) for key, value in row.items())
        rest = field(2, items)
        first = True
        while rest or first:
            room = 32768 - len(out) % 32768
            if room < 7:
                out += bytes(room)
                continue
            piece, rest = rest[: room - 7], rest[room - 7 :]
            kind = (1 if not rest else 2) if first else (4 if not rest else 3)
            out += struct.pack("<IHB", zlib.crc32(bytes([kind]) + piece), len(piece), kind) + piece
            first = False
    return bytes(out)


def test_wandb_offline_runs_across_blocks_and_damage(tmp_path: Path) -> None:
    rows = [{"_step": str(step), "train/loss": "NaN" if step == 7 else str(3.0), "pad": f'"{"x" * 900}"'} for step in range(100)]
    content = bytearray(wandb_log(rows))
    (tmp_path / "run-a.wandb").write_bytes(content)
    name, records, log = read(tmp_path / "run-a.wandb")
    assert name == "wandb" and [record.step for record in records] == list(range(100)) and not log.broken.count
    assert math.isnan(records[7].values["loss"])
    content[40_000] ^= 0xFF
    (tmp_path / "run-b.wandb").write_bytes(content[:-50])
    _, records, log = read(tmp_path / "run-b.wandb")
    assert 60 < len(records) < 100 and log.broken.count == 1 and "not written to its end" in log.notes[0]


REAL_RUN = """
import os, sys, wandb
run = wandb.init(project="p", mode="offline", dir=sys.argv[1], settings=wandb.Settings(x_disable_stats=True, console="off", silent=True))
for step in range(5):
    run.log({"train/loss": float("nan") if step == 3 else 3.0 - step, "nested": {"a": step}}, step=step)
run.finish()
"""


def test_a_run_that_wandb_itself_wrote(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    done = subprocess.run([sys.executable, "-c", REAL_RUN, str(tmp_path)], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.rglob("*.wandb")
    _, records, log = read(path)
    assert [record.step for record in records] == [0, 1, 2, 3, 4] and not log.broken.count
    assert records[4].values == {"loss": -1.0, "nested_a": 4.0} and math.isnan(records[3].values["loss"])
