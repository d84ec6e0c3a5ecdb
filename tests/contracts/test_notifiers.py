"""Every check on every entry of NOTIFIERS, against a real HTTP server: what each answer means, what may never leak, what must fit."""

from __future__ import annotations

import json
import logging
import time
from base64 import b64decode
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from typing import Any, ClassVar

import httpx
import pytest
from holter_monitor.notify import NOTIFIERS, DeliveryFailed, DeliveryRefused, Notice, Notifier
from holter_monitor.notify.http import client
from holter_monitor.notify.notice import digest
from holter_monitor.notify.outbox import secrets_of
from holter_monitor.notify.receivers import notifier
from sink import Answer, Call, Sink
from strict import pagerduty_problems, slack_problems

SECRET = "s3cr3t-c4n4ry-0123456789abcdef"
NOTICE = Notice(
    key="abc:1:trigger:chat",
    transition="trigger",
    incident="0123456789abcdef0123",
    kind="loss_divergence",
    severity="critical",
    state="open",
    project="smol",
    run="r1",
    run_name="3b",
    summary="loss 6.4, was 2.45; it has not come back for 2,000 steps",
    onset_step=36000,
    detected_step=36600,
    world_size=384,
    ranks=tuple(range(384)),
    nodes=("gpu-01", "gpu-02"),
    cost_seconds=5400.0,
    causes=({"cause": "diverging", "confidence": 0.9, "sentence": "diverging", "evidence": ["a"], "against": [], "action": "rewind"},),
    created=1.8e9,
    updated=1.8e9,
    link="http://127.0.0.1:8787/incidents/0123456789abcdef0123",
)


OK = Answer()


@dataclass(frozen=True)
class Case:
    """One notifier, how to point it at the sink, and how its service says yes."""

    config: Callable[[Sink], dict[str, Any]]
    yes: Answer = OK
    tells_statuses: bool = True
    """Whether its answers reach us (Apprise only says whether it worked)."""


OK_JSON = Answer(200, b'{"ok": true, "ts": "1700.42", "channel": "C1", "upload_url": "", "file_id": "F1"}')
CASES = {
    "slack": Case(lambda sink: {"webhook_url": f"{sink.url}/services/{SECRET}"}),
    "slack_bot": Case(lambda sink: {"token": SECRET, "channel": "C1", "url": sink.url}, OK_JSON),
    "pagerduty": Case(lambda sink: {"routing_key": SECRET, "url": f"{sink.url}/v2/enqueue"}, Answer(202, b'{"status": "success"}')),
    "alertmanager": Case(lambda sink: {"url": sink.url, "token": SECRET}),
    "webhook": Case(lambda sink: {"url": f"{sink.url}/{SECRET}", "secret": SECRET}, Answer(204, b"")),
    "apprise": Case(lambda sink: {"url": f"json://127.0.0.1:{sink.port}/{SECRET}", "allow_private": True}, tells_statuses=False),
}
HTTP = sorted(CASES)
TALKATIVE = [name for name in HTTP if CASES[name].tells_statuses]


@pytest.fixture
def http() -> Iterator[httpx.Client]:
    with client(allow_private=True, deadline_seconds=1.5) as http:
        yield http


def build(name: str, sink: Sink) -> Notifier:
    return notifier(name, {"type": name, **CASES[name].config(sink)})


def test_every_notifier_is_under_contract() -> None:
    assert set(CASES) | {"log"} == set(NOTIFIERS)


@pytest.mark.parametrize("name", HTTP)
@pytest.mark.parametrize("transition", ["trigger", "update", "remind", "acknowledge", "resolve", "digest", "test"])
def test_every_transition_is_delivered(name: str, transition: str, http: httpx.Client) -> None:
    notice = replace(NOTICE, transition=transition, members=(NOTICE,) if transition == "digest" else ())
    with Sink(judge=lambda _: CASES[name].yes) as sink:
        build(name, sink).send(notice, http)
        assert len(sink.calls) == 1


@pytest.mark.parametrize("name", TALKATIVE)
@pytest.mark.parametrize("status", [300, 302, 307, 400, 401, 403, 404, 410, 413, 422])
def test_a_final_answer_is_a_refusal_and_no_redirect_is_followed(name: str, status: int, http: httpx.Client) -> None:
    with Sink([Answer(status, b"no", {"Location": "/elsewhere"})]) as sink:
        with pytest.raises(DeliveryRefused, match=str(status)):
            build(name, sink).send(NOTICE, http)
        assert len(sink.calls) == 1


