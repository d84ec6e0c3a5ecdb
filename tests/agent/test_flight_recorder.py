"""The flight recorder's dumps: written by real torch, read without executing anything, told in a few hundred bytes."""

import builtins
import json
import os
import pickle  # noqa: TID251  the files are pickles: the tests write them, and show what reading them with pickle would do
import subprocess
import sys
import time

import pytest
from holter.node import flight, plain
from holter.node.dumps import Dumps
from holter.node.plain import NotPlain, read

ENTRY = {
    "frames": [
        {"name": "all_reduce", "filename": "/x/torch/distributed/distributed_c10d.py", "line": 3245},
        {"name": "step", "filename": "/home/me/train.py", "line": 40},
    ],
    "pg_id": 0, "process_group": ("0", "default_pg"), "collective_seq_id": 4, "p2p_seq_id": 0, "profiling_name": "nccl:all_reduce",
    "input_sizes": [[4, 3]], "input_dtypes": ["BFloat16"], "state": "started", "retired": False, "is_p2p": False,
}  # fmt: skip
DUMP = {
    "version": "2.10",
    "pg_config": {"0": {"name": "0", "desc": "default_pg", "ranks": "[0, 1, 7]"}},
    "pg_status": {"0": {"last_enqueued_collective": 6, "last_started_collective": 4, "last_completed_collective": 3}},
    "entries": [ENTRY | {"collective_seq_id": 3, "state": "completed"}, ENTRY, ENTRY | {"collective_seq_id": 6, "state": "scheduled"}],
}
"""As FlightRecorderDetail.hpp of torch 2.13 writes it, for a rank that NCCL holds in its fourth collective."""


class Hostile:
    def __reduce__(self):
        return exec, ("import builtins; builtins.holter_was_here = True",)


def hostile(protocol):
    return pickle.dumps({"entries": [], "version": Hostile()}, protocol)


@pytest.mark.parametrize("protocol", range(1, 6))
def test_a_pickle_that_would_run_something_is_refused_and_runs_nothing(protocol):
    with pytest.raises(NotPlain, match="the instruction"):
        read(hostile(protocol))
    assert not hasattr(builtins, "holter_was_here")
    pickle.loads(hostile(protocol))
    assert builtins.holter_was_here, "the test's own pickle does run under pickle.loads"
    del builtins.holter_was_here


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\x80", b".", b"\x80\x02.", b"\x80\x02}", b"\x80\x02(.", b"\x80\x02e.", b"\x80\x02h\x07.", b"\x80\x02}u.", b"\x80\x02K\x01K\x02s.",
        b"\x80\x02}(K\x01u.", b"\x80\x02](K\x01K\x02u.", b"\x80\x02}(]K\x01u.", b"\x80\x02K\x01a.", b"\x80\x02cos\nsystem\n.", b"\x80\x02N\x81.",
        b"\x80\x02X\xff\xff\xff\x7fabc.", b"{", b"{]", b'{"a":' * 100_000, b"[" * 50, b"\x80\x02" + b"(" * 1000 + b".", os.urandom(1000),
    ],
)  # fmt: skip
def test_bytes_that_are_no_dump_are_refused(data):
    with pytest.raises(NotPlain):
        flight.summary(read(data))


def test_a_dump_that_refers_to_itself_a_billion_times_costs_nothing():
    """The pickled form of "billion laughs": thirty lists, each of twice the one before; it must be read without being spelt out."""
    nested = [1, 2]
    for _ in range(30):
        nested = [nested, nested]
    entries = [ENTRY | {"input_sizes": nested, "frames": nested, "process_group": nested}]
    began = time.process_time()
    told = flight.summary(read(pickle.dumps({"entries": entries, "version": nested}, 2)))
    assert len(json.dumps(told)) < 1000 and time.process_time() - began < 5
    with pytest.raises(NotPlain):
        flight.summary(read(b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b"."))


def test_limits_hold(monkeypatch):
    monkeypatch.setattr(plain, "MAX_BYTES", 1000)
    with pytest.raises(NotPlain, match="more than a dump has"):
        read(b"x" * 1001)
    monkeypatch.setattr(plain, "MAX_INSTRUCTIONS", 50)
    with pytest.raises(NotPlain, match="more instructions"):
        read(pickle.dumps(list(range(100)), 2))


@pytest.mark.parametrize("protocol", range(2, 6))
def test_plain_data_is_read_as_pickle_itself_reads_it(protocol):
    plainly = DUMP | {"more": [None, True, False, -1, 2**40, 1.5, "ü", (), (1,), (1, 2, 3, 4), {}, {"a": {3: []}}]}
    assert read(pickle.dumps(plainly, protocol)) == plainly
    assert read(json.dumps(DUMP).encode())["pg_status"] == DUMP["pg_status"]


