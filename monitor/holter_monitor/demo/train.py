"""The patient: a small real transformer on Shakespeare's sonnets, data-parallel over gloo. Run by `holter demo` through torchrun.

Everything that is Holter's in here is marked; it is what a user adds to a training script. At one step the run is really poisoned: a
few batches of garbage bytes at a raised learning rate, as a corrupt shard and a broken scheduler would do it.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import holter  # holter
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

VOCABULARY, CONTEXT, WIDTH, HEADS, LAYERS = 128, 64, 64, 4, 2
BATCH = 8
LEARNING_RATE = 1e-3
POISON_STEPS, POISON_RATE = 3, 30.0
"""How many batches are garbage, and by what the learning rate is multiplied meanwhile."""


class Transformer(nn.Module):
    """A decoder-only transformer over bytes, small enough for one CPU core."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, WIDTH)
        self.places = nn.Embedding(CONTEXT, WIDTH)
        layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 4 * WIDTH, dropout=0.0, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)
        self.head = nn.Linear(WIDTH, VOCABULARY)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(CONTEXT), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        hidden = self.tokens(tokens) + self.places.weight
        return self.head(self.layers(hidden, mask=self.mask, is_causal=True))


def batches(text: Tensor, *, steps: int, poison_at: int, seed: int) -> Iterator[Tensor]:
    """(BATCH, CONTEXT + 1) windows of the text; at `poison_at`, a few batches of noise instead."""
    source = torch.Generator().manual_seed(seed)
    for step in range(steps):
        if poison_at <= step < poison_at + POISON_STEPS:
            yield torch.randint(0, VOCABULARY, (BATCH, CONTEXT + 1), generator=source)
            continue
        starts = torch.randint(0, len(text) - CONTEXT - 1, (BATCH,), generator=source)
        yield torch.stack([text[start : start + CONTEXT + 1] for start in starts.tolist()])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=900)
    parser.add_argument("--poison-at", type=int, default=650)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    dist.init_process_group("gloo")
    text = torch.tensor(list(Path(__file__).with_name("sonnets.txt").read_bytes()))
    model = DistributedDataParallel(Transformer())
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    loader = batches(text, steps=arguments.steps, poison_at=arguments.poison_at, seed=dist.get_rank())

    run = holter.init(project="demo", name="sonnets")  # holter
    for step, batch in enumerate(run.batches(loader)):  # holter: times the wait for data
        is_poisoned = arguments.poison_at <= step < arguments.poison_at + POISON_STEPS
        warm = min(1.0, (step + 1) / 50) * LEARNING_RATE
        for group in optimizer.param_groups:
            group["lr"] = warm * (POISON_RATE if is_poisoned else 1.0)
        loss = cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        grad_norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        run.step(step, loss=loss, grad_norm=grad_norm, lr=optimizer.param_groups[0]["lr"], tokens=batch[:, 1:].numel())  # holter
    run.finish()  # holter
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