@pytest.mark.parametrize("name", HTTP)
@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_a_passing_trouble_is_a_failure(name: str, status: int, http: httpx.Client) -> None:
    with Sink([Answer(status, b"later")]) as sink, pytest.raises(DeliveryFailed):
        build(name, sink).send(NOTICE, http)


@pytest.mark.parametrize("name", TALKATIVE)
@pytest.mark.parametrize(
    ("header", "seconds"),
    [("1", 1.0), ("30", 30.0), ("date", 45.0), ("garbage", None), ("-5", None), ("1e3", None), ("999999999", 3600.0), (None, None)],
)
def test_retry_after_is_understood(name: str, header: str | None, seconds: float | None, http: httpx.Client) -> None:
    now = datetime.now(timezone.utc).replace(microsecond=0)
    if header == "date":
        header = format_datetime(now + timedelta(seconds=45), usegmt=True)
    headers = {} if header is None else {"Retry-After": header}
    with Sink([Answer(429, b"", headers)]) as sink, pytest.raises(DeliveryFailed) as caught:
        build(name, sink).send(NOTICE, http)
    assert caught.value.retry_after == (None if seconds is None else pytest.approx(seconds, abs=2))


@pytest.mark.parametrize("name", TALKATIVE)
@pytest.mark.parametrize("misdeed", ["hang", "reset", "slow_headers"])
def test_a_receiver_that_does_not_answer_costs_no_more_than_the_deadline(name: str, misdeed: str, http: httpx.Client) -> None:
    started = time.monotonic()
    with Sink([Answer(misdeed=misdeed)]) as sink, pytest.raises(DeliveryFailed):
        build(name, sink).send(NOTICE, http)
    assert time.monotonic() - started < 15  # 1.5 s, and room for a busy machine; without the deadline it would be for ever


@pytest.mark.parametrize("name", TALKATIVE)
@pytest.mark.parametrize("misdeed", ["dribble", "endless"])
def test_a_body_without_end_is_cut_off(name: str, misdeed: str, http: httpx.Client) -> None:
    with Sink([Answer(misdeed=misdeed)]) as sink:
        if name in ("slack", "slack_bot"):  # what they say matters, so half an answer is none
            with pytest.raises(DeliveryFailed):
                build(name, sink).send(NOTICE, http)
        else:
            build(name, sink).send(NOTICE, http)


@pytest.mark.parametrize("name", HTTP)
def test_nobody_there_is_a_failure(name: str, http: httpx.Client) -> None:
    with Sink() as sink:
        it = build(name, sink)
    with pytest.raises(DeliveryFailed):
        it.send(NOTICE, http)


@pytest.mark.parametrize("name", HTTP)
@pytest.mark.parametrize("answer", [Answer(400, SECRET.encode()), Answer(500, SECRET.encode()), Answer(misdeed="reset"), Answer(302)])
def test_no_secret_in_any_error_or_log(name: str, answer: Answer, http: httpx.Client, caplog: pytest.LogCaptureFixture) -> None:
    from holter_monitor.notify.outbox import Delivery, Worker

    class Marks:
        """The two calls of an outbox that a failing worker makes."""

        words: ClassVar[list[str]] = []

        def failed(self, deliveries: Any, error: str, next_at: float, now: float) -> None:
            self.words.append(error)

        def refused(self, deliveries: Any, error: str, now: float) -> None:
            self.words.append(error)

    with caplog.at_level(logging.DEBUG), Sink(judge=lambda _: answer) as sink:
        it = build(name, sink)
        worker = Worker(receiver=name, notifier=it, outbox=Marks(), http=http)  # type: ignore[arg-type]
        worker._deliver([Delivery(1, NOTICE, 1, time.time())])
    ours = [record.getMessage() for record in caplog.records]
    assert Marks.words and SECRET not in " ".join([*ours, *Marks.words, repr(it), str(it)])
    assert SECRET in secrets_of(it)


@pytest.mark.parametrize("name", HTTP)
def test_a_private_address_is_refused_unless_allowed(name: str) -> None:
    with Sink() as sink, client(allow_private=False) as careful:
        config = {**CASES[name].config(sink), "type": name}
        config.pop("allow_private", None)
        with pytest.raises(DeliveryRefused, match="allow_private"):
            notifier(name, config).send(NOTICE, careful)
        assert sink.calls == []


HOSTILE = "<!channel> <http://evil|x> & *b* \u202e\x00\x1b[31m 🔥" * 3


