"""The bug that cost SmolLM3 a restart at one trillion tokens, on stock PyTorch, caught before the first step.

    python examples/tp_seed_bug.py            # both variants, under a collector of their own: `make demo-tp`

The usual recipe on a CPU mesh (model on "meta", `parallelize_module`, `to_empty`, `nn.init`) with the same `torch.manual_seed` on every rank
gives every tensor-parallel rank the same shard. Nothing crashes and the loss falls; it only falls less far. PyTorch's DTensor says no more than
"may not have complete support on cpu device mesh". With `seed + tp_rank` the shards differ and Holter is silent.

This file is also the training script of each rank; `train` is all that a user would write.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

RANKS, STEPS, SEED = 2, 12, 1234
WIDTH, HIDDEN, LAYERS, VOCABULARY, LENGTH = 64, 256, 2, 128, 32


def train(rank: int, *, is_buggy: bool) -> None:
    import holter
    import torch
    import torch.nn.functional as functional
    from torch import nn
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.RMSNorm(WIDTH)
            self.up = nn.Linear(WIDTH, HIDDEN, bias=False)
            self.down = nn.Linear(HIDDEN, WIDTH, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.down(functional.gelu(self.up(self.norm(x))))

    torch.set_num_threads(1)
    mesh = init_device_mesh("cpu", (RANKS,), mesh_dim_names=("tp",))
    with torch.device("meta"):
        model = nn.Sequential(nn.Embedding(VOCABULARY, WIDTH), *(Block() for _ in range(LAYERS)), nn.Linear(WIDTH, VOCABULARY, bias=False))
    plan = {
        f"{layer + 1}.{name}": style for layer in range(LAYERS) for name, style in (("up", ColwiseParallel()), ("down", RowwiseParallel()))
    }
    parallelize_module(model, mesh, plan)
    model.to_empty(device="cpu")

    def initialise(seed: int, *, replicated: bool) -> None:
        torch.manual_seed(seed)
        for name, param in model.named_parameters():
            is_shard = any(layer in name for layer in ("up.", "down."))
            if is_shard is not replicated:
                nn.init.ones_(param) if "norm" in name else nn.init.normal_(param, std=0.02)

    initialise(SEED, replicated=True)
    initialise(SEED if is_buggy else SEED + rank, replicated=False)  # the whole difference

    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    run = holter.init(project="tp-seed-bug", name="same-seed" if is_buggy else "seed-plus-rank", mesh={"tp": (rank, RANKS)})
    run.watch(model, optimizer, mesh=mesh, every=2)
    data = torch.Generator().manual_seed(7)
    for step in range(STEPS):
        ids = (torch.randint(0, VOCABULARY, (8, 1), generator=data) + 3 * torch.arange(LENGTH + 1)) % VOCABULARY
        loss = functional.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        run.batch(ids)
        run.step(step, loss=loss.detach())
    run.finish()
    if rank == 0:
        print(f"loss after {STEPS} steps: {loss.item():.3f}", flush=True)


def rank_main(variant: str) -> int:
    import torch.distributed as dist

    warnings.filterwarnings("ignore", message=".*complete support on.*")
    dist.init_process_group("gloo")
    train(int(os.environ["RANK"]), is_buggy=variant == "same-seed")
    dist.destroy_process_group()
    return 0


def launch(variant: str, environment: dict[str, str]) -> None:
    """Two processes, as torchrun would start them."""
    from holter_monitor.demo.processes import free_port

    common = {"WORLD_SIZE": str(RANKS), "LOCAL_WORLD_SIZE": str(RANKS), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    ranks = [
        subprocess.Popen(
            [sys.executable, __file__, variant],
            env={**os.environ, **environment, **common, "RANK": str(rank), "LOCAL_RANK": str(rank), "HOLTER_ATTEMPT": variant},
        )
        for rank in range(RANKS)
    ]
    try:
        codes = [process.wait(timeout=120) for process in ranks]
    finally:
        for process in ranks:
            process.kill()
    if any(codes):
        raise SystemExit(f"the ranks ended with {codes}")


def watch_both() -> int:
    """Exit status 0 if the bug was flagged at step 0 and the healthy run was met with silence."""
    from holter_monitor.client import Client
    from holter_monitor.demo.processes import free_port, python, stop, stop_all_that_use

    with tempfile.TemporaryDirectory(prefix="holter-tp-") as name:
        folder, port = Path(name), free_port()
        environment = {"HOLTER_URL": f"http://127.0.0.1:{port}", "HOLTER_DIR": str(folder / "rings")}
        collector = python("holter.cli", "serve", "--port", str(port), "--data", str(folder / "data"), environment={}, log=folder / "log")
        try:
            with Client(environment["HOLTER_URL"]) as client:
                await_collector(client, collector, folder / "log")
                found = {}
                for variant, title in (("same-seed", "torch.manual_seed(seed) on every rank"), ("seed-plus-rank", "seed + tp_rank")):
                    print(f"\n── {title} " + "─" * 60, flush=True)
                    launch(variant, environment)
                    found[variant] = incidents_of(client, variant)
                    show(found[variant])
        finally:
            stop(collector)
            stop_all_that_use(folder)
    is_right = bool(found["same-seed"]) and not found["seed-plus-rank"]
    return 0 if is_right and found["same-seed"][0]["detected_step"] == 0 else 1


def await_collector(client, collector, log) -> None:
    from holter_monitor.errors import ClientError

    until = time.monotonic() + 60
    while time.monotonic() < until and collector.poll() is None:
        try:
            list(client.runs())
        except ClientError:
            time.sleep(0.1)
        else:
            return
    raise SystemExit(f"the collector did not come up:\n{log.read_text()[-2000:]}")


def incidents_of(client, variant: str) -> list[dict]:
    """The run's incidents of shards, once the collector has heard that both ranks finished."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        runs = [run for run in client.runs() if run["name"] == variant]
        if runs and sum(1 for event in client.events(runs[0]["id"]) if event["event"] == "rank_finished") == RANKS:
            return [row for row in client.incidents(run=runs[0]["id"]) if row["severity"] != "info"]
        time.sleep(0.2)
    raise SystemExit("the collector heard of no finished run within a minute")


def show(incidents: list[dict]) -> None:
    if not incidents:
        print("holter: nothing to say; shards are unlike, replicas are equal")
    for row in incidents:
        evidence = row.get("evidence") or {}
        print(f"holter: {row['severity'].upper()} {row['kind']} at step {row['detected_step']}\n  {row['summary']}")
        print(
            "".join(
                f"  {word}: {evidence[key]}\n" for word, key in (("remedy", "remedy"), ("if it is meant", "declare")) if key in evidence
            )
        )


if __name__ == "__main__":
    raise SystemExit(rank_main(sys.argv[1]) if len(sys.argv) > 1 else watch_both())
