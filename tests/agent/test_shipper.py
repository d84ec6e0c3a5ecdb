"""Between the spool and the collector: bad answers, back-off, tokens, proxies, poison; against real servers on loopback."""

import datetime
import email.utils
import http.client
import socket
import threading
import time
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from holter.frame import Column, Frame, decode, encode
from holter.node.backoff import LONGEST_RETRY_AFTER, SPREAD, Backoff
from holter.node.envelope import parts
from holter.node.finality import BARE_TRIES, Finality
from holter.node.records import Class
from holter.node.shipper import Destination, Shipper
from holter.node.spool import Spool
from holter.node.transport import Answer, Transport
from holter.settings import Settings
from holter.testing import CollectorStandIn, Reply


def frame(seq, rows=4):
    steps = np.arange(seq * rows, (seq + 1) * rows)
    return Frame(
        run="spooled",
        attempt="a",
        node="n",
        boot="b",
        seq=seq,
        sent_ns=0,
        rank=np.zeros(rows, np.int32),
        step=steps,
        time_ns=steps,
        metrics={"loss": Column(steps.astype(float))},
    )


@pytest.fixture
def spool(tmp_path):
    return Spool(folder=tmp_path / "spool")


@pytest.fixture
def ship(tmp_path, spool):
    """Start a shipper for `count` frames of four rows; gives it and its destination."""
    shippers = []

    def start(url, count=3, **settings):
        for seq in range(count):
            spool.append(Class.POINTS, encode(frame(seq)), rows=4)
        shipper = Shipper(Settings(url=url, **settings), tmp_path / "quarantine")
        destination = Destination({"project": "p", "name": "n", "world_size": 1, "config": {}}, spool)
        shipper.add(destination)
        shipper.start()
        shippers.append(shipper)
        return shipper, destination

    yield start
    for shipper in shippers:
        shipper.stop()
        shipper.join(15)
        assert not shipper.is_alive()


