"""What fingerprints cost: a share of the step on the rank, kernel launches and bytes, and the collector's time for up to 16,384 ranks.

    python benchmarks/fingerprint.py [--json] [--rank-only | --collector-only]

The rank's part trains a 23M-parameter transformer (one thread) and times the hooks themselves, in CPU time. Launches are counted
by intercepting every operator; on a GPU their number times about 5 µs bounds the host's cost. Collector: one round, every rank's event decoded and
judged by all four judges.
"""

from __future__ import annotations

import argparse
import base64
import json
import statistics
import time

import numpy as np

ROUNDS = 5
CLOCK = time.process_time
"""CPU time of this process, all in one thread: other jobs of the machine do not enter."""


def rank_cost(fractions, *, steps=3):
    import torch
    from holter.parallel.watching import begin
    from torch import nn

    torch.set_num_threads(1)
    torch.manual_seed(0)
    width, layers, vocabulary, length, batch = 512, 6, 4096, 256, 4
    layer = nn.TransformerEncoderLayer(width, 8, 4 * width, batch_first=True, bias=False, dropout=0.0)
    model = nn.Sequential(nn.Embedding(vocabulary, width), nn.TransformerEncoder(layer, layers, enable_nested_tensor=False),
                          nn.Linear(width, vocabulary, bias=False))  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    ids = torch.randint(0, vocabulary, (batch, length + 1))

    def step():
        loss = nn.functional.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    step()
    took = []
    for _ in range(steps):
        began = CLOCK()
        step()
        took.append(CLOCK() - began)
    size = sum(param.numel() * param.element_size() for param in model.parameters())
    about = {"parameters": sum(param.numel() for param in model.parameters()), "bytes": size, "step_seconds": statistics.median(took)}
    rows = []
    for fraction in fractions:
        watch = begin(Nobody(), model, optimizer, mesh={"dp": (0, 2), "tp": (0, 2)}, every=1, fraction=fraction,
                      declare={"norm": {"tp": "R"}, r"linear1|in_proj|^0|^2": {"tp": ("S", 0)}, r"linear2|out_proj": {"tp": ("S", 1)}})  # fmt: skip
        rows.append({"fraction": fraction, **hook_cost(watch), "launches": launches(watch, torch)})
        watch.detach()
    for row in rows:
        row["share_every_step"] = row["seconds"] / about["step_seconds"]
        row["share_every_10_steps"] = row["share_every_step"] / 10
    return {**about, "fingerprints": rows}


class Nobody:
    last_step = 0

    def event(self, word, /, *, step=None, **attrs):
        self.size = len(json.dumps(attrs))


def hook_cost(watch):
    """Seconds of one fingerprint: sample before, fingerprint after, at-rest check before the next step, event."""
    took = []
    for _ in range(24):
        began = CLOCK()
        watch._before()
        watch._after()
        took.append(CLOCK() - began)
    # The hooks of one round: the check of the fingerprint before, the sample, the fingerprint itself.
    return {"seconds": statistics.median(took[4:]), "seconds_worst": max(took[4:]), "event_bytes": watch._record.size}


