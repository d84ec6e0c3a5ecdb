"""Abuse: bombs, endless and lying bodies, nesting, slow clients. The answer names the limit; the collector keeps its memory and its other clients."""

import gzip
import socket
import time
from contextlib import suppress

import httpx
import psutil
import pytest
import zstandard
from collector import frame
from holter.frame import CONTENT_TYPE, encode

MIB = 1 << 20


@pytest.fixture(scope="module")
def memory(served):
    served.http.get("/healthz")
    process = psutil.Process(served.process.pid)
    return lambda: process.memory_info().rss


def post(served, content, **headers):
    return served.http.post("/api/v1/frames", content=content, headers={"Content-Type": CONTENT_TYPE, **headers})


def bombs():
    yield "zstd, 256 MiB of zeros", zstandard.ZstdCompressor(level=19).compress(bytes(256 * MIB)), "zstd"
    yield "gzip, 256 MiB of zeros", gzip.compress(bytes(256 * MIB)), "gzip"
    yield "zstd, many members", zstandard.compress(bytes(MIB)) * 400, "zstd"
    yield "gzip, many members", gzip.compress(bytes(MIB)) * 200, "gzip"
    yield (
        "zstd, a huge window",
        zstandard.ZstdCompressor(compression_params=zstandard.ZstdCompressionParameters(window_log=27)).compress(bytes(64 * MIB)),
        "zstd",
    )


def test_bombs_are_refused_and_cost_no_memory(served, memory):
    before = memory()
    for name, body, coding in bombs():
        answer = post(served, body, **{"Content-Encoding": coding})
        assert answer.status_code in (400, 413), name
        assert answer.json()["remedy"]
    assert memory() - before < 32 * MIB


def test_bodies_have_an_end(served, memory):
    before = memory()

    def endless():
        for _ in range(300):
            yield bytes(MIB)

    with suppress(httpx.WriteError, httpx.ReadError, httpx.RemoteProtocolError):  # still sending when the connection was closed
        assert post(served, endless()).status_code == 413
    assert post(served, bytes(MIB + 1)).status_code == 413
    assert memory() - before < 32 * MIB


def test_a_lying_length_stores_nothing(served):
    run = served.new_run("liar")
    body = encode(frame(run, 1, boot="liar"))
    host, port = served.url.removeprefix("http://").split(":")
    for declared in (len(body) - 10, len(body) + 10):
        with socket.create_connection((host, int(port)), timeout=20) as connection:
            head = f"POST /api/v1/frames HTTP/1.1\r\nHost: {host}\r\nContent-Type: {CONTENT_TYPE}\r\nContent-Length: {declared}\r\n\r\n"
            connection.sendall(head.encode() + body)
            connection.shutdown(socket.SHUT_WR)
            answer = connection.recv(4096)
            assert b" 200 " not in answer
    assert served.get(f"runs/{run}")["last_step"] is None


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 50_000 + b"]" * 50_000,
        b'{"a":' * 30_000 + b"1" + b"}" * 30_000,
        b'{"project": "p", "name": "n", "config": ' + b"[" * 100 + b"]" * 100 + b"}",
        b'{"project": "p", "name": "n", "config": {"x": NaN}}',
        b'{"project": "p", "name": "n", "config": {"x": 1e999}}',
        b'{"project": "p", "name": "n", "config": {"x": "\\ud800"}}',
        b'{"project": "p", "name": "n\\u0000"}',
        b'{"project": "p", "name": ' + b"9" * 5_000 + b"}",
        b'{"project": "p", "name": "n", "world_size": ' + b"9" * 5_000 + b"}",
        b'{"project": "p", "name": "' + b"x" * 65_536 + b'"}',
        b'{"project": "p"}',
        b"",
        b"\xff\xfe\x00",
    ],
)
def test_hostile_json_is_refused_not_a_failure(served, body):
    started = time.process_time()
    answer = served.http.post("/api/v1/runs", content=body, headers={"Content-Type": "application/json"})
    assert 400 <= answer.status_code < 500, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert time.process_time() - started < 5


