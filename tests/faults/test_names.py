"""Names and texts of every kind in every field of the API: taken whole or refused by name, never our fault, and never a stop for those that come after."""

import json
import struct
import zlib

import pytest
from collector import collector, frame
from holter.frame import CONTENT_TYPE, encode
from postgres import running as postgres

WORDS = {
    "html": "<script>owned()</script>",
    "override": "\u202egnp.exe",
    "unseen": "\u200b\ufeff\u2066",
    "nul": "a\x00b",
    "lines": "a\r\nSet-Cookie: x\x1b[31m",
    "long": "W" * 10_240,
    "flood": "z" + "\u0335\u0301" * 90,
    "path": "../../../etc/passwd",
    "sql": "'; DROP TABLE runs; --",
    "python": "__class__",
    "script": "constructor",
    "formula": "=cmd|' /C calc'!A0",
    "empty": "",
    "emoji": "\U0001f525" * 50,
    "hebrew": "\u05e9\u05dc\u05d5\u05dd",
}
SURROGATE = '"\\ud800"'


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def served(request, tmp_path_factory):
    data = tmp_path_factory.mktemp("names") / "data"
    if request.param == "sqlite":
        with collector(data) as running:
            yield running
    else:
        with postgres() as server, collector(data, "--db", server.url) as running:
            yield running


def raw(given, header_text: str) -> bytes:
    """The frame with another header, its CRC right."""
    body = encode(given)
    (length,) = struct.unpack_from("<I", body, 4)
    header = header_text.encode()
    whole = body[:4] + struct.pack("<I", len(header)) + header + body[8 + length : -4]
    return whole + struct.pack("<I", zlib.crc32(whole))


def header_of(given) -> dict:
    body = encode(given)
    (length,) = struct.unpack_from("<I", body, 4)
    return json.loads(body[8 : 8 + length])


@pytest.mark.parametrize("word", WORDS)
def test_no_word_in_any_field_is_our_fault(served, word):
    text = WORDS[word]
    run = served.new_run(f"names-{word}")
    bodies = [
        ("/api/v1/runs", {"project": text, "name": "n"}),
        ("/api/v1/runs", {"project": "p", "name": text}),
        ("/api/v1/runs", {"project": "p", "name": f"config-{word}", "config": {text: text}}),
        (f"/api/v1/runs/{run}/points", [{"step": 1, text: 1.0}]),
        (f"/api/v1/runs/{run}/points", [{"step": 1, "event": text, "attrs": {text: text}}]),
        ("/api/v1/silences", {"matchers": {"run": text}, "reason": text or "r", "author": text[:200], "ends": "2999-01-01T00:00:00Z"}),
        ("/api/v1/silences", {"matchers": {text: "x"}, "reason": "r", "ends": "2999-01-01T00:00:00Z"}),
    ]
    for path, body in bodies:
        answer = served.http.post(path, json=body)
        assert answer.status_code < 500, (path, body, answer.text)
    for path in ("runs", "incidents", "silences"):
        for parameter in ("project", "name", "run", "kind", "state", "cursor"):
            assert served.http.get(f"/api/v1/{path}", params={parameter: text}).status_code < 500, (path, parameter)
    for path in ("series", "ranks", "curves", "heatmap"):
        assert served.http.get(f"/api/v1/runs/{run}/{path}", params={"metric": text, "metrics": text}).status_code < 500, path
    made = [each for each in served.get("runs", name=text)["items"] if each["name"] == text] if text and text.isprintable() else []
    assert all(served.get(f"runs/{each['id']}")["name"] == text for each in made), "taken, then taken whole"


def test_no_word_in_a_frame_stops_the_frames_behind_it(served):
    """What is taken into the log must be digestible: a text that the control store cannot hold would hold up all runs for ever."""
    run, seq = served.new_run("frames"), 0
    for text in WORDS.values():
        given = frame(run, seq)
        for change in (
            {"attempt": text},
            {"node": text},
            {"boot": text},
            {"dropped": {text: 3}},
            {"events": [{"event": text, "rank": 0, "step": 1, "time_ns": 1, "attrs": {}}]},
            {
                "events": [
                    {
                        "event": "rank_started",
                        "rank": 0,
                        "step": 1,
                        "time_ns": 1,
                        "attrs": {"host": text, text: [text], "config": {text: text}},
                    }
                ]
            },
            {"events": [{"event": "rank_failed", "rank": 0, "step": 1, "time_ns": 1, "attrs": {"type": text, "message": text}}]},
        ):
            seq += 1
            sent = served.send(raw(given, json.dumps(header_of(given) | {"seq": seq} | change)))
            assert sent.status_code < 500, (change, sent.text)
    for field in ("node", "attempt"):
        lone = json.dumps(header_of(frame(run, 0)) | {field: "LONE"}).replace('"LONE"', SURROGATE)
        assert 400 <= served.send(raw(frame(run, 0), lone)).status_code < 500
    event = {"event": "rank_failed", "rank": 0, "step": 1, "time_ns": 1, "attrs": {"message": "LONE"}}
    lone = json.dumps(header_of(frame(run, 0)) | {"seq": 5_000, "events": [event]}).replace('"LONE"', SURROGATE)
    assert served.send(raw(frame(run, 0), lone)).status_code < 500
    assert served.send(frame(run, 9_999, step=9_999, attempt="last", boot="last")).status_code == 200
    served.until(lambda: served.get(f"runs/{run}")["last_step"] == 9_999)
    for path in ("events", "agents", "attempts", "metrics", "series?metric=loss"):
        assert served.http.get(f"/api/v1/runs/{run}/{path}").status_code == 200, path
    assert served.http.get("/metrics").status_code == 200
    assert served.http.get("/readyz").status_code == 200


def test_bytes_that_are_no_text_are_refused(served):
    for body in (b'{"project": "p", "name": "\xff"}', b'{"project": "p", "name": "\xed\xa0\x80"}', b'{"project": "\x00", "name": "n"}'):
        answer = served.http.post("/api/v1/runs", content=body, headers={"Content-Type": "application/json"})
        assert 400 <= answer.status_code < 500
    assert 400 <= served.http.post("/api/v1/frames", content=b"HLT1\xff\xff", headers={"Content-Type": CONTENT_TYPE}).status_code < 500
