"""Policy files: what they may say, and that every mistake is named by file, line and remedy."""

from __future__ import annotations

from pathlib import Path

import pytest
from holter_monitor.alerting.policies import Hours, Policy, seconds
from holter_monitor.alerting.policy_files import PolicyError, load
from holter_monitor.findings import Severity
from holter_monitor.incidents import Incident
from holter_monitor.notify.receivers import notifier
from holter_monitor.shipped import shipped

ENVIRON = {"URL": "https://hooks.slack.example/services/T/B/x"}
GOOD = """
receivers:
  chat: {type: slack, webhook_url: "${URL}"}
routes:
  - match: {kind: "loss_*", severity: [warning, critical]}
    receivers: [chat]
    repeat: 1h30m
"""


def policy(tmp_path: Path, **files: str) -> Policy:
    for name, text in files.items():
        (tmp_path / f"{name}.yml").write_text(text)
    return load(tmp_path, ENVIRON, notifier)


def incident(**words: object) -> Incident:
    facts = {"kind": "loss_spike", "severity": Severity.WARNING, "project": "smol", "nodes": []} | words
    more = {"id": "i", "run": "r", "scope": "run", "state": "open", "onset_step": 1, "detected_step": 1, "summary": ""}
    return Incident(**facts, **more, created=0.0, updated=0.0)  # type: ignore[arg-type]


def test_a_good_file(tmp_path: Path) -> None:
    found = policy(tmp_path, team=GOOD)
    assert found.receivers["chat"]["webhook_url"] == ENVIRON["URL"] and found.routes[0].repeat == 5400


def test_files_add_up(tmp_path: Path) -> None:
    found = policy(tmp_path, a=GOOD, b="routes:\n  - receivers: [chat, log]\n")
    assert [route.receivers for route in found.routes] == [["chat"], ["chat", "log"]]


def test_a_folder_without_policies_is_the_default(tmp_path: Path) -> None:
    assert policy(tmp_path) == Policy()


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("routes: [", 1, "not YAML"),
        ("- a\n- b\n", 1, "a policy is a mapping"),
        (GOOD.replace("1h30m", "soon"), 7, "write it like 30s"),
        (GOOD.replace("loss_*", "losss_*"), 5, "no finding is called 'losss_*'"),
        (GOOD.replace("warning,", "loud,"), 5, "one of info, warning, critical"),
        (GOOD.replace("[chat]", "[chta]"), 4, "no receiver is called 'chta'; defined are chat, log"),
        (GOOD.replace("repeat", "repaet"), 7, "is not a word that a policy knows here"),
        (GOOD.replace("type: slack", "type: slakc"), 3, "'slakc' is not a type of receiver; it is one of log, slack"),
        (GOOD.replace("webhook_url", "url"), 3, "a slack receiver has no such word; it has webhook_url"),
        (GOOD.replace("${URL}", "${NO_SUCH}"), 3, "the environment has no NO_SUCH"),
        (GOOD + "    repeat: 2h\n", 8, "written twice"),
        (GOOD + "    quiet_hours: {from: '22:00', to: '07:00', zone: Europe/Pariss}\n", 8, "is not a time zone"),
        (GOOD + "heartbeat: {url: [1]}\n", 8, "valid string"),
        ("receivers: {chat: 5}", 1, "a receiver is a mapping"),
        ("\x00", 1, "not YAML"),
    ],
)
def test_a_mistake_is_named_by_file_line_and_remedy(tmp_path: Path, text: str, line: int, says: str) -> None:
    with pytest.raises(PolicyError) as caught:
        policy(tmp_path, team=text)
    assert (caught.value.path.name, caught.value.line) == ("team.yml", line), str(caught.value)
    assert says in str(caught.value) and ENVIRON["URL"] not in str(caught.value)


def test_a_receiver_defined_twice_names_the_other_file(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"b.yml:3: .*also defined in a.yml"):
        policy(tmp_path, a=GOOD, b=GOOD)


def test_the_shipped_example_is_valid(tmp_path: Path) -> None:
    text = (shipped("alerts") / "policies" / "example.yml.sample").read_text()
    (tmp_path / "team.yml").write_text(
        "\n".join(line.removeprefix("# ") if line.startswith(("# reac", "#   - m", "#     a")) else line for line in text.split("\n"))
    )
    names = ("HOLTER_SLACK_WEBHOOK", "HOLTER_SLACK_TOKEN", "HOLTER_PAGERDUTY_KEY", "SMTP_USER", "SMTP_PASSWORD")
    found = load(tmp_path, dict.fromkeys(names, "https://x.example/y"), notifier)
    assert found.reactions[0].advise == "checkpoint_now" and found.fallback == "mail"


def test_the_first_route_that_matches_wins_unless_it_continues() -> None:
    routes = [{"match": {"project": "smol"}, "receivers": ["log"], "continue": True}, {"match": {"kind": "hang"}}, {"match": {}}, {}]
    taken = Policy.model_validate({"routes": routes}).routes_of(incident(), "3b")
    assert len(taken) == 2 and taken[0].proceed


@pytest.mark.parametrize(("text", "value"), [("10s", 10), ("1h30m", 5400), ("250ms", 0.25), (5, 5), ("2 d", 172800)])
def test_durations(text: object, value: float) -> None:
    assert seconds(text) == value


@pytest.mark.parametrize(
    ("clock", "left"),
    [("2026-11-24T21:30", 0), ("2026-11-24T22:00", 9 * 3600), ("2026-11-25T06:00", 3600), ("2026-11-25T07:00", 0)],
)
def test_hours_over_midnight_end_in_the_morning(clock: str, left: float) -> None:
    from datetime import datetime
    from zoneinfo import ZoneInfo

    hours = Hours.model_validate({"from": "22:00", "to": "07:00", "zone": "Europe/Paris"})
    assert hours.left(datetime.fromisoformat(clock).replace(tzinfo=ZoneInfo("Europe/Paris")).timestamp()) == left
