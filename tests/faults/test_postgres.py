"""PostgreSQL as the control store: it restarts under load, or freezes. Frames go on, and what was said of them comes true later."""

import threading

import httpx
import pytest
import sqlalchemy as sa
from collector import collector, frame
from holter_monitor.store.control import open_control
from holter_monitor.store.tables import step_summaries
from postgres import running

STEPS = 150
pytestmark = [pytest.mark.postgres]


@pytest.fixture(scope="module")
def server():
    with running() as it:
        yield it


@pytest.fixture(scope="module")
def served(server, tmp_path_factory):
    with collector(tmp_path_factory.mktemp("postgres") / "data", "--db", server.url) as it:
        yield it


def summaries(server, run: str) -> int:
    control = open_control(server.url)
    with control.read() as connection:
        counted = connection.scalar(sa.select(sa.func.count()).select_from(step_summaries).where(step_summaries.c.run == run))
    control.close()
    return counted


def test_a_restart_in_mid_load_loses_nothing(server, served) -> None:
    run = served.new_run("restarted")
    half, done = threading.Event(), []

    def load() -> None:
        for step in range(STEPS):
            done.append(served.send(frame(run, step, boot=run)).status_code)
            if step == STEPS // 3:
                half.set()

    loading = threading.Thread(target=load)
    loading.start()
    assert half.wait(60)
    server.stop()
    assert served.http.get("/api/v1/runs").status_code == 503
    server.start()
    loading.join(60)
    assert done == [200] * STEPS
    served.until(lambda: served.http.get("/readyz").status_code == 200)
    served.until(lambda: summaries(server, run) == STEPS)


def test_a_frozen_store_holds_no_frame_up_and_is_told_of(server, served) -> None:
    """Known runs go on, unknown ones and readers hear 503, the process stays alive, and all is caught up when it thaws."""
    run = served.new_run("frozen")
    assert served.send(frame(run, 0, boot=run)).status_code == 200
    with server.frozen(), httpx.Client(base_url=served.url, timeout=20) as other:
        assert [served.send(frame(run, step, boot=run)).status_code for step in range(1, 40)] == [200] * 39
        assert other.get("/healthz").status_code == 200
        refused = served.send(frame("never-seen", 1, boot="n"))
        assert (refused.status_code, "Retry-After" in refused.headers) == (503, True)
        ready = other.get("/readyz")
        assert ready.status_code == 503 and "control store" in ready.json()["parts"]
        points = other.post(f"/api/v1/runs/{run}/points", json=[{"step": 40, "loss": 2.0}])
        assert points.status_code == 200
    served.until(lambda: summaries(server, run) == 41)
    served.until(lambda: served.http.get("/readyz").status_code == 200)
