"""Old points are thinned, then dropped; steps around incidents stay; the newest stay when the size is too large."""

import numpy as np
import pytest
from holter.frame import Column, Frame, encode
from holter_monitor.consumers.retention import around_incidents, sweep
from holter_monitor.settings import Retention
from holter_monitor.store import runs
from holter_monitor.store.control import open_control
from holter_monitor.store.ports import Entry, Window
from holter_monitor.store.retention_duckdb import DuckDbStore
from holter_monitor.store.tables import incidents

DAY = 86_400
NOW = 100.0 * DAY


@pytest.fixture
def stores(tmp_path):
    control = open_control(f"sqlite:///{tmp_path}/control.sqlite")
    with control.write() as connection:
        run = runs.find_or_create(connection, {"project": "p", "name": "n"}, NOW)[0]["id"]
    samples = DuckDbStore(tmp_path / "samples.duckdb")
    steps = np.arange(1000)
    days = np.linspace(1, 100, 1000)  # step 0 is 99 days old, step 999 of today
    frame = Frame(run, "a1", "n1", "b1", 1, 1, np.zeros(1000, np.int32), steps, (days * DAY * 1e9).astype(np.int64))
    frame.metrics = {"loss": Column(np.arange(1000, dtype="<f4"))}
    samples.write([Entry(1, NOW, encode(frame))])
    yield run, samples, control
    samples.close()
    control.close()


def kept(samples, run) -> list[int]:
    return samples.ranks(run, "loss", Window()).step.tolist()


def test_old_steps_are_thinned_and_older_ones_go(stores):
    run, samples, control = stores
    assert sweep(samples, control, Retention(full_days=20, days=50, thin_every=10), NOW) > 0
    steps = kept(samples, run)
    assert steps[-200:] == list(range(800, 1000))
    assert all(step % 10 == 0 for step in steps if step < 797)
    assert min(steps) == 500
    assert sweep(samples, control, Retention(full_days=20, days=50, thin_every=10), NOW) == 0, "a second sweep finds nothing"


def test_steps_around_incidents_stay_whole(stores):
    run, samples, control = stores
    row = {"run": run, "project": "p", "kind": "loss_spike", "scope": "run", "severity": "warning", "state": "resolved", "summary": "s"}
    with control.write() as connection:
        for number, (onset, end) in enumerate([(600, 610), (605, 640)]):
            times = {"created_at": 1.0, "updated_at": 1.0}
            connection.execute(
                incidents.insert().values(id=str(number), onset_step=onset, detected_step=onset, end_step=end, **times, **row)
            )
    assert around_incidents(control, run, 20) == [(580, 660)]
    sweep(samples, control, Retention(full_days=20, days=50, thin_every=10, around_steps=20), NOW)
    assert set(range(580, 661)) <= set(kept(samples, run))


def test_too_large_loses_the_oldest_first(stores):
    run, samples, control = stores
    sweep(samples, control, Retention(full_days=1000, days=1000, bytes=1), NOW)
    steps = kept(samples, run)
    assert len(steps) < 1000
    assert steps == list(range(1000 - len(steps), 1000))
