"""The playbook's failures, each on a synthetic run with all detectors at work, to the message that the person on call would have needed: what it
says in substance, in one conversation, and nothing besides. (Its published traces: tests/monitor/test_playbook_messages.py; deleted checkpoints:
test_checkpoint_messages.py.)"""

from __future__ import annotations

from typing import Any

import numpy as np
from detector_streams import ranked
from holter.frame import NODE_RANK, Column, Frame
from holter.tensors import Layout, Tensor
from holter_monitor.reference import build
from messages import Messages

NODES, RANKS = 2, 8


class Fleet:
    """Two nodes of four ranks that ship a frame a step, and a look at their hosts every five."""

    def __init__(self, folder: Any, **facts: Any) -> None:
        self.messages, self.seq, self.dice = Messages(folder, world_size=RANKS, **facts), 0, np.random.default_rng(0)
        self.names = [f"node-{node}" for node in range(NODES)]

    def step(self, number: int, events: Any = (), hosts: dict[str, float] | None = None, **columns: Any) -> None:
        """`columns`: one value for all ranks, or one each."""
        self.messages.now += float(np.max(columns.get("step_time_seconds", 1.0)))
        for node in range(NODES):
            ranks = np.arange(4 * node, 4 * node + 4)
            metrics = {name: np.broadcast_to(np.asarray(value, float), RANKS)[ranks] for name, value in columns.items()}
            self._ship(node, ranks, number, metrics, events if node == 0 else ())
            if hosts and number % 5 == 0:
                self._ship(node, np.array([NODE_RANK]), number, {name: np.array([value]) for name, value in hosts.items()}, ())

    def tell(self, node: int, word: str, rank: int | None, number: int, **attrs: Any) -> None:
        self._ship(node, np.empty(0, int), number, {}, [self.event(word, rank, number, **attrs)])

    def beat(self, node: int) -> None:
        self._ship(node, np.empty(0, int), 0, {}, ())

    def event(self, word: str, rank: int | None, number: int, **attrs: Any) -> dict[str, Any]:
        return {"event": word, "rank": rank, "step": number, "time_ns": int(self.messages.now * 1e9), "attrs": attrs}

    def _ship(self, node: int, ranks: Any, number: int, metrics: dict[str, Any], events: Any) -> None:
        self.seq += 1
        stamp = int(self.messages.now * 1e9)
        frame = Frame(
            "r", self.messages.attempt, self.names[node], f"boot-{node}-{self.messages.attempt}", self.seq, stamp, events=list(events)
        )
        frame.rank, frame.step = ranks.astype("<i4"), np.full(len(ranks), number, np.int64)
        frame.time_ns = np.full(len(ranks), stamp, np.int64)
        frame.metrics = {name: Column(values) for name, values in metrics.items()}
        self.messages.feed(frame)

    def noise(self, share: float = 0.01) -> Any:
        return np.exp(share * self.dice.standard_normal(RANKS))


def one_conversation(messages: Messages) -> str:
    """The newest whole message of the only trouble that anybody was told of."""
    notices = messages.notices
    assert len({notice.subject for notice in notices}) == 1, "\n\n".join(messages.shown)
    return messages.shown[[place for place, notice in enumerate(notices) if notice.transition in ("trigger", "update")][-1]]


