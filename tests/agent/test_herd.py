"""Case 31: two hundred agents on one collector. None comes before its time, they do not come all at once, and nothing is lost or doubled."""

import json
import socket
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from collector import collector as served
from holter.frame import Frame, encode
from holter.node.records import Class
from holter.node.shipper import Destination, Shipper
from holter.node.spool import Spool
from holter.settings import Settings
from holter.testing import CollectorStandIn, Reply

AGENTS = 200
ASKED = 6.0


class Overloaded(CollectorStandIn):
    """Tells each agent, known by its token, to come back later, once."""

    def __init__(self):
        super().__init__()
        self.told = {}
        self.came = {}

    def answer(self, path, authorization, body):
        with self._changed:
            if authorization not in self.told:
                self.told[authorization] = time.monotonic()
                return Reply(503, {"Retry-After": str(int(ASKED))})
            self.came.setdefault(authorization, time.monotonic())
        return super().answer(path, authorization, body)


def test_two_hundred_agents_that_are_told_to_wait_come_after_it_and_spread(tmp_path):
    """Real shippers, each with its own connection and back-off; times are the collector's."""
    with Overloaded().serving() as collector:
        shippers, spools = [], []
        for number in range(AGENTS):
            spool = Spool(folder=tmp_path / str(number))
            spool.append(Class.EVENTS, encode(Frame("spooled", "a", f"n{number}", "b", 0, 0, events=[{"event": "mark"}])), events=1)
            shipper = Shipper(Settings(url=collector.url, token=f"t{number}"), tmp_path / "quarantine")
            shipper.add(Destination({"project": "p", "name": "n", "world_size": AGENTS, "config": {}}, spool))
            shippers.append(shipper)
            spools.append(spool)
        [shipper.start() for shipper in shippers]
        collector.wait_for(lambda c: all(spool.is_empty for spool in spools), seconds=60)
        [shipper.stop() for shipper in shippers]
        [shipper.join(15) for shipper in shippers]
        waits = np.array([collector.came[agent] - told for agent, told in collector.told.items()])
    assert len(waits) == len(collector.frames) == AGENTS
    assert waits.min() >= ASKED, "an agent came before its time"
    assert waits.max() - waits.min() >= ASKED / 8, "they all came at once"


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_two_hundred_agents_through_an_outage_of_a_real_collector(tmp_path):
    """Light agents (`herd.py`), four processes of fifty: a collector killed for 20 s in the middle."""
    herd = Path(__file__).with_name("herd.py")
    with served(tmp_path / "data", "--port", str(free_port())) as running:
        command = [sys.executable, herd, running.url, tmp_path / "herd"]
        processes = [
            subprocess.Popen([*map(str, command), str(first), "50", "100"], stdout=subprocess.PIPE) for first in range(0, AGENTS, 50)
        ]
        time.sleep(20)
        running.kill()
        time.sleep(20)
        running.start()
        back = time.time()
        said = [agent for process in processes for agent in json.loads(process.communicate(timeout=400)[0])]
        running.stop()
    asked = Counter(int(at - back) for agent in said for at, status in agent["asked"])
    firsts = Counter(int(min(at for at, _ in agent["asked"] if at >= back) - back) for agent in said)
    steady = float(np.median([asked[second] for second in range(-38, -22)]))
    print(
        f"steady {steady:.0f} requests/s; first requests after the outage by second {sorted(firsts.items())}; all {sorted(asked.items())}"
    )
    with sqlite3.connect(tmp_path / "data" / "frames.sqlite") as log:
        (held,), (trimmed,) = (
            log.execute(count).fetchone()
            for count in ("SELECT count(*) FROM frames", "SELECT coalesce(sum(last - first + 1), 0) FROM seen")
        )
        (taken,) = log.execute("SELECT seq FROM sqlite_sequence WHERE name = 'frames'").fetchone()
    log.close()
    assert not [agent for agent in said if agent["left"] or agent["acknowledged"] != agent["produced"]]
    assert held + trimmed == taken == sum(agent["produced"] for agent in said) // 5, "lost or doubled"
    assert max(firsts.values()) <= AGENTS / 2, "they all came at once"
    assert max(count for second, count in asked.items() if second >= 0) <= 2 * steady
