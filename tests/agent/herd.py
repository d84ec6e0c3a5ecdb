"""Light agents: real shippers with a spool, a connection and a back-off each, without rings and samplers, fifty to a process.

python herd.py URL FOLDER FIRST COUNT SECONDS     # a frame of five rows a second and agent for SECONDS, then until all is shipped; says what was sent when
"""

import json
import sys
import threading
import time
from pathlib import Path

import numpy as np
from holter.frame import Column, Frame, encode
from holter.node.records import Class
from holter.node.shipper import Destination, Shipper
from holter.node.spool import Spool
from holter.settings import Settings

ROWS = 5


class Watched(Shipper):
    """Notes when it asks, and what it hears."""

    def __init__(self, *words):
        super().__init__(*words)
        self.asked = []

    def _post(self, path, body, content_type):
        at, status = time.time(), 0
        try:
            answer = super()._post(path, body, content_type)
            status = answer.status
            return answer
        finally:
            self.asked.append((round(at, 3), status))


def live(url, folder, number, seconds):
    spool = Spool(folder=folder / str(number))
    shipper = Watched(Settings(url=url, token=""), folder / "quarantine")
    shipper.add(Destination({"project": "p", "name": "herd", "world_size": 200, "config": {}}, spool))
    shipper.start()
    seq, end = 0, time.time() + seconds
    time.sleep(number % 50 / 50)
    while time.time() < end:
        steps = np.arange(seq * ROWS, (seq + 1) * ROWS)
        ranks, times = np.full(ROWS, number, np.int32), np.full(ROWS, time.time_ns())
        body = Frame("spooled", "a", f"n{number}", "b", seq, 0, ranks, steps, times, {"loss": Column(steps.astype(float))})
        spool.append(Class.POINTS, encode(body), rows=ROWS)
        spool.sync()
        shipper.wake()
        seq += 1
        time.sleep(1.0)
    patience = time.time() + 180
    while not spool.is_empty and time.time() < patience:
        time.sleep(0.1)
    shipper.stop()
    shipper.join(15)
    said.append(
        {"agent": number, "produced": seq * ROWS, "acknowledged": shipper.acked_rows, "left": not spool.is_empty, "asked": shipper.asked}
    )


if __name__ == "__main__":
    url, folder, first, count, seconds = sys.argv[1], Path(sys.argv[2]), *map(int, sys.argv[3:])
    said: list = []
    threads = [threading.Thread(target=live, args=(url, folder, number, seconds)) for number in range(first, first + count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps(said))