def test_s1_storage_that_forgets_the_data_is_named_with_its_cost_and_what_to_do(tmp_path: Any) -> None:
    fleet = Fleet(tmp_path)
    for number in range(500):
        is_slow = (number >= 291 and fleet.dice.random() < 0.12) or number == 291
        wait = 18.0 if is_slow else 0.02
        hosts = {"host_disk_read_latency_seconds.nvme0n1": 0.05 if number > 288 else 0.001, "host_load_1m": 3.0}
        seconds = 1.0 + wait + 0.01 * abs(fleet.dice.standard_normal())
        work = {"compute_seconds": 0.9 * fleet.noise(), "gpu_sm_clock_hertz": 1.98e9 * fleet.noise(0.001)}
        fleet.step(
            number, hosts=hosts, step_time_seconds=seconds, tokens_per_second=6144 / seconds, data_wait_seconds=wait * fleet.noise(), **work
        )
    said = one_conversation(fleet.messages)
    assert "since step 291" in said and "of all wall time lost" in said and "data wait explains" in said
    assert "Why: the storage under the data is slow (all ranks" in said and "disk read latency x" in said
    assert "pin the data to the fast tier or copy it to local disk. Draining nodes will not help" in said and "GPU-hours on 8 ranks" in said
    assert fleet.messages.notices[0].detected_step <= 292


def test_s3_a_loss_that_got_noisy_with_another_order_of_the_data(tmp_path: Any) -> None:
    messages, dice = Messages(tmp_path), np.random.default_rng(3)
    for attempt, noise in (("1", 0.01), ("2", 0.04)):
        messages.attempt = attempt
        for _ in range(1500):
            level = 2.0 + 4.0 * (messages.number + 10.0) ** -0.4
            messages.step(1.0, loss=level * float(np.exp(noise * dice.standard_normal())), lr=3e-4, tokens_per_second=6144.0)
    said = one_conversation(messages)
    assert "loss_noise" in said and "Why: the data changed" in said
    assert "documents per batch" in said and "sequences that are not shuffled make long documents fill batches" in said


def test_s5_a_spare_without_its_copy_of_the_dataset_is_named(tmp_path: Any) -> None:
    fleet = Fleet(tmp_path)
    for number in range(400):
        fleet.messages.attempt = "1" if number < 200 else "2"
        waits = np.abs(0.02 + 0.004 * fleet.dice.standard_normal(RANKS))
        waits[4:] += 0.3 if number >= 200 else 0.0
        seconds = 1.0 + waits.max()
        fleet.names[1] = "node-1" if number < 200 else "spare-9"
        fleet.step(
            number,
            step_time_seconds=seconds,
            tokens_per_second=6144 / seconds,
            data_wait_seconds=waits,
            compute_seconds=0.9 * fleet.noise(0.002),
        )
    said = one_conversation(fleet.messages)
    assert "spare-9" in said and "its copy of the dataset is missing or not whole" in said
    assert "Why: spare-9 joined without its whole copy" in said and "Do: compare its copy with another node's" in said


def test_s6_a_gpu_that_throttles_is_one_message_with_node_reason_and_the_drain(tmp_path: Any) -> None:
    messages, dice, count, ranks = Messages(tmp_path, world_size=32), np.random.default_rng(0), 400, 32
    clocks = 1.98e9 - 1.5e7 * dice.integers(0, 2, (count, ranks))
    work = 0.5 * np.exp(0.003 * dice.standard_normal((count, ranks)))
    reasons, heat = np.zeros((count, ranks)), 62 + dice.normal(0, 2, (count, ranks))
    clocks[150:, 11] *= 0.78
    work[150:, 11] /= 0.78
    reasons[150:, 11], heat[150:, 11] = 0x40, 91
    seconds = np.repeat(0.1 + work.max(axis=1)[:, None], ranks, axis=1)
    columns = {"gpu_sm_clock_hertz": clocks, "gpu_throttle_reasons": reasons, "gpu_temperature_celsius": heat, "compute_seconds": work}
    for step in ranked(columns | {"step_time_seconds": seconds, "tokens_per_second": 6144 / seconds}, nodes=8):
        messages.take(step)
    said = one_conversation(messages)
    assert "rank 11" in said and "node-01" in said and "hardware thermal slowdown" in said and "91 °C" in said
    assert "Do: drain node-01" in said and "dcgmi diag -r 3" in said


