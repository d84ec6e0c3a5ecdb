"""Which cause comes first, and with what evidence, from the signals that a fault of each sort leaves behind."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from holter_monitor.diagnosis import CAUSES, Case, Event, Signal, diagnose
from holter_monitor.diagnosis.leads import LEADS, leads
from holter_monitor.diagnosis.remedy import remedy
from holter_monitor.findings import KINDS, Severity
from holter_monitor.incidents import Incident


def incident(kind: str, onset: int = 1000, **words: Any) -> Incident:
    facts: dict[str, Any] = {"id": f"{kind}{onset}", "run": "r", "project": "p", "kind": kind, "scope": "run", "severity": Severity.WARNING}
    facts |= {"state": "open", "onset_step": onset, "detected_step": onset + 5, "summary": "", "created": 0.0, "updated": 0.0}
    return Incident(**facts | words)


def moved(before: float, since: float, **words: Any) -> Signal:
    return Signal(before=before, since=since, peak=words.pop("peak", since), **words)


LATENCY, WAIT, LOAD = "host_disk_read_latency_seconds.nvme0n1", "data_wait_seconds", "host_load_1m"
CASES: dict[str, Case] = {
    "slow_storage": Case(
        incident=incident("throughput_drop", evidence={"data_wait_share": 0.9, "clock_ratio": 1.0}),
        signals={WAIT: moved(0.02, 1.1), LATENCY: moved(0.001, 0.04), LOAD: moved(4, 4)},
        world_size=8,
    ),
    "slow_loader": Case(
        incident=incident("data_stall", evidence={"share": 0.6}),
        signals={WAIT: moved(0.02, 0.5), LATENCY: moved(0.001, 0.0011)},
        world_size=8,
    ),
    "missing_copy": Case(
        incident=incident(
            "data_stall", ranks=[4, 5, 6, 7], nodes=["spare-9"], evidence={"replaced": True, "share": 0.23, "cause": "data_wait"}
        ),
        world_size=8,
    ),
    "other_precision": Case(
        incident=incident("reference_gap", 0, evidence={"dtype": "bfloat16", "reference_dtype": "float32"}), world_size=8
    ),
    "data_position": Case(
        incident=incident("step_locked_stalls", summary="40 of 40", evidence={"recurring": 40, "expected_by_chance": 0.99})
    ),
    "busy_cpu": Case(
        incident=incident("straggler", ranks=[3], nodes=["b"], evidence={"cause": "own work"}),
        signals={"host_cpu_ratio": moved(0.4, 0.99), LOAD: moved(4, 12), "compute_seconds": moved(0.2, 0.4), WAIT: moved(0.01, 0.01)},
        world_size=8,
    ),
    "throttled_gpu": Case(
        incident=incident("straggler", ranks=[3], nodes=["b"], evidence={"cause": "own work"}),
        signals={"gpu_sm_clock_hertz": moved(1.98e9, 1.5e9), "gpu_temperature_celsius": moved(60, 87), "compute_seconds": moved(0.2, 0.28)},
        world_size=8,
    ),
    "faulty_gpu": Case(incident=incident("gpu_error", ranks=[3], nodes=["b"], summary="XID 79", evidence={"xid": 79}), world_size=8),
    "leak": Case(incident=incident("memory_growth", summary="+0.9 GB a step", evidence={"bytes_per_step": 9e8}), world_size=8),
    "out_of_memory": Case(
        incident=incident("rank_lost", ranks=[3], evidence={"why": "OOM killer in dmesg: Out of memory: Killed process 71 (python)"}),
        others=[incident("memory_growth", 400, summary="+0.9 GB a step")],
        world_size=8,
    ),
    "killed": Case(
        incident=incident("rank_lost", ranks=[3], evidence={"why": "the process is gone without a word, signal 9"}), world_size=8
    ),
    "crash": Case(
        incident=incident("rank_lost", ranks=[3], evidence={"why": "RuntimeError: shape '[2, 3]' is invalid"}),
        events=[Event(word="rank_failed", step=1000, rank=3, attrs={"type": "RuntimeError", "message": "shape '[2, 3]' is invalid"})],
        world_size=8,
    ),
    "lost_node": Case(incident=incident("agent_silent", nodes=["b"], summary="nothing for 60 s", evidence={"silent": 1}), world_size=8),
    "frozen_rank": Case(
        incident=incident("hang", ranks=[3], nodes=["b"], evidence={"stacks": ["rank 3: state T (stopped)"]}), world_size=8
    ),
    "missing_from_collective": Case(
        incident=incident(
            "hang", ranks=[3], evidence={"never_entered": [3], "collectives": "7 ranks wait in all_reduce; rank 3 never entered it"}
        ),
        world_size=8,
    ),
    "unlike_collectives": Case(
        incident=incident(
            "hang", evidence={"called_otherwise": [3], "collectives": "7 ranks wait in all_reduce; rank 3 called broadcast there"}
        ),
        world_size=8,
    ),
    "standing_elsewhere": Case(
        incident=incident(
            "hang",
            evidence={
                "stacks": [
                    {"ranks": [3], "count": 1, "where": "read (nfs.py:12)"},
                    {"ranks": [0, 1, 2], "count": 7, "where": "all_reduce (c10d.py:2)"},
                ],
                "standing": "7 ranks in all_reduce (c10d.py:2), rank 3 in read (nfs.py:12)",
            },
        ),
        world_size=8,
    ),
    "stuck_collective": Case(
        incident=incident("hang", evidence={"stacks": ["torch.distributed.all_reduce ProcessGroupNCCL"]}), world_size=8
    ),
    "bad_batch": Case(
        incident=incident("loss_spike", evidence={"shape": "isolated"}),
        signals={"grad_norm": moved(1.0, 9.0, leading=1.1), "lr": moved(3e-4, 3e-4)},
    ),
    "instability": Case(
        incident=incident("loss_divergence", summary="loss 6.4, was 2.4"),
        signals={"update_norm": moved(1.0, 5.0, leading=2.8), "grad_norm": moved(1.0, 8.0, leading=3.0), "lr": moved(3e-4, 3e-4)},
    ),
    "changed_schedule": Case(
        incident=incident("loss_spike", evidence={"shape": "diverging"}),
        signals={"lr": moved(3e-4, 3e-3), "grad_norm": moved(1.0, 9.0, leading=1.0)},
    ),
    "changed_data": Case(
        incident=incident("loss_shift", summary="+4 %"),
        events=[Event(word="data_stage_change", step=990, attrs={"name": "stage 2"})],
        signals={"lr": moved(3e-4, 3e-4)},
    ),
    "resumed_wrong": Case(incident=incident("loss_shift", evidence={"after": "resume"}), events=[Event(word="resume", step=998)]),
    "equal_seeds": Case(incident=incident("tp_duplicate_shards", 0, summary="q_proj bit-identical on TP ranks 0, 1")),
    "full_disk": Case(incident=incident("disk_pressure", nodes=["b"], evidence={"free_bytes": 1e9})),
    "checkpoint_late": Case(incident=incident("checkpoint_overdue", summary="no checkpoint for 2,000 steps", evidence={"last_step": 100})),
    "copy_late": Case(incident=incident("checkpoint_overdue", evidence={"copy_place": "s3://b/run", "copy_state": "absent"})),
    "copy_corrupt": Case(
        incident=incident("checkpoint_overdue", evidence={"copy_place": "s3://b/run", "copy_state": "w.pt differs between bytes 0 and 9"})
    ),
    "unseen_storage": Case(incident=incident("checkpoint_overdue", evidence={"unseen": "no answer in 30 s"})),
    "deleted_checkpoint": Case(incident=incident("checkpoint_lost", evidence={"disappeared": 3, "newest_step": 900})),
    "garbage_collection": Case(
        incident=incident("throughput_stalls", evidence={"data_wait_share": 0.01}),
        signals={"process_gc_pause_seconds": moved(0.002, 0.2, peak=2.4), WAIT: moved(0.01, 0.01)},
        world_size=8,
    ),
    "checkpoint_pause": Case(
        incident=incident("throughput_stalls"), events=[Event(word="checkpoint", step=1000, attrs={"path": "/c"})], world_size=8
    ),
    "slow_network": Case(
        incident=incident("throughput_drop", evidence={"compute_ratio": 1.0, "data_wait_share": 0.0}),
        signals={"section_communication_seconds": moved(0.1, 0.4), WAIT: moved(0.01, 0.01)},
        world_size=8,
    ),
}


@pytest.mark.parametrize("name", sorted(CASES))
def test_the_right_cause_comes_first_with_evidence_and_an_action(name: str) -> None:
    causes = diagnose(CASES[name])
    assert causes, name
    assert causes[0]["cause"] == name, [(cause["cause"], cause["confidence"], cause["evidence"]) for cause in causes]
    assert causes[0]["evidence"] and causes[0]["action"] and causes[0]["confidence"] >= 0.5


def test_every_cause_has_a_case_here_and_explains_kinds_that_exist() -> None:
    assert {cause.name for cause in CAUSES} == set(CASES)
    assert all(kind in KINDS for cause in CAUSES for kind in cause.explains)


@pytest.mark.parametrize("kind", KINDS)
def test_an_incident_without_any_signal_gets_no_invented_cause(kind: str) -> None:
    """Some kinds are their own evidence (a throttled GPU); the others stay without a cause rather than with a guess."""
    for cause in diagnose(Case(incident=incident(kind, summary="it happened"), world_size=1)):
        assert cause["evidence"] != []


def test_a_peer_that_fails_because_another_rank_was_killed_is_not_the_cause() -> None:
    """What a SIGKILL of rank 1 looks like: rank 0's connection is reset, and it is the one that talks."""
    case = Case(
        incident=incident("rank_lost", ranks=[0, 1], evidence={"why": "ConnectionResetError: [Errno 104] Connection reset by peer"}),
        events=[
            Event(word="rank_failed", step=1000, rank=0, attrs={"type": "ConnectionResetError", "message": "[Errno 104] reset by peer"}),
            Event(word="rank_lost", step=999, rank=1, attrs={"evidence": "signal 9"}),
        ],
        world_size=2,
    )
    assert next(cause["cause"] for cause in diagnose(case)) == "killed"


