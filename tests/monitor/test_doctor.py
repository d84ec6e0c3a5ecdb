"""`holter doctor` as it is typed, on a node and beside a real collector: what is well, what is not, and its exit status."""

import json
import os
import socket
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest
from collector import collector, make_token


def doctor(*words, status, **environment):
    """The checks by their name."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("HOLTER_")}
    command = [sys.executable, "-m", "holter.cli", "doctor", "--json", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, env=clean | environment)
    assert done.returncode == status, done.stdout + done.stderr
    return {check["what"]: check for check in json.loads(done.stdout)}


def failed(checks):
    return {what for what, check in checks.items() if check["mark"] == "fail"}


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    data = tmp_path_factory.mktemp("doctor") / "data"
    data.mkdir(mode=0o700)
    token = make_token(data, "node", "--scope", "write", "--scope", "read")["token"]
    with collector(data) as running:
        running.token = token
        yield running
        assert running.stop() == 0


def port_of(running):
    return running.url.rpartition(":")[2]


def test_a_node_whose_collector_answers_is_well(running, tmp_path):
    checks = doctor("--url", running.url, status=0, HOLTER_TOKEN=running.token, HOLTER_DIR=str(tmp_path))
    assert checks["collector"]["found"].endswith("the token is accepted") and checks["clock"]["mark"] == "ok"
    assert not [what for what in checks if what.startswith("collector's")]


def test_a_token_that_is_refused_is_said_with_what_to_do(running, tmp_path):
    checks = doctor("--url", running.url, status=1, HOLTER_TOKEN="hlt_nonsense", HOLTER_DIR=str(tmp_path))
    assert failed(checks) == {"token"} and "HOLTER_TOKEN_FILE" in checks["token"]["remedy"]


def test_a_running_collector_is_looked_at_from_beside_it(running):
    checks = doctor("--data", running.data, "--port", port_of(running), status=0)
    assert "a collector runs on it" in checks["data"]["found"] and "listened at" in checks["port"]["found"]
    assert checks["frame log"]["mark"] == checks["control store"]["mark"] == "ok"
    assert checks["alert policies"]["mark"] == "note"


def test_what_a_collector_could_not_work_with_is_found_before_it_starts(tmp_path):
    data = tmp_path / "data"
    data.mkdir(mode=0o755)
    with closing(sqlite3.connect(data / "control.sqlite")) as damaged:
        damaged.execute("CREATE TABLE t (x)")
        damaged.executemany("INSERT INTO t VALUES (?)", [("y" * 100,)] * 1000)
        damaged.commit()
    with (data / "control.sqlite").open("r+b") as file:
        file.seek(8192)
        file.write(b"\xff" * 8192)
    (tmp_path / "policies.yml").write_text("routes: 7\n")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        checks = doctor("--data", data, "--port", port, "--policies", tmp_path / "policies.yml", status=1)
    assert failed(checks) == {"port", "control store", "alert policies"}
    assert str(port + 1) in checks["port"]["remedy"]
    assert checks["data's rights"]["remedy"] == f"chmod 700 {data}"


def test_what_waits_for_a_receiver_and_what_was_given_up_is_counted(running):
    row = (
        "INSERT INTO outbox (incident, conversation, receiver, transition, urgency, idempotency_key, position, notice, status, attempts,"
        " next_at, last_error, created_at) VALUES ('i', 'i', 'oncall', 'test', 0, ?, ?, '{}', ?, 3, 9e9, 'status 404', 0)"
    )
    with closing(sqlite3.connect(running.data / "control.sqlite", timeout=30)) as control:
        control.executemany(row, [("a", 1, "dead"), ("b", 2, "ready"), ("c", 3, "ready")])
        control.commit()
    checks = doctor("--data", running.data, "--port", port_of(running), status=1)
    assert checks["receiver oncall"]["found"] == "2 notices wait, 1 were given up; status 404"


def test_a_control_store_that_does_not_answer_is_named_without_its_password(tmp_path):
    checks = doctor("--data", tmp_path / "data", "--db", "postgresql://u:secret@127.0.0.1:1/x", status=1)
    assert "control store" in failed(checks) and "secret" not in json.dumps(checks)