def test_s10_a_node_that_falls_off_the_bus_again_and_again_is_one_conversation_that_names_it(tmp_path: Any) -> None:
    fleet = Fleet(tmp_path)
    for attempt in range(1, 7):
        fleet.messages.attempt = str(attempt)
        for node in range(NODES):
            fleet.messages.now += 1
            for rank in range(4 * node, 4 * node + 4):
                fleet.tell(node, "rank_started", rank, 0)
        for number in range(5 + attempt):
            fleet.step(number, step_time_seconds=1.0)
        fleet.tell(1, "gpu_error", 5, number, gpu="1", xid=79, text="GPU has fallen off the bus")
        fleet.tell(1, "rank_lost", 5, number, evidence="killed by SIGABRT")
        for _ in range(24):
            fleet.messages.wait(5)
            for node in range(NODES):
                fleet.beat(node)
    said = one_conversation(fleet.messages)
    assert "node-1 was lost first in" in said and "XID 79" in said and "Why: the GPU of node-1 is faulty" in said
    assert "Do: take node-1 out of the job" in said


def test_s11_weights_in_another_dtype_than_the_reference_are_said_before_the_first_step(tmp_path: Any) -> None:
    names = {"embed": (512, 64), "layers.0.mlp.up": (256, 64), "layers.1.mlp.up": (256, 64)}
    held = build("fp32-baseline", [], [], precision=dict.fromkeys(("embed", "layers.*.mlp.up"), "float32"))
    tensors = tuple(Tensor(name, "bfloat16", shape, {"dp": "R"}, "declared") for name, shape in names.items())
    messages = Messages(tmp_path, reference=held)
    messages.hear("watch", rank=0, mesh={"dp": [0, 2]}, table=Layout(tensors, sizes={"dp": 2}).to_json())
    messages.wait(10)
    said = one_conversation(messages)
    assert "100% of the parameters are kept in bfloat16, fp32-baseline has them in float32" in said and "Since: step 0" in said
    assert "Why: the parameters are kept in another dtype" in said and "mixed-precision settings" in said


def test_s12_an_evaluation_that_does_not_come_is_said_with_when_it_was_due(tmp_path: Any) -> None:
    messages, dice = Messages(tmp_path, config={"eval_interval": 100}), np.random.default_rng(1)
    for number in range(1, 900):
        is_eval = number % 100 == 0 and number <= 500
        said = ({"event": "eval", "rank": 0, "step": number, "time_ns": 0, "attrs": {}},) if is_eval else ()
        messages.step(60.0, said, loss=2.0 + 0.01 * float(dice.standard_normal()))
    said = one_conversation(messages)
    assert "the evaluation due at step 600 has not come by step 70" in said and "the last was at step 500" in said
    assert "Do: look at the job that should have brought it" in said


def test_s13_a_healthy_fleet_is_met_with_silence(tmp_path: Any) -> None:
    """Warm-up, a checkpoint every hundred steps, three isolated slow steps, a declared change of the batch."""
    fleet = Fleet(tmp_path)
    for number in range(600):
        pause = 4.0 if number and number % 100 == 0 else 9.0 if number in (231, 377, 489) else 0.0
        seconds = (1.0 if number < 450 else 1.5) * float(np.exp(0.01 * fleet.dice.standard_normal())) + pause
        events = [fleet.event("checkpoint", 0, number, path=f"/ckpt/{number}")] if pause == 4.0 else []
        events += [fleet.event("batch_size_change", 0, number)] if number == 450 else []
        loss = (2.0 + 4.0 * (number + 10.0) ** -0.4) * float(np.exp(0.01 * fleet.dice.standard_normal()))
        work = {"compute_seconds": 0.9 * fleet.noise(0.004), "data_wait_seconds": 0.02 * fleet.noise(0.1)}
        fleet.step(
            number, events, step_time_seconds=seconds, tokens_per_second=6144 / seconds, loss=loss, grad_norm=0.5 * fleet.noise(0.1), **work
        )
    assert fleet.messages.notices == [], "\n\n".join(fleet.messages.shown)
