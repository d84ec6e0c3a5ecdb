"""A backup is made while four agents send; another collector starts from it and holds all that was acknowledged before the backup was asked for."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from collector import collector
from sender import Agent

BACKUP = [sys.executable, "-m", "holter.cli", "backup", "--json"]


def test_a_backup_under_load_is_whole_and_starts(tmp_path):
    with collector(tmp_path / "data") as running:
        agents = [Agent(running, running.new_run(node), node) for node in ("n1", "n2", "n3", "n4")]
        for agent in agents:
            agent.start()
        running.until(lambda: all(agent.acknowledged > 30 for agent in agents))
        before = [agent.acknowledged for agent in agents]
        unfinished = tmp_path / "data" / "backups" / "unfinished"
        unfinished.mkdir(parents=True)
        (unfinished / "samples.duckdb").write_bytes(b"half of it: a collector was killed while it copied")
        asked = subprocess.run(BACKUP, env=os.environ | {"HOLTER_URL": running.url}, capture_output=True, text=True, timeout=60)
        assert asked.returncode == 0, asked.stderr
        running.until(lambda: all(agent.acknowledged > seen + 30 for agent, seen in zip(agents, before, strict=True)))
        for agent in agents:
            agent.done.set()
            agent.join(20)
        (made,) = (tmp_path / "data" / "backups").iterdir()
        assert running.stop() == 0
    assert {"control.sqlite", "frames.sqlite", "samples.duckdb"} <= {path.name for path in made.iterdir()}
    assert made.stat().st_mode & 0o077 == 0
    restored = Path(shutil.copytree(made, tmp_path / "restored"))
    with collector(restored) as running:
        for agent, seen in zip(agents, before, strict=True):
            agent.running = running
            running.until(lambda agent=agent, seen=seen: len(steps(running, agent.run_id)) >= seen)
            found = steps(running, agent.run_id)
            assert found == list(range(len(found))) and seen <= len(found) <= agent.acknowledged + 1
            running.until(lambda agent=agent, found=found: running.get(f"runs/{agent.run_id}")["last_step"] >= found[-1])
        assert running.http.get("/readyz").status_code == 200


def steps(running, run):
    return running.get(f"runs/{run}/series", metric="loss", rank=0, max_points=100_000)["step"]


def test_a_backup_without_room_is_refused(tmp_path):
    with collector(tmp_path / "data", "--free-disk-mib", str(1 << 30)) as running:
        answer = running.http.post("/api/v1/backups")
        assert (answer.status_code, "Retry-After" in answer.headers) == (507, True)
        assert not (tmp_path / "data" / "backups").exists()