def until(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert condition()


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr("holter.node.backoff.FIRST_DELAY", 0.05)


BAD = {
    "redirect loop": Reply(301, {"Location": "/api/v1/frames"}),
    "redirect elsewhere": Reply(302, {"Location": "http://127.0.0.1:9/api/v1/frames"}),
    "page": Reply(200, body=b"<html>Sign in to the network</html>", is_stored=False),
    "empty": Reply(200, body=b"", is_stored=False),
    "bad json": Reply(200, body=b'{"ack": 0', is_stored=False),
    "wrong ack": Reply(200, body=b'{"ack": 12345}', is_stored=False),
    "ack of another type": Reply(200, body=b'{"ack": "0"}', is_stored=False),
    "list": Reply(200, body=b"[0]", is_stored=False),
    "deep": Reply(200, body=b"[" * 50_000, is_stored=False),
    "long": Reply(200, body=b"x" * 100_000, is_stored=False),
    "no content": Reply(204, body=b"", is_stored=False),
    "not there": Reply(404, body=b"", is_stored=False),
    "proxy": Reply(502, body=b"<html>", is_stored=False),
    "proxy wants a password": Reply(407, body=b"", is_stored=False),
    "teapot": Reply(418, body=b"", is_stored=False),
    "server error": Reply(500, body=b"Traceback", is_stored=False),
}


@pytest.mark.parametrize("reply", BAD.values(), ids=BAD)
def test_nothing_but_an_acknowledgement_is_taken_for_one(collector, ship, spool, reply):
    """Case 6: the frame stays, and arrives once."""
    collector.script["/api/v1/frames"] += [reply, reply]
    ship(collector.url)
    until(lambda: spool.is_empty)
    assert [step for step, _ in collector.points("loss")] == list(range(12))


PROBLEM = b'{"title": "Not a frame", "status": 400}'


@pytest.mark.parametrize("status", [400, 415])
def test_a_malformed_frame_is_put_aside_and_the_others_go_on(collector, ship, spool, tmp_path, status):
    collector.script["/api/v1/frames"].append(Reply(status, body=PROBLEM))
    _, destination = ship(collector.url)
    until(lambda: spool.is_empty)
    assert [step for step, _ in collector.points("loss")] == list(range(4, 12))
    assert len(list((tmp_path / "quarantine").glob("*.frame"))) == 1
    assert declared(collector) == {"frame_refused": 4} and destination.take_untold() == {}


def test_a_bare_400_is_not_believed_until_the_same_frame_has_had_it_often():
    """uvicorn's parser answers so to sound requests when it has no memory, and proxies do; for ever it must not hold a run up either."""
    bare, finality = Answer(400, b"Invalid HTTP request received.", ""), Finality()
    assert not any(finality.is_final(bare, frame) for _ in range(BARE_TRIES) for frame in (b"one", b"another"))
    assert [finality.is_final(bare, b"one") for _ in range(BARE_TRIES)] == [False] * (BARE_TRIES - 1) + [True]
    assert finality.is_final(Answer(400, PROBLEM, ""), b"third") and not finality.is_final(Answer(503, b"", ""), b"third")


def test_a_frame_that_a_bare_400_turned_away_is_sent_again(collector, ship, spool):
    collector.script["/api/v1/frames"].append(Reply(400, body=b"Invalid HTTP request received."))
    _, destination = ship(collector.url)
    until(lambda: spool.is_empty)
    assert [step for step, _ in collector.points("loss")] == list(range(12)) and destination.take_untold() == {}


class Strict(CollectorStandIn):
    """Refuses every frame with a row or an event, and if it is to be deaf, every frame; for good."""

    def __init__(self, status, *, is_deaf):
        super().__init__()
        self.status, self.is_deaf = status, is_deaf

    def _ingest(self, body):
        found = decode(body)
        return Reply(self.status, body=PROBLEM) if self.is_deaf or found.rows or found.events else super()._ingest(body)


@pytest.mark.parametrize("is_deaf", [False, True], ids=["hears of losses", "hears nothing"])
@pytest.mark.parametrize("status", [400, 413, 415, 422])
def test_losses_that_a_refused_frame_had_declared_are_declared_again(ship, spool, status, is_deaf):
    """What was lost is lost once, whatever the collector answers: told in the frame's place, or kept for the run's next frame."""
    with Strict(status, is_deaf=is_deaf).serving() as collector:
        spool.append(Class.POINTS, encode(replace(frame(9), dropped={"ring_full": 7, "frame_refused": 1})), rows=4)
        shipper, destination = ship(collector.url, count=1)
        until(lambda: spool.is_empty)
        told, kept = declared(collector), destination.take_untold()
        assert {**told, **kept} == {"ring_full": 7, "frame_refused": 9} and not (told and kept)
        assert bool(kept) is is_deaf and shipper.acked_rows == 0 and collector.points("loss") == []


@pytest.mark.parametrize("where", [b"{", b'"events":[]', b'"dropped":{}'])
def test_a_frame_that_is_damaged_is_counted_and_holds_nothing_up(collector, ship, spool, where):
    """Its header says nothing, or something else: what the spool knows of it is counted."""
    spool.append(Class.POINTS, encode(frame(9)).replace(where, b"\xff" * len(where), 1), rows=4, events=1)
    _, destination = ship(collector.url, count=2)
    until(lambda: spool.is_empty)
    assert [step for step, _ in collector.points("loss")] == list(range(8))
    assert destination.take_untold() == {"frame_damaged": 5}


class Poisoned(CollectorStandIn):
    """Cannot take step 6."""

    def _ingest(self, body):
        return Reply(422) if 6 in decode(body).step else super()._ingest(body)


def test_one_poisoned_row_costs_one_row(ship, spool):
    """Case 32: found by halving."""
    with Poisoned().serving() as collector:
        _, destination = ship(collector.url)
        until(lambda: spool.is_empty)
        assert [step for step, _ in collector.points("loss")] == [0, 1, 2, 3, 4, 5, 7, 8, 9, 10, 11]
        assert declared(collector) == {"frame_refused": 1} and destination.take_untold() == {}
        assert len(collector.requests) < 13


def declared(collector):
    """What the collector was told of as lost, by reason."""
    return dict(sum((Counter(frame.dropped) for frame in collector.frames), Counter()))


def test_rows_that_are_refused_are_not_acknowledged_as_well(ship, spool):
    """Produced = acknowledged + refused + spooled, row by row, and what the frame had declared lost arrives although its row does not."""
    with Poisoned().serving() as collector:
        spool.append(Class.POINTS, encode(replace(frame(1), dropped={"ring_full": 7})), rows=4)
        spool.append(Class.POINTS, encode(replace(frame(6, rows=1), dropped={"ring_full": 5})), rows=1)
        shipper, destination = ship(collector.url, count=1)
        until(lambda: spool.is_empty)
        assert sorted(step for step, _ in collector.points("loss")) == [0, 1, 2, 3, 4, 5, 7]
        assert declared(collector) == {"frame_refused": 2, "ring_full": 12} and destination.take_untold() == {}
        assert shipper.acked_rows + 2 == 9


class Unsteady(Poisoned):
    """Has no time for the request after the refused row, and says so with a wait of none."""

    def answer(self, path, authorization, body):
        reply = super().answer(path, authorization, body)
        return Reply(503, {"Retry-After": "0"}) if len(self.requests) == 7 else reply


def test_a_split_frame_that_has_to_come_again_is_counted_once(ship, spool, tmp_path):
    with Unsteady().serving() as collector:
        shipper, _ = ship(collector.url)
        until(lambda: spool.is_empty)
        assert sorted(step for step, _ in collector.points("loss")) == [0, 1, 2, 3, 4, 5, 7, 8, 9, 10, 11]
        assert declared(collector) == {"frame_refused": 1} and shipper.acked_rows == 11
        assert len(list((tmp_path / "quarantine").glob("*.frame"))) == 1 and collector.repeats > 0


@pytest.mark.parametrize(("rows", "events", "lost"), [(1, 0, 0), (0, 1, 0), (0, 0, 2), (1, 1, 0), (5, 3, 1), (1, 0, 3), (0, 2, 0)])
def test_a_frame_is_parted_until_each_part_holds_one_thing(rows, events, lost):
    whole = replace(frame(0, rows=rows), events=[{"event": "mark", "at": at} for at in range(events)], dropped={"x": lost} if lost else {})
    left, single = [whole], []
    while left:
        found = parts(left.pop())
        if len(found) > 1:
            left += found
        else:
            single += found
    assert len(single) == rows + events + bool(lost)
    assert sorted(int(step) for part in single for step in part.step) == list(range(rows))
    assert sorted(event["at"] for part in single for event in part.events) == list(range(events))
    assert len({(part.boot, part.seq) for part in single}) == len(single)


@pytest.mark.parametrize("after", ["2", "date", "nonsense"])
def test_retry_after_is_kept(collector, ship, spool, after):
    """Case 31: nothing is asked before the time."""
    if after == "date":
        moment = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=3)
        after = email.utils.format_datetime(moment, usegmt=True)
    collector.script["/api/v1/frames"].append(Reply(429, {"Retry-After": after}))
    ship(collector.url)
    until(lambda: spool.is_empty)
    times = [at for at, path, _ in collector.requests if path == "/api/v1/frames"]
    assert times[1] - times[0] >= (0.0 if after == "nonsense" else 1.5)


