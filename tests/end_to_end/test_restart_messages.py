"""Restarts, from the agents' frames to the message: one incident that names the node, and silence for a run that comes forward."""

import numpy as np
from holter.frame import Column, Frame
from messages import Messages

NODES = ("node-11", "node-12")


class Fleet:
    """Two nodes of one rank each; `attempt(...)` runs some steps, and then a node falls off the bus."""

    def __init__(self, tmp_path):
        self.messages, self.seq, self.count = Messages(tmp_path, world_size=2), 0, 0

    def send(self, node, step=None, events=()):
        self.seq += 1
        rank, time_ns = NODES.index(node), int(self.messages.now * 1e9)
        rows = 0 if step is None else 1
        self.messages.feed(
            Frame(
                *("r", str(self.count), node, f"boot {node} {self.count}", self.seq, time_ns),
                rank=np.full(rows, rank, np.int32),
                step=np.full(rows, 0 if step is None else step),
                time_ns=np.full(rows, time_ns),
                metrics={"loss": Column(np.full(rows, 2.0)), "step_time_seconds": Column(np.full(rows, 10.0))} if rows else {},
                events=[{"event": word, "rank": rank, "step": step, "time_ns": time_ns, "attrs": attrs} for word, attrs in events],
            )
        )

    def attempt(self, first, steps, lost, word="gpu_error", **attrs):
        self.count += 1
        for node in NODES:
            self.send(node, events=[("agent_started", {}), ("rank_started", {"world_size": 2, "host": node})])
        for step in range(first, first + steps):
            self.messages.now += 10.0
            for node in NODES:
                self.send(node, step)
        if lost:
            self.send(lost, events=[(word, attrs)])
        self.messages.now += 60.0

    def said(self, kind):
        return [text for text in self.messages.shown if text.split("\n")[0].endswith(f" {kind}]")]


def test_s10_a_node_that_falls_off_the_bus_again_and_again_is_one_page_that_names_it(tmp_path):
    fleet = Fleet(tmp_path)
    fleet.attempt(0, 200, "node-12", gpu="0", xid=79, text="GPU has fallen off the bus")
    fleet.attempt(100, 60, "node-12", gpu="0", xid=79, text="GPU has fallen off the bus")
    fleet.attempt(100, 40, "node-11", word="rank_failed", type="RuntimeError", message="NCCL timeout")
    fleet.attempt(100, 20, "node-12", gpu="0", xid=79, text="GPU has fallen off the bus")
    fleet.attempt(100, 10, None)
    pages = [text for text in fleet.said("restart_storm") if text.startswith("[trigger ")]
    assert len(pages) == 1 and pages[0].startswith("[trigger critical")
    newest = fleet.said("restart_storm")[-1]
    assert "node-12 was lost first in 3 of the last 4" in newest, newest


def test_preemptions_of_a_run_that_comes_forward_are_no_storm(tmp_path):
    fleet = Fleet(tmp_path)
    for number in range(5):
        fleet.attempt(100 * number, 120, "node-11", word="rank_terminated", signal="SIGTERM")
        fleet.messages.now += 900.0
    assert fleet.said("restart_storm") == []
