"""Stacks of ranks: put together, asked for by a person or for a hang, answered by nodes, shown."""

import argparse
import json
import time

import pytest
from collector import frame
from holter_monitor.commands import stacks as verb
from holter_monitor.diagnosis import Case, diagnose
from holter_monitor.findings import Severity
from holter_monitor.incidents import Incident
from holter_monitor.stacks import ELSEWHERE, MAX_PLACES, Stacks, where
from holter_monitor.store import audit
from holter_monitor.store.control import open_control
from holter_monitor.store.stack_requests import APART_SECONDS, LASTS_SECONDS, ask, heard_by

REDUCE = "all_reduce (torch/distributed/distributed_c10d.py:2810)\nstep (train.py:40)"
READ = "read (/data/loader.py:12)\nnext (train.py:38)"


def told(*groups):
    return [{"ranks": list(ranks), "stack": stack} for ranks, stack in groups]


def stacks_event(rank=None, word="stacks", **attrs):
    return {"event": word, "rank": rank, "step": 7, "time_ns": time.time_ns(), "attrs": attrs}


def test_383_ranks_in_one_place_and_one_elsewhere():
    found = Stacks()
    for node in range(48):
        found.add(told(([rank for rank in range(8 * node, 8 * node + 8) if rank != 17], REDUCE), *[([17], READ)] * (node == 2)))
    assert found.sentence() == "383 ranks in all_reduce (distributed_c10d.py:2810), rank 17 in read (loader.py:12)"
    assert [(group["ranks"][:2], group["count"]) for group in found.listed()] == [([17], 1), ([0, 1], 383)]


def test_the_newest_word_of_a_rank_counts():
    found = Stacks()
    assert found.add(told(([0, 1], REDUCE))) and not found.add(told(([1, 2], REDUCE)))
    assert found.add(told(([1], READ)))
    assert {group["where"]: group["ranks"] for group in found.listed()} == {"read (loader.py:12)": [1], where(REDUCE): [0, 2]}
    found.add(told(([0, 1, 2], READ)))
    assert found.sentence() == "ranks 0-2 in read (loader.py:12)"


@pytest.mark.parametrize(
    "nonsense",
    [None, 7, "x", [7], [{}], [{"ranks": "0"}], [{"ranks": [True, -1, 2**40, None, "3"]}], [{"stack": "f"}], {"ranks": [1]}],
)
def test_what_is_no_stack_is_left_out(nonsense):
    found = Stacks()
    assert not found.add(nonsense) and found.groups == {} and found.sentence() == "" and found.listed() == []


def test_more_places_than_anybody_reads_are_one():
    found = Stacks()
    found.add(told(*[([rank], f"f{rank} (a.py:1)") for rank in range(3 * MAX_PLACES)]))
    assert len(found.groups) == MAX_PLACES + 1 and len(found.groups[ELSEWHERE]) == 2 * MAX_PLACES


@pytest.mark.parametrize(
    ("stack", "place"),
    [
        ("read (/a/b.py:3)\nf (c.py)", "read (b.py:3)"),
        ("<genexpr> (b.py)", "<genexpr> (b.py)"),
        ('File "/a/b.py", line 3 in read\nFile "c.py", line 1 in f', "read (b.py:3)"),
        ("state D, in nfs_wait_bit_killable", "state D, in nfs_wait_bit_killable"),
        ("", "an unknown place"),
    ],
)
def test_the_innermost_place_is_read_in_every_tongue(stack, place):
    assert where(stack) == place


def test_requests_come_apart_last_a_while_and_are_audited(tmp_path):
    control = open_control(f"sqlite:///{tmp_path}/control.sqlite")
    from holter_monitor.store import runs

    with control.write() as connection:
        run = runs.find_or_create(connection, {"project": "p", "name": "n"}, 1.0)[0]["id"]
        first = ask(connection, run, "ada", now=1000.0, node="n1")
        again = ask(connection, run, "bob", now=1001.0)
        assert again.request == first.request and again.wait_seconds == APART_SECONDS - 1
        assert heard_by(first.request, "n1", 1001.0) == {"stacks": {"id": first.request["id"]}}
        assert heard_by(first.request, "n2", 1001.0) == {} == heard_by(first.request, "n1", 1000.0 + LASTS_SECONDS)
        later = ask(connection, run, "bob", now=1000.0 + APART_SECONDS)
        assert later.wait_seconds == 0 and later.request["id"] != first.request["id"]
        assert heard_by(later.request, "n2", 1021.0) and heard_by(None, "n2", 1021.0) == {}
        assert [row["actor"] for row in audit.page(connection, after=None, limit=9)] == ["bob", "ada"]
    control.close()


