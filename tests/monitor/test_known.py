"""What ingest knows of runs: still known while the control store is away, fresh again soon after."""

import time

import pytest
from holter_monitor import tokens
from holter_monitor.api.access import STALE_SECONDS, Access
from holter_monitor.api.known import FRESH_SECONDS, KnownRuns
from holter_monitor.errors import Problem, Unavailable
from holter_monitor.store import runs
from holter_monitor.store import tokens as rows
from holter_monitor.store.control import open_control


class Away:
    def read(self):
        raise Unavailable("away")


def until(question):
    deadline = time.monotonic() + 10
    while not question():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_known_run_stays_known_while_the_store_is_away(tmp_path):
    now = [0.0]
    control = open_control(f"sqlite:///{tmp_path}/control.sqlite")
    with control.write() as connection:
        run = runs.find_or_create(connection, {"project": "p", "name": "n"}, 1.0)[0]["id"]
    known = KnownRuns(control, clock=lambda: now[0])
    assert known.find(run).project == "p"
    assert known.find("nobody") is None
    known._control = Away()
    now[0] += FRESH_SECONDS * 2
    assert known.find(run).project == "p"
    with pytest.raises(Unavailable):
        known.find("another")
    known._control = control
    with control.write() as connection:
        runs.advise(connection, run, {"stop": True})
    now[0] += FRESH_SECONDS * 2
    known.find(run)
    until(lambda: known.find(run).advice == {"stop": True})
    known.close()
    control.close()


def test_tokens_are_believed_for_a_while_while_the_store_is_away(tmp_path):
    now = [0.0]
    control = open_control(f"sqlite:///{tmp_path}/control.sqlite")
    token = tokens.make()
    with control.write() as connection:
        rows.add(connection, name="t", digest=tokens.digest(token), scopes=["read"], project="*", expires=None, now=1.0)
    access = Access(control, is_open=True, clock=lambda: now[0])
    assert access.caller(token, "a").name == "t"
    assert access.needs_token()
    access._control = Away()
    now[0] += STALE_SECONDS / 2
    assert access.caller(token, "a").name == "t"
    assert access.needs_token()
    now[0] += STALE_SECONDS
    with pytest.raises(Unavailable):
        access.caller(token, "a")
    with pytest.raises(Unavailable):
        access.needs_token()
    access._control = control
    now[0] += STALE_SECONDS
    with control.write() as connection:
        rows.revoke(connection, "t", 2.0)
    with pytest.raises(Problem):
        access.caller(token, "a")
    control.close()
