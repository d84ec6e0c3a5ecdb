"""The spool: what was written is there again, damage costs what it hits, a full disk costs durability before data, and the sums are exact."""

import errno
import os
import random
import tracemalloc
from pathlib import Path

import pytest
from holter.node import spool as spool_module
from holter.node.records import Class, Record, pack, scan
from holter.node.spool import Spool
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule


def drain(spool):
    found = []
    while (record := spool.peek()) is not None:
        found.append(record)
        spool.ack(record.number)
    return found


def fill(spool, count, size=100, kind=Class.POINTS):
    for index in range(count):
        spool.append(kind, index.to_bytes(4, "little") * (size // 4), rows=1, note=b"note")


def test_frames_come_back_in_order_also_for_the_next_agent(tmp_path):
    spool = Spool(folder=tmp_path, segment_bytes=1000)
    fill(spool, 50)
    spool.ack(9)
    spool.close()
    again = Spool(folder=tmp_path, segment_bytes=1000)
    assert [record.number for record in drain(again)] == list(range(10, 50))
    assert again.append(Class.EVENTS, b"next") == 50


def test_what_is_acknowledged_leaves_the_disk(tmp_path):
    spool = Spool(folder=tmp_path, segment_bytes=1000)
    fill(spool, 100)
    drain(spool)
    assert spool.peek() is None and list(tmp_path.glob("*.seg")) == []


@pytest.mark.parametrize("cut", range(0, 700, 7))
def test_a_torn_tail_leaves_the_records_before_it(tmp_path, cut):
    """Case 26 in small: every length leaves a prefix, without an exception."""
    data = b"".join(pack(Record(number, Class.POINTS, 1, 0, bytes([number]) * 60)) for number in range(7))
    found = list(scan(data[:cut]))
    assert [record.number for record in found] == list(range(len(found)))
    assert len(found) == cut // (len(data) // 7)


def flips(count, seed):
    records = [Record(number, Class.POINTS, 1, 0, os.urandom(200)) for number in range(40)]
    whole = b"".join(pack(record) for record in records)
    dice = random.Random(seed)
    for _ in range(count):
        data = bytearray(whole)
        bit = dice.randrange(len(data) * 8)
        data[bit // 8] ^= 1 << bit % 8
        found = list(scan(bytes(data)))
        assert len(found) >= len(records) - 1
        assert all(record == records[record.number] for record in found)


def test_a_flipped_bit_costs_one_record_and_gives_no_wrong_value():
    """Case 25."""
    flips(300, seed=1)


@pytest.mark.soak
def test_ten_thousand_flipped_bits():
    flips(10_000, seed=2)


@pytest.mark.soak
def test_every_length_of_a_segment():
    """Case 26: 65,536 cuts."""
    data = b"".join(pack(Record(number, Class.POINTS, 1, 0, os.urandom(900))) for number in range(70))[: 64 * 1024]
    for cut in range(len(data) + 1):
        found = list(scan(data[:cut]))
        assert [record.number for record in found] == list(range(len(found)))


def test_above_the_cap_samples_go_first_then_the_oldest_points_and_events_last(tmp_path):
    spool = Spool(folder=tmp_path, segment_bytes=1000, max_bytes=10_000)
    for index in range(300):
        spool.append(Class(index % 3), b"x" * 80, rows=1)
    assert spool.size <= 10_000 + 1000
    kept = drain(spool)
    kinds = [record.kind for record in kept]
    assert kinds.count(Class.EVENTS) > kinds.count(Class.POINTS) + kinds.count(Class.SAMPLES)
    assert len(kept) + spool.take_dropped()["spool_full"] == 300


def test_a_disk_that_fails_costs_no_frame_and_is_used_again(tmp_path, monkeypatch):
    """Case 28: ENOSPC at every write for a while."""
    spool = Spool(folder=tmp_path, segment_bytes=1000)
    fill(spool, 5)
    full = OSError(errno.ENOSPC, "full")

    def refuse(*_):
        raise full

    with monkeypatch.context() as patch:
        patch.setattr(spool_module.os, "write", refuse)
        fill(spool, 10)
    spool.sync()
    fill(spool, 5)
    assert [record.number for record in drain(spool)] == list(range(20))
    assert spool.take_dropped() == {}


def test_a_disk_that_stays_full_costs_the_least_important_and_counts_it(tmp_path, monkeypatch):
    spool = Spool(folder=tmp_path, memory_bytes=3000)
    monkeypatch.setattr(Spool, "_check_room", lambda self: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
    for index in range(60):
        spool.append(Class.EVENTS if index % 10 == 0 else Class.SAMPLES, b"x" * 100, rows=1)
    kept = drain(spool)
    assert [record.number for record in kept if record.kind == Class.EVENTS] == list(range(0, 60, 10))
    assert len(kept) + spool.take_dropped()["spool_unwritable"] == 60


@pytest.mark.soak
def test_a_large_spool_is_opened_without_reading_it(tmp_path):
    """Case 30, with 256 MiB, the cap: memory and time of the first frame do not grow with it."""
    spool = Spool(folder=tmp_path, max_bytes=2**40)
    for index in range(256):
        spool.append(Class.POINTS, bytes([index]) * (1024 * 1024), rows=1)
    spool.close()
    tracemalloc.start()
    again = Spool(folder=tmp_path, max_bytes=2**40)
    assert again.peek().number == 0
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 32 * 1024 * 1024


class SpoolAgainstAList(RuleBasedStateMachine):
    """Case 27: append, acknowledge, crash and reopen in any order, against a list."""

    @initialize(folder=st.just(None))
    def start(self, folder):
        import tempfile

        self.folder = tempfile.TemporaryDirectory()
        self.open()
        self.model: list[int] = []
        self.produced = self.acked = self.dropped = 0

    def open(self):
        self.spool = Spool(folder=Path(self.folder.name), segment_bytes=400, max_bytes=4000, memory_bytes=500)

    @rule(kind=st.sampled_from(Class), size=st.integers(0, 200))
    def append(self, kind, size):
        self.model.append(self.spool.append(kind, b"y" * size, rows=1))
        self.produced += 1
        self.dropped += sum(self.spool.take_dropped().values())

    @rule()
    def acknowledge(self):
        record = self.spool.peek()
        if record is not None:
            assert record.number in self.model
            self.spool.ack(record.number)
            self.acked += 1
            self.model = [number for number in self.model if number > record.number]

    @rule()
    def crash_and_reopen(self):
        self.open()

    @rule()
    def sync(self):
        self.spool.sync()

    @invariant()
    def sums_are_exact(self):
        if not hasattr(self, "spool"):
            return
        on_disk = sum(record.number > self.spool._acked for first, _ in self.spool._segments for record in self.spool._read(first))
        assert self.produced == self.acked + on_disk + len(self.spool._memory) + self.dropped

    def teardown(self):
        self.folder.cleanup()


TestSpoolAgainstAList = SpoolAgainstAList.TestCase
TestSpoolAgainstAList.settings = settings(max_examples=30, stateful_step_count=40, deadline=None)