def test_a_request_reaches_the_nodes_and_their_answers_are_one_picture(served, capsys):
    run = served.new_run("asked", "smol", world_size=4)
    for node in ("n1", "n2"):
        served.send(frame(run, 1, node=node, boot=node))
    served.until(lambda: len(served.get(f"runs/{run}/agents")["items"]) == 2)
    nobody = served.get(f"runs/{run}/stacks")
    assert (nobody["items"], nobody["request"], nobody["waiting"], nobody["sentence"]) == ([], None, [], "")
    answer = served.http.post(f"/api/v1/runs/{run}/stacks", json={"actor": "ada", "reason": "it looks slow"})
    assert answer.status_code == 202 and answer.json()["actor"] == "ada"
    request = answer.json()["id"]
    assert served.get(f"runs/{run}/stacks")["waiting"] == ["n1", "n2"]
    again = served.http.post(f"/api/v1/runs/{run}/stacks", json={})
    assert again.status_code == 429 and 1 <= int(again.headers["Retry-After"]) <= APART_SECONDS
    assert served.send(frame(run, 2, node="n1", boot="n1")).json()["stacks"] == {"id": request}
    served.send(frame(run, 3, node="n1", boot="n1", events=[stacks_event(request=request, stacks=told(([0, 1], REDUCE)))]))
    served.until(lambda: served.get(f"runs/{run}/stacks")["answered"] == ["n1"])
    served.send(frame(run, 2, node="n2", boot="n2", events=[stacks_event(request=request, stacks=told(([2], REDUCE), ([3], READ)))]))
    shown = served.until(lambda: (found := served.get(f"runs/{run}/stacks"))["answered"] == ["n1", "n2"] and found)
    assert shown["waiting"] == [] and shown["step"] == 7
    assert [(group["ranks"], group["where"]) for group in shown["items"]] == [([3], "read (loader.py:12)"), ([0, 1, 2], where(REDUCE))]
    parser = argparse.ArgumentParser()
    verb.add_arguments(parser)
    assert verb.run(parser.parse_args(["smol/asked", "--url", served.url])) == 0
    said = capsys.readouterr()
    assert "ranks 0-2 in all_reduce (distributed_c10d.py:2810), rank 3 in read" in said.out and "less than 20 s ago" in said.err
    assert verb.run(parser.parse_args(["smol/asked", "--url", served.url, "--last", "--json"])) == 0
    assert json.loads(capsys.readouterr().out)[0]["items"] == shown["items"]


def test_a_request_names_only_what_is_there(served):
    run = served.new_run("named")
    assert served.http.post("/api/v1/runs/nobody/stacks", json={}).status_code == 404
    assert served.http.post(f"/api/v1/runs/{run}/stacks", json={"incident": "nothing"}).status_code == 404
    assert served.http.post(f"/api/v1/runs/{run}/stacks", json={"node": ""}).status_code == 422
    assert served.http.post(f"/api/v1/runs/{run}/stacks").status_code == 202


def test_a_hang_asks_by_itself_and_the_answers_join_its_evidence(served):
    run = served.new_run("hung", world_size=4)
    for seq in range(1, 6):
        served.send(frame(run, seq, ranks=(0, 1, 2, 3), metrics={"loss": 2.0, "step_time_seconds": 1.0}))
    hung = stacks_event(3, "rank_hung", seconds=180.0, phase="step", stacks=told(([3], READ)))
    served.send(frame(run, 6, ranks=(), events=[hung]))
    (incident,) = served.until(lambda: served.get("incidents", run=run, kind="hang")["items"])
    sent = iter(range(7, 100))
    asked = served.until(lambda: served.send(frame(run, next(sent), ranks=())).json().get("stacks"))
    request = served.get(f"runs/{run}/stacks")["request"]
    assert request["id"] == asked["id"] and request["actor"] == "holter" and request["incident"] == incident["id"]
    answer = stacks_event(request=asked["id"], stacks=told(([0, 1, 2], REDUCE), ([3], READ)))
    served.send(frame(run, next(sent), ranks=(), events=[answer]))
    shown = served.until(lambda: len((now := served.get(f"incidents/{incident['id']}"))["evidence"]["stacks"]) == 2 and now)
    assert shown["evidence"]["standing"] == "ranks 0-2 in all_reduce (distributed_c10d.py:2810), rank 3 in read (loader.py:12)"
    assert shown["causes"][0]["cause"] == "standing_elsewhere", "the first cause once the stacks are there"


def test_few_ranks_elsewhere_are_a_cause_and_halves_are_none():
    def causes(*groups):
        found = Stacks()
        found.add(told(*groups))
        evidence = {"stacks": found.listed(), "standing": found.sentence()}
        hang = Incident(
            id="i", run="r", project="p", kind="hang", scope="run", severity=Severity.CRITICAL, state="open", onset_step=7, detected_step=7,
            summary="all 8 ranks stand at step 7", created=1.0, updated=1.0, evidence=evidence,
        )  # fmt: skip
        return [cause["cause"] for cause in diagnose(Case(incident=hang, world_size=8))]

    assert causes((range(7), REDUCE), ([7], READ))[0] == "standing_elsewhere"
    assert "standing_elsewhere" not in causes((range(4), REDUCE), (range(4, 8), READ))
    assert "standing_elsewhere" not in causes((range(8), REDUCE))
