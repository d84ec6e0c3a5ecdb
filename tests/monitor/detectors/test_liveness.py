"""Silence, standstill and loss: through the engine, with frames and ticks as a collector has them."""

import numpy as np
import pytest
from holter.frame import Column, Frame
from holter_monitor.detectors.agent_silent import AgentSilent
from holter_monitor.detectors.hang import Hang
from holter_monitor.detectors.rank_lost import Lost, RankLost
from holter_monitor.detectors.restart_storm import RestartStorm
from holter_monitor.engine import Engine
from holter_monitor.findings import Severity
from holter_monitor.stream.steps import RunFacts

START = 1.7e9


class Collector:
    """An engine of one detector, with nodes of four ranks that ship a frame a second and a clock that ticks."""

    def __init__(self, make, nodes=2):
        self.engine = Engine(RunFacts(run="r", world_size=4 * nodes), [make])
        self.nodes, self.now, self.seq, self.said, self.attempt = nodes, START, 0, [], "1"
        self.begin()

    def begin(self):
        for node in range(self.nodes):
            self.ship(node, events=[self.event("rank_started", rank) for rank in range(4 * node, 4 * node + 4)])

    def event(self, word, rank, step=None, at=None, **attrs):
        return {"event": word, "rank": rank, "step": step, "time_ns": int((at or self.now) * 1e9), "attrs": attrs}

    def ship(self, node, steps=None, events=()):
        frame = Frame("r", self.attempt, f"node-{node}", f"boot-{self.attempt}", self.seq, int(self.now * 1e9), events=list(events))
        if steps:
            frame.rank = np.array(list(steps), np.int32)
            frame.step = np.array(list(steps.values()), np.int64)
            frame.time_ns = np.full(len(steps), int(self.now * 1e9), np.int64)
            frame.metrics = {"step_time_seconds": Column(np.ones(len(steps)))}
        self.seq += 1
        self.said += self.engine.feed(frame, self.now)

    def step(self, number, without=(), nodes=None):
        for node in range(self.nodes) if nodes is None else nodes:
            self.ship(node, {rank: number for rank in range(4 * node, 4 * node + 4) if rank not in without})
        self.wait(1)

    def wait(self, seconds, beats=(), every=5.0):
        """Time goes by; the nodes in `beats` send heartbeats."""
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + every)
            for node in beats:
                self.ship(node)
            self.said += self.engine.tick(self.now)

    def take(self):
        said, self.said = self.said, []
        return said


def test_a_rank_that_does_not_reach_the_others_step_is_a_hang():
    run = Collector(Hang)
    for number in range(50):
        run.step(number)
    run.step(50, without=(6,))
    run.wait(40, beats=(0, 1))
    assert not run.take(), "half a minute may be a slow frame"
    run.wait(60, beats=(0, 1))
    (finding,) = run.take()
    assert finding.severity == Severity.CRITICAL and finding.ranks == (6,) and finding.onset_step == 50
    assert "rank 6 did not reach step 50, the other 7 did" in finding.summary
    run.step(50, without=(0, 1, 2, 3, 4, 5, 7))
    run.step(51)
    (end,) = run.take()
    assert end.is_over and end.onset_step == 50


def test_a_pause_of_all_ranks_together_is_none():
    run = Collector(Hang)
    for number in range(50):
        run.step(number)
    run.wait(600, beats=(0, 1))
    for number in range(50, 60):
        run.step(number)
    assert not run.take()
    run.wait(1700, beats=(0, 1))
    assert not run.take(), "it came back from a pause of 600 s before"
    run.wait(600, beats=(0, 1))
    (finding,) = run.take()
    assert finding.ranks == () and "all 8 ranks stand" in finding.summary


def test_a_finished_run_may_stand_still():
    run = Collector(Hang)
    for number in range(20):
        run.step(number)
    for node in (0, 1):
        run.ship(node, events=[run.event("rank_finished", rank, 19) for rank in range(4 * node, 4 * node + 4)])
    run.wait(3600)
    assert not run.take()


def test_the_agents_word_names_the_rank_that_the_others_wait_for():
    run = Collector(Hang)
    for number in range(20):
        run.step(number)
    stack = [{"ranks": [5], "stack": "read (nfs.py:12)"}]
    run.ship(1, events=[run.event("rank_hung", 5, 18, seconds=120, phase="data", stacks=stack), run.event("rank_hung", 4, 19, seconds=110)])
    run.ship(0, events=[run.event("rank_hung", rank, 19, seconds=110) for rank in range(4)])
    said = run.take()
    assert {(f.scope, f.onset_step) for f in said} == {("run", 19)}, "one hang, one identity"
    assert said[-1].ranks == (5,) and said[-1].nodes == ("node-1",)
    assert said[-1].evidence["stacks"] == [stack[0] | {"count": 1, "where": "read (nfs.py:12)"}]


