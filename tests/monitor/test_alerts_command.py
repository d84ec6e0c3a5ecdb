"""`holter alerts check` and `holter alerts test`, as a user types them."""

import json
import logging

import pytest
from holter.cli import main
from sink import Answer, Sink

POLICY = """
allow_private: true
receivers:
  mail: {{type: apprise, url: "json://127.0.0.1:{port}/box"}}
  pager: {{type: pagerduty, routing_key: k, url: "{url}/pager"}}
routes:
  - {{match: {{project: smol-*, severity: critical}}, receivers: [pager], escalate: [{{after: 10m, receivers: [mail]}}]}}
  - {{match: {{kind: data_stall}}, observe_only: true}}
"""


@pytest.fixture(autouse=True)
def _own_log(monkeypatch):
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # `alerts test` sets the log up for its own process


@pytest.fixture
def sink():
    with Sink(judge=lambda call: Answer(202 if call.path == "/pager" else 200)) as it:
        yield it


@pytest.fixture
def path(tmp_path, sink):
    found = tmp_path / "team.yml"
    found.write_text(POLICY.format(port=sink.port, url=sink.url))
    return str(found)


@pytest.mark.parametrize("receiver", ["mail", "pager"])
def test_a_test_message_is_marked_and_goes_where_the_policy_may_send(receiver, path, sink, capsys):
    """Apprise makes connections of its own: it must know that the policy allows private addresses."""
    assert main(["alerts", "test", receiver, "--policies", path]) == 0
    assert f"{receiver}: delivered" in capsys.readouterr().out
    (call,) = sink.calls
    assert b"test" in call.body.lower()


def test_a_private_address_is_refused_where_the_policy_does_not_allow_it(path, sink, capsys):
    with open(path) as file:
        strict = file.read().replace("allow_private: true", "")
    with open(path, "w") as file:
        file.write(strict)
    for receiver in ("mail", "pager"):
        assert main(["alerts", "test", receiver, "--policies", path]) == 3
        assert "private" in capsys.readouterr().out
    assert not sink.calls


def test_what_cannot_be_delivered_says_why(path, sink, capsys):
    sink.script.extend([Answer(400, b'{"message": "Invalid routing key"}')] * 2)
    assert main(["alerts", "test", "pager", "--policies", path, "--json"]) == 3
    said = json.loads(capsys.readouterr().out)
    assert said["delivered"] is False and "400" in said["problem"]


def test_where_an_incident_would_go(path, capsys):
    def routes(*words):
        assert main(["alerts", "check", "--policies", path, "--json", *words]) == 0
        return [(route["when"], route["receivers"]) for route in json.loads(capsys.readouterr().out)["routes"]]

    assert routes("--kind", "hang", "--severity", "critical", "--project", "smol-3b") == [
        ("after 0 s", ["pager"]),
        ("after 10 min, not acknowledged", ["mail"]),
    ]
    assert routes("--kind", "data_stall") == [("observed only:", [])]
    assert routes("--kind", "hang") == []


def test_a_wrong_name_or_policy_is_one_line_and_status_2(path, tmp_path, capsys):
    assert main(["alerts", "test", "nobody", "--policies", path]) == 2
    assert capsys.readouterr().err == "no receiver is called 'nobody'; there are log, mail, pager\n"
    assert main(["alerts", "check", "--policies", str(tmp_path / "nowhere")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
