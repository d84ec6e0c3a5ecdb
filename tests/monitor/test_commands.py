"""`holter runs` and `holter incidents`, as a user types them, against a real collector."""

import json

import pytest
from collector import frame
from holter.cli import main


@pytest.fixture(scope="module")
def spiked(served):
    """A run with a NaN on one rank: an incident that is certain."""
    run = served.new_run("spiked", project="shop")
    for seq in range(30):
        served.send(frame(run, seq, boot="spiked", ranks=(0, 1), metrics={"loss": [2.0, float("nan") if seq == 25 else 2.0]}))
    served.until(lambda: served.get("incidents", run=run)["items"])
    return run


def test_runs_lists_what_there_is(served, spiked, capsys):
    assert main(["runs", "--url", served.url]) == 0
    assert "shop/spiked" in capsys.readouterr().out
    assert main(["runs", "--url", served.url, "--json", "--project", "shop"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["id"], found["last_step"], found["state"]) == (spiked, 29, "running")


def test_a_run_is_found_by_its_name(served, spiked, capsys):
    assert main(["runs", "shop/spiked", "--url", served.url]) == 0
    assert "non_finite" in capsys.readouterr().out
    assert main(["runs", "nobody", "--url", served.url]) == 2
    assert "No such run" in capsys.readouterr().err


def test_an_incident_is_acknowledged_with_a_note(served, spiked, capsys):
    incident = served.get("incidents", run=spiked, kind="non_finite")["items"][0]["id"]
    assert main(["incidents", incident, "--url", served.url, "--acknowledge", "--note", "it is [b]mine[/b]"]) == 0
    shown = capsys.readouterr().out
    assert "acknowledged" in shown and "it is [b]mine[/b]" in shown
    detail = served.get(f"incidents/{incident}")
    assert detail["state"] == "acknowledged"
    assert {"acknowledged", "noted"} <= {change["change"] for change in detail["history"]}
    assert main(["incidents", "--run", "shop/spiked", "--url", served.url, "--json"]) == 0
    assert incident in {each["id"] for each in json.loads(capsys.readouterr().out)}
    assert main(["incidents", incident, "--url", served.url, "--resolve"]) == 0
    assert served.get(f"incidents/{incident}")["state"] == "resolved"


def test_no_collector_is_one_line_and_status_2(capsys):
    assert main(["runs", "--url", "http://127.0.0.1:9"]) == 2
    assert "holter serve" in capsys.readouterr().err
