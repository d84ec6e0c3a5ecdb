"""Too much at once: what became of a rank has room when points have none."""

import asyncio
import sqlite3

import pytest
from collector import frame
from holter.frame import encode
from holter_monitor.errors import Unavailable
from holter_monitor.ingest import Committer
from holter_monitor.meters import Meters
from holter_monitor.room import Room
from holter_monitor.store.log_sqlite import SqliteFrameLog
from holter_monitor.store.ports import Outcome

WAITING = 16 << 10
LOST = {"event": "rank_lost", "rank": 0, "step": 1, "time_ns": 1, "attrs": {}}


def test_events_and_heartbeats_are_taken_when_points_are_refused(tmp_path):
    """The log stands still, the queue is full of points: they are told to come back, an event and a heartbeat wait with the others and are durable as one."""
    log = SqliteFrameLog(tmp_path / "frames.sqlite")
    room = Room(tmp_path, free_disk_bytes=0, memory_bytes=1 << 40)
    committer = Committer(log, Meters(), room=room, waiting_bytes=WAITING)
    other = sqlite3.connect(log.path, isolation_level=None)

    def submit(given) -> asyncio.Task:
        return asyncio.ensure_future(committer.submit(given, encode(given)))

    async def overload() -> None:
        tasks, seq = [], 0
        while not any(task.done() for task in tasks):  # the first that is over was refused
            tasks.append(submit(frame("run", seq, boot="points")))
            await asyncio.sleep(0)
            seq += 1
        with pytest.raises(Unavailable, match="wait for their commit already"):
            await tasks.pop()
        heartbeat = frame("run", 0, boot="heart", ranks=(), metrics={"loss": []})
        urgent = [submit(frame("run", 0, boot="events", events=[LOST])), submit(heartbeat)]
        await asyncio.sleep(0)
        assert not any(task.done() for task in urgent), "refused"
        other.execute("ROLLBACK")
        assert set(await asyncio.gather(*tasks, *urgent)) == {Outcome.STORED}

    other.execute("BEGIN IMMEDIATE")
    committer.start()
    asyncio.run(overload())
    committer.stop()
    other.close()
    assert {entry.frame.boot for entry in log.read(0, 10_000)} == {"points", "events", "heart"}
    log.close()