def test_backoff_doubles_with_jitter_and_is_capped():
    backoff = Backoff()
    delays = [backoff.delay() for _ in range(200)]
    assert max(delays) <= 30.0 and len(set(delays[50:])) > 100
    assert backoff.delay("1e9") <= 30.0 and backoff.delay("9" * 400) <= 30.0 and backoff.delay("-5") <= 30.0
    assert LONGEST_RETRY_AFTER <= backoff.delay("1000000000") <= LONGEST_RETRY_AFTER * (1 + SPREAD)


@pytest.mark.parametrize("asked", [0, 2, 40])
def test_agents_told_the_same_moment_come_back_spread_and_none_before_it(asked):
    """Case 31: the 200 agents of a collector that was away."""
    delays = [Backoff().delay(str(asked)) for _ in range(200)]
    assert min(delays) > asked
    assert len({round(delay, 6) for delay in delays}) > 150
    assert max(delays) - min(delays) > 0.2 * asked


def test_a_refused_token_waits_for_a_new_one(ship, spool, tmp_path):
    """Case 33: at most a few tries, the spool kept, the rotated token used."""
    file = tmp_path / "token"
    file.write_text("old")
    with CollectorStandIn(token="new").serving() as collector:
        ship(collector.url, token_file=str(file))
        until(lambda: collector.requests)
        time.sleep(1.5)
        assert len(collector.requests) <= 3 and not spool.is_empty
        file.write_text("new\n")
        until(lambda: spool.is_empty)
        assert collector.requests[-1][2] == "Bearer new"


def test_a_run_that_the_collector_does_not_want_holds_up_no_other(collector, ship, tmp_path):
    class Choosy(CollectorStandIn):
        def _create(self, body):
            return Reply(422) if b'"bad"' in body else super()._create(body)

    with Choosy().serving() as choosy:
        shipper, destination = ship(choosy.url)
        bad = Destination({"project": "bad", "name": "n", "world_size": 1, "config": {}}, Spool(folder=tmp_path / "bad"))
        bad.spool.append(Class.POINTS, encode(frame(0)), rows=4)
        shipper.add(bad)
        destination.spool.append(Class.POINTS, encode(frame(3)), rows=4)
        until(lambda: destination.spool.is_empty)
        assert not bad.spool.is_empty


