"""Fleets of ranks in one process: a tensor- and data-parallel network trained with exact semantics, each rank under the real watch.

The network is two layers of norm, column-parallel w1, GELU, row-parallel w2, with vocabulary-parallel embedding and head, sequence-parallel
norms. All ranks are one autograd graph, so a healthy fleet has exactly the collectives of a real one, and a bug is a line left out.
"""

import json

import torch
from holter.parallel.watching import begin
from holter_monitor.detectors.fingerprints import Fingerprints
from holter_monitor.engine import Engine
from holter_monitor.stream.steps import RunFacts

VOCABULARY, WIDTH, LAYERS, LENGTH = 64, 32, 2, 16
DECLARED = {
    r"embed|head|w1|qkv": {"tp": ("S", 0)},
    r"w2": {"tp": ("S", 1)},
    r"norm": {"tp": "R"},
}


class Recorded:
    """What a run is to the watch: it keeps the events."""

    def __init__(self, rank, events):
        self.rank, self.events, self.last_step = rank, events, -1

    def event(self, word, /, *, step=None, **attrs):
        self.events.append({"event": word, "rank": self.rank, "step": step, "time_ns": 0, "attrs": attrs})


class Rank:
    """One rank's parameters, optimizer and (from `watch` on) its watch."""

    def __init__(self, place, sizes, *, seed, lr=1e-3, weight_decay=0.1):
        self.place, self.sizes = place, sizes
        generator = torch.Generator().manual_seed(seed)
        self.params = {
            name: torch.nn.Parameter(torch.randn(shape, generator=generator) * 0.05) for name, shape in shapes(sizes["tp"]).items()
        } | {f"layers.{layer}.norm": torch.nn.Parameter(torch.ones(WIDTH)) for layer in range(LAYERS)}
        self.optimizer = torch.optim.AdamW(self.params.values(), lr=lr, weight_decay=weight_decay)
        self.watch = None


