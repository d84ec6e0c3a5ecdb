"""Records that the control store refuses: set aside, told of, and detection of all others goes on. A store that is itself at fault is waited for."""

import re

import pytest
import sqlalchemy as sa
from collector import collector, frame
from holter.frame import decode
from postgres import running as postgres

FINISHED = [{"event": "rank_finished", "rank": 0, "step": 9, "time_ns": 4, "attrs": {"status": "ok"}}]


class Store:
    """The control store, as its owner could change it behind the collector's back."""

    def __init__(self, url: str) -> None:
        self._engine = sa.create_engine(url.replace("postgresql:", "postgresql+psycopg:"), isolation_level="AUTOCOMMIT")

    def say(self, sentence: str) -> None:
        with self._engine.connect() as connection:
            if connection.dialect.name == "sqlite":
                connection.exec_driver_sql("PRAGMA foreign_keys = ON")
            connection.exec_driver_sql(sentence)

    def forbid(self, table: str, column: str, value: str) -> None:
        if self._engine.dialect.name == "postgresql":
            self.say(f"ALTER TABLE {table} ADD CHECK ({column} <> '{value}') NOT VALID")
        else:
            body = "BEGIN SELECT RAISE(ABORT, 'forbidden'); END"
            self.say(f"CREATE TRIGGER no_{table}_{value} BEFORE INSERT ON {table} WHEN NEW.{column} = '{value}' {body}")


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def served(request, tmp_path_factory):
    data = tmp_path_factory.mktemp("refused") / "data"
    if request.param == "sqlite":
        with collector(data) as running:
            running.store = Store(f"sqlite:///{data / 'control.sqlite'}")
            yield running
    else:
        with postgres() as server, collector(data, "--db", server.url) as running:
            running.store = Store(server.url)
            yield running


def refused(served) -> dict[str, float]:
    text = served.http.get("/metrics").text
    return {kind: float(count) for kind, count in re.findall(r'holter_records_refused_total\{kind="(\w+)"\} (\S+)', text)}


def incidents(served, run: str) -> set[str]:
    return {each["kind"] for each in served.get("incidents", run=run)["items"]}


def send(served, run: str, steps, **more) -> None:
    for step in steps:
        answer = served.send(frame(run, step, boot=run, node=run, **more))
        assert answer.status_code == 200, answer.text


def test_what_is_refused_is_set_aside_and_all_else_goes_on(served):
    assert set(refused(served).values()) == {0.0}, "a series that begins with its first event shows Prometheus no increase"
    sick, well = served.new_run("sick"), served.new_run("well")
    served.store.forbid("run_events", "event", "poison")
    served.store.forbid("step_summaries", "metric", "poison")
    served.store.forbid("incidents", "run", sick)
    for run in (sick, well):
        send(served, run, range(10))
    send(served, sick, [10], metrics={"loss": 2.0, "poison": 1.0})
    send(served, sick, [11], events=[{"event": "poison", "rank": 0, "step": 11, "time_ns": 1, "attrs": {}}])
    for run in (sick, well):
        send(served, run, [12], metrics={"loss": float("nan")})
        send(served, run, range(13, 20))
    served.until(lambda: incidents(served, well) == {"non_finite"})
    served.until(lambda: set(refused(served)) == {"frame", "summary", "finding"} and all(refused(served).values()))
    served.until(lambda: served.get(f"runs/{sick}")["last_step"] == 19)
    assert incidents(served, sick) == set()
    assert served.http.get("/readyz").json()["parts"]["detection"] == "ok"
    kept = sorted((served.data / "quarantine").iterdir())
    (whole,) = [path for path in kept if path.suffix == ".frame"]
    assert decode(whole.read_bytes()).events[0]["event"] == "poison"
    assert {path.name.split("-")[0] for path in kept} == {"frame", "summary", "finding"}
    assert all(path.stat().st_mode & 0o077 == 0 for path in kept)
    assert f"the control store refuses a frame of run {sick}" in (served.data.parent / "data.stderr").read_text()


def test_a_run_that_is_deleted_while_it_speaks_holds_nobody_up(served):
    gone, well = served.new_run("gone"), served.new_run("goes on")
    for run in (gone, well):
        send(served, run, range(5))
    served.until(lambda: served.get(f"runs/{gone}")["last_step"] == 4)
    before = refused(served)["frame"]
    served.store.say(f"DELETE FROM runs WHERE id = '{gone}'")
    assert served.send(frame(gone, 5, boot=gone, node=gone)).status_code == 200, "it is known to ingest for another moment"
    served.until(lambda: served.send(frame(gone, 6, boot=gone, node=gone)).status_code == 409)
    send(served, well, range(5, 9))
    send(served, well, [9], events=FINISHED)  # writes the engines' states, also that of the run that is gone
    served.until(lambda: served.get(f"runs/{well}")["state"] == "finished")
    assert refused(served)["frame"] > before


def test_a_store_that_is_at_fault_is_waited_for(served):
    run, before = served.new_run("patient"), refused(served)
    served.store.say("ALTER TABLE run_events RENAME TO elsewhere")
    send(served, run, [0], events=[{"event": "stage", "rank": 0, "step": 0, "time_ns": 1, "attrs": {}}])
    served.until(lambda: served.http.get("/readyz").json()["parts"]["detection"] != "ok")
    served.store.say("ALTER TABLE elsewhere RENAME TO run_events")
    served.until(lambda: served.get(f"runs/{run}/events")["items"])
    served.until(lambda: served.http.get("/readyz").status_code == 200)
    assert refused(served) == before
