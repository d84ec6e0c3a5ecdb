"""What the detection consumer costs at the design load: the frames of all nodes through the real consumer (log, records, aligning, detectors, summaries,
incidents, control store), without HTTP and without the sample writer.

    python benchmarks/detection_consumer.py [--nodes 2048] [--ranks 8] [--metrics 24] [--steps 20] [--batch 1024] [--profile]

CPU time of the consumer's thread for a step of the whole fleet; the first quarter of the steps is warm-up and is not measured.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from detection_cost import WIDE
from holter.frame import Column, Frame, decode, encode
from holter_monitor.alerting.dispatch import Dispatch
from holter_monitor.broadcast import Broadcast
from holter_monitor.consumers.detection import Detection
from holter_monitor.consumers.judges import Engines
from holter_monitor.meters import Meters
from holter_monitor.store import runs
from holter_monitor.store.control import open_control
from holter_monitor.store.log_sqlite import SqliteFrameLog
from holter_monitor.store.ports import Entry
from holter_monitor.store.references import References
from holter_monitor.store.retention_duckdb import DuckDbStore

STAGES = ("judge", "commit")


class Timed(Detection):
    """Notes what each half of its work takes."""

    def __init__(self, *arguments, **words) -> None:
        super().__init__(*arguments, **words)
        self.spent = dict.fromkeys(STAGES, 0.0)

    def _judge(self, entries):
        return self._time("judge", super()._judge, entries)

    def _commit(self, effects, put):
        return self._time("commit", super()._commit, effects, put)

    def _time(self, stage, work, *arguments):
        begun = time.thread_time()
        try:
            return work(*arguments)
        finally:
            self.spent[stage] += time.thread_time() - begun


def fleet_frames(run: str, arguments: argparse.Namespace, step: int) -> list[bytes]:
    """What all nodes send of one step."""
    names = [*WIDE, *(f"metric_{i}" for i in range(arguments.metrics))][: arguments.metrics]
    noise = np.random.default_rng(step).normal(2.5, 0.05, (arguments.nodes, arguments.metrics, arguments.ranks)).astype("<f4")
    for name in ("gpu_throttle_reasons", "gpu_ecc_uncorrected_total"):
        if name in names:
            noise[:, names.index(name)] = 0.0
    return [
        encode(
            Frame(
                run=run,
                attempt="a1",
                node=f"node-{node:05}",
                boot=f"boot-{node:05}",
                seq=step,
                sent_ns=int(step * 1e9),
                rank=np.arange(node * arguments.ranks, (node + 1) * arguments.ranks, dtype="<i4"),
                step=np.full(arguments.ranks, step, "<i8"),
                time_ns=np.full(arguments.ranks, int(step * 1e9), "<i8"),
                metrics={name: Column(noise[node, place]) for place, name in enumerate(names)},
            )
        )
        for node in range(arguments.nodes)
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=2048)
    parser.add_argument("--ranks", type=int, default=8)
    parser.add_argument("--metrics", type=int, default=24)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch", type=int, default=1024, help="frames the consumer reads at once")
    parser.add_argument("--profile", action="store_true", help="the functions that cost most")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        consumer, run = build(Path(folder), arguments.nodes * arguments.ranks)
        profile, offset, measured = cProfile.Profile(), 0, 0
        warm, decoding = arguments.steps // 4, 0.0
        for step in range(arguments.steps):
            if step == warm:
                consumer.spent, decoding = dict.fromkeys(STAGES, 0.0), 0.0
                if arguments.profile:
                    profile.enable()
            bodies = fleet_frames(run, arguments, step)
            begun = time.thread_time()
            entries = [Entry(offset + index + 1, float(step), body, decode(body)) for index, body in enumerate(bodies)]
            decoding += time.thread_time() - begun
            offset += len(entries)
            for first in range(0, len(entries), arguments.batch):
                consumer.work(entries[first : first + arguments.batch])
            measured += step >= warm
        profile.disable()
        print(f"| stage | ms a step of {arguments.nodes} frames, {arguments.nodes * arguments.ranks} ranks x {arguments.metrics} metrics |")
        print("|---|---|")
        for stage, seconds in {"decode (done once, at ingest)": decoding, **consumer.spent}.items():
            print(f"| {stage} | {seconds / measured * 1e3:.1f} |")
        print(f"| **the consumer** | {sum(consumer.spent.values()) / measured * 1e3:.1f} |")
        if arguments.profile:
            pstats.Stats(profile).sort_stats("tottime").print_stats(40)
    return 0


def build(folder: Path, ranks: int) -> tuple[Timed, str]:
    control = open_control(f"sqlite:///{folder}/control.sqlite")
    log, samples = SqliteFrameLog(folder / "frames.sqlite"), DuckDbStore(folder / "samples.duckdb", metrics_per_run=1024)
    dispatch = Dispatch(control, samples, link="http://127.0.0.1", policies=None, environ={}, is_alone=True)
    consumer = Timed(
        log,
        control,
        Meters(),
        bench=Engines(References(control)),
        alarm=dispatch.alerting,
        wake=lambda: None,
        broadcast=Broadcast(),
        set_aside=lambda _: None,
    )
    with control.write() as connection:
        run, _ = runs.find_or_create(connection, {"project": "bench", "name": "fleet", "world_size": ranks}, now=0.0)
    consumer.begin()
    return consumer, run["id"]


if __name__ == "__main__":
    sys.exit(main())
