"""A real torch training meets a bad shard; what its people read in Slack and at their webhook is enough to go back and to skip it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from collector import collector as serving
from holter_monitor.demo.processes import stop_all_that_use
from sink import Answer, Call, Sink

pytest.importorskip("torch")
pytestmark = pytest.mark.torch
FIRST_BAD, SAVED = 58, 40

LOOP = f"""
import json, sys
import torch
from torch.utils.data import DataLoader, Dataset
import holter
from holter import batch_hash

class Shards(Dataset):
    '''From sample {16 * FIRST_BAD} on the shard is garbage.'''
    def __init__(self):
        torch.manual_seed(0)
        self.inputs = torch.randn(6_400, 8)
    def __len__(self):
        return len(self.inputs)
    def __getitem__(self, place):
        is_bad = place >= {16 * FIRST_BAD}
        return {{"inputs": self.inputs[place], "targets": self.inputs[place].sum() * (1.0 - 9.0 * is_bad), "document": place // 16}}

model = torch.nn.Linear(8, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
run = holter.init(project="shards", name="bad", config={{"seed": 0}})
names = {{}}
for step, batch in enumerate(run.batches(DataLoader(Shards(), batch_size=16))):
    names[step] = batch_hash.of(batch)
    run.event("batch", step=step, shard=f"code-{{step // 29:02d}}.jsonl", documents=sorted(set(batch["document"].tolist())))
    loss = torch.nn.functional.mse_loss(model(batch["inputs"]).squeeze(1), batch["targets"])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    run.step(step, loss=loss, grad_norm=model.weight.grad.norm(), lr=1e-4)
    if step == {SAVED}:
        torch.save(model.state_dict(), sys.argv[1])
        run.checkpoint(sys.argv[1], step)
    if step == 180:
        break
run.finish()
json.dump(names, open(sys.argv[2], "w"))
"""


def about_the_loss(calls: list[Call], path: str) -> list[Any]:
    return [call.json for call in calls if call.path == path and "loss" in json.dumps(call.json)]


def test_a_loss_message_names_the_batches_the_checkpoint_to_go_back_to_and_the_steps_to_skip(tmp_path: Path) -> None:
    policies, saved, names = tmp_path / "policies", tmp_path / "step-40.pt", tmp_path / "names.json"
    policies.mkdir()
    (tmp_path / "train.py").write_text(LOOP)
    with Sink(judge=lambda _: Answer(200, b"ok")) as sink:
        (policies / "team.yml").write_text(f"""
allow_private: true
receivers:
  chat: {{type: slack, webhook_url: "{sink.url}/slack"}}
  hook: {{type: webhook, url: "{sink.url}/hook"}}
routes: [{{receivers: [chat, hook], group_wait: 0}}]
""")
        with serving(tmp_path / "data", "--policies", str(policies)) as running:
            environment = {**os.environ, "HOLTER_URL": running.url, "HOLTER_DIR": str(tmp_path / "agent")}
            try:
                words = [sys.executable, str(tmp_path / "train.py"), str(saved), str(names)]
                done = subprocess.run(words, env=environment, timeout=120, capture_output=True, text=True)
                assert done.returncode == 0, done.stderr
                pages = running.until(
                    lambda: [m for m in about_the_loss(sink.calls, "/hook") if "documents" in m["text"] and "Rewind: " in m["text"]]
                )
                in_slack = running.until(
                    lambda: [
                        m for m in about_the_loss(sink.calls, "/slack") if "*Rewind*" in json.dumps(m) and "documents" in json.dumps(m)
                    ]
                )
            finally:
                stop_all_that_use(tmp_path / "agent")
    evidence, true_names = pages[-1]["evidence"], json.loads(names.read_text())
    assert evidence["rewind"]["before_step"] == FIRST_BAD and evidence["rewind"]["skip_steps"][0] == FIRST_BAD
    assert (evidence["rewind"]["step"], evidence["rewind"]["path"]) == (SAVED, str(saved))
    # The first 64 batches have their hashes on any machine; of later ones a slow machine's loop may go without.
    named = {batch["step"]: batch for batch in evidence["batches"]}
    assert [named[step]["batch_hash"] for step in range(FIRST_BAD, 64)] == [true_names[str(step)] for step in range(FIRST_BAD, 64)]
    assert named[FIRST_BAD] | {"rank": 0, "documents": [FIRST_BAD], "shard": "code-02.jsonl"} == named[FIRST_BAD]
    read = "\n".join(block["text"]["text"] for block in in_slack[-1]["blocks"] if block["type"] == "section")
    assert f"before step {FIRST_BAD}: the checkpoint of step {SAVED} ({saved})" in read and f"skip steps {FIRST_BAD} to " in read
    assert f"step {FIRST_BAD} rank 0: batch_hash {true_names[str(FIRST_BAD)]} " in read and "code-02.jsonl" in read