def launches(watch, torch):
    """Operators of one round of hooks that would launch a kernel or a copy on a GPU: all that are no view and no bare allocation."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Counting(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            name = func.overloadpacket.__name__
            self.count += not (func.is_view or name.startswith(("empty", "detach", "alias", "lift")))
            return func(*args, **(kwargs or {}))

    with Counting() as counting:
        for _ in range(ROUNDS):
            watch._before()
            watch._after()
    return round(counting.count / ROUNDS)


def collector_cost(ranks):
    from holter.fingerprint import SKETCH, WORDS, Slot
    from holter.tensors import Layout, Tensor
    from holter_monitor.detectors.fingerprints import Fingerprints
    from holter_monitor.stream.steps import RunFacts, Topology

    tp, pp = min(8, ranks), 16 if ranks >= 1024 else 1
    dp = ranks // (tp * pp)
    sizes = {"dp": dp, "tp": tp, "pp": pp}
    rng = np.random.default_rng(0)
    tables = [stage_layout(Layout, Tensor, stage, pp, sizes) for stage in range(pp)]
    detector = Fingerprints()
    detector.begin(RunFacts(run="r", world_size=ranks))
    topology = Topology()
    places = []
    for rank in range(ranks):
        d, t, p = rank % dp, (rank // dp) % tp, rank // (dp * tp)
        places.append((d, t, p))
        attrs = {"mesh": {"dp": [d, dp], "tp": [t, tp], "pp": [p, pp]}, "layout": ""}
        attrs |= {"table": tables[p].to_json()} if d == 0 else {}
        detector.hear({"event": "watch", "rank": rank, "step": None, "time_ns": 0, "attrs": attrs}, topology)
    place = np.array(places)
    model = rng.integers(-(2**62), 2**62, (pp, 12))
    shards = rng.standard_normal((tp * pp, SKETCH)).astype(np.float32)
    decode, judge = [], []
    for index in range(6):
        words = np.zeros((ranks, WORDS), np.int64)
        words[:, Slot.VERSION], words[:, Slot.STEP], words[:, Slot.INDEX], words[:, Slot.AT_REST] = 1, index, index, 0
        words[:, Slot.LAYOUT] = [tables[p].digest for p in place[:, 2]]
        words[:, Slot.MODEL : Slot.MODEL + 12] = model[place[:, 2]]
        words[:, Slot.DATA : Slot.DATA + 12] = (place[:, [1]] * 31 + place[:, [2]]) * 1000 + np.arange(12)
        words[:, Slot.BATCH] = place[:, 0] + 1 + index * 100_000
        words[:, Slot.SHARD :] = shards[place[:, 1] * pp + place[:, 2]].view(np.int64)
        events = [{"event": "fingerprint", "rank": rank, "step": index, "time_ns": 0,
                   "attrs": {"data": base64.b64encode(words[rank].tobytes()).decode()}} for rank in range(ranks)]  # fmt: skip
        round_ = []
        began = CLOCK()
        for event in events:
            round_ += detector.rounds.add(event, topology)
        middle = CLOCK()
        findings = [finding for one in round_ for finding in detector.judge(one)]
        decode.append(middle - began)
        judge.append(CLOCK() - middle)
        assert len(round_) == 1
        assert not findings, findings[0].summary
    return {
        "ranks": ranks,
        "mesh": sizes,
        "take_in_seconds": min(decode),
        "judge_seconds": min(judge),
        "judge_seconds_worst": max(judge[1:]),
    }


def stage_layout(layout, tensor, stage, stages, sizes):
    tensors = []
    for number in range(stage * 80 // stages, (stage + 1) * 80 // stages):
        for name, shape, how in (("attn.qkv", (1280, 8192), "S0"), ("attn.o", (8192, 1024), "S1"), ("mlp.up", (3584, 8192), "S0"),
                                 ("mlp.down", (8192, 3584), "S1"), ("norm1", (8192,), "R"), ("norm2", (8192,), "R")):  # fmt: skip
            tensors.append(tensor(f"layers.{number}.{name}.weight", "bfloat16", shape, {"dp": "R", "tp": how}, "dtensor"))
    return layout(tuple(tensors), 0.1, ("tp",), sizes)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rank-only", action="store_true")
    parser.add_argument("--collector-only", action="store_true")
    arguments = parser.parse_args()
    answer = {}
    if not arguments.collector_only:
        answer["rank"] = rank_cost((1.0, 0.25, 0.1, 0.02))
    if not arguments.rank_only:
        answer["collector"] = [collector_cost(ranks) for ranks in (8, 1024, 16_384)]
    if arguments.json:
        print(json.dumps(answer, indent=1))
        return
    if "rank" in answer:
        rank = answer["rank"]
        print(
            f"rank: {rank['parameters'] / 1e6:.1f} M parameters, {rank['bytes'] / 2**20:.0f} MiB, step {rank['step_seconds']:.2f} s, one thread"
        )
        for row in rank["fingerprints"]:
            print(f"  fraction {row['fraction']:<5} {row['seconds'] * 1e3:6.1f} ms a fingerprint ({row['seconds_worst'] * 1e3:.1f} worst) = "
                  f"{row['share_every_step']:.3%} of a step, {row['share_every_10_steps']:.3%} at every=10; {row['launches']} launches, "
                  f"512 bytes ({row['event_bytes']} as an event)")  # fmt: skip
    for row in answer.get("collector", []):
        print(f"collector: {row['ranks']:6} ranks {row['mesh']}: {row['judge_seconds'] * 1e3:.1f} ms to judge a round, "
              f"{row['take_in_seconds'] * 1e3:.1f} ms to take in its events")  # fmt: skip


if __name__ == "__main__":
    main()
