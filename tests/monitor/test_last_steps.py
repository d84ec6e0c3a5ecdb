"""The last steps of a run that falls silent, or whose ranks have not all reported, are summed up all the same: once, and with the others in them."""

import time

import pytest
import sqlalchemy as sa
from collector import frame
from holter.frame import decode, encode
from holter_monitor import app
from holter_monitor.consumers import detection
from holter_monitor.engine import Engine
from holter_monitor.settings import Settings
from holter_monitor.store import runs
from holter_monitor.store.tables import step_summaries
from holter_monitor.stream.steps import RunFacts


@pytest.fixture(autouse=True)
def _at_once(monkeypatch):
    monkeypatch.setattr(detection, "GRACE_SECONDS", 0.0)
    monkeypatch.setattr(detection, "TICK_SECONDS", 0.0)


def test_steps_that_nobody_else_will_reach_close_by_the_clock():
    engine = Engine(RunFacts(run="r", world_size=8))
    for step in range(5):
        engine.feed(frame("r", step, ranks=(0, 3)), 100.0 + step)
    engine.tick(130.0)
    assert engine.take_summaries() == [], "a frame that is on its way may still hold the others"
    engine.tick(142.0)
    assert [(line.step, line.count) for line in engine.take_summaries()] == [(step, 2) for step in range(5)]
    engine.tick(300.0)
    assert engine.take_summaries() == []


class Life:
    """A collector's parts, no thread of theirs started; `kill` leaves as a killed one would."""

    def __init__(self, data) -> None:
        self.parts = app.assemble(Settings(data=data))
        (self.detection,) = (each for each in self.parts.consumers if each.name == "detection")
        self.detection.offset = self.detection.begin()

    def take(self, run: str, steps, *, ranks, received: float) -> None:
        bodies = [encode(frame(run, step, node=f"n{ranks[0]}", ranks=ranks)) for step in steps]
        self.parts.log.append([(decode(body), body) for body in bodies], received)
        self.detection.offset = self.detection.work(self.parts.log.read(self.detection.offset))

    def summed_up(self) -> list[tuple[int, int]]:
        with self.parts.control.read() as connection:
            query = sa.select(step_summaries.c.step, step_summaries.c["count"]).where(step_summaries.c.metric == "loss")
            return [tuple(row) for row in connection.execute(query.order_by(step_summaries.c.step))]

    def kill(self) -> None:
        for part in (self.parts.samples, self.parts.log, self.parts.control):
            part.close()


def test_a_silent_run_has_all_its_steps_and_a_restart_sums_none_up_again(tmp_path):
    life = Life(tmp_path)
    with life.parts.control.write() as connection:
        run = runs.find_or_create(connection, {"project": "p", "name": "n", "world_size": 4}, 1.0)[0]["id"]
    now = time.time()
    life.take(run, range(6), ranks=(0, 1), received=now - 100)
    life.take(run, range(3), ranks=(2, 3), received=now - 100)
    assert life.summed_up() == [(0, 4), (1, 4), (2, 4)]
    life.detection.idle()
    whole = [(0, 4), (1, 4), (2, 4), (3, 2), (4, 2), (5, 2)]
    assert life.summed_up() == whole
    life.kill()
    again = Life(tmp_path)
    again.take(run, range(3, 8), ranks=(2, 3), received=now)
    again.take(run, range(6, 8), ranks=(0, 1), received=now)
    again.detection.idle()
    assert again.summed_up() == [*whole, (6, 4), (7, 4)], "what closed by the clock stays closed"
    again.kill()