def test_the_confidences_leave_room_for_something_else() -> None:
    for case in CASES.values():
        assert sum(cause["confidence"] for cause in diagnose(case)) <= 1.0


def test_what_speaks_against_a_cause_is_said() -> None:
    """Data wait is long, but the disk answers as before: the storage is acquitted, with the reason."""
    by_name = {cause["cause"]: cause for cause in diagnose(CASES["slow_loader"])}
    assert "slow_storage" not in by_name or "disk read latency as before" in by_name["slow_storage"]["against"]


def test_a_disk_that_is_cleared_does_not_accuse_the_loader_of_a_busy_cpu() -> None:
    """As measured: six busy processes beside one rank; nobody waits for data, and the disk answers as ever."""
    case = Case(
        incident=incident("throughput_drop", evidence={"data_wait_share": 0.0, "compute_ratio": 23.8, "disk_read_latency_ratio": 1.0}),
        signals={"compute_seconds": moved(0.034, 0.109), LATENCY: moved(1e-4, 1e-4), "host_io_pressure_ratio": moved(0.003, 0.003)},
        world_size=2,
    )
    causes = diagnose(case)
    assert causes[0]["cause"] == "busy_cpu" and "slow_loader" not in [cause["cause"] for cause in causes]


IO, CPU = "process_io_wait_ratio", "process_cpu_wait_ratio"
NODE = {"host_io_pressure_ratio": moved(0.01, 0.7), LATENCY: moved(1e-3, 5e-2), "host_cpu_ratio": moved(0.4, 1.0), LOAD: moved(1, 9)}
"""A node that somebody else works hard: its disk, its CPU, everything is up."""