def test_stacks_that_come_later_join_the_hang_and_those_of_a_pause_that_ended_are_forgotten():
    run = Collector(Hang)
    for number in range(20):
        run.step(number)
    run.ship(0, events=[run.event("stacks", None, 19, stacks=[{"ranks": [0], "stack": "save (io.py:1)"}])])
    run.step(20)
    run.ship(0, events=[run.event("rank_hung", 0, 20, seconds=180)])
    (opened,) = run.take()
    assert opened.evidence["stacks"] == [], "the pause before this one is over"
    for node, stack in ((0, "all_reduce (c10d.py:2)"), (1, "all_reduce (c10d.py:2)"), (1, "read (nfs.py:12)")):
        ranks = [7] if "read" in stack else [rank for rank in range(4 * node, 4 * node + 4) if rank != 7]
        run.ship(node, events=[run.event("stacks", None, 20, stacks=[{"ranks": ranks, "stack": stack}])])
    assert len(run.take()) == 2, "told at once where somebody stands in a new place"
    run.ship(0, events=[run.event("stacks", None, 20, stacks=[{"ranks": [0], "stack": "read (nfs.py:12)"}])])
    assert not run.take()
    run.wait(5)
    (later,) = run.take()
    assert later.evidence["standing"] == "6 ranks in all_reduce (c10d.py:2), ranks 0, 7 in read (nfs.py:12)"


def test_a_rank_that_hangs_at_the_step_of_the_others_is_not_said_to_be_behind():
    """SIGSTOP between two steps: its own agent says so, and all stand at the same step."""
    run = Collector(Hang)
    for number in range(20):
        run.step(number)
    run.ship(1, events=[run.event("rank_hung", 5, 19, seconds=15, phase="a stopped process", stopped=True)])
    (finding,) = run.take()
    assert finding.ranks == (5,) and finding.summary.startswith(
        "rank 5 hung at step 19, which the other 7 reached too, in a stopped process;"
    )


def test_nobody_is_named_while_all_stand_at_one_step_whoever_s_agent_speaks_first():
    run = Collector(Hang)
    for number in range(20):
        run.step(number)
    run.ship(1, events=[run.event("rank_hung", 5, 19, seconds=180)])
    run.ship(0, events=[run.event("rank_hung", rank, 19, seconds=181) for rank in range(4)])
    said = run.take()
    assert said and all(finding.ranks == () and finding.summary.startswith("all 8 ranks stand at step 19") for finding in said)
    run.ship(1, events=[run.event("rank_hung", 6, 18, seconds=190)])
    assert run.take()[-1].ranks == (6,)


def recorded(enqueued, pending):
    """A group of `holter.node.flight.summary`: all came to 98, who waits does so in 99."""
    told = {"group": "0", "name": "default_pg", "ranks": [], "enqueued": pending or enqueued, "completed": 98}
    return told | ({} if pending is None else {"pending": pending, "op": "all_reduce", "sizes": [[7]], "dtype": "Float"})


