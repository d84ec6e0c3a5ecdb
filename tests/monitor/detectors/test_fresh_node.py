"""A spare node that takes over without its copy of the dataset: it waits from its first step on, and all others with it."""

import numpy as np
import pytest
from detector_streams import feed, ranked
from holter.frame import Column, Frame
from holter_monitor.detectors.fresh_node import FreshNode
from holter_monitor.detectors.rank_data_wait import RankDataWait
from holter_monitor.engine import Engine
from holter_monitor.findings import Severity
from holter_monitor.stream.steps import RunFacts, Sample

RANKS, A_NODE = 32, 8
SPARE = "node-99"


def attempt(name, count, *, replaced=None, extra=0.0, until=None, seed=0):
    """Steps of one second; `replaced`: the number of the node whose place the spare has, waiting `extra` seconds more until step `until`."""
    rng = np.random.default_rng(seed)
    waits = np.abs(0.02 + 0.005 * rng.standard_normal((count, RANKS)))
    waits[:5] += 0.5  # every loader fills its queue first
    if replaced is not None:
        mine = slice(replaced * A_NODE, (replaced + 1) * A_NODE)
        waits[: until or count, mine] += extra * np.exp(0.02 * rng.standard_normal((until or count, 1)))
    columns = {"data_wait_seconds": waits, "step_time_seconds": np.repeat((1.0 + waits.max(axis=1))[:, None], RANKS, axis=1)}
    for step in ranked(columns, nodes=A_NODE, attempt=name):
        if replaced is not None:
            for rank in range(replaced * A_NODE, (replaced + 1) * A_NODE):
                step.topology.node_of[rank] = SPARE
        yield step


def test_a_spare_without_its_dataset_is_named_with_what_it_costs():
    """S5 of the playbook."""
    second = list(attempt("2", 400, replaced=2, extra=0.25, seed=1))
    said = feed(FreshNode(), [*attempt("1", 200), *second])
    first, last = said[0], said[-1]
    assert (first.kind, first.scope, first.nodes, first.severity) == ("data_stall", f"new node {SPARE}", (SPARE,), Severity.WARNING)
    assert first.detected_step <= 40 and first.evidence["share"] == pytest.approx(0.25 / 1.27, rel=0.2)
    assert last.cost_seconds == pytest.approx(0.25 * 390, rel=0.1)
    assert "its copy of the dataset is missing or not whole" in last.summary
    assert not feed(RankDataWait(), second), "a wait that was there from the start is its place among the ranks"


def test_it_is_over_when_the_copy_is_whole():
    said = feed(FreshNode(), [*attempt("1", 200), *attempt("2", 400, replaced=2, extra=0.25, until=200)])
    assert said[-1].is_over and 200 <= said[-1].end_step <= 240


def test_a_spare_that_has_its_data_is_met_with_silence():
    assert not feed(FreshNode(), [*attempt("1", 200), *attempt("2", 400, replaced=2), *attempt("3", 200)])


def test_the_first_attempt_and_another_allocation_have_no_veterans_to_be_held_against():
    assert not feed(FreshNode(), attempt("1", 400, replaced=2, extra=0.25))
    whole = [*attempt("1", 200), *attempt("2", 300, replaced=2, extra=0.25)]
    for step in whole[200:]:
        step.topology.node_of = {rank: f"other-{rank // A_NODE}" for rank in range(RANKS)}
    assert not feed(FreshNode(), whole)


def test_a_node_that_comes_back_is_not_new():
    back = [*attempt("1", 200), *attempt("2", 30, replaced=1), *attempt("3", 30), *attempt("4", 300, replaced=1, extra=0.25)]
    assert not feed(FreshNode(), back)


def test_its_disk_s_reads_are_in_the_evidence():
    detector = FreshNode()
    feed(detector, attempt("1", 50))
    for node, latency in (("node-00", 0.001), ("node-01", 0.0012), (SPARE, 0.03)):
        detector.sample(Sample(node, "2", 1, 1e9, {"host_disk_read_latency_seconds.nvme0n1": latency}))
    said = feed(detector, attempt("2", 60, replaced=2, extra=0.5))
    assert said[0].severity == Severity.CRITICAL and said[0].evidence["read_latency_ratio"] > 20
    assert "its disk reads take" in said[0].summary


def test_a_job_that_waits_on_one_new_node_of_four_costs_what_the_others_wait():
    said = feed(FreshNode(), [*attempt("1", 200), *attempt("2", 200, replaced=0, extra=0.1)])
    assert said and said[-1].ranks == tuple(range(8)) and said[-1].cost_seconds == pytest.approx(0.1 * 190, rel=0.15)


def frames(name, nodes, count, first, slow=()):
    """What the agents of two ranks a node send, a step a frame; `slow` nodes wait 0.3 s longer."""
    for number in range(count):
        for place, node in enumerate(nodes):
            frame = Frame("r", name, node, f"boot {name} {node}", number, int((1e9 + first + number) * 1e9))
            frame.rank = np.array([2 * place, 2 * place + 1], np.int32)
            frame.step, frame.time_ns = np.full(2, first + number), np.full(2, frame.sent_ns)
            if not number:
                frame.events += [
                    {"event": "rank_started", "rank": int(rank), "step": None, "time_ns": 0, "attrs": {}} for rank in frame.rank
                ]
            wait = 0.01 + 0.001 * ((number * 7 + place) % 5) + 0.3 * (node in slow)
            frame.metrics = {"data_wait_seconds": Column(np.full(2, wait)), "step_time_seconds": Column(np.full(2, 1.3 if slow else 1.01))}
            yield frame, 1e9 + first + number


def test_the_story_of_a_lost_node_and_its_unprepared_spare():
    """Frames of four nodes through the engine: node-2 is lost, the job begins again with a spare that reads what the others have on their disks."""
    engine = Engine(RunFacts(run="r", world_size=8))
    nodes = [f"node-{number}" for number in range(4)]
    spared = [SPARE if node == "node-2" else node for node in nodes]
    said = []
    for frame, now in (*frames("1", nodes, 120, 0), *frames("2", spared, 120, 100, slow=(SPARE,))):
        said += engine.feed(frame, now)
    (first, *_) = found = [finding for finding in said if finding.kind == "data_stall" and finding.nodes]
    assert {finding.nodes for finding in found} == {(SPARE,)} and first.ranks == (4, 5) and first.attempt == "2"
    assert first.detected_step <= 135 and first.evidence["replaced"]
