"""The spool: what was written is there again, damage costs what it hits, a full disk costs durability before data, and the sums are exact."""

import errno
import os
import random
import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from holter.frame import Frame, decode, encode
from holter.node import segments as segments_module
from holter.node import spool as spool_module
from holter.node.records import Class, Record, pack, scan
from holter.node.spool import Spool
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test


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


def test_what_a_full_spool_gives_up_is_declared_in_its_place_also_after_a_kill(tmp_path):
    """A life's frames of one segment leave one declaration, which carries what they had declared themselves; the next agent finds it."""
    spool = Spool(folder=tmp_path, segment_bytes=4000, max_bytes=20_000)
    for seq in range(100):
        spool.append(Class(seq % 3), whole(f"b{seq // 50}", seq, 5, {"ring_full": 2} if seq % 10 == 0 else {}), rows=5)
    assert spool.take_dropped() == {} and spool.size <= 24_000
    frames = [decode(record.payload) for record in drain(Spool(folder=tmp_path))]  # the first agent is killed here
    declared = sum((Counter(frame.dropped) for frame in frames), Counter())
    assert declared["ring_full"] == 20 and declared["spool_full"] > 100
    assert sum(frame.rows for frame in frames) + declared["spool_full"] == 500
    assert frames[0].seq == 0 and frames[0].rows == 5, "the oldest may have arrived already: it is not declared lost"
    assert len({(frame.boot, frame.seq) for frame in frames}) == len(frames)


def refuse(*_):
    raise OSError(errno.ENOSPC, "full")


def test_a_disk_that_fails_costs_no_frame_and_is_used_again(tmp_path, monkeypatch):
    """Case 28: ENOSPC at every write for a while."""
    spool = Spool(folder=tmp_path, segment_bytes=1000)
    fill(spool, 5)
    with monkeypatch.context() as patch:
        patch.setattr(spool_module.os, "write", refuse)
        fill(spool, 10)
    spool.sync()
    fill(spool, 5)
    assert [record.number for record in drain(spool)] == list(range(20))
    assert spool.take_dropped() == {}


def test_a_disk_that_stays_full_costs_the_least_important_and_counts_it(tmp_path, monkeypatch):
    spool = Spool(folder=tmp_path, memory_bytes=3000)
    monkeypatch.setattr(segments_module, "check_room", refuse)
    for index in range(60):
        spool.append(Class.EVENTS if index % 10 == 0 else Class.SAMPLES, b"x" * 100, rows=1)
    kept = drain(spool)
    assert [record.number for record in kept if record.kind == Class.EVENTS] == list(range(0, 60, 10))
    assert len(kept) + spool.take_dropped()["spool_unwritable"] == 60


def test_a_disk_that_is_asked_again_and_again_leaves_no_file_each_time(tmp_path, monkeypatch):
    def check_room(folder):
        if folder.name == "disk":
            refuse()

    monkeypatch.setattr(segments_module, "check_room", check_room)
    spool = Spool(folder=tmp_path / "disk", overflow=tmp_path / "over", memory_bytes=80_000)
    for _ in range(100):
        spool.append(Class.POINTS, b"x" * 100, rows=1)
        spool._avoids_disk_until = 0.0
        spool.sync()
        assert spool._file is None, "the disk would not be asked"
    assert len(list((tmp_path / "over").glob("*.seg"))) <= 2 and not list((tmp_path / "disk").glob("*.seg"))
    spool = Spool(folder=tmp_path / "disk", overflow=tmp_path / "over")
    assert [record.number for record in drain(spool)] == list(range(100))


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


def whole(boot, seq, rows, dropped):
    """A frame as the agent spools it."""
    steps = np.arange(rows)
    body = Frame("spooled", "a", "n", boot, seq, 0, np.zeros(rows, np.int32), steps, steps, dropped=dropped)
    return encode(body)


class SpoolAgainstAList(RuleBasedStateMachine):
    """Case 27: append, acknowledge, crash and reopen in any order, on a disk that is full now and then, against a list; what is lost is
    declared by what is still there."""

    @initialize(folder=st.just(None))
    def start(self, folder):
        import tempfile

        self.folder = tempfile.TemporaryDirectory()
        self.is_full = False
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(segments_module, "check_room", self.check_room)
        self.open()
        self.model: list[int] = []
        self.produced = self.acked = self.dropped = self.lives = 0

    def open(self):
        home = Path(self.folder.name)
        self.spool = Spool(folder=home / "disk", overflow=home / "over", segment_bytes=1200, max_bytes=8000, memory_bytes=2000)

    def check_room(self, folder):
        if self.is_full and folder.name == "disk":
            refuse()

    @rule(is_full=st.booleans())
    def disk_fills_or_frees(self, is_full):
        self.is_full = is_full
        self.spool._avoids_disk_until = 0.0
        self.spool._close_segment()

    @rule(kind=st.sampled_from(Class), rows=st.integers(0, 12), lost=st.sampled_from([0, 0, 3]))
    def append(self, kind, rows, lost):
        body = whole(f"b{self.lives}", self.produced, rows, {"ring_full": lost} if lost else {})
        self.model.append(self.spool.append(kind, body, rows=rows))
        self.produced += rows + lost
        self.dropped += sum(self.spool.take_dropped().values())

    @rule()
    def acknowledge(self):
        record = self.spool.peek()
        if record is not None:
            assert record.number in self.model
            self.spool.ack(record.number)
            self.acked += told(record)
            self.model = [number for number in self.model if number > record.number]

    @rule()
    def crash_and_reopen(self):
        self.lives += 1
        self.open()

    @rule()
    def sync(self):
        self.spool.sync()

    @invariant()
    def sums_are_exact(self):
        if not hasattr(self, "spool"):
            return
        kept = [
            record for first, _ in self.spool._segments for record in self.spool._files.read(first) if record.number > self.spool._acked
        ]
        assert self.produced == self.acked + sum(told(record) for record in [*kept, *self.spool._memory]) + self.dropped
        assert self.spool.size <= 8000 + 1200 + 2000 + 1200

    def teardown(self):
        self.patch.undo()
        self.folder.cleanup()


def told(record):
    """Rows of a frame, and what it declares lost."""
    found = decode(record.payload)
    return found.rows + sum(found.dropped.values())


TestSpoolAgainstAList = SpoolAgainstAList.TestCase
TestSpoolAgainstAList.settings = settings(max_examples=30, stateful_step_count=60, deadline=None)


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_a_hundred_thousand_operations_agree_with_the_list():
    """Case 27, in full."""
    thorough = settings(max_examples=1000, stateful_step_count=100, deadline=None, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(SpoolAgainstAList, settings=thorough)