def test_a_hang_of_all_ranks_names_the_one_that_never_came():
    run = Collector(Hang)
    for number in range(20):
        run.step(number)
    run.ship(0, events=[run.event("rank_hung", rank, 19, seconds=180) for rank in range(4)])
    run.ship(1, events=[run.event("rank_hung", rank, 19, seconds=180) for rank in range(4, 8)])
    assert run.take()
    for rank in range(8):
        run.ship(rank // 4, events=[run.event("flight_recorder", rank, version="2.10", groups=[recorded(98, None if rank == 5 else 99)])])
    run.wait(10)
    later = run.take()[-1]
    assert later.ranks == (5,) and later.evidence["never_entered"] == [5]
    assert later.evidence["collectives"] == "7 ranks wait in all_reduce [7] Float, number 99 of default_pg; rank 5 never entered it"
    run.step(20)
    run.step(21)
    assert run.take()[-1].is_over
    run.ship(0, events=[run.event("rank_hung", 0, 21, seconds=180)])
    assert run.take()[-1].evidence["collectives"] == "", "another hang: what was said of the first is forgotten"


def test_384_lost_ranks_are_one_finding_that_names_the_first():
    run = Collector(RankLost, nodes=96)
    run.step(0)
    run.step(1)
    run.ship(3, events=[run.event("rank_lost", 13, 1, at=run.now - 5, evidence="killed by the kernel: out of memory")])
    for node in range(96):
        lost = [run.event("rank_lost", rank, 1, evidence="NCCL abort") for rank in range(4 * node, 4 * node + 4) if rank != 13]
        run.ship(node, events=lost)
    said = run.take() + run.engine.finish()
    assert len({(f.kind, f.scope, f.onset_step) for f in said}) == 1 and len(said) <= 11
    assert said[0].severity == Severity.CRITICAL and said[0].nodes == ("node-3",)
    assert "rank 13 on node-3 was lost at step 1: killed by the kernel: out of memory" in said[0].summary
    assert said[-1].evidence == {**said[-1].evidence, "first": 13, "lost": 384}


def test_an_exception_is_a_loss_with_its_message_and_a_new_attempt_ends_it():
    run = Collector(RankLost)
    run.step(0)
    run.ship(0, events=[run.event("rank_failed", 2, 0, type="ValueError", message="bad\nshape")])
    (finding,) = run.take()
    assert "ValueError: bad shape" in finding.summary
    run.attempt = "2"
    run.begin()
    run.step(0)
    (end,) = [f for f in run.take() if f.kind == "rank_lost"]
    assert end.is_over


def test_a_preemption_pages_nobody():
    run = Collector(RankLost)
    run.step(0)
    run.ship(0, events=[run.event("rank_terminated", rank, 0, signal="SIGTERM") for rank in range(4)])
    assert [f.severity for f in run.take()] == [Severity.INFO]


def test_a_rank_that_stops_reporting_while_the_others_go_on_is_named():
    run = Collector(RankLost)
    for number in range(120):
        run.step(number, without=(6,) if number > 20 else ())
    said = run.take()
    assert [f.ranks for f in said] == [(6,)] and said[0].severity == Severity.WARNING


def test_a_silent_agent_is_named_after_75_seconds_and_its_return_told():
    run = Collector(AgentSilent)
    run.step(0)
    run.wait(70, beats=(0,))
    assert not run.take()
    run.wait(20, beats=(0,))
    (finding,) = run.take()
    assert finding.nodes == ("node-1",) and finding.severity == Severity.CRITICAL, "half of the run is not watched"
    run.ship(1)
    (end,) = run.take()
    assert end.is_over


def test_one_silent_node_of_many_pages_nobody_and_many_are_one_finding():
    run = Collector(AgentSilent, nodes=8)
    run.step(0)
    run.wait(90, beats=range(7))
    (finding,) = run.take()
    assert finding.severity == Severity.WARNING
    run.wait(90, beats=range(2))
    said = run.take()
    assert said[-1].severity == Severity.CRITICAL and len(said[-1].nodes) == 6
    assert {(f.kind, f.scope, f.onset_step) for f in [finding, *said]} == {("agent_silent", "run", finding.onset_step)}


def test_the_collector_s_own_absence_is_no_silence():
    run = Collector(AgentSilent)
    run.step(0)
    run.wait(30, beats=(0, 1))
    run.now += 3600  # no tick in between
    run.wait(60)
    assert not run.take()
    run.wait(60)
    assert run.take(), "and the watch goes on after it"


@pytest.mark.parametrize("goodbye", ["agent_stopped", "ranks"])
def test_who_said_goodbye_may_be_silent(goodbye):
    run = Collector(AgentSilent)
    run.step(0)
    for node in (0, 1):
        words = [run.event("agent_stopped", None)] if goodbye == "agent_stopped" else []
        ranks = [run.event("rank_finished", rank, 0) for rank in range(4 * node, 4 * node + 4)] if goodbye == "ranks" else []
        run.ship(node, events=words + ranks)
    run.wait(600)
    assert not run.take()


def test_a_node_that_falls_off_again_and_again_is_the_suspect_of_the_storm():
    run = Collector(RestartStorm, nodes=3)
    said = []
    for attempt in range(1, 7):
        run.attempt = str(attempt)
        run.begin()
        for number in range(5):
            run.step(number)
        run.ship(2, events=[run.event("gpu_error", 9, 4, gpu="3", xid=79, text="GPU has fallen off the bus")])
        run.wait(120)
        said += run.take()
    assert said and said[-1].severity == Severity.CRITICAL and said[-1].nodes == ("node-2",)
    assert "node-2 was lost first in" in said[-1].summary
    assert len({(f.kind, f.onset_step) for f in said}) == 1


def test_restarts_that_come_forward_are_no_storm():
    run = Collector(RestartStorm)
    for attempt in range(1, 7):
        run.attempt = str(attempt)
        run.begin()
        for number in range(100 * attempt, 100 * attempt + 10):
            run.step(number)
        run.wait(900, beats=(0, 1), every=60)
    assert not run.take()


def test_a_rank_that_only_lost_its_peer_is_not_named_first():
    """It speaks before the agent has seen that the other one is gone."""
    assert RankLost._comes_before(Lost(5, [0], [], "ConnectionResetError: reset by peer", 10), "killed by SIGKILL", 20)
    assert not RankLost._comes_before(Lost(5, [1], [], "killed by SIGKILL", 20), "ConnectionError: the peer is gone", 10)


@pytest.mark.parametrize(
    ("attrs", "words"),
    [
        ({"evidence": {"signal": 9}}, "killed by SIGKILL"),
        ({"evidence": {"signal": "SIGBUS", "exit_code": 135}}, "killed by SIGBUS, exit code 135"),
        ({"signal": 11}, "killed by SIGSEGV"),
        ({"signal": 77}, "killed by signal 77"),
        ({"reason": "node drained"}, "node drained"),
        ({}, "the process is gone without a word"),
    ],
)
def test_however_a_loss_is_told_it_is_said_in_words(attrs, words):
    run = Collector(RankLost)
    run.step(0)
    run.ship(0, events=[run.event("rank_lost", 2, 0, **attrs)])
    (finding,) = run.take()
    assert finding.summary == f"rank 2 on node-0 was lost at step 0: {words}"
