"""One cause, one conversation: whatever comes to light in whatever order, a receiver has one thread and one page of one trouble."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
from holter_monitor.alerting.alerting import Alerting
from holter_monitor.alerting.policies import Policy
from holter_monitor.diagnosis.symptoms import BRINGS_ABOUT
from holter_monitor.findings import Finding, Severity
from holter_monitor.notify import alertmanager, pagerduty
from holter_monitor.notify.notice import Notice
from holter_monitor.store.tables import incidents, metadata, outbox, runs
from hypothesis import given, settings
from hypothesis import strategies as st

RUN = SimpleNamespace(id="run1", project="smol", name="3b", world_size=8)
POLICY = {
    "receivers": {"chat": {"type": "log"}, "pager": {"type": "log"}},
    "routes": [{"match": {"severity": "critical"}, "receivers": ["pager"]}, {"match": {"severity": "warning"}, "receivers": ["chat"]}],
}
SPIKE = Finding(kind="loss_spike", severity=Severity.WARNING, onset_step=100, detected_step=101, summary="loss 3.3, was 2.4")
SHIFT = Finding(kind="loss_shift", severity=Severity.WARNING, onset_step=110, detected_step=130, summary="loss 2.7 since step 110")
DIVERGENCE = Finding(kind="loss_divergence", severity=Severity.CRITICAL, onset_step=112, detected_step=140, summary="loss 6.4")
DROP = Finding(kind="throughput_drop", severity=Severity.WARNING, onset_step=500, detected_step=520, summary="-30 %")
STALL = Finding(kind="data_stall", severity=Severity.WARNING, onset_step=560, detected_step=580, summary="data wait 60 %")


class Story:
    """A run whose notices are sent as soon as they are due."""

    def __init__(self, connection: sa.Connection, policy: dict[str, Any]) -> None:
        self.connection, self.now = connection, 1000.0
        self.alerting = Alerting(Policy.model_validate(policy))

    def hear(self, *findings: Finding, after: float = 5.0) -> None:
        self.now += after
        self.alerting.apply(self.connection, RUN, findings, self.now)
        self.send()

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.alerting.tick(self.connection, self.now)
        self.send()

    def send(self) -> None:
        due = (outbox.c.status == "ready") & (outbox.c.next_at <= self.now)
        self.connection.execute(outbox.update().where(due).values(status="sent"))

    def sent(self, receiver: str) -> list[Notice]:
        query = sa.select(outbox.c.notice).where(outbox.c.receiver == receiver, outbox.c.status == "sent").order_by(outbox.c.id)
        return [Notice.from_json(notice) for notice in self.connection.scalars(query)]

    def told(self, receiver: str) -> list[tuple[str, str]]:
        return [(notice.kind, notice.transition) for notice in self.sent(receiver)]

    def incident(self, kind: str) -> Any:
        return self.connection.execute(sa.select(incidents).where(incidents.c.kind == kind)).one()


@contextmanager
def begin(policy: dict[str, Any]) -> Iterator[Story]:
    engine = sa.create_engine("sqlite://")
    metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(runs.insert().values(id="run1", project="smol", name="3b", world_size=8, created_at=0.0, updated_at=0.0))
        yield Story(connection, policy)
    engine.dispose()


@pytest.fixture
def story() -> Iterator[Story]:
    with begin(POLICY) as story:
        yield story


def test_a_cause_found_after_its_symptom_was_told_goes_on_in_the_same_thread(story: Story) -> None:
    """Quick steps: the stall's onset lies 60 steps, but half a second, behind the drop's."""
    story.hear(DROP)
    story.wait(0.55)
    story.hear(STALL, after=0.05)
    story.wait(5)
    assert story.told("chat") == [("throughput_drop", "trigger"), ("data_stall", "update")]
    drop, stall = story.sent("chat")
    assert drop.subject == stall.subject and stall.note == "this was told as throughput drop; it is the same trouble, better understood"
    assert stall.symptoms == ("-30 %",)
    story.hear(replace(DROP, end_step=700, detected_step=700), replace(STALL, end_step=700, detected_step=700))
    story.wait(61)
    assert story.told("chat")[2:] == [("data_stall", "resolve")]


def test_a_symptom_that_nobody_has_heard_of_yet_is_never_told(story: Story) -> None:
    story.hear(DROP, STALL)
    story.wait(5)
    assert story.told("chat") == [("data_stall", "trigger")]


def test_a_loss_that_gets_worse_is_one_thread_and_one_page(story: Story) -> None:
    """The playbook's spike that did not recover: warned at the precursor, paged once, all under one name."""
    for finding in (SPIKE, SHIFT, DIVERGENCE, replace(DIVERGENCE, detected_step=180, cost_seconds=5.0)):
        story.hear(finding)
        story.wait(5)
    assert story.told("pager") == [("loss_divergence", "trigger")]
    assert story.told("chat") == [("loss_spike", "trigger"), ("loss_shift", "update"), ("loss_divergence", "update")]
    assert len({notice.subject for notice in story.sent("chat") + story.sent("pager")}) == 1


