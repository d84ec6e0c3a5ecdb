"""A real training that is killed and resumed: with a loader whose state was kept, and with one that starts anew."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from collector import Collector
from collector import collector as serving
from holter_monitor.demo.processes import stop_all_that_use

pytest.importorskip("torch")
pytestmark = pytest.mark.torch

LOOP = """
import os, sys
import torch
from torch.utils.data import DataLoader, TensorDataset
import holter

name, keeps_state, saved = sys.argv[1], sys.argv[2] == "keeps", sys.argv[3]
torch.manual_seed(0)
data = TensorDataset(torch.randn(4_000, 8), torch.randn(4_000, 1))
model = torch.nn.Linear(8, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
first = 0
if os.path.exists(saved):
    state = torch.load(saved)
    model.load_state_dict(state["model"])
    first = state["step"] + 1
run = holter.init(project="resumed", name=name)
loader = iter(DataLoader(data, batch_size=16, shuffle=True, generator=torch.Generator().manual_seed(1)))
for _ in range(first if keeps_state else 0):
    next(loader)
for step, (inputs, targets) in enumerate(run.batches(loader), first):
    loss = torch.nn.functional.mse_loss(model(inputs), targets)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    run.step(step, loss=loss)
    if step % 40 == 0:
        torch.save({"model": model.state_dict(), "step": step}, saved)
        run.checkpoint(saved, step)
    if first == 0 and step == 95:
        os._exit(1)
    if step == 130:
        break
run.finish()
"""


@pytest.fixture(scope="module")
def collector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    with serving(tmp_path_factory.mktemp("collector") / "data") as it:
        yield it


@pytest.mark.parametrize("state", ["forgets", "keeps"])
def test_a_resume_that_forgot_where_the_data_stood_is_told(state: str, tmp_path: Path, collector: Collector) -> None:
    (tmp_path / "train.py").write_text(LOOP)
    environment = {**os.environ, "HOLTER_URL": collector.url, "HOLTER_DIR": str(tmp_path / "agent")}
    try:
        for attempt, ends in (("1", 1), ("2", 0)):
            words = [sys.executable, str(tmp_path / "train.py"), state, state, str(tmp_path / "saved.pt")]
            done = subprocess.run(words, env={**environment, "HOLTER_ATTEMPT": attempt}, timeout=100, capture_output=True, text=True)
            assert done.returncode == ends, done.stderr
        (run,) = collector.get("runs", name=state)["items"]
        collector.until(lambda: [a["state"] for a in collector.get(f"runs/{run['id']}/attempts")["items"]] == ["lost", "finished"])
        collector.until(lambda: collector.get(f"runs/{run['id']}/curves", metrics="batch_hash")["to_step"] == 130)
        said = collector.get("incidents", run=run["id"], kind="data_position")["items"]
        if state == "keeps":
            assert said == []
        else:
            (incident,) = said
            assert incident["onset_step"] == 81 and incident["evidence"]["position_step"] == 0
            assert "81 steps of data are trained on again" in incident["summary"]
    finally:
        stop_all_that_use(tmp_path / "agent")
