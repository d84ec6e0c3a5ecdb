"""The control store on both databases: the same tests. PostgreSQL runs from the system's binaries, as its own small cluster."""

import sqlite3
import time
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from holter.frame import Frame, encode
from holter_monitor.errors import Unavailable
from holter_monitor.store import audit, incidents, records, runs, snapshots, tokens
from holter_monitor.store.control import MIGRATIONS, open_control
from holter_monitor.store.ports import Entry
from holter_monitor.store.tables import incidents as incident_rows
from holter_monitor.store.tables import metadata, step_summaries
from holter_monitor.store.tables import runs as run_rows
from holter_monitor.store.upserts import insert_new
from postgres import running


def entry(offset: int, run: str, *, events=(), step=None, node="n1", attempt="a1", **more) -> Entry:
    frame = Frame(run, attempt, node, f"boot-{node}", offset, 1_000_000_000, events=list(events), **more)
    if step is not None:
        import numpy as np

        frame.rank, frame.step, frame.time_ns = np.array([0], "<i4"), np.array([step]), np.array([1])
    return Entry(offset, 5.0, encode(frame))


@pytest.fixture(scope="session")
def postgres():
    with running() as server:
        yield server.url


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def url(request, tmp_path):
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/control.sqlite"
    server = request.getfixturevalue("postgres")
    name = f"t{time.time_ns()}"
    with sa.create_engine(server.replace("postgresql:", "postgresql+psycopg:"), isolation_level="AUTOCOMMIT").connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    return server.replace("/postgres?", f"/{name}?")


@pytest.fixture
def control(url):
    store = open_control(url)
    yield store
    store.close()


@pytest.fixture
def run(control):
    with control.write() as connection:
        return runs.find_or_create(connection, {"project": "p", "name": "n"}, 1.0)[0]["id"]


def test_the_migrations_make_the_tables(control):
    """Whoever changes tables.py writes a migration, or this fails."""
    with control.read() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_opening_again_changes_nothing(url, control):
    open_control(url).close()


def test_a_run_is_found_again_and_told_more(control, run):
    with control.write() as connection:
        again, is_new = runs.find_or_create(connection, {"project": "p", "name": "n", "world_size": 8, "config": {"lr": float("nan")}}, 2.0)
    assert (again["id"], is_new, again["world_size"], again["config"]) == (run, False, 8, {"lr": "NaN"})


