"""A second collector on the same stores: refused in a sentence, and the first is not disturbed."""

import subprocess
import sys
from contextlib import contextmanager

import pytest
import sqlalchemy as sa
from collector import Collector, collector, frame
from postgres import running as postgres


def second(data, *arguments) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "holter.cli", "serve", "--port", "0", "--data", str(data), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@contextmanager
def store(kind: str, folder):
    if kind == "sqlite":
        folder.mkdir()
        yield f"sqlite:///{folder}/control.sqlite"
    else:
        with postgres() as server:
            yield server.url


@pytest.mark.parametrize("kind", ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def test_a_second_collector_on_the_same_control_store_is_refused(tmp_path, kind):
    """Its log would number its frames as the first one's does, and its offset would undo the first one's: events would go missing without a word."""
    with store(kind, tmp_path / "store") as url, collector(tmp_path / "one", "--db", url) as first:
        refused = second(tmp_path / "two", "--db", url)
        assert refused.returncode == 2, refused.stderr
        assert "another collector uses this control store" in refused.stderr
        run = first.new_run()
        assert first.send(frame(run, 0)).status_code == 200
        first.until(lambda: first.get(f"runs/{run}")["last_step"] == 0)
        first.kill()
        successor = Collector(tmp_path / "two", "--db", url)
        try:
            successor.start()
            assert successor.get("runs")["items"][0]["id"] == run
        finally:
            successor.close()


@pytest.mark.postgres
def test_a_lock_that_another_took_while_the_server_was_away_is_told_of(tmp_path):
    """The server restarts, and somebody else is faster: the first writes nothing more, until it has its store back."""
    with postgres() as server, collector(tmp_path / "one", "--db", server.url) as first:
        run = first.new_run()
        engine = sa.create_engine(server.url.replace("postgresql:", "postgresql+psycopg:"), isolation_level="AUTOCOMMIT")
        with engine.connect() as other:
            ended = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND pid <> pg_backend_pid()"
            other.execute(sa.text(ended))
            other.execute(sa.text("SELECT pg_advisory_lock(:key)"), {"key": 0x486F6C746572})
            first.until(lambda: "another collector" in first.http.get("/readyz").json()["parts"]["control store"])
            assert first.send(frame(run, 0)).status_code == 200, "the log is its own"
            answer = first.http.post("/api/v1/runs", json={"project": "p", "name": "another"})
            assert (answer.status_code, "Retry-After" in answer.headers) == (503, True)
        engine.dispose()
        first.until(lambda: first.http.get("/readyz").status_code == 200)
        first.until(lambda: first.get(f"runs/{run}")["last_step"] == 0)