@pytest.fixture
def raw():
    """A server that does with each connection what the test says, on a real socket."""
    servers = []

    def serve(handle):
        server = socket.create_server(("127.0.0.1", 0))
        servers.append(server)

        def loop():
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                threading.Thread(target=quietly, args=(connection,), daemon=True).start()

        def quietly(connection):
            try:
                handle(connection)
            except OSError:
                pass

        threading.Thread(target=loop, daemon=True).start()
        return f"http://127.0.0.1:{server.getsockname()[1]}"

    yield serve
    for server in servers:
        server.close()


def dribble(connection):
    connection.recv(65536)
    for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n" * 10:
        connection.send(bytes([byte]))
        time.sleep(0.2)


def silence(connection):
    time.sleep(20)


def flood(connection):
    connection.recv(65536)
    connection.send(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        connection.send(b"x" * 65536)


def header_bomb(connection):
    connection.recv(65536)
    connection.send(b"HTTP/1.1 200 OK\r\n")
    while True:
        connection.send(b"X-Bomb: " + b"y" * 8000 + b"\r\n")


@pytest.mark.parametrize("handle", [dribble, silence, flood, header_bomb], ids=lambda handle: handle.__name__)
def test_no_answer_holds_the_agent_longer_than_the_deadline(raw, monkeypatch, handle):
    """Cases 4 and 5, with a deadline of a second."""
    monkeypatch.setattr("holter.node.transport.REQUEST_SECONDS", 1.0)
    transport = Transport(raw(handle))
    before = time.monotonic()
    with pytest.raises((OSError, http.client.HTTPException)):
        transport.post("/api/v1/frames", b"x", {})
    assert time.monotonic() - before < 6.0


def test_loopback_is_never_proxied_and_others_are(monkeypatch):
    """Case 34."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:3128")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:3128")
    monkeypatch.setenv("no_proxy", "inside.example")
    assert Transport("http://127.0.0.1:8787")._proxy() is None
    assert Transport("http://localhost:8787")._proxy() is None
    assert Transport("http://inside.example")._proxy() is None
    assert Transport("http://outside.example")._proxy().port == 3128
    assert Transport("http://outside.example/base")._target("/x") == "http://outside.example:80/base/x"


def test_the_collectors_advice_is_kept_for_the_ranks(collector, ship, spool):
    collector.advice = {"checkpoint": True, "reason": "a spike"}
    _, destination = ship(collector.url)
    until(lambda: spool.is_empty)
    assert destination.advice == {"checkpoint": True, "reason": "a spike"}


def test_a_frame_whose_number_is_another_agents_is_declared_and_holds_nothing_up(collector, ship, spool, tmp_path):
    """Case 35: a clone with its memory goes on under the same identity."""
    collector.script["/api/v1/frames"].append(Reply(409, body=b'{"title": "Another frame has this number", "field": "seq"}'))
    _, destination = ship(collector.url)
    until(lambda: spool.is_empty, 60)
    assert [step for step, _ in collector.points("loss")] == list(range(4, 12))
    assert len(list((tmp_path / "quarantine").glob("*.frame"))) == 1
    assert destination.take_untold() == {"frame_refused": 4}


def test_an_agent_that_is_about_to_end_does_not_wait(collector, spool, tmp_path, monkeypatch):
    monkeypatch.setattr("holter.node.catch_up.OUTAGE_SECONDS", 0.0)
    monkeypatch.setattr("holter.node.catch_up.TIMES", 1e-9)
    collector.script["/api/v1/runs"].append(Reply(503))
    for seq in range(20):
        spool.append(Class.POINTS, encode(frame(seq)), rows=4)
    shipper = Shipper(Settings(url=collector.url), tmp_path / "quarantine")
    shipper.is_hurried = True
    shipper.add(Destination({"project": "p", "name": "n", "world_size": 1, "config": {}}, spool))
    shipper.start()
    until(lambda: spool.is_empty, 60)
    shipper.stop()
    shipper.join(15)
    assert len(collector.frames) == 20


def test_an_agent_that_is_about_to_end_asks_often_and_keeps_the_collectors_word():
    backoff = Backoff()
    waits = [backoff.delay("", 5.0) for _ in range(50)]
    assert max(waits) <= 5.0 and min(Backoff().delay("60", 5.0) for _ in range(50)) >= 60
