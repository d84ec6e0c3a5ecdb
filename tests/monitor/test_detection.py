"""The consumer that judges: what a restart finds."""

import numpy as np
import pytest
from holter.frame import Column, Frame, encode
from holter_monitor.broadcast import Broadcast
from holter_monitor.consumers.detection import Detection
from holter_monitor.consumers.judges import Engines
from holter_monitor.meters import Meters
from holter_monitor.store import runs, snapshots
from holter_monitor.store.control import open_control
from holter_monitor.store.log_sqlite import SqliteFrameLog
from holter_monitor.store.references import References


class Silent:
    """Nobody is told anything."""

    def apply(self, connection, run, findings, now):
        pass

    def tick(self, connection, now):
        return 0


def none_is_refused(refused):
    assert not refused


@pytest.fixture
def stores(tmp_path):
    control, log = open_control(f"sqlite:///{tmp_path}/control.sqlite"), SqliteFrameLog(tmp_path / "frames.sqlite")
    with control.write() as connection:
        ids = [runs.find_or_create(connection, {"project": "p", "name": name, "world_size": 8}, now=0.0)[0]["id"] for name in "ab"]
    yield control, log, ids
    log.close()
    control.close()


def detection(control, log):
    consumer = Detection(
        log,
        control,
        Meters(),
        bench=Engines(References(control)),
        alarm=Silent(),
        wake=lambda: None,
        broadcast=Broadcast(),
        set_aside=none_is_refused,
    )
    consumer.offset = consumer.begin()
    return consumer


def append(log, run, step, *, nodes=8, events=()):
    """One step of eight nodes of one rank."""
    for node in range(nodes):
        frame = Frame(run, "1", f"n{node}", run, step, 0, np.array([node], np.int32), np.array([step]), np.array([step * 10**9]))
        frame.metrics = {"loss": Column(np.array([2.0 + 0.01 * (step * 7 % 5)]))}
        frame.events = [event | {"rank": node} for event in events]
        log.append([(frame, encode(frame))], float(step))


def follow(consumer, log, batch):
    while entries := log.read(consumer.offset, batch):
        consumer.offset = consumer.work(entries)


FINISHED = [{"event": "rank_finished", "step": 20, "time_ns": 20 * 10**9, "attrs": {}}]


def test_a_run_that_ends_is_written_alone_and_a_restart_knows_all_runs_as_they_were(stores):
    """Killed after run a has ended, before the first snapshot of all: run b comes from the log, run a from its own snapshot, not fed twice."""
    control, log, (a, b) = stores
    consumer = detection(control, log)
    for step in range(21):
        append(log, a, step, events=FINISHED if step == 20 else ())
        append(log, b, step, nodes=7 if step == 20 else 8)
    follow(consumer, log, batch=40)
    with control.read() as connection:
        assert (snapshots.offset(connection), snapshots.state(connection, b)) == (0, None)
        assert snapshots.state(connection, a) is not None
    again = detection(control, log)
    assert again.offset == consumer.offset == log.last_offset()
    for run in (a, b):
        assert again._judges[run].snapshot() == consumer._judges[run].snapshot()


def test_a_snapshot_of_all_releases_the_log_and_the_next_life_goes_on_from_it(stores):
    control, log, (a, b) = stores
    consumer = detection(control, log)
    for step in range(30):
        append(log, a, step)
        append(log, b, step)
        if step == 12:
            follow(consumer, log, batch=7)
            consumer.take_snapshots()
            while log.trim(consumer.needed_from):
                pass
    follow(consumer, log, batch=100)
    again = detection(control, log)
    for run in (a, b):
        assert again._judges[run].snapshot() == consumer._judges[run].snapshot()
