"""One rank of TP 2 x DP 2 over gloo: trains a small DTensor network through every case of the matrix and leaves its events behind.

Run by test_gloo.py, four processes at once: `python gloo_ranks.py FOLDER SEED...` with RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT set.
"""

import json
import os
import sys
import warnings
from pathlib import Path

import torch
import torch.distributed as dist
from holter.parallel import preflight
from holter.parallel.watching import begin
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.nn import functional

STEPS, WIDTH, HIDDEN, VOCABULARY, LENGTH = 6, 32, 64, 64, 16
FAULT_STEP = 2


class SequenceNorm(nn.Module):
    """Each rank norms its part of the sequence with its own copy of the weight, whose gradient must then be summed over tp."""

    def __init__(self, mesh):
        super().__init__()
        self.mesh = mesh
        self.weight = nn.Parameter(torch.ones(WIDTH))

    def forward(self, x):
        part = DTensor.from_local(x, self.mesh, [Replicate()]).redistribute(self.mesh, [Shard(1)]).to_local()
        part = functional.rms_norm(part, (WIDTH,), self.weight)
        return DTensor.from_local(part, self.mesh, [Shard(1)]).redistribute(self.mesh, [Replicate()]).to_local()


class Block(nn.Module):
    def __init__(self, mesh, dropout):
        super().__init__()
        self.norm = SequenceNorm(mesh)
        self.up = nn.Linear(WIDTH, HIDDEN, bias=False)
        self.down = nn.Linear(HIDDEN, WIDTH, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x):
        return x + self.dropout(self.down(functional.gelu(self.up(self.norm(x)))))


class Patient:
    """The network, its optimizer and its watch, for one case."""

    def __init__(self, mesh, seed, case):
        self.mesh, self.case = mesh, case
        self.tp, self.dp = mesh.get_local_rank("tp"), mesh.get_local_rank("dp")
        tp_mesh = mesh["tp"]
        blocks = [Block(tp_mesh, 0.1 if "dropout" in case else 0.0) for _ in range(2)]
        self.model = nn.Sequential(
            nn.Embedding(VOCABULARY, WIDTH), *blocks, SequenceNorm(tp_mesh), nn.Linear(WIDTH, VOCABULARY, bias=False)
        )
        plan = {f"{n}.{name}": style for n in (1, 2) for name, style in (("up", ColwiseParallel()), ("down", RowwiseParallel()))}
        parallelize_module(self.model, tp_mesh, plan)
        for name, param in self.model.named_parameters():
            if param.ndim == 2:
                sharded = "up" in name or "down" in name
                generator = torch.Generator().manual_seed(seed * 100 + hash_of(name) + (self.tp if sharded and case != "same_seed" else 0))
                local = param.to_local() if isinstance(param, DTensor) else param
                with torch.no_grad():
                    local.copy_(torch.randn(local.shape, generator=generator) * 0.05)
        if case == "replica_init":
            self.model[1].norm.weight.data += 0.01 * self.tp
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3)
        self.events, self.last_step, self.rank = [], -1, dist.get_rank()
        self.data = torch.Generator().manual_seed(seed)
        same_stream = case in ("dropout_same_stream", "healthy")
        torch.manual_seed(seed if same_stream else seed + 10 * self.dp)
        self.watch = begin(self, self.model, self.optimizer, mesh=mesh, every=1, fraction=0.5 if "half" in case else 1.0)

    def event(self, word, /, *, step=None, **attrs):
        self.events.append({"event": word, "rank": self.rank, "step": step, "time_ns": 0, "attrs": attrs})

    def batch(self, step):
        starts = torch.randint(0, VOCABULARY, (2, 4, 1), generator=self.data)
        batches = (starts + 3 * torch.arange(LENGTH + 1)) % VOCABULARY
        if self.case == "same_batch":
            return batches[0]
        if self.case == "other_batch" and (self.tp, self.dp) == (1, 0):
            return (batches[0] + 1) % VOCABULARY
        return batches[self.dp]

    def local(self, name):
        param = dict(self.model.named_parameters())[name]
        return (param.to_local() if isinstance(param, DTensor) else param).detach()

    def flip(self, tensor, place, bit):
        tensor.view(-1)[place : place + 1].view(torch.int32)[0] ^= (1 << bit) if bit < 31 else -(1 << 31)

    def step(self, step):
        ids = self.batch(step)
        loss = functional.cross_entropy(self.model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
        loss.backward()
        is_fault = step == FAULT_STEP
        if self.case == "gradient_flip" and is_fault and (self.tp, self.dp) == (0, 1):
            self.flip(self.model[1].up.weight.grad.to_local(), 5, 28)
        self.reduce(skip_data=self.case.startswith("skip_sync") and is_fault)
        if self.case == "lr" and is_fault and (self.tp, self.dp) == (0, 1):
            self.optimizer.param_groups[0]["lr"] *= 1.01
        if self.case == "moment_flip" and is_fault and (self.tp, self.dp) == (0, 1):
            self.flip(self.optimizer.state[self.model[1].up.weight]["exp_avg"].to_local(), 37, 30)
        self.watch.batch(ids)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.last_step = step
        if self.case.startswith("flip_bit_") and is_fault and (self.tp, self.dp) == (1, 1):
            self.flip(self.local("2.up.weight"), 70, int(self.case.rsplit("_", 1)[1]))
        if self.case == "flip_norm" and is_fault and (self.tp, self.dp) == (1, 0):
            self.flip(self.local("1.norm.weight"), 3, 20)

    def reduce(self, *, skip_data):
        for name, param in self.model.named_parameters():
            grad = param.grad.to_local() if isinstance(param.grad, DTensor) else param.grad
            is_norm = "norm" in name or name.startswith("3.")
            forgotten = self.case == "norms" or (self.case == "final_norm" and name.startswith("3."))
            if is_norm and not forgotten:
                dist.all_reduce(grad, group=self.mesh.get_group("tp"))
            if not skip_data:
                dist.all_reduce(grad, group=self.mesh.get_group("dp"))
                grad /= 2

    def run(self):
        for step in range(STEPS):
            self.step(step)
        self.watch.finish()
        return self.events


def hash_of(name):
    return sum(ord(letter) * (place + 1) for place, letter in enumerate(name)) * 10


CASES = (
    "healthy", "same_seed", "norms", "final_norm", "skip_sync", "flip_bit_0", "flip_bit_12", "flip_bit_23", "flip_bit_30", "flip_norm",
    "moment_flip", "other_batch", "same_batch", "lr", "dropout_same_stream", "dropout", "replica_init", "gradient_flip", "skip_sync_half",
)  # fmt: skip


def main(folder, seeds):
    import torch.distributed.checkpoint as checkpoint

    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "tp"))
    told = {}
    for seed in seeds:
        for case in CASES:
            patient = Patient(mesh, seed, case)
            told[f"{case}-{seed}"] = patient.run()
            if case in ("healthy", "same_seed"):
                checkpoint.save({"model": patient.model.state_dict()}, checkpoint_id=folder / f"{case}-{seed}")
            if case in ("healthy", "same_seed") and seed == seeds[0]:
                answer = preflight(patient.model, mesh, folder=folder / f"preflight-{case}-{seed}")
                if answer is not None:
                    (folder / f"preflight-{case}-{seed}.json").write_text(json.dumps([answer.compared, answer.findings, answer.problem]))
    (folder / f"{os.environ['RANK']}.json").write_text(json.dumps(told))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), [int(seed) for seed in sys.argv[2:]])
