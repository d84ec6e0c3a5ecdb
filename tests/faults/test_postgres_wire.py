"""The conversation between the collector and PostgreSQL: slow, cut, silent, ended. Frames go on, alerts come late and once, and what is wrong is said."""

import time

import httpx
import pytest
import sqlalchemy as sa
from collector import collector, frame
from postgres import running
from wire import Wire

pytestmark = [pytest.mark.postgres]


@pytest.fixture(scope="module")
def server():
    with running() as it:
        yield it


@pytest.fixture(scope="module")
def wire(server):
    it = Wire(server.folder / ".s.PGSQL.5432")
    yield it
    it.close()


@pytest.fixture(scope="module")
def served(server, wire, tmp_path_factory):
    url = f"postgresql://holter@127.0.0.1:{wire.port}/postgres"
    with collector(tmp_path_factory.mktemp("wire") / "data", "--db", url) as it:
        yield it


def ask(server, query: str, **values):
    """Of the database itself, beside the wire."""
    engine = sa.create_engine(server.url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.connect() as connection:
        found = connection.execute(sa.text(query), values).fetchall()
    engine.dispose()
    return found


def send(served, run, steps, sick=None):
    """Frames of a run, one of them with a NaN; how long the slowest acknowledgement took."""
    slowest = 0.0
    for seq in steps:
        began = time.monotonic()
        answer = served.send(frame(run, seq, boot=run, metrics={"loss": float("nan") if seq == sick else 2.0}))
        assert answer.status_code == 200, answer.text
        slowest = max(slowest, time.monotonic() - began)
    return slowest


def told(server, run):
    """How often each receiver was told of the NaN."""
    query = (
        "SELECT o.receiver, count(*), min(o.status) FROM outbox o JOIN incidents i ON i.id = o.incident "
        "WHERE i.run = :run AND i.kind = 'non_finite' AND o.transition = 'trigger' GROUP BY 1"
    )
    return ask(server, query, run=run)


def caught_up(served, server, run, steps):
    query = "SELECT count(*) FROM step_summaries WHERE run = :run AND metric = 'loss'"
    served.until(lambda: ask(server, query, run=run)[0][0] >= steps - 1, 90)
    served.until(lambda: told(server, run) and all(status == "sent" for *_, status in told(server, run)), 90)
    assert [count for _, count, _ in told(server, run)] == [1] * len(told(server, run))
    served.until(lambda: served.http.get("/readyz").status_code == 200)


def test_a_slow_network_delays_alerts_and_no_frame(server, wire, served):
    """Half a second each way: a transaction of detection takes many seconds."""
    run = served.new_run("slow")
    send(served, run, range(10))
    wire.delay = 0.5
    slowest = send(served, run, range(10, 60), sick=30)
    print(f"500 ms each way: slowest acknowledgement {slowest:.3f} s")
    assert served.http.get("/healthz").status_code == 200
    wire.mend()
    caught_up(served, server, run, 59)


def test_a_network_that_is_cut_loses_nothing_and_is_told_of(server, wire, served):
    run = served.new_run("cut")
    send(served, run, range(10))
    wire.cut()
    send(served, run, range(10, 60), sick=30)
    ready = served.http.get("/readyz")
    assert ready.status_code == 503 and ready.json()["parts"]["control store"] != "ok"
    reader = served.http.get("/api/v1/runs")
    assert (reader.status_code, "Retry-After" in reader.headers) == (503, True)
    assert reader.json()["remedy"].startswith("the control store cannot be used now")
    wire.mend()
    caught_up(served, server, run, 59)


def test_a_connection_that_falls_silent_is_given_up(server, wire, served):
    """As behind a proxy whose server failed over: every byte is acknowledged and no answer comes. Who connects anew is served."""
    run = served.new_run("silent")
    send(served, run, range(10))
    caught = "SELECT count(*) FROM step_summaries WHERE run = :run"
    served.until(lambda: ask(server, caught, run=run)[0][0] >= 9)
    wire.die()
    send(served, run, range(10, 60), sick=30)
    with httpx.Client(base_url=served.url, timeout=60) as other:
        assert other.get("/healthz").status_code == 200
    caught_up(served, server, run, 59)
    assert "has not answered for" in (served.data.parent / "data.stderr").read_text()


@pytest.mark.parametrize("seconds", [0, pytest.param(600, marks=[pytest.mark.soak, pytest.mark.timeout(900)])])
def test_sessions_that_are_ended_again_and_again_lose_nothing(server, served, seconds):
    """Each time in the middle of whatever they were at."""
    run, deadline, seq, ended = served.new_run(f"ended {seconds}"), time.monotonic() + seconds, 0, 0
    while ended < 6 or time.monotonic() < deadline:
        ended += 1
        send(served, run, range(seq, seq := seq + 10), sick=20)
        ask(server, "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND usename = 'holter'")
        time.sleep(2 if seconds else 0)
    print(f"ended {ended} times, {seq} frames")
    caught_up(served, server, run, seq - 1)
