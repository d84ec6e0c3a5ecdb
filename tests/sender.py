"""A sender with a ledger: what the collector acknowledged to it, the collector must hold."""

import threading
import time

import httpx
from collector import frame
from holter.frame import encode
from holter.node.envelope import stamp


class Agent(threading.Thread):
    """Sends frames as the shipper does: the same one until it is acknowledged. Its ledger is what the collector must hold."""

    def __init__(self, running, run: str, node: str) -> None:
        super().__init__(daemon=True)
        self.running, self.run_id, self.node, self.done = running, run, node, threading.Event()
        self.acknowledged = 0

    def run(self) -> None:
        http = httpx.Client(timeout=5)
        seq, body = -1, b""
        while not self.done.is_set():
            if seq != self.acknowledged:
                seq = self.acknowledged
                body = encode(frame(self.run_id, seq, node=self.node, boot=f"boot-{self.node}", metrics={"loss": float(seq)}))
            body = stamp(body, self.run_id) or body
            try:
                answer = http.post(
                    f"{self.running.url}/api/v1/frames", content=body, headers={"Content-Type": "application/vnd.holter.frame.v1"}
                )
            except httpx.HTTPError:
                time.sleep(0.05)
                continue
            if answer.status_code == 200:
                assert answer.json() == {"ack": seq}
                self.acknowledged += 1
            else:
                time.sleep(0.05)


def check(running, agent: Agent) -> None:
    """Every acknowledged frame is there, once, in order; what was sent last without an answer may be there too."""
    wanted = list(range(agent.acknowledged))

    def found() -> dict:
        return running.get(f"runs/{agent.run_id}/series", metric="loss", rank=0, max_points=100_000)

    running.until(lambda: len(found()["step"]) >= len(wanted), seconds=60)
    assert found()["step"][: len(wanted)] == wanted, "lost or doubled"
    assert found()["value"][: len(wanted)] == [float(step) for step in wanted]
