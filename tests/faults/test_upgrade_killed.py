"""The collector is killed in the middle of a schema upgrade: the next start finishes it, and no row is missing. Agents of other versions are understood."""

import shutil
import signal
import struct
import subprocess
import sys
import zlib
from contextlib import contextmanager

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from holter_monitor.store.control import MIGRATIONS, open_control
from holter_monitor.store.tables import metadata, runs, step_summaries
from postgres import running as postgres

OPEN = "import sys; from holter_monitor.store.control import open_control; open_control(sys.argv[1]).close()"
ROWS = 500
no_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="KILLED UPGRADES NOT TESTED: no strace here")


@contextmanager
def store(kind: str, folder):
    if kind == "sqlite":
        yield f"sqlite:///{folder}/control.sqlite"
    else:
        with postgres() as server:
            yield server.url


def go_back(url: str) -> None:
    """The store as its first version left it, with rows in it."""
    control = open_control(url)
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    row = {"run": "r", "metric": "loss", "attempt": "a1", "at": 1.0, "count": 1, "mean": 1.5, "non_finite": 0}
    with control.write() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "0001")
        if connection.scalar(sa.select(sa.func.count()).select_from(step_summaries)) == 0:
            connection.execute(runs.insert(), {"id": "r", "project": "p", "name": "n", "created_at": 0.0, "updated_at": 0.0})
            connection.execute(step_summaries.insert(), [row | {"step": step} for step in range(ROWS)])
    control.close()


def killed_at(url: str, call: str, number: int) -> bool:
    """Whether the upgrade was killed at its `number`-th call of this name: later than its last one it ends by itself."""
    inject = ["strace", "-f", "-q", "-e", f"trace={call}", "-e", f"inject={call}:signal=SIGKILL:when={number}", "-o", "/dev/null"]
    status = subprocess.run([*inject, sys.executable, "-c", OPEN, url], capture_output=True, timeout=120, check=False).returncode
    assert status in (0, -signal.SIGKILL, 128 + signal.SIGKILL)
    return status != 0


@no_strace
@pytest.mark.parametrize("kind", ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
@pytest.mark.parametrize(
    "numbers", [(5, 30), pytest.param(range(1, 120), marks=[pytest.mark.soak, pytest.mark.timeout(3600)])], ids=["two", "all"]
)
def test_an_upgrade_that_is_killed_is_finished_by_the_next_start(tmp_path, kind, numbers):
    deaths = 0
    with store(kind, tmp_path) as url:
        for number in numbers:
            go_back(url)
            deaths += killed_at(url, "pwrite64" if kind == "sqlite" else "sendto", number)
            control = open_control(url)
            with control.read() as connection:
                assert compare_metadata(MigrationContext.configure(connection), metadata) == []
                assert connection.scalar(sa.select(sa.func.count()).select_from(step_summaries)) == ROWS
                assert connection.scalar(sa.select(sa.func.count()).select_from(runs)) == 1
            control.close()
    print(f"{deaths} of {len(numbers)} upgrades were killed in the middle")
    assert deaths >= len(numbers) / 2


def by_hand(header: str, columns: bytes) -> bytes:
    """A frame as another program, or another version of ours, writes it."""
    whole = b"HLT1" + struct.pack("<I", len(header)) + header.encode() + columns
    return whole + struct.pack("<I", zlib.crc32(whole))


def test_agents_of_other_versions_are_understood(collector):
    """An older one leaves out what came later; a newer one says things that nobody here has heard of."""
    run = collector.new_run()
    names = '[{"name": "rank", "dtype": "<i4"}, {"name": "step", "dtype": "<i8"}, {"name": "time_ns", "dtype": "<i8"}, {"name": "loss", "dtype": "<f4"}]'
    start = f'{{"run": "{run}", "attempt": "a", "node": "n", "boot": "b", "sent_ns": 5, "rows": 1, "columns": {names}'
    columns = struct.pack("<iqqf", 0, 7, 5, 2.5)
    older = by_hand(start + ', "seq": 0}', columns)
    event = '{"event": "hyperdrive", "rank": 0, "step": 7, "time_ns": 5, "attrs": {}, "mood": "fine"}'
    newer = by_hand(
        start + f', "seq": 1, "events": [{event}], "dropped": {{}}, "hue": {{"deep": [1]}}}}', struct.pack("<iqqf", 0, 8, 5, 2.25)
    )
    for body in (older, newer):
        answer = collector.send(body)
        assert answer.status_code == 200, answer.text
    collector.until(lambda: collector.get(f"runs/{run}/series", metric="loss", rank=0)["value"] == [2.5, 2.25])
    collector.until(lambda: [each["event"] for each in collector.get(f"runs/{run}/events")["items"]] == ["hyperdrive"])
