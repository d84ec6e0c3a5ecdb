"""Run in a mount namespace of its own (see test_full_disk.py): real small disks, really full.

python full_disk.py SCENARIO FOLDER
"""

import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
from holter.frame import Frame, decode, encode
from holter.node import spool as spool_module
from holter.node.records import Class
from holter.node.spool import Spool
from holter.recorder import Recorder
from holter.ring import Ring, State, Word
from holter.settings import Settings
from holter.testing import CollectorStandIn


def disk(folder: Path, size: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "none", str(folder)], check=True)
    return folder


def fill(disk: Path) -> Path:
    """Take all that is left of it, to the last byte."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            return ballast


def frame(seq: int, rows: int) -> bytes:
    steps = np.arange(rows)
    return encode(Frame("spooled", "a", "n", "b", seq, 0, np.zeros(rows, np.int32), steps, steps))


def told(records) -> Counter:
    """What arrives: rows, and losses by their reasons."""
    total: Counter = Counter()
    for record in records:
        found = decode(record.payload)
        total.update({"rows": found.rows, **found.dropped})
    return total


def drain(spool: Spool) -> list:
    records = []
    while (record := spool.peek()) is not None:
        records.append(record)
        spool.ack(record.number)
    return records


def overflows(folder: Path) -> None:
    """The disk fills in mid-segment, an agent dies, the disk has room again: every frame is there, in order, and the newest lie on the disk."""
    spool_module.RETRY_SECONDS = 0.1
    small = disk(folder / "disk", "8m")
    spool = Spool(folder=small / "spool", overflow=folder / "overflow")
    for seq in range(20):
        spool.append(Class.POINTS, frame(seq, 100), rows=100)
    ballast = fill(small)
    for seq in range(20, 60):
        spool.append(Class.POINTS, frame(seq, 100), rows=100)
    assert not spool.sync(), "what lies in memory was called durable"
    assert list((folder / "overflow").glob("*.seg"))
    # Killed: nothing is closed. The next life reads what there is.
    spool = Spool(folder=small / "spool", overflow=folder / "overflow")
    ballast.unlink()
    seq, until = 60, time.monotonic() + 60
    while not any(int(path.stem) >= 60 for path in (small / "spool").glob("*.seg")):
        assert time.monotonic() < until, "the disk is not used again"
        spool.append(Class.POINTS, frame(seq, 100), rows=100)
        spool.sync()
        seq += 1
        time.sleep(0.02)
    arrived = drain(spool)
    assert [decode(record.payload).seq for record in arrived] == list(range(seq))
    assert spool.take_dropped() == {} and spool.sync()
    assert not list((folder / "overflow").glob("*.seg"))


def stays_full(folder: Path) -> None:
    """Samples go before steps, events never; each loss is declared where the frame was, also after a kill. With no memory to be had either, it is counted."""
    for has_overflow in (True, False):
        home = folder / str(has_overflow)
        small = disk(home / "disk", "8m")
        words = {"folder": small / "spool", "overflow": home / "overflow" if has_overflow else None, "memory_bytes": 200_000}
        spool = Spool(**words)
        fill(small)
        counted: Counter = Counter()
        for seq in range(600):
            kind = Class(seq % 3)
            spool.append(kind, frame(seq, 0 if kind == Class.EVENTS else 100), rows=0 if kind == Class.EVENTS else 100)
        assert spool.size <= 200_000 + 25_000
        counted.update(spool.take_dropped())
        if has_overflow:
            spool = Spool(**words)
        arrived = drain(spool)
        kinds = Counter(record.kind for record in arrived if not decode(record.payload).dropped)
        assert kinds[Class.EVENTS] == 200 or not has_overflow
        assert kinds[Class.SAMPLES] <= kinds[Class.POINTS] < 200
        counted.update(told(arrived))
        assert counted.total() == 40_000, counted


def agents_die(folder: Path) -> None:
    """Agents are killed again and again while their disk takes nothing and no collector is there: what ranks wrote arrives, once."""
    small = disk(Path("/var/tmp"), "4m")
    with CollectorStandIn().serving() as collector:
        collector.stop()
        settings = Settings(url=collector.url)
        rings = settings.ring_folders()[0]
        settings.spool_folder().mkdir(parents=True)
        fill(small)
        meta = {"project": "p", "name": "n", "node": "here", "rank": 0}
        ring = Ring.create(rings, "r", meta, (os.getpid(), 0), time.monotonic_ns())
        recorder = Recorder(ring, 0)
        for life in range(4):
            if life == 3:
                collector.start()
            agent = subprocess.Popen([sys.executable, "-m", "holter.node", "--url", collector.url])
            try:
                for step in range(life * 500, life * 500 + 500):
                    recorder.step(step, loss=1.0)
                    if step % 100 == 0:
                        ring.event({"event": "mark", "rank": 0, "step": step, "time_ns": 0, "attrs": {}}, lifecycle=True)
                    time.sleep(0.002)
                if life == 3:
                    ring.event({"event": "rank_finished", "rank": 0, "step": None, "time_ns": 0, "attrs": {}}, lifecycle=True)
                    recorder.close(State.FINISHED)
                    collector.wait_for_event("rank_finished", seconds=60)
                    agent.terminate()
                    agent.wait(30)
                else:
                    # Until the ring knows that all of it is taken: from here on only the agent's own keeping has it.
                    until = time.monotonic() + 60
                    while ring.words[Word.ROWS_TAIL] < step + 1 and time.monotonic() < until:
                        time.sleep(0.05)
                    assert ring.words[Word.ROWS_TAIL] == step + 1
            finally:
                agent.kill()
                agent.wait()
        assert [step for step, _ in collector.points("loss")] == list(range(2000))
        assert [event["step"] for event in collector.events if event["event"] == "mark"] == list(range(0, 2000, 100))
        assert not any(found.dropped for found in collector.frames)
        shutil.rmtree(rings)


if __name__ == "__main__":
    {"overflows": overflows, "stays_full": stays_full, "agents_die": agents_die}[sys.argv[1]](Path(sys.argv[2]))