def test_a_rank_in_its_fourth_collective():
    for dump in (DUMP, json.loads(json.dumps(DUMP))):
        told = flight.summary(dump)
        [group] = told["groups"]
        assert (group["group"], group["name"], group["ranks"], group["enqueued"], group["completed"]) == (
            "0",
            "default_pg",
            [0, 1, 7],
            6,
            3,
        )
        assert (group["pending"], group["op"], group["state"], group["sizes"]) == (4, "all_reduce", "started", [[4, 3]])
        assert group["where"] == "step (train.py:40)" and group["dtype"] == "BFloat16"
    idle = flight.summary(DUMP | {"entries": [ENTRY | {"collective_seq_id": 3, "state": "completed"}]})
    assert "pending" not in idle["groups"][0]


def test_what_was_retired_is_done_under_gloo_and_timed_out_under_nccl():
    """Both with a status that stands at the collective before: it is written by several threads."""
    for backend, pending in (("gloo", None), ("nccl", 4)):
        entries = [ENTRY | {"state": "scheduled", "retired": True, "profiling_name": f"{backend}:all_reduce"}]
        assert flight.summary(DUMP | {"entries": entries})["groups"][0].get("pending") == pending


def test_a_summary_is_small_however_large_the_dump():
    entries = [ENTRY | {"process_group": (str(group), "x" * 9_999), "input_sizes": [[9] * 999] * 99} for group in range(500)]
    assert len(json.dumps(flight.summary({"entries": entries, "version": "v" * 9_999}))) < 32_000


def test_files_are_read_once_whole_and_only_of_this_run(tmp_path):
    path = tmp_path / "trace_3"
    about = {"file": str(path), "since": time.time() - 10}
    dumps = Dumps()

    def asked():
        dumps.ask(3, about)
        until = time.monotonic() + 20
        while dumps.is_seeking and time.monotonic() < until:
            if found := list(dumps.take()):
                return found
            time.sleep(0.01)
        return []

    assert asked() == [], "no file yet"
    path.write_bytes(pickle.dumps(DUMP, 2)[:-20])
    assert asked() == [], "still being written"
    path.write_bytes(pickle.dumps(DUMP, 2))
    [(rank, told)] = asked()
    assert rank == 3 and told["groups"][0]["pending"] == 4
    assert asked() == [], "told once"
    os.utime(path, (1, 1))
    assert Dumps()._look(str(path), about["since"]) is None, "another job's, before this one began"
    os.mkfifo(tmp_path / "pipe")
    for odd in (tmp_path / "pipe", tmp_path, "/dev/zero", "\0"):
        assert Dumps()._look(str(odd), 0.0) is None
    for nonsense in (None, {}, {"file": 3, "since": 1}, {"file": "x", "since": "y"}):
        dumps.ask(1, nonsense)
    assert not dumps.is_seeking


TRAINING = """
import os, sys, time, torch, torch.distributed as dist, torch._C._distributed_c10d as c10d, holter
rank = int(sys.argv[1])
store = dist.FileStore(sys.argv[3] + "/store", 2)
dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
run = holter.init(project="p", name="n", url=sys.argv[2], directory=sys.argv[3])
for step in range(3):
    dist.all_reduce(torch.ones(4, 3))
    run.step(step, loss=1.0)
waits = rank == 0 and dist.all_reduce(torch.ones(7), async_op=True)
time.sleep(1)
stem = os.environ["TORCH_FR_DUMP_TEMP_FILE"]
open(f"{stem}{rank}.new", "wb").write(c10d._dump_fr_trace(True, True, False))
os.rename(f"{stem}{rank}.new", f"{stem}{rank}")
os.kill(os.getpid(), 6)
"""


@pytest.mark.torch
def test_dumps_of_real_ranks_tell_who_never_entered(collector, tmp_path):
    """gloo keeps the recorder that NCCL keeps, and writes the same file when asked; NCCL's watchdog writes it and aborts, as this script does."""
    pytest.importorskip("torch")
    environment = {
        "TORCH_FR_DUMP_TEMP_FILE": str(tmp_path / "trace_"),
        "TORCH_FR_BUFFER_SIZE": "100",
        "WORLD_SIZE": "2",
        "OMP_NUM_THREADS": "1",
    }
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", TRAINING, str(rank), collector.url, str(tmp_path)], env={**os.environ, **environment, "RANK": str(rank)}
        )
        for rank in (0, 1)
    ]
    for process in ranks:
        process.wait(timeout=110)
    collector.wait_for(lambda seen: len([event for event in seen.events if event["event"] == "flight_recorder"]) == 2, seconds=40)
    told = {event["rank"]: event["attrs"]["groups"][0] for event in collector.events if event["event"] == "flight_recorder"}
    assert (told[0]["pending"], told[0]["op"], told[0]["sizes"], told[0]["completed"]) == (4, "all_reduce", [[7]], 3)
    assert told[0]["where"].startswith("<module> (<string>:")
    assert "pending" not in told[1] and told[1]["enqueued"] == 3, told[1]