@pytest.mark.parametrize(
    ("name", "kind", "own"),
    [
        (
            "slow_loader",
            "data_stall",
            {IO: moved(0.0, 0.02), CPU: moved(0.02, 0.03), WAIT: moved(0.001, 0.03), "step_time_seconds": moved(0.02, 0.05)},
        ),
        (
            "slow_storage",
            "data_stall",
            {IO: moved(0.0, 0.6), CPU: moved(0.02, 0.02), WAIT: moved(0.001, 0.03), "step_time_seconds": moved(0.02, 0.05)},
        ),
        (
            "busy_cpu",
            "throughput_drop",
            {IO: moved(0.0, 0.01), CPU: moved(0.02, 0.7, peak_rank=1), WAIT: moved(1e-5, 3e-5), "step_time_seconds": moved(0.02, 0.1)},
        ),
        ("busy_cpu", "straggler", {IO: moved(0.0, 0.01), CPU: moved(0.02, 0.7, peak_rank=1), "compute_seconds": moved(0.01, 0.08)}),
    ],
)
def test_what_a_rank_itself_waits_for_outweighs_what_the_node_does(name: str, kind: str, own: dict[str, Signal]) -> None:
    ranks = [1] if kind == "straggler" else []
    evidence: dict[str, Any] = {"share": 0.6} if kind == "data_stall" else {"disk_read_latency_ratio": 40.0}
    causes = diagnose(Case(incident=incident(kind, ranks=ranks, evidence=evidence), signals=NODE | own, world_size=2))
    assert causes[0]["cause"] == name and causes[0]["confidence"] > 0.5, causes


