"""Findings in, incidents and outbox rows out: identity, grouping, causes, silences, time. Real SQLite, times as arguments."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
from holter_monitor.alerting.alerting import Alerting, UnknownIncident
from holter_monitor.alerting.policies import Policy
from holter_monitor.findings import Finding, Severity
from holter_monitor.store.tables import incident_history, incidents, metadata, outbox, run_events, runs

RUN = SimpleNamespace(id="run1", project="smol", name="3b", world_size=8)
SPIKE = Finding(kind="loss_spike", severity=Severity.WARNING, onset_step=100, detected_step=101, summary="loss 7.1, 12 deviations up")


@pytest.fixture
def connection(tmp_path: Any) -> Iterator[sa.Connection]:
    engine = sa.create_engine(f"sqlite:///{tmp_path}/control.db")
    sa.event.listen(engine, "connect", lambda connection, _: connection.executescript("PRAGMA synchronous=OFF; PRAGMA foreign_keys=ON"))
    metadata.create_all(engine)
    with engine.begin() as connection:
        add_run(connection, "run1", "3b")
        yield connection
    engine.dispose()


def add_run(connection: sa.Connection, id: str, name: str) -> None:
    connection.execute(runs.insert().values(id=id, project="smol", name=name, world_size=8, created_at=0.0, updated_at=0.0))


def policy(**words: Any) -> Policy:
    return Policy.model_validate(words)


def waiting(connection: sa.Connection) -> list[str]:
    return [row.transition for row in connection.execute(sa.select(outbox).where(outbox.c.status != "superseded").order_by(outbox.c.id))]


def only(connection: sa.Connection) -> Any:
    return connection.execute(sa.select(incidents)).one()


def send_all(connection: sa.Connection) -> None:
    connection.execute(outbox.update().where(outbox.c.status == "ready").values(status="sent"))


def test_a_finding_opens_one_incident_and_queues_one_notice(connection: sa.Connection) -> None:
    Alerting(policy(), link="http://holter").apply(connection, RUN, [SPIKE], 1000.0)
    incident, notice = only(connection), connection.execute(sa.select(outbox)).one()
    assert (incident.state, incident.kind, incident.severity) == ("open", "loss_spike", "warning")
    assert (notice.transition, notice.receiver, notice.notice["link"]) == ("trigger", "log", f"http://holter/#/incidents/{incident.id}")


def test_the_same_findings_again_change_nothing(connection: sa.Connection) -> None:
    """What a replay of the frame log does after a crash."""
    alerting = Alerting(policy())
    words = [SPIKE, replace(SPIKE, severity=Severity.CRITICAL, detected_step=110), replace(SPIKE, detected_step=120, end_step=120)]
    for word in words:
        alerting.apply(connection, RUN, [word], 1000.0)
    before = [connection.execute(sa.select(table)).all() for table in (incidents, incident_history, outbox)]
    for word in words:
        alerting.apply(connection, RUN, [word], 2000.0)
    assert [connection.execute(sa.select(table)).all() for table in (incidents, incident_history, outbox)] == before


def test_a_worse_word_of_the_same_finding_is_one_update(connection: sa.Connection) -> None:
    alerting = Alerting(policy())
    alerting.apply(connection, RUN, [SPIKE], 1000.0)
    send_all(connection)
    alerting.apply(connection, RUN, [replace(SPIKE, severity=Severity.CRITICAL, detected_step=130)], 1010.0)
    assert waiting(connection) == ["trigger", "update"] and only(connection).severity == "critical"


def test_what_waits_untried_is_replaced_not_repeated(connection: sa.Connection) -> None:
    alerting = Alerting(policy())
    alerting.apply(connection, RUN, [SPIKE], 1000.0)
    alerting.apply(connection, RUN, [replace(SPIKE, severity=Severity.CRITICAL, detected_step=130)], 1000.1)
    assert waiting(connection) == ["trigger"]


def test_384_ranks_are_one_incident_and_one_line(connection: sa.Connection) -> None:
    findings = [
        Finding(
            kind="gpu_throttle",
            severity=Severity.WARNING,
            onset_step=100 + rank % 3,
            detected_step=104,
            scope=f"rank {rank}",
            ranks=(rank,),
            nodes=(f"gpu-{rank // 8:02d}",),
            summary="SM clock -22 % against the fleet",
        )
        for rank in range(384)
    ]
    Alerting(policy()).apply(connection, RUN, findings, 1000.0)
    assert only(connection).summary == "384 ranks 0-383, 48 nodes gpu-[00-47]: SM clock -22 % against the fleet"
    assert waiting(connection) == ["trigger"]


def test_it_resolves_a_minute_after_the_last_finding_has_passed(connection: sa.Connection) -> None:
    alerting = Alerting(policy())
    alerting.apply(connection, RUN, [SPIKE], 1000.0)
    send_all(connection)
    alerting.apply(connection, RUN, [replace(SPIKE, end_step=140, detected_step=140)], 1010.0)
    alerting.tick(connection, 1069.0)
    assert only(connection).state == "open"
    alerting.tick(connection, 1070.5)
    assert only(connection).state == "resolved" and waiting(connection) == ["trigger", "resolve"]


@pytest.mark.parametrize("num_crossings", [150, pytest.param(1000, marks=pytest.mark.soak)])
def test_a_thousand_crossings_are_three_messages(connection: sa.Connection, num_crossings: int) -> None:
    """Opened, flapping, resolved: whatever the signal does in between."""
    alerting, now = Alerting(policy()), 1000.0
    for crossing in range(num_crossings):
        onset = 100 + 10 * crossing
        came = replace(SPIKE, onset_step=onset, detected_step=onset)
        alerting.apply(connection, RUN, [came], now)
        alerting.apply(connection, RUN, [replace(came, end_step=onset + 5, detected_step=onset + 5)], now + 2.0)
        send_all(connection)
        now += 5.0
        alerting.tick(connection, now)
    alerting.tick(connection, now + 2000.0)
    assert waiting(connection) == ["trigger", "update", "resolve"] and only(connection).episode == num_crossings


def test_a_new_onset_soon_after_the_resolution_is_an_episode_of_the_same_incident(connection: sa.Connection) -> None:
    alerting = Alerting(policy())
    alerting.apply(connection, RUN, [replace(SPIKE, end_step=105)], 1000.0)
    alerting.tick(connection, 1100.0)
    alerting.apply(connection, RUN, [replace(SPIKE, onset_step=300, detected_step=301)], 1200.0)
    assert (only(connection).state, only(connection).episode) == ("open", 2)


def test_a_symptom_keeps_quiet_under_its_cause(connection: sa.Connection) -> None:
    """A lost node makes the others hang: one message."""
    lost = Finding(
        kind="rank_lost", severity=Severity.CRITICAL, onset_step=500, detected_step=500, ranks=(3,), nodes=("b",), summary="lost"
    )
    hang = Finding(kind="hang", severity=Severity.CRITICAL, onset_step=501, detected_step=501, summary="no step for 60 s")
    Alerting(policy()).apply(connection, RUN, [lost, hang], 1000.0)
    assert waiting(connection) == ["trigger"]
    assert connection.scalar(sa.select(incidents.c.parent).where(incidents.c.kind == "hang")) == connection.scalar(
        sa.select(incidents.c.id).where(incidents.c.kind == "rank_lost")
    )


def test_a_cause_that_is_said_after_its_symptom_in_one_batch_takes_it_over(connection: sa.Connection) -> None:
    stalls = Finding(kind="throughput_stalls", severity=Severity.WARNING, onset_step=500, detected_step=520, summary="3 stalls")
    waits = Finding(kind="data_stall", severity=Severity.WARNING, onset_step=500, detected_step=530, summary="60 % data wait")
    Alerting(policy()).apply(connection, RUN, [stalls, waits], 1000.0)
    queued = connection.execute(sa.select(outbox.c.notice).where(outbox.c.status == "ready")).scalars().all()
    assert [notice["kind"] for notice in queued] == ["data_stall"]


def test_a_cause_pages_when_what_it_explains_would_have_paged(connection: sa.Connection) -> None:
    """A critical symptom that keeps quiet under a mere warning would be a page that never came."""
    divergence = Finding(kind="loss_divergence", severity=Severity.WARNING, onset_step=90, detected_step=200, summary="loss rises")
    alerting = Alerting(policy())
    alerting.apply(connection, RUN, [replace(SPIKE, severity=Severity.CRITICAL)], 1000.0)
    alerting.apply(connection, RUN, [divergence], 1010.0)
    assert connection.scalar(sa.select(incidents.c.severity).where(incidents.c.kind == "loss_divergence")) == "critical"


def test_a_symptom_that_worsens_worsens_its_cause(connection: sa.Connection) -> None:
    divergence = Finding(kind="loss_divergence", severity=Severity.WARNING, onset_step=90, detected_step=95, summary="loss rises")
    alerting = Alerting(policy())
    alerting.apply(connection, RUN, [divergence, SPIKE], 1000.0)
    send_all(connection)
    alerting.apply(connection, RUN, [replace(SPIKE, severity=Severity.CRITICAL, detected_step=140)], 1010.0)
    last = connection.execute(sa.select(outbox.c.notice).order_by(outbox.c.id.desc())).scalars().first()
    assert (last["kind"], last["severity"], last["transition"]) == ("loss_divergence", "critical", "update")
    assert last["note"] == "its symptom loss spike is critical"


def test_a_cause_that_shows_later_takes_its_symptom_over(connection: sa.Connection) -> None:
    slow = Finding(kind="throughput_drop", severity=Severity.WARNING, onset_step=500, detected_step=520, summary="-30 %")
    straggler = Finding(kind="straggler", severity=Severity.WARNING, onset_step=500, detected_step=530, ranks=(3,), summary="rank 3 slow")
    alerting = Alerting(policy())
    alerting.apply(connection, RUN, [slow], 1000.0)
    send_all(connection)
    alerting.apply(connection, RUN, [straggler], 1010.0)
    rows = connection.execute(sa.select(outbox).order_by(outbox.c.id)).all()
    assert [(row.notice["kind"], row.transition) for row in rows] == [("throughput_drop", "trigger"), ("straggler", "update")]
    assert rows[0].conversation == rows[1].conversation == rows[0].incident and "told as throughput drop" in rows[1].notice["note"]
    symptom = connection.execute(sa.select(incidents).where(incidents.c.kind == "throughput_drop")).one()
    assert symptom.parent == rows[1].incident


def test_a_cause_and_a_symptom_of_one_diagnosed_cause_are_one_wherever_their_onsets_lie(connection: sa.Connection) -> None:
    """A drop since step 1101; the straggler behind it is known from step 1317 on. Both are diagnosed alike; another straggler is another trouble."""
    alerting = Alerting(policy())
    work, clocks = {"cause": "own work"}, {"clock_ratio": 0.6}
    drop = Finding(kind="throughput_drop", severity=Severity.WARNING, onset_step=1101, detected_step=1140, summary="-30 %", evidence=clocks)
    slow = Finding(kind="straggler", severity=Severity.WARNING, onset_step=1317, detected_step=1330, ranks=(1,), summary="rank 1 is slow")
    alerting.apply(connection, RUN, [drop], 1000.0)
    send_all(connection)
    alerting.apply(connection, RUN, [replace(slow, evidence=work)], 1200.0)
    alone = {row.kind: row for row in connection.execute(sa.select(incidents))}
    assert alone["throughput_drop"].causes[0]["cause"] == "throttled_gpu" and alone["straggler"].causes == []
    assert alone["throughput_drop"].parent is None
    alerting.apply(connection, RUN, [replace(slow, detected_step=1400, cost_seconds=9.0, evidence=work | clocks)], 1201.0)
    after = {row.kind: row for row in connection.execute(sa.select(incidents))}
    assert after["straggler"].causes[0]["cause"] == "throttled_gpu" and after["throughput_drop"].parent == after["straggler"].id


def test_a_symptom_s_onset_is_that_of_what_lasts_not_of_an_earlier_hint(connection: sa.Connection) -> None:
    """A drop of step 49 that was over joins the incident of step 1021: the stall of step 1015 explains what lasts now."""
    alerting = Alerting(policy())
    hint = Finding(kind="throughput_drop", severity=Severity.WARNING, onset_step=49, detected_step=60, end_step=90, summary="-5 %")
    drop = replace(hint, severity=Severity.CRITICAL, onset_step=1021, detected_step=1060, end_step=None)
    stall = Finding(kind="data_stall", severity=Severity.CRITICAL, onset_step=1015, detected_step=1064, summary="data wait 70 %")
    alerting.apply(connection, RUN, [hint], 1000.0)
    alerting.apply(connection, RUN, [drop], 1020.0)
    alerting.apply(connection, RUN, [stall], 1021.0)
    found = {row.kind: row for row in connection.execute(sa.select(incidents))}
    assert found["throughput_drop"].onset_step == 49 and found["throughput_drop"].parent == found["data_stall"].id


@pytest.mark.parametrize(("noticed", "is_part"), [(1300, True), (900, False)])
def test_a_trend_that_is_noticed_while_a_drop_lasts_is_part_of_it(connection: sa.Connection, noticed: int, is_part: bool) -> None:
    """Its line of best fit begins long before the drop; one that was noticed before there was a drop is a trouble of its own."""
    drop = Finding(kind="throughput_drop", severity=Severity.CRITICAL, onset_step=1041, detected_step=1060, summary="-80 %")
    trend = Finding(
        kind="throughput_decline", severity=Severity.WARNING, onset_step=481, detected_step=noticed, summary="slower, gradually"
    )
    alerting = Alerting(policy())
    for now, finding in enumerate((drop, trend) if is_part else (trend, drop)):
        alerting.apply(connection, RUN, [finding], 1000.0 + 60 * now)
    parent = connection.scalar(sa.select(incidents.c.parent).where(incidents.c.kind == "throughput_decline"))
    assert (parent is not None) == is_part


def test_a_silenced_incident_is_visible_but_nobody_is_told_until_the_silence_ends(connection: sa.Connection) -> None:
    alerting = Alerting(policy())
    alerting.add_silence(connection, matchers={"kind": "loss_*"}, author="ada", reason="new data mix", starts=900.0, ends=2000.0, now=900.0)
    alerting.apply(connection, RUN, [SPIKE], 1000.0)
    assert waiting(connection) == [] and only(connection).state == "open"
    alerting.tick(connection, 2000.5)
    assert waiting(connection) == ["trigger"]


def test_ending_a_silence_early_tells_at_the_next_tick(connection: sa.Connection) -> None:
    alerting = Alerting(policy())
    silence = alerting.add_silence(connection, matchers={"project": "smol"}, author="ada", reason="x", starts=900.0, ends=9000.0, now=900.0)
    alerting.apply(connection, RUN, [SPIKE], 1000.0)
    alerting.end_silence(connection, silence.id, "bob", 1100.0)
    alerting.tick(connection, 1100.5)
    assert waiting(connection) == ["trigger"]


def test_a_maintenance_window_called_off_before_it_began_hides_nothing_and_stops_nothing(connection: sa.Connection) -> None:
    """It was kept with its end at its start, which no silence may have: every later look at the silences failed on it."""
    alerting = Alerting(policy())
    window = alerting.add_silence(connection, matchers={"project": "smol"}, author="ada", reason="x", starts=5000.0, ends=9000.0, now=900.0)
    alerting.end_silence(connection, window.id, "bob", 950.0)
    alerting.apply(connection, RUN, [SPIKE], 1000.0)
    alerting.tick(connection, 6000.0)
    assert "trigger" in waiting(connection)


def test_acknowledging_is_written_down_told_and_ends_the_reminders(connection: sa.Connection) -> None:
    alerting = Alerting(policy(routes=[{"receivers": ["log"], "repeat": "1h", "escalate": [{"after": "15m", "receivers": ["log"]}]}]))
    alerting.apply(connection, RUN, [SPIKE], 1000.0)
    send_all(connection)
    assert alerting.acknowledge(connection, only(connection).id, "ada", 1100.0).acknowledged_by == "ada"
    alerting.acknowledge(connection, only(connection).id, "ada", 1101.0)
    alerting.tick(connection, 1000.0 + 5 * 3600)
    assert waiting(connection) == ["trigger", "acknowledge"]
    assert connection.execute(sa.select(incident_history.c.change, incident_history.c.actor)).all()[-1] == ("acknowledged", "ada")


def test_nobody_acknowledges_so_it_escalates_once_and_reminds(connection: sa.Connection) -> None:
    alerting = Alerting(
        policy(
            receivers={"chat": {"type": "log"}, "boss": {"type": "log"}},
            routes=[{"receivers": ["chat"], "repeat": "1h", "escalate": [{"after": "15m", "receivers": ["boss"]}]}],
        )
    )
    alerting.apply(connection, RUN, [SPIKE], 1000.0)
    for minute in range(125):
        send_all(connection)
        alerting.tick(connection, 1000.0 + 60 * minute)
    told = [(row.receiver, row.transition) for row in connection.execute(sa.select(outbox).order_by(outbox.c.id))]
    assert told == [("chat", "trigger"), ("boss", "trigger"), ("chat", "remind"), ("chat", "remind")]


def test_quiet_hours_hold_a_warning_and_let_a_page_through(connection: sa.Connection) -> None:
    night = {"from": "22:00", "to": "07:00", "zone": "UTC"}
    alerting = Alerting(policy(routes=[{"receivers": ["log"], "quiet_hours": night, "group_wait": 0}]))
    at = 1_800_000_000.0 - 1_800_000_000 % 86400 + 23 * 3600
    page = Finding(kind="hang", severity=Severity.CRITICAL, onset_step=10, detected_step=10, summary="hangs")
    alerting.apply(connection, RUN, [SPIKE, page], at)
    due = {row.notice["kind"]: row.next_at - at for row in connection.execute(sa.select(outbox))}
    assert due == {"loss_spike": 8 * 3600.0, "hang": 0.0}


def test_observe_only_records_and_tells_nobody(connection: sa.Connection) -> None:
    Alerting(policy(routes=[{"receivers": ["log"], "observe_only": True}])).apply(connection, RUN, [SPIKE], 1000.0)
    assert only(connection).state == "open" and waiting(connection) == []


def test_info_is_recorded_only(connection: sa.Connection) -> None:
    Alerting(policy()).apply(connection, RUN, [replace(SPIKE, severity=Severity.INFO)], 1000.0)
    assert only(connection).severity == "info" and waiting(connection) == []


def test_hold_waits_before_anybody_is_told_and_forgets_what_passes(connection: sa.Connection) -> None:
    alerting = Alerting(policy(hold="30s"))
    alerting.apply(connection, RUN, [SPIKE], 1000.0)
    assert only(connection).state == "pending" and waiting(connection) == []
    alerting.tick(connection, 1030.5)
    assert only(connection).state == "open" and waiting(connection) == ["trigger"]


def test_a_manual_resolution_holds_although_the_finding_goes_on(connection: sa.Connection) -> None:
    alerting = Alerting(policy())
    alerting.apply(connection, RUN, [SPIKE], 1000.0)
    alerting.resolve(connection, only(connection).id, "ada", 1001.0)
    alerting.apply(connection, RUN, [replace(SPIKE, detected_step=200)], 1100.0)
    assert only(connection).state == "resolved" and only(connection).resolved_by == "ada"


def test_an_unknown_incident_is_an_error(connection: sa.Connection) -> None:
    with pytest.raises(UnknownIncident):
        Alerting(policy()).note(connection, "nope", "ada", "hm", 1.0)


def straggler(rank: int, onset: int) -> Finding:
    words = f"rank {rank} takes 1.4 times as long as the others"
    return replace(SPIKE, kind="straggler", scope=f"rank {rank}", ranks=(rank,), onset_step=onset, detected_step=onset + 20, summary=words)


def test_stragglers_of_different_ranks_keep_the_first_onset_and_each_its_own(connection: sa.Connection) -> None:
    Alerting(policy()).apply(connection, RUN, [straggler(5, 310), straggler(2, 302)], 1000.0)
    incident = only(connection)
    assert (incident.onset_step, incident.ranks, incident.evidence["onsets"]) == (302, [2, 5], {"rank 2": 302, "rank 5": 310})
    assert incident.summary == "2 ranks 2, 5 (rank 2 since step 302, rank 5 since step 310): rank 5 takes 1.4 times as long as the others"


def test_evidence_that_comes_after_the_opening_names_the_cause_in_place(connection: sa.Connection) -> None:
    """One update with the same identity and no second trigger; looking again without news says nothing."""
    alerting = Alerting(policy())
    alerting.apply(connection, RUN, [SPIKE], 1000.0)
    send_all(connection)
    assert only(connection).causes == [] and only(connection).due_at == 1010.0
    place = {"run": "run1", "attempt": "", "node": "a", "rank": 0, "offset": 1, "number": 0}
    connection.execute(run_events.insert().values(**place, event="lr_change", step=98, at=1005.0, attrs={"lr": 3.0}))
    alerting.tick(connection, 1011.0)
    assert only(connection).causes[0]["cause"] == "changed_schedule" and waiting(connection) == ["trigger", "update"]
    for now in (1031.0, 1091.0, 1241.0, 1500.0):
        alerting.tick(connection, now)
    assert waiting(connection) == ["trigger", "update"]


def test_a_checkpoint_that_is_declared_after_the_page_is_told_once(connection: sa.Connection) -> None:
    """Its event came behind the rows: whoever was paged without a place to go back to hears of it; words of the same findings do not repeat it."""
    alerting, page = Alerting(policy()), replace(SPIKE, severity=Severity.CRITICAL)
    alerting.apply(connection, RUN, [page], 1000.0)
    send_all(connection)
    place = {"run": "run1", "attempt": "", "node": "a", "rank": 0, "offset": 1, "number": 0}
    connection.execute(run_events.insert().values(**place, event="checkpoint", step=90, at=999.0, attrs={"path": "/ckpt/90"}))
    for detected in range(110, 150, 10):
        alerting.apply(connection, RUN, [replace(page, detected_step=detected, cost_seconds=float(detected))], 900.0 + detected)
    for now in (1062.0, 1100.0, 1250.0):
        alerting.tick(connection, now)
    told = [row.notice for row in connection.execute(sa.select(outbox).order_by(outbox.c.id))]
    assert [notice["transition"] for notice in told] == ["trigger", "update"]
    assert told[1]["evidence"]["rewind"]["path"] == "/ckpt/90" and told[1]["note"] == "the checkpoint to go back to is now known"
