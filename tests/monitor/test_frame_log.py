"""The embedded frame log: what was appended is read back bit for bit, a key stays known for ever, whatever is trimmed or opened again."""

import sqlite3
from contextlib import closing

import numpy as np
from holter.errors import FrameError
from holter.frame import Column, Frame, encode
from holter_monitor.store.log_sqlite import SCHEMA, SqliteFrameLog
from holter_monitor.store.ports import Outcome
from hypothesis import given, settings
from hypothesis import strategies as st

BOOTS = ("b1", "b2")
SEEN = "SELECT boots.boot, first, last FROM seen JOIN boots ON boots.id = seen.boot"
TOUCHING = "SELECT count(*) FROM seen a JOIN seen b ON a.boot = b.boot AND b.first = a.last + 1"


def frame(boot: str, seq: int, metrics: int = 4) -> tuple[Frame, bytes]:
    values = Column(np.full(2, seq, "<f4"))
    own = Frame("r", "a1", "n1", boot, seq, 1, np.arange(2, dtype="<i4"), np.full(2, seq), np.full(2, seq))
    own.metrics = {f"a_metric_{number}": values for number in range(metrics)}
    return own, encode(own)


def bodies(log: SqliteFrameLog) -> list[bytes]:
    return [entry.body for entry in log.read(0, 10_000)]


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("append"), st.sampled_from(BOOTS), st.integers(0, 12)),
            st.tuples(st.just("trim"), st.none(), st.integers(0, 15)),
            st.tuples(st.just("reopen"), st.none(), st.none()),
        ),
        max_size=40,
    )
)
def test_a_key_is_known_for_ever(tmp_path_factory, doings):
    """In any order, with gaps, repeats and trims in between; nothing that was not appended is taken for a repeat."""
    path = tmp_path_factory.mktemp("log") / "frames.sqlite"
    log = SqliteFrameLog(path)
    known, stored = set(), {}
    for what, boot, number in doings:
        if what == "append":
            (outcome,) = log.append([frame(boot, number)], 1.0)
            assert outcome is (Outcome.REPEATED if (boot, number) in known else Outcome.STORED)
            if outcome is Outcome.STORED:
                known.add((boot, number))
                stored[log.last_offset()] = boot, number
        elif what == "trim":
            assert log.trim(number) == len([offset for offset in stored if offset <= number])
            stored = {offset: key for offset, key in stored.items() if offset > number}
        else:
            log.close()
            log = SqliteFrameLog(path)
            assert bodies(log) == [frame(*key)[1] for key in stored.values()]
    log.close()
    with closing(sqlite3.connect(path)) as after:
        kept = {(boot, seq) for boot, first, last in after.execute(SEEN) for seq in range(first, last + 1)}
        assert kept == known - set(stored.values())
        assert after.execute(TOUCHING).fetchone() == (0,), "intervals that touch were not joined"


def test_frames_are_kept_in_less_than_half_of_their_bytes(tmp_path):
    """Of one step and 24 metrics, as they come at the design load."""
    log = SqliteFrameLog(tmp_path / "frames.sqlite")
    pairs = [frame("b1", seq, metrics=24) for seq in range(50)]
    log.append(pairs, 1.0)
    log.close()
    with closing(sqlite3.connect(tmp_path / "frames.sqlite")) as after:
        (size,) = after.execute("SELECT sum(length(body)) FROM frames").fetchone()
    assert size < sum(len(body) for _, body in pairs) / 2
    again = SqliteFrameLog(tmp_path / "frames.sqlite")
    assert bodies(again) == [body for _, body in pairs]
    again.close()


def test_a_log_from_before_frames_were_packed_is_read_on(tmp_path):
    path, (_, body) = tmp_path / "frames.sqlite", frame("b1", 1)
    with closing(sqlite3.connect(path, isolation_level=None)) as old:
        old.executescript(SCHEMA + "INSERT INTO boots VALUES (1, 'n1', 'b1')")
        crc = int.from_bytes(body[-4:], "little")
        old.execute("INSERT INTO frames (received, boot, seq, crc, body) VALUES (1, 1, 1, ?, ?)", (crc, body))
    log = SqliteFrameLog(path)
    assert log.append([frame("b1", 1), frame("b1", 2)], 2.0) == [Outcome.REPEATED, Outcome.STORED]
    log.close()
    again = SqliteFrameLog(path)
    assert bodies(again) == [body, frame("b1", 2)[1]]
    again.close()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 255))
def test_a_frame_that_the_disk_turned_over_is_told_by_its_own_reader(tmp_path_factory, place, bits):
    """Wherever a byte of the packed frame is another: the log gives what there is, and never the wrong frame."""
    path, (_, body) = tmp_path_factory.mktemp("log") / "frames.sqlite", frame("b1", 1)
    log = SqliteFrameLog(path)
    log.append([frame("b1", 1)], 1.0)
    log.close()
    with closing(sqlite3.connect(path, isolation_level=None)) as disk:
        packed = bytearray(disk.execute("SELECT body FROM frames").fetchone()[0])
        packed[place % len(packed)] ^= bits
        disk.execute("UPDATE frames SET body = ?", (bytes(packed),))
    again = SqliteFrameLog(path)
    (entry,) = again.read(0)
    again.close()
    try:
        assert entry.frame.seq == 1
        assert entry.body == body
    except FrameError:
        pass
