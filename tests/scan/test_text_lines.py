"""The lines that training scripts print, as they print them: where the run is and what it says are read from all of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from holter_monitor.imports import recognise
from holter_monitor.imports.files import LogFile
from holter_monitor.imports.records import Record

LINES: dict[str, str] = {
    "nanochat": "step {n:05d}/21400 (0.05%) | loss: {loss:.6f} | grad norm: 1.0200 | lrm: 1.00 | dt: {ms:.2f}ms | tok/sec: 2,097,152 | mfu: 49.12",
    "nanochat sft": "Step {n:05d}/00701 | Training loss: {loss:.6f}| lrm: 0.985735| num_tokens: 10,435",
    "minGPT": "iter_dt {ms:.2f}ms; iter {n}: train loss {loss:.5f}",
    "minGPT's bar": "epoch 1 iter {n}: train loss {loss:.5f}. lr 3.0e-04: 100%|####| 1/1 [00:00<00:00]",
    "llm.c on a CPU": "step {n}: train loss {loss:.6f} (took {ms:.6f} ms)",
    "llm.c's train_gpt2.py": "step {n:4d}/1000 | train loss {loss:.6f} | norm 1.02 | lr 3.00e-04 | ({ms:.2f} ms | 33333 tok/s)",
    "build-nanogpt": "step {n:5d} | loss: {loss:.6f} | lr 3.00e-04 | norm: 1.02 | dt: {ms:.2f}ms | tok/sec: 5690.12",
    "words": "Step {n} loss {loss:.4f} grad_norm 1.02 lr 3e-4",
    "MLX": "Iter {n}: Train loss {loss:.3f}, Learning Rate 3.0e-04, It/sec 1.2, Tokens/sec 401.5, Peak mem 12.3 GB",
    "LitGPT": "Epoch 1 | iter {n} step 5 | loss train: {loss:.3f}, val: n/a | iter time: {ms:.2f} ms (step) remaining time: 0:00:12",
    "MaxText": "completed step: {n}, seconds: 0.253, TFLOP/s/device: 96.1, Tokens/s/device: 1629.314, total_weights: 65536, loss: {loss:.3f}",
    "fairseq": "2023-01-01 | INFO | train_inner | epoch 001:  5 / 10000 loss={loss:.3f}, ppl=9.1, wps=12345, num_updates={n}, lr=0.0003, gnorm=1.02",
    "OLMo": "olmo.train:900\tINFO\t[step={n}/739328,epoch=0]\n    optim/total_grad_norm=1.02\n    train/CrossEntropyLoss={loss:.4f}",
    "Composer": "[batch={n}/4800]:\n\t Train time/batch: 7\n\t Train loss/train/total: {loss:.4f}",
    "PyTorch's tutorial": "[1, {n:5d}] loss: {loss:.3f}",
    "PyTorch's MNIST": "Train Epoch: 1 [{n}/60000 (3%)]\tLoss: {loss:.6f}",
    "Keras": "{n}/1875 [====>......] - ETA: 3s - loss: {loss:.4f} - accuracy: 0.8000",
    "Lightning's bar": "Epoch 0:  10%|#         | {n}/1000 [00:01<00:10,  3.99it/s, loss={loss:.3f}, v_num=0]",
    "timm": "Train: 0 [{n:4d}/1251 (  3%)]  Loss: {loss:.3f} (2.71)  Time: 0.250s,  1024.00/s  LR: 3.0e-04  Data: 0.013 (0.02)",
    "torchvision": "Epoch: [0]  [{n:5d}/50000]  eta: 1:00:00  lr: 0.000300  loss: {loss:.4f} (2.7100)  time: 0.2500  data: 0.0012",
    "epochs only": "Epoch {n}/300 - train_loss: {loss:.4f} - val_loss: 2.9000",
    "a batch": "Epoch 1 Batch {n} Loss {loss:.4f}",
}


def read(path: Path, text: str) -> list[Record]:
    path.write_text(text)
    log = LogFile(path)
    found = recognise(log.head())
    assert found is not None
    records = list(found.read(log, {}))
    assert not log.broken.count
    return records


@pytest.mark.parametrize("line", LINES.values(), ids=LINES.keys())
def test_what_a_script_prints_is_read(tmp_path: Path, line: str) -> None:
    noise = "loading data\nnumber of parameters: 124M\n"
    said = [(n, 4.0 - n / 100) for n in range(1, 41)]
    records = read(tmp_path / "log", noise + "".join(line.format(n=n, loss=loss, ms=250.5) + "\n" for n, loss in said))
    assert [(record.step, record.values["loss"]) for record in records] == [(n, pytest.approx(loss)) for n, loss in said]
    values = records[0].values
    for name, marks, expected in (
        ("lr", ("3e-4", "3.0e-04", "3.00e-04", "0.0003"), 3e-4),
        ("step_time_seconds", ("{ms",), 0.2505),
        ("grad_norm", ("1.02",), 1.02),
    ):
        assert any(mark in line for mark in marks) == (name in values) and values.get(name, expected) == pytest.approx(expected)


EPOCHS: dict[str, Callable[[int, int], str]] = {
    "batches": lambda epoch, n: f"Epoch {epoch} Batch {n} Loss 2.5",
    "steps": lambda epoch, n: f"Epoch {epoch} | Step {n} | loss: 2.5",
    "positions": lambda epoch, n: f"Train Epoch: {epoch} [{n}/100 (5%)] Loss: 2.5",
}


@pytest.mark.parametrize("line", EPOCHS.values(), ids=EPOCHS.keys())
def test_a_count_that_begins_anew_with_each_epoch_goes_on(tmp_path: Path, line: Callable[[int, int], str]) -> None:
    text = "".join(f"{line(epoch, n)}\n" for epoch in (1, 2, 3) for n in range(10, 101, 10))
    assert [record.step for record in read(tmp_path / "log", text)] == list(range(10, 301, 10))


def test_a_step_that_goes_back_within_its_epoch_is_a_resume(tmp_path: Path) -> None:
    text = "".join(f"Epoch 1 | Step {n} | loss: 2.5\n" for n in (10, 20, 30, 20, 30))
    assert [record.step for record in read(tmp_path / "log", text)] == [10, 20, 30, 20, 30]


@pytest.mark.parametrize(
    "text",
    [
        "At step 100 the loss 2.5 was good.\nAt step 50 the loss 2.6 was worse.\nSee step 20, loss 2.7.\n",
        "1. In step 1 we set lr 3e-4.\n2. Step 2 is done.\n3. Step 3 sets batch 32.\n",
        "".join(f"{n} 2.5 0.1 3e-4\n" for n in range(50)),
        "".join(f"epoch {n} begins\n" for n in range(50)),
    ],
)
def test_prose_and_bare_numbers_are_no_log(tmp_path: Path, text: str) -> None:
    (tmp_path / "log").write_text(text)
    assert recognise(LogFile(tmp_path / "log").head()) is None