@pytest.mark.parametrize("name", HTTP)
def test_the_strict_receiver_takes_the_worst_we_can_say(name: str, http: httpx.Client) -> None:
    """Very long, hostile, many: limits hold, and the cut is never through a character or an escape."""
    big = {f"key{number}": "ü" * 1000 for number in range(600)}
    notice = replace(
        NOTICE,
        summary=HOSTILE * 200,
        run_name=HOSTILE,
        project=HOSTILE,
        evidence=big,
        note="n🔥" * 3000,
        nodes=tuple(f"n{i}x" for i in range(5000)),
    )

    def judge(call: Call) -> Answer:
        problems = {"slack": slack_problems, "slack_bot": slack_problems, "pagerduty": pagerduty_problems}.get(name, lambda _: [])(call)
        return Answer(400, json.dumps(problems).encode()) if problems else CASES[name].yes

    with Sink(judge=judge) as sink:
        build(name, sink).send(notice, http)
        build(name, sink).send(digest([notice] * 1000, "digest-1", NOTICE.link), http)
        assert len(sink.calls) == 2
        assert all(b"<!channel>" not in _spoken(name, call) for call in sink.calls)


def _spoken(name: str, call: Call) -> bytes:
    """Of Slack, the mrkdwn texts, where the escape matters; header and buttons are plain text."""
    if not name.startswith("slack"):
        return b""
    return json.dumps([block for block in call.json["blocks"] if block["type"] == "section"] + [call.json["text"]]).encode()


@pytest.mark.parametrize("name", ["slack", "slack_bot"])
@pytest.mark.parametrize("body", [b'{"ok": false, "error": "ratelimited"}', b"no_text", b"<html>sign in</html>", b"", b"invalid_payload"])
def test_an_error_inside_a_200_is_not_a_delivery(name: str, body: bytes, http: httpx.Client) -> None:
    with Sink([Answer(200, body)]) as sink, pytest.raises((DeliveryFailed, DeliveryRefused)):
        build(name, sink).send(NOTICE, http)


def test_the_webhook_is_signed_and_keyed(http: httpx.Client) -> None:
    from holter_monitor.notify.webhook import signature

    with Sink() as sink:
        build("webhook", sink).send(NOTICE, http)
        call = sink.calls[0]
    assert call.headers["holter-signature"] == signature(SECRET, call.headers["holter-timestamp"], call.body)
    assert call.headers["idempotency-key"] == NOTICE.key and call.json["incident"] == NOTICE.incident


def test_the_slack_bot_keeps_one_thread_up_to_date_and_adds_the_plot(http: httpx.Client) -> None:
    with Sink() as sink:
        sink.judge = lambda _: Answer(200, OK_JSON.body.replace(b'"upload_url": ""', f'"upload_url": "{sink.url}/up"'.encode()))
        bot = build("slack_bot", sink)
        thread = bot.send(replace(NOTICE, image=b"\x89PNG"), http)
        bot.send(replace(NOTICE, transition="resolve", thread=thread), http)
        paths = [call.path.partition("?")[0] for call in sink.calls]
    assert thread == "C1:1700.42"
    first = ["/chat.postMessage", "/files.getUploadURLExternal", "/up", "/files.completeUploadExternal"]
    assert paths == [*first, "/chat.update", "/chat.postMessage"]
    assert (sink.calls[-2].json["ts"], sink.calls[-1].json["thread_ts"]) == ("1700.42", "1700.42")


def test_pagerduty_events_share_one_key_through_the_life_of_an_incident(http: httpx.Client) -> None:
    with Sink(judge=lambda _: Answer(202)) as sink:
        for transition in ("trigger", "update", "acknowledge", "resolve"):
            build("pagerduty", sink).send(replace(NOTICE, transition=transition), http)
    assert [(call.json["event_action"], call.json["dedup_key"]) for call in sink.calls] == [
        (action, NOTICE.incident) for action in ("trigger", "trigger", "acknowledge", "resolve")
    ]


def test_the_plot_is_attached_where_the_service_takes_files(http: httpx.Client) -> None:
    """Apprise's JSON service takes attachments as e-mail does: the evidence arrives as a PNG under its own name."""
    plot = b"\x89PNG\r\n\x1a\n" + bytes(64)
    with Sink(judge=lambda _: CASES["apprise"].yes) as sink:
        build("apprise", sink).send(replace(NOTICE, image=plot), http)
        [attached] = sink.calls[0].json["attachments"]
    assert (attached["filename"], attached["mimetype"], b64decode(attached["base64"])) == ("evidence.png", "image/png", plot)