def test_pages_leave_nothing_out_and_repeat_nothing(control):
    with control.write() as connection:
        for number in range(7):
            runs.find_or_create(connection, {"project": "p", "name": str(number)}, float(number // 2))
    seen, after = [], None
    while True:
        with control.read() as connection:
            page = runs.page(connection, {}, projects=None, after=after, limit=3)
        seen += [row["name"] for row in page]
        if len(page) < 3:
            break
        after = (page[-1]["updated_at"], page[-1]["id"])
    assert sorted(seen) == [str(number) for number in range(7)]


def test_records_of_a_life(control, run):
    started = [
        {"event": "rank_started", "rank": rank, "step": None, "time_ns": 3, "attrs": {"world_size": 2, "mesh": {"dp": rank}}}
        for rank in (0, 1)
    ]
    finished = [{"event": "rank_finished", "rank": rank, "step": 9, "time_ns": 4, "attrs": {"status": "ok"}} for rank in (0, 1)]
    record = records.Records()
    with control.write() as connection:
        runs.advise(connection, run, {"stop": True})
        assert record.apply(connection, [entry(1, run, events=started, step=3), entry(2, run, step=9, dropped={"ring_full": 7})]) == set()
        records.commit(connection, 2, 6.0)
    with control.write() as connection:
        assert record.apply(connection, [entry(3, run, events=finished)]) == {run}
        (attempt,) = runs.attempts_of(connection, run)
        (agent,) = runs.agents_of(connection, run)
        assert (attempt["state"], attempt["world_size"], attempt["first_step"], attempt["last_step"]) == ("finished", 2, 3, 9)
        assert attempt["mesh"]["1"]["dp"] == 1
        assert runs.one(connection, run)["state"] == "finished"
        assert runs.one(connection, run)["advice"] == {}, "the next attempt must not stop at it again"
        assert agent["skew_seconds"] == -4.0
        assert [event["event"] for event in runs.events_of(connection, run)] == ["rank_started"] * 2 + ["rank_finished"] * 2
        assert records.committed(connection) == 2


def test_steps_that_come_late_stay_under_their_attempt(control, run):
    """A restart rewinds, and then the last frames of the attempt before it arrive: the run stands where its newest attempt does."""
    record = records.Records()
    for batch in ([entry(1, run, step=400)], [entry(2, run, step=250, attempt="a2")], [entry(3, run, step=410), entry(4, run, step=390)]):
        with control.write() as connection:
            record.apply(connection, batch)
    with control.read() as connection:
        spans = {attempt["attempt"]: (attempt["first_step"], attempt["last_step"]) for attempt in runs.attempts_of(connection, run)}
        assert spans == {"a1": (390, 410), "a2": (250, 250)}
        assert runs.one(connection, run)["last_step"] == 250


def test_an_end_that_is_heard_late_does_not_end_the_attempt_after_it(control, run):
    lost = [{"event": "rank_lost", "rank": 0, "step": 400, "time_ns": 9, "attrs": {}}]
    record = records.Records()
    with control.write() as connection:
        record.apply(connection, [entry(1, run, step=400), entry(2, run, step=250, attempt="a2")])
    with control.write() as connection:
        assert record.apply(connection, [entry(3, run, events=lost)]) == set()
        assert [attempt["state"] for attempt in runs.attempts_of(connection, run)] == ["lost", "running"]
        assert runs.one(connection, run)["state"] == "running"
        assert record.apply(connection, [entry(4, run, events=lost, attempt="a2")]) == {run}
        assert runs.one(connection, run)["state"] == "failed"


def test_what_frames_declare_lost_is_summed(control, run):
    """Each frame tells what was lost since the one before; a frame that declares nothing takes nothing back."""
    record = records.Records()
    batches = [[entry(1, run, dropped={"ring_full": 7}), entry(2, run, dropped={"ring_full": 1, "frame_refused": 4})], [entry(3, run)]]
    for entries in [*batches, [entry(4, run, dropped={"frame_refused": 2})], [entry(5, run)]]:
        with control.write() as connection:
            record.apply(connection, entries)
    with control.read() as connection:
        (agent,) = runs.agents_of(connection, run)
        assert agent["dropped"] == {"ring_full": 8, "frame_refused": 6}


def test_a_replay_changes_nothing(control, run):
    lost = [{"event": "rank_lost", "rank": 0, "step": 4, "time_ns": 3, "attrs": {}}]
    for _ in range(2):
        with control.write() as connection:
            records.Records().apply(connection, [entry(1, run, events=lost, step=4)])
            summary = {"run": run, "metric": "loss", "attempt": "a1", "step": 4, "at": 1.0, "count": 1, "mean": 1.0, "non_finite": 0}
            insert_new(connection, step_summaries, [summary])
    with control.read() as connection:
        assert len(runs.events_of(connection, run)) == 1
        assert connection.scalar(sa.select(sa.func.count()).select_from(step_summaries)) == 1
        assert [attempt["state"] for attempt in runs.attempts_of(connection, run)] == ["lost"]


def test_hostile_events_are_kept_as_words(control, run):
    events = [{"event": "x" * 200, "rank": 2**62, "step": -(2**62), "time_ns": -5, "attrs": {"deep": ["\u2028", 1e308]}}]
    with control.write() as connection:
        records.Records().apply(connection, [entry(1, run, events=events)])
        (event,) = runs.events_of(connection, run)
    assert (event["rank"], event["at"]) == (None, 5.0)


def test_a_snapshot_says_up_to_where_it_goes_and_when_the_log_is_released(control, run):
    with control.write() as connection:
        assert (snapshots.state(connection, run), snapshots.offset(connection)) == (None, 0)
        snapshots.keep(connection, {run: b"\x00state"}, 5, 1.0)
        assert (snapshots.state(connection, run), snapshots.offset(connection)) == ((b"\x00state", 5), 0)
        snapshots.release(connection, 9, 2.0)
        assert (snapshots.state(connection, run), snapshots.offset(connection)) == ((b"\x00state", 5), 9)
        assert snapshots.runs(connection, state="waiting") == [run]


def test_a_failed_transaction_leaves_nothing(control, run):
    def fail() -> None:
        with control.write() as connection:
            audit.record(connection, "a", "b", "c", now=1.0)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    with control.read() as connection:
        assert audit.page(connection, after=None, limit=5) == []


def test_tokens_end(control):
    with control.write() as connection:
        key = tokens.add(connection, name="t", digest="d" * 64, scopes=["read"], project="*", expires=10.0, now=1.0)
        assert tokens.by_digest(connection, "d" * 64, 5.0)["id"] == key
        assert tokens.by_digest(connection, "d" * 64, 10.0) is None
        assert tokens.are_any(connection)
        assert tokens.revoke(connection, "t", 2.0) == [key]
        assert tokens.by_digest(connection, "d" * 64, 5.0) is None
        assert not tokens.are_any(connection)


def test_incidents_are_filtered_and_hidden_from_other_projects(control, run):
    row = {"run": run, "project": "p", "kind": "loss_spike", "scope": "run", "severity": "warning", "state": "open", "onset_step": 1}
    with control.write() as connection:
        connection.execute(incident_rows.insert().values(id="i", detected_step=2, summary="s", created_at=1.0, updated_at=1.0, **row))
        page = lambda projects, **filters: incidents.page(connection, filters, projects=projects, after=None, limit=5)  # noqa: E731
        assert [each["run_name"] for each in page(None, kind="loss_spike", state="open")] == ["n"]
        assert page(["other"]) == page(None, kind="hang") == []


def test_a_database_that_is_away_is_unavailable():
    with pytest.raises(Unavailable):
        open_control("postgresql://nobody@127.0.0.1:9/x")


def test_an_upgrade_copies_the_file_first(tmp_path):
    path = tmp_path / "control.sqlite"
    open_control(f"sqlite:///{path}").close()
    with sqlite3.connect(path) as old:
        old.execute("CREATE TABLE precious (x)")
        old.execute("UPDATE alembic_version SET version_num = '0000'")
    old.close()
    with pytest.raises(Exception, match="0000"):  # no such version: the upgrade fails after the copy was made
        open_control(f"sqlite:///{path}")


def test_the_first_schema_is_upgraded_with_its_summaries(url):
    """A store of the first version keeps its rows, and on SQLite loses the rowid of its largest table."""
    engine = open_control(url).engine
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    row = {"run": "r", "metric": "loss", "attempt": "a1", "step": 4, "at": 1.0, "count": 1, "mean": 1.5, "non_finite": 0}
    with engine.execution_options(holter_write=True).begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "0001")
        connection.execute(run_rows.insert(), {"id": "r", "project": "p", "name": "n", "created_at": 0.0, "updated_at": 0.0})
        connection.execute(step_summaries.insert(), row)
    engine.dispose()
    control = open_control(url)
    with control.read() as connection:
        assert dict(connection.execute(sa.select(step_summaries)).mappings().one()).items() >= row.items()
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
        if connection.dialect.name == "sqlite":
            made = connection.scalar(sa.text("SELECT sql FROM sqlite_master WHERE name = 'step_summaries'"))
            assert made.strip().endswith("WITHOUT ROWID")
    control.close()
    if url.startswith("sqlite"):
        folder = Path(url.removeprefix("sqlite:///")).parent
        assert len(list(folder.glob("control.sqlite.0001.*.backup"))) == 1


def test_a_notice_that_waits_through_the_upgrade_is_told_under_its_own_incident_s_name(url):
    engine = open_control(url).engine
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    waiting = {"incident": "i1", "receiver": "chat", "transition": "trigger", "idempotency_key": "k", "position": 1, "notice": "{}"}
    waiting |= {"urgency": 1, "status": "ready", "attempts": 0, "next_at": 0.0, "created_at": 0.0}
    with engine.execution_options(holter_write=True).begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "0004")
        names = ", ".join(waiting)
        connection.execute(sa.text(f"INSERT INTO outbox ({names}) VALUES ({', '.join(f':{name}' for name in waiting)})"), waiting)
    engine.dispose()
    control = open_control(url)
    with control.read() as connection:
        assert connection.execute(sa.text("SELECT conversation, receiver FROM outbox")).one() == ("i1", "chat")
    control.close()
