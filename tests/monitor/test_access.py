"""Who may do what: every route against every kind of caller, the door's own checks, and what no answer may ever show."""

import re
import subprocess
import sys

import pytest
from collector import ask, collector, frame, make_token
from holter.frame import CONTENT_TYPE, encode
from holter_monitor.api.gate import needed_scope

SCOPES = ("write", "read", "operate")


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    data = tmp_path_factory.mktemp("guarded") / "data"
    data.mkdir()
    made = {scope: make_token(data, scope, "--scope", scope)["token"] for scope in SCOPES}
    made["other"] = make_token(data, "other", "--scope", "write", "--scope", "read", "--scope", "operate", "--project", "other")["token"]
    made["expired"] = make_token(data, "expired", "--scope", "read", "--expires", "0h")["token"]
    made["revoked"] = make_token(data, "revoked", "--scope", "read")["token"]
    subprocess.run([sys.executable, "-m", "holter.cli", "token", "revoke", "revoked", "--data", str(data)], check=True, capture_output=True)
    with collector(data) as running:
        running.tokens = made
        running.run = ask(running, "write", "POST", "/api/v1/runs", json={"project": "mine", "name": "n"}).json()["id"]
        yield running


def operations(running):
    for path, methods in ask(running, "read", "GET", "/openapi.json").json()["paths"].items():
        for method in methods:
            yield method.upper(), re.sub(r"\{(\w+)\}", lambda found: running.run if found[1] == "run" else "0", path)


def test_every_route_asks_for_its_scope(guarded):
    """Generated from the OpenAPI document, so a new route is in it the day it is written."""
    seen = 0
    for method, path in [*operations(guarded), ("POST", "/api/v1/frames")]:
        needed = needed_scope(method, path)
        if path == "/api/v1/stream":
            continue
        seen += 1
        if needed is None:
            assert path in ("/healthz", "/", "/api/v1/session"), f"{path} stands open"
            continue
        assert ask(guarded, None, method, path).status_code == 401, path
        assert ask(guarded, "expired", method, path).status_code in (401, 429), path
        assert ask(guarded, "revoked", method, path).status_code in (401, 429), path
        for scope in SCOPES:
            status = ask(guarded, scope, method, path).status_code
            assert (status == 403) == (scope != needed), f"{method} {path} with {scope}: {status}"
    assert seen > 15


def test_another_projects_run_does_not_exist(guarded):
    for path in ("", "/attempts", "/agents", "/events", "/metrics", "/series?metric=loss", "/ranks?metric=loss"):
        mine = ask(guarded, "other", "GET", f"/api/v1/runs/{guarded.run}{path}")
        nobodys = ask(guarded, "other", "GET", f"/api/v1/runs/nobody{path}")
        assert mine.status_code == nobodys.status_code == 404
        assert mine.json() | {"value": 0} == nobodys.json() | {"value": 0}
    assert ask(guarded, "other", "GET", "/api/v1/runs").json()["items"] == []
    assert ask(guarded, "other", "POST", "/api/v1/runs", json={"project": "mine", "name": "x"}).status_code == 403
    assert ask(guarded, "other", "POST", f"/api/v1/runs/{guarded.run}/points", json=[{"step": 1, "loss": 1}]).status_code == 404
    sent = ask(guarded, "other", "POST", "/api/v1/frames", content=encode(frame(guarded.run, 1)), headers={"Content-Type": CONTENT_TYPE})
    assert sent.status_code == 409
    silence = {"matchers": {"kind": "*"}, "reason": "r", "ends": "2999-01-01T00:00:00Z"}
    assert ask(guarded, "other", "POST", "/api/v1/silences", json=silence).status_code == 403


def test_wrong_tokens_are_slowed_down(tmp_path):
    (tmp_path / "data").mkdir()
    good = make_token(tmp_path / "data", "good", "--scope", "read")["token"]
    with collector(tmp_path / "data") as running:
        running.tokens = {}
        answers = [ask(running, f"hlt_{number}", "GET", "/api/v1/runs") for number in range(12)]
        assert [answer.status_code for answer in answers[:10]] == [401] * 10
        assert answers[11].status_code == 429
        assert int(answers[11].headers["Retry-After"]) >= 1
        assert ask(running, good, "GET", "/api/v1/runs").status_code == 200, "a neighbour's mistakes are not ours"


def test_a_browsers_session_is_a_cookie_that_only_our_page_can_use(guarded):
    origin = guarded.url
    answer = guarded.http.post("/api/v1/session", json={"token": guarded.tokens["read"]}, headers={"Origin": origin})
    assert answer.status_code == 200
    cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie
    guarded.http.cookies.clear()
    name = cookie.split(";")[0]
    assert guarded.http.get("/api/v1/runs", headers={"Cookie": name}).status_code == 200
    for headers in ({}, {"Origin": "http://evil.example"}, {"Origin": origin, "Sec-Fetch-Site": "cross-site"}):
        assert guarded.http.post("/api/v1/runs", json={}, headers={"Cookie": name, **headers}).status_code == 403


def test_a_foreign_host_name_is_not_ours(served):
    """DNS rebinding: a page's own name, resolved to 127.0.0.1."""
    assert served.http.get("/api/v1/runs", headers={"Host": "evil.example"}).status_code == 421
    assert served.http.post("/api/v1/runs", json={}, headers={"Origin": "http://evil.example"}).status_code == 403
    assert "access-control-allow-origin" not in served.http.get("/api/v1/runs", headers={"Origin": "http://evil.example"}).headers


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--host", "0.0.0.0"], "no tokens"),
        (["--port", "99999"], "65535"),
        (["--db", "mysql://x"], "sqlite or postgresql"),
        (["--db", "nonsense"], "URL"),
        (["--data", "/proc/nowhere"], "can be written"),
        (["--host", "203.0.113.1"], "port of this machine"),
    ],
)
def test_what_cannot_be_served_is_said_before_anything_is_opened(tmp_path, arguments, words):
    command = [sys.executable, "-m", "holter.cli", "serve", "--port", "0", "--data", str(tmp_path / "d"), *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, words in ended.stderr) == (2, True), ended.stderr


def test_a_public_address_needs_tls_even_with_tokens(tmp_path):
    (tmp_path / "d").mkdir()
    make_token(tmp_path / "d", "t")
    command = [sys.executable, "-m", "holter.cli", "serve", "--port", "0", "--host", "0.0.0.0", "--data", str(tmp_path / "d")]
    assert "--behind-proxy" in subprocess.run(command, capture_output=True, text=True, timeout=60).stderr
    with collector(tmp_path / "d", "--host", "0.0.0.0", "--behind-proxy") as running:
        port = running.url.rsplit(":", 1)[1]
        assert running.http.get(f"http://127.0.0.1:{port}/api/v1/runs").status_code == 401


def test_files_are_for_their_owner_alone(guarded):
    modes = {path.name: oct(path.stat().st_mode & 0o077) for path in guarded.data.iterdir()}
    assert set(modes.values()) == {"0o0"}, modes


def test_tokens_stand_nowhere(guarded):
    for who in ("write", "read"):
        ask(guarded, who, "GET", "/api/v1/runs/nobody")
    secrets = [token.encode() for token in guarded.tokens.values()]
    seen = [path.read_bytes() for path in guarded.data.iterdir() if path.is_file()]
    seen += [ask(guarded, "read", "GET", path).content for path in ("/metrics", "/readyz")]
    seen.append((guarded.data.parent / "data.stderr").read_bytes())
    assert not any(secret in text for secret in secrets for text in seen)
