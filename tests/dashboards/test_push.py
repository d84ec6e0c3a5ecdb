"""`holter grafana push` against a stand-in that keeps what Grafana's HTTP API documents: folders, data sources, dashboards, 404, 401."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from holter.cli import main


class Grafana(BaseHTTPRequestHandler):
    """`folders`, `datasources`, `dashboards` by uid, on the server object; `saves` counts every write."""

    server: Any

    def do_GET(self) -> None:
        self._answer(None)

    def do_POST(self) -> None:
        self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    do_PUT = do_POST

    def _answer(self, body: Any) -> None:
        password = base64.b64encode(b"admin:pw").decode()
        if self.headers["Authorization"] not in ("Bearer t0ken", f"Basic {password}"):
            return self._say(401, {"message": "Unauthorized"})
        kind, uid = self._place()
        if body is None:
            found = self.server.kept[kind].get(uid)
            return self._say(200, found) if found else self._say(404, {"message": "not found"})
        self.server.saves += 1
        if kind == "dashboards":
            dashboard = {**body["dashboard"], "id": 7, "version": self.server.saves}
            self.server.kept[kind][dashboard["uid"]] = {"dashboard": dashboard, "meta": {"folderUid": body["folderUid"]}}
        else:
            self.server.kept[kind][body["uid"]] = body
        return self._say(200, {"status": "success"})

    def _place(self) -> tuple[str, str]:
        parts = self.path.split("/")[2:]
        return parts[0], parts[-1]

    def _say(self, status: int, body: Any) -> None:
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: Any) -> None:
        """Quiet."""


@pytest.fixture
def grafana(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Grafana)
    server.kept, server.saves = {"folders": {}, "datasources": {}, "dashboards": {}}, 0
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("GRAFANA_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("GRAFANA_TOKEN", "t0ken")
    yield server
    server.shutdown()
    server.server_close()


PUSH = ["grafana", "push", "--postgres", "db:5432", "--prometheus", "http://prom:9090", "--json"]


def pushed(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    assert main([*PUSH, *words]) == 0
    return [entry["action"] for entry in json.loads(capsys.readouterr().out)]


def test_a_push_makes_everything_and_a_second_one_changes_no_dashboard(
    grafana: Any, capsys: pytest.CaptureFixture[str], tmp_path: Any
) -> None:
    (tmp_path / "pw").write_text("s3cret\n")
    assert pushed(capsys, "--database-password-file", str(tmp_path / "pw")) == ["created"] * 8
    assert sorted(grafana.kept["dashboards"]) == ["holter-fleet", "holter-incidents", "holter-itself", "holter-ranks", "holter-run"]
    postgres = grafana.kept["datasources"]["holter-postgres"]
    assert (postgres["url"], postgres["jsonData"]["sslmode"], postgres["secureJsonData"]) == ("db:5432", "require", {"password": "s3cret"})
    assert {entry["meta"]["folderUid"] for entry in grafana.kept["dashboards"].values()} == {"holter"}
    before = json.dumps(grafana.kept["dashboards"])
    assert pushed(capsys) == ["kept", "updated", "updated", *["kept"] * 5]
    assert json.dumps(grafana.kept["dashboards"]) == before


def test_a_dashboard_that_somebody_changed_is_brought_back(grafana: Any, capsys: pytest.CaptureFixture[str]) -> None:
    pushed(capsys)
    grafana.kept["dashboards"]["holter-run"]["dashboard"]["panels"] = []
    assert pushed(capsys).count("updated") == 3
    assert grafana.kept["dashboards"]["holter-run"]["dashboard"]["panels"]


def test_incidents_come_as_annotations(grafana: Any, capsys: pytest.CaptureFixture[str]) -> None:
    pushed(capsys)
    marks = grafana.kept["dashboards"]["holter-run"]["dashboard"]["annotations"]["list"]
    assert [mark["name"] for mark in marks] == ["Incidents", "Events"] and all(mark["enable"] for mark in marks)


def test_without_places_the_data_sources_are_left_alone(grafana: Any) -> None:
    assert main(["grafana", "push"]) == 0
    assert grafana.kept["datasources"] == {}


def test_a_user_and_password_do_as_well(grafana: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAFANA_TOKEN", "")
    monkeypatch.setenv("GRAFANA_PASSWORD", "pw")
    assert main(["grafana", "push", "--user", "admin"]) == 0


@pytest.mark.parametrize(
    ("name", "value", "word"),
    [("GRAFANA_TOKEN", "wrong", "Unauthorized"), ("GRAFANA_TOKEN", "", "no token"), ("GRAFANA_URL", "http://127.0.0.1:9", "127.0.0.1:9")],
)
def test_what_cannot_be_reached_is_said_in_a_sentence(
    grafana: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, value: str, word: str
) -> None:
    monkeypatch.setenv(name, value)
    assert main(["grafana", "push"]) == 2
    error = capsys.readouterr().err
    assert word in error and "Traceback" not in error and "t0ken" not in error
