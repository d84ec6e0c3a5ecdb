"""Files that are damaged or gone when the collector starts: nothing is deleted, it is said, what can be read is saved, and frames are taken again."""

import json
import random
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest
from collector import collector, frame
from holter.cli import main

STEPS = 200


@pytest.fixture(scope="module")
def life(tmp_path_factory):
    """The data of a collector that took frames, judged them and was stopped."""
    data = tmp_path_factory.mktemp("life") / "data"
    with collector(data) as running:
        run = running.new_run("old")
        for seq in range(STEPS):
            assert running.send(frame(run, seq, metrics={"loss": float("nan") if seq == 9 else 2.0})).status_code == 200
        running.until(lambda: len(series(running, run)) == STEPS)
        running.until(lambda: running.get("incidents", run=run)["items"])
        assert running.stop() == 0
    return data


@pytest.fixture
def lived(life, tmp_path):
    return shutil.copytree(life, tmp_path / "data")


def series(running, run):
    return running.get(f"runs/{run}/series", metric="loss", rank=0)["step"]


def hurt(path, pages):
    """Overwrite the middle of some pages with noise; page 0 loses its header."""
    noise, body = random.Random(7), bytearray(path.read_bytes())
    for page in pages:
        start = page * 4096 + (0 if page == 0 else 8)
        body[start : start + 60] = noise.randbytes(60)
    path.write_bytes(body)


def goes_on(data, words):
    """It is up, takes frames of the old run, judges and stores them, and its log says what happened."""
    with collector(data) as running:
        run = running.new_run("old")
        for seq in range(STEPS, STEPS + 30):
            assert running.send(frame(run, seq)).status_code == 200
        running.until(lambda: running.get(f"runs/{run}")["last_step"] == STEPS + 29)
        running.until(lambda: series(running, run)[-30:] == list(range(STEPS, STEPS + 30)))
        assert running.http.get("/readyz").status_code == 200
        kept = series(running, run)
        told = running.http.get("/metrics").text
        assert running.stop() == 0
    assert words in (data.parent / "data.stderr").read_text()
    return kept, told


@pytest.mark.parametrize("pages", [(0,), (3, 5)])
def test_a_damaged_log_is_set_aside_and_what_is_readable_is_saved(lived, pages):
    hurt(lived / "frames.sqlite", pages)
    before = (lived / "frames.sqlite").read_bytes()
    kept, told = goes_on(lived, "was damaged")
    assert kept == list(range(STEPS + 30)), "the points were in the other store"
    (aside,) = lived.glob("frames.sqlite.damaged.*[0-9]")
    assert aside.read_bytes() == before
    assert "holter_damaged_files 1.0" in told


def test_a_log_that_is_gone_begins_behind_its_consumers(lived):
    """From offset 1 on its frames would lie before what the consumers have done, and never be read."""
    for path in lived.glob("frames.sqlite*"):
        path.unlink()
    goes_on(lived, "what lay between is lost")


def test_damaged_points_are_set_aside(lived):
    hurt(lived / "samples.duckdb", (0, 1, 2))
    _, told = goes_on(lived, "samples.duckdb.damaged.")
    assert "holter_damaged_files 1.0" in told


def salvage(data):
    answer = subprocess.run(
        [sys.executable, "-m", "holter.cli", "salvage", "--data", str(data), "--json"], capture_output=True, text=True, timeout=60
    )
    return answer.returncode, {each["file"]: each for each in json.loads(answer.stdout)}


def count(path):
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT count(*) FROM step_summaries").fetchone()[0]


def test_a_folder_that_is_not_there_is_not_made_and_not_sound(tmp_path, capsys):
    assert main(["salvage", "--data", str(tmp_path / "misspelt")]) == 2
    assert "no such folder" in capsys.readouterr().err and not (tmp_path / "misspelt").exists()


@pytest.mark.parametrize("header", [True, False])
def test_a_damaged_control_store_is_not_guessed_at(lived, header):
    """Tokens are in it: a start that went on without them would open the door. It refuses and names the command, which saves what can be read."""
    assert salvage(lived)[0] == 0, "nothing is wrong yet"
    control = lived / "control.sqlite"
    rows = count(control)
    with closing(sqlite3.connect(control)) as connection:
        query = "SELECT pageno FROM dbstat WHERE name = 'step_summaries' AND pagetype = 'leaf'"
        try:
            leaves = [page - 1 for (page,) in connection.execute(query)]
        except sqlite3.OperationalError:  # a SQLite without dbstat
            leaves = [connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'step_summaries'").fetchone()[0]]
    hurt(control, (0,) if header else (0, leaves[len(leaves) // 2]))
    refused = subprocess.run(
        [sys.executable, "-m", "holter.cli", "serve", "--port", "0", "--data", str(lived)], capture_output=True, text=True, timeout=60
    )
    assert refused.returncode == 2 and "holter salvage" in refused.stderr and "Traceback" not in refused.stderr
    status, found = salvage(lived)
    assert (status, found["frames.sqlite"]["state"]) == (3, "ok")
    saved = found["control.sqlite"]["rows"]["step_summaries"]
    assert saved == count(control) and (saved == rows if header else (rows - saved) * 40 < 4096), "more was lost than fits on the page"
    assert (lived / found["control.sqlite"]["aside"]).exists()
    with collector(lived) as running:
        run = running.new_run("old")
        assert running.get(f"runs/{run}")["last_step"] == STEPS - 1
        assert running.get("incidents", run=run)["items"]