def test_twice_nothing_is_no_data_wait() -> None:
    """As measured: the wait rose from 11 to 24 microseconds of a step of 20 ms, and the storage was blamed."""
    signals = {WAIT: moved(11e-6, 24e-6), "step_time_seconds": moved(0.02, 0.05)}
    assert diagnose(Case(incident=incident("throughput_drop"), signals=signals, world_size=2)) == []


def test_several_hints_are_still_no_cause() -> None:
    """A slow rank is no broken GPU because it is one rank."""
    assert diagnose(Case(incident=incident("straggler", ranks=[3], nodes=["b"]), world_size=8)) == []


def test_the_rewind_point_lies_before_the_precursor_and_the_skip_list_spans_both() -> None:
    """The playbook's non-recoverable spike: a precursor that recovers, then the divergence."""
    case = Case(
        incident=incident("loss_divergence", 36_000, detected_step=36_580),
        others=[incident("loss_spike", 33_250, summary="loss 3.29, recovered")],
        events=[
            Event(word="checkpoint", step=33_000, attrs={"path": "s3://ckpt/33000"}),
            Event(word="checkpoint", step=35_000, attrs={"path": "s3://ckpt/35000"}),
        ],
        batches=[Event(word="batch", step=33_250, rank=0, attrs={"documents": "a.jsonl:17"})],
    )
    found = remedy(case)
    assert found["rewind"] == {"before_step": 33_250, "skip_steps": [33_250, 36_580], "step": 33_000, "path": "s3://ckpt/33000"}
    assert found["precursor"]["step"] == 33_250 and found["batches"][0]["documents"] == "a.jsonl:17"


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("ranks", [[], [3]])
def test_whatever_is_told_without_a_sure_cause_says_where_to_look(kind: str, ranks: list[int]) -> None:
    case = Case(incident=incident(kind, ranks=ranks, nodes=["gpu-07"] if ranks else []), world_size=8)
    causes = diagnose(case)
    said = leads(case, causes).get("look_at", [])
    assert said or (causes and causes[0]["confidence"] >= 0.5)
    assert not any(re.search(r"[{}]|None", lead) for lead in said) and len(said) <= 4


def test_a_slow_run_of_unknown_cause_says_which_panel_and_command_for_which_nodes_and_steps() -> None:
    everywhere = leads(Case(incident=incident("throughput_drop", detected_step=1400), world_size=8), [])["look_at"]
    assert "all ranks, steps 1000 to 1400" in everywhere[0] and 'panel "Data wait"' in everywhere[0]
    assert "iostat" in everywhere[1] and "draining nodes will not help" in everywhere[1] and "all nodes" in everywhere[1]
    one = leads(Case(incident=incident("straggler", ranks=[3], nodes=["gpu-07"]), world_size=8), [])["look_at"]
    assert any("rank 3" in lead or "ranks 3" in lead or " 3 on gpu-07" in lead for lead in one) and all(
        "all nodes" not in lead for lead in one
    )


def test_what_was_never_recorded_is_said_only_where_somebody_looked() -> None:
    drop = incident("throughput_drop")
    told = [
        leads(Case(incident=drop, signals=signals), [])["look_at"][0] for signals in ({}, {"loss": moved(2, 2)}, {WAIT: moved(0.1, 0.1)})
    ]
    assert ["run.batches(loader)" in lead for lead in told] == [False, True, False]


def test_a_sure_cause_needs_no_leads() -> None:
    case = CASES["bad_batch"]
    assert leads(case, diagnose(case)) == {} and "look_at" in leads(case, [])


def test_the_panels_that_are_named_exist() -> None:
    boards = Path(__file__).parents[2] / "dashboards" / "grafana"
    titles = [panel["title"] for board in boards.glob("*.json") for panel in json.loads(board.read_text())["panels"]]
    named = {name for lead in LEADS for part in re.findall(r"panels? ([^)]*)", lead.look) for name in re.findall(r'"([^"]+)"', part)}
    assert named and all(any(title.startswith(name) for title in titles) for name in named), named