def shapes(tp):
    layers = {f"layers.{layer}.mlp.{name}": shape for layer in range(LAYERS) for name, shape in
              (("w1", (4 * WIDTH // tp, WIDTH)), ("w2", (WIDTH, 4 * WIDTH // tp)))}  # fmt: skip
    return {"embed": (VOCABULARY // tp, WIDTH), **layers, "head": (VOCABULARY // tp, WIDTH)}


class Fleet:
    """`seed_of(tp, dp)` seeds a rank's shards (healthy: `seed + tp`)."""

    def __init__(self, *, tp=2, dp=2, seed=0, seed_of=None, lr=1e-3, weight_decay=0.1):
        seed_of = seed_of or (lambda t, d: 1000 * seed + t)
        self.tp, self.dp = tp, dp
        self.ranks = [
            Rank({"dp": d, "tp": t}, {"dp": dp, "tp": tp}, seed=seed_of(t, d), lr=lr, weight_decay=weight_decay)
            for d in range(dp)
            for t in range(tp)
        ]
        self.events = []
        self.generator = torch.Generator().manual_seed(77 + seed)
        self.steps = 0

    def rank(self, t, d):
        return self.ranks[d * self.tp + t]

    def watch(self, **options):
        for number, rank in enumerate(self.ranks):
            record = Recorded(number, self.events)
            record.last_step = self.steps - 1
            mesh = {axis: (rank.place[axis], size) for axis, size in rank.sizes.items()}
            options = {"every": 1, "declare": DECLARED, "fraction": 1.0} | options
            rank.watch = begin(record, rank.params, rank.optimizer, mesh=mesh, **options)
            rank.record = record
        return self

    def batches(self):
        """One batch a data-parallel rank: pairs of bigrams that can be learned."""
        starts = torch.randint(0, VOCABULARY, (self.dp, 4, 1), generator=self.generator)
        return [(start + torch.arange(LENGTH + 1) * 3) % VOCABULARY for start in starts]

    def step(self, *, reduce_norms=True, skip_sync=(), noise=0.0, feed=None):
        """One optimizer step of all ranks. `skip_sync`: data-parallel ranks that train on their own gradients; `feed(t, d, batches)`."""
        batches = self.batches()
        losses = []
        for d in range(self.dp):
            ranks = [self.rank(t, d) for t in range(self.tp)]
            losses.append(loss_of(ranks, [feed(t, d, batches) if feed else batches[d] for t in range(self.tp)]))
        sum(losses).backward()
        self._reduce(reduce_norms, skip_sync, noise)
        for number, rank in enumerate(self.ranks):
            if rank.watch is not None:
                rank.watch.batch(feed(number % self.tp, number // self.tp, batches) if feed else batches[number // self.tp])
            rank.optimizer.step()
            rank.optimizer.zero_grad(set_to_none=True)
            if rank.watch is not None:
                rank.record.last_step = self.steps
        self.steps += 1
        return float(sum(losses).detach()) / self.dp

    def _reduce(self, reduce_norms, skip_sync, noise):
        for name in self.ranks[0].params:
            grads = [[self.rank(t, d).params[name].grad for t in range(self.tp)] for d in range(self.dp)]
            if "norm" in name and reduce_norms is not False and (reduce_norms is True or name in reduce_norms):
                for row in grads:
                    total = torch.stack(row).sum(0)
                    for grad in row:
                        grad.copy_(total)
            for t in range(self.tp):
                mean = torch.stack([grads[d][t] for d in range(self.dp)]).mean(0)
                for d in range(self.dp):
                    if d not in skip_sync:
                        grads[d][t].copy_(mean)
            if noise and "norm" not in name:
                for t in range(self.tp):
                    spread = noise * grads[0][t].std() * torch.randn(grads[0][t].shape, generator=self.generator)
                    for d in range(self.dp):
                        grads[d][t].add_(spread)

    def finish(self):
        for rank in self.ranks:
            if rank.watch is not None:
                rank.watch.finish()
        return self

    def findings(self, *, quiet=True):
        """What the collector says to all events so far; `quiet` leaves out what is only info."""
        engine = Engine(RunFacts(run="r", world_size=len(self.ranks)), [Fingerprints])
        said = [finding for event in self.events for finding in engine.hear(json.loads(json.dumps(event)))]
        said += engine.finish()
        assert not [finding.summary for finding in said if finding.kind == "detector_failed"]
        assert not [event for event in self.events if event["event"] == "watch_off"]
        return [finding for finding in said if finding.severity > 1 or not quiet]


def loss_of(ranks, batches):
    tp = len(ranks)
    x = sum(embedded(rank, t, batch[:, :-1]) for t, (rank, batch) in enumerate(zip(ranks, batches, strict=True)))
    for layer in range(LAYERS):
        # Sequence parallel: each rank norms its part of the sequence with its own copy of the weight.
        parts = x.chunk(tp, dim=1)
        normed = torch.cat([
            torch.nn.functional.rms_norm(part, (WIDTH,), rank.params[f"layers.{layer}.norm"]) for part, rank in zip(parts, ranks, strict=True)
        ], dim=1)  # fmt: skip
        hidden = [torch.nn.functional.gelu(normed @ rank.params[f"layers.{layer}.mlp.w1"].T) for rank in ranks]
        x = x + sum(h @ rank.params[f"layers.{layer}.mlp.w2"].T for h, rank in zip(hidden, ranks, strict=True))
    logits = torch.cat([x @ rank.params["head"].T for rank in ranks], dim=-1)
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), batches[0][:, 1:].flatten())


def embedded(rank, t, ids):
    size = rank.params["embed"].shape[0]
    local = ids - t * size
    mine = (local >= 0) & (local < size)
    return torch.nn.functional.embedding(local.clamp(0, size - 1), rank.params["embed"]) * mine[..., None]