def test_numbers_at_their_edges_are_stored_exactly_or_refused(served):
    run = served.new_run("edges")
    assert served.send(frame(run, 2**63 - 1, step=5, boot="edge")).json() == {"ack": 2**63 - 1}
    points = [{"step": 2**62 - 1, "rank": 2**31 - 1, "x": 1e308}]
    assert served.http.post(f"/api/v1/runs/{run}/points", json=points).status_code == 200
    served.until(lambda: served.get(f"runs/{run}/metrics")["items"] == ["loss", "x"])
    assert served.get(f"runs/{run}/ranks", metric="x")["value"] == [1e308]
    for parameters in ({"step": 2**70}, {"from_step": "NaN"}, {"max_points": 10**9}, {"rank": -5}, {"metric": "x" * 300}):
        answer = served.http.get(f"/api/v1/runs/{run}/series", params={"metric": "x", **parameters})
        assert answer.status_code == 422 or parameters.get("step"), (parameters, answer.status_code)


def test_slow_clients_are_cut_and_hold_nobody_up(served):
    """No bytes, half a head, half a body: 60 of them. Others are answered meanwhile; all 60 are closed within the deadlines."""
    host, port = served.url.removeprefix("http://").split(":")
    half_head = b"POST /api/v1/frames HTTP/1.1\r\nHost: x\r\n"
    half_body = (
        half_head.replace(b"Host: x", b"Host: 127.0.0.1") + f"Content-Type: {CONTENT_TYPE}\r\nContent-Length: 1000\r\n\r\nHLT1".encode()
    )
    slow = []
    for opening in (b"", half_head, half_body) * 20:
        connection = socket.create_connection((host, int(port)))
        connection.sendall(opening)
        slow.append(connection)
    for _ in range(20):
        assert served.http.get("/healthz").status_code == 200
    deadline = time.monotonic() + 40
    for connection in slow:
        connection.settimeout(max(0.1, deadline - time.monotonic()))
        try:
            assert connection.recv(1) == b""
        except ConnectionResetError:
            pass
        connection.close()


@pytest.mark.parametrize("names", [20_000, pytest.param(100_000, marks=pytest.mark.soak)])
def test_too_many_metrics_in_one_run_are_counted_not_kept(collector, names):
    """Two thousand are kept, the rest is counted; memory hardly grows, and the next run is none the worse."""
    run, process = collector.new_run("cardinality"), psutil.Process(collector.process.pid)
    assert collector.http.post(f"/api/v1/runs/{run}/points", json=[{"step": 0, "loss": 1.0}]).status_code == 200
    collector.until(lambda: collector.get(f"runs/{run}/metrics")["items"] == ["loss"])
    before = process.memory_info().rss
    for block in range(0, names, 1_000):
        points = [{"step": block} | {f"m{number}": 1.0 for number in range(block, block + 1_000)}]
        assert collector.http.post(f"/api/v1/runs/{run}/points", json=points).status_code == 200
    left_out = f'holter_points_left_out_total{{reason="metric_overflow"}} {names + 1 - 2_000}.0'
    collector.until(lambda: left_out in collector.http.get("/metrics").text)
    assert len(collector.get(f"runs/{run}/metrics")["items"]) == 2_000
    assert process.memory_info().rss - before < 128 * MIB  # 60 were measured; one table of 2,000 columns took 800
    other = collector.new_run("other")
    assert collector.send(frame(other, 1)).status_code == 200


def test_scattered_names_are_refused(served):
    run = served.new_run("scattered")
    points = [{"step": number, f"m{number}": 1.0} for number in range(4_000)]
    assert served.http.post(f"/api/v1/runs/{run}/points", json=points).status_code == 413


def test_the_stream_tells_what_happens(served):
    run = served.new_run("streamed")
    with served.http.stream("GET", "/api/v1/stream", params={"run": run}) as answer:
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        lines = answer.iter_lines()
        assert next(lines) == "retry: 2000"
        sent = httpx.post(f"{served.url}/api/v1/runs/{run}/points", json=[{"step": 1, "loss": 2.5}])
        assert sent.status_code == 200, sent.text
        assert next(line for line in lines if line.startswith("event: ")) in ("event: run", "event: step")