def test_a_person_who_has_seen_the_symptom_has_seen_its_cause(story: Story) -> None:
    story.hear(DROP)
    story.alerting.acknowledge(story.connection, story.incident("throughput_drop").id, "ada", story.now)
    story.hear(STALL, after=0.6)
    assert (story.incident("data_stall").state, story.incident("data_stall").acknowledged_by) == ("acknowledged", "ada")
    story.hear(replace(STALL, severity=Severity.CRITICAL, detected_step=900))
    assert ("data_stall", "trigger") in story.told("pager")


def test_a_symptom_that_outlives_its_cause_speaks_again_in_the_same_thread(story: Story) -> None:
    story.hear(DROP)
    story.wait(0.55)
    story.hear(STALL, after=0.05)
    story.wait(5)
    story.hear(replace(STALL, end_step=700, detected_step=700))
    story.wait(61)
    story.wait(1)
    story.wait(5)
    assert story.told("chat")[2:] == [("data_stall", "resolve"), ("throughput_drop", "trigger")]
    assert len({notice.subject for notice in story.sent("chat")}) == 1


def test_pagerduty_knows_both_by_one_key_and_alertmanager_ends_the_alert_of_the_earlier_kind(story: Story) -> None:
    story.hear(DROP)
    story.wait(0.55)
    story.hear(STALL, after=0.05)
    story.wait(5)
    drop, stall = story.sent("chat")
    assert pagerduty.payload(drop)["dedup_key"] == pagerduty.payload(stall)["dedup_key"] == drop.incident != stall.incident
    ended = [alert["labels"]["kind"] for alert in alertmanager.payload(stall) if alert["endsAt"] < "1970-01-01T01"]
    assert set(ended) == {"throughput_drop"}


def test_a_cause_that_the_policy_holds_back_takes_nothing_over_before_it_is_told() -> None:
    with begin({**POLICY, "hold": "30s"}) as story:
        story.hear(DROP)
        story.wait(31)
        story.wait(1)
        story.hear(replace(STALL, onset_step=505), after=0.6)
        assert story.incident("throughput_drop").parent is None
        story.wait(31)
        story.wait(1)
        assert story.told("chat") == [("throughput_drop", "trigger"), ("data_stall", "update")]


KINDS = sorted({kind for cause, kinds in BRINGS_ABOUT.items() for kind in (cause, *kinds)})
_finding = st.builds(
    lambda kind, severity, onset, lasts, over: Finding(
        kind=kind, severity=severity, onset_step=onset, detected_step=onset + lasts, end_step=onset + lasts if over else None, summary=kind
    ),
    st.sampled_from(KINDS),
    st.sampled_from([Severity.WARNING, Severity.CRITICAL]),
    st.sampled_from([100, 104, 108, 400]),
    st.integers(1, 40),
    st.booleans(),
)
_deed = st.one_of(_finding, _finding, st.integers(1, 400), st.sampled_from(["acknowledge", "resolve"]))


@settings(max_examples=60, deadline=None)
@given(st.lists(_deed, min_size=2, max_size=14))
def test_whatever_happens_each_receiver_s_conversation_makes_sense(deeds: list[Any]) -> None:
    with begin(POLICY) as story:
        for deed in deeds:
            if isinstance(deed, Finding):
                story.hear(deed)
            elif isinstance(deed, int):
                story.wait(deed)
            else:
                for row in story.connection.execute(sa.select(incidents.c.id).where(incidents.c.parent.is_(None)).limit(1)).all():
                    getattr(story.alerting, deed)(story.connection, row.id, "ada", story.now)
                story.send()
        story.wait(5)
        for receiver in ("chat", "pager"):
            _check(story.sent(receiver))
        rows = story.connection.execute(sa.select(incidents)).all()
        active = {row.id for row in rows if row.state in ("open", "acknowledged", "flapping")}
        for row in rows:  # what is explained is explained by something, and what a symptom is told under is not told twice
            assert row.parent is None or row.parent in {other.id for other in rows}
            assert row.parent is None or row.id not in active or row.parent in active or row.due_at is not None


def _check(notices: list[Notice]) -> None:
    is_open: dict[str, bool] = {}
    for notice in notices:
        word, subject = notice.transition, notice.subject
        assert subject in is_open or word in ("trigger", "resolve"), notices  # a thread begins with what it is about
        if word == "trigger":
            assert not is_open.get(subject), (notices, notice)  # nobody is paged twice of one trouble
        is_open[subject] = (
            word != "resolve" if word in ("trigger", "update", "remind") else is_open.get(subject, False) and word != "resolve"
        )
