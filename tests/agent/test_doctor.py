"""`holter doctor`: what would be recorded from here, said to a person and to a machine."""

import argparse
import json

import pytest
from holter.commands import doctor


@pytest.fixture
def examine(monkeypatch, capsys, tmp_path):
    def examine(url, **environment):
        for key, value in {"HOLTER_DIR": str(tmp_path), **environment}.items():
            monkeypatch.setenv(key, value)
        status = doctor.run(argparse.Namespace(url=url, json=True))
        out = capsys.readouterr().out
        return status, {check["what"]: check for check in json.loads(out)} if out else {}

    return examine


def test_a_collector_that_is_not_there_is_a_failure_with_its_remedy(examine):
    status, checks = examine("http://127.0.0.1:9")
    assert status == 1
    assert checks["collector"]["mark"] == "fail" and "holter serve" in checks["collector"]["remedy"]


def test_settings_that_cannot_be_used_are_named(examine):
    assert examine("ftp://somewhere") == (2, {})


def test_the_switch_is_a_failure_to_record(examine):
    status, checks = examine("http://127.0.0.1:9", HOLTER_DISABLED="1")
    assert status == 1 and checks["switch"]["remedy"] == "unset HOLTER_DISABLED"


def test_frames_that_wait_are_told(examine, tmp_path, monkeypatch):
    from holter.node.records import Class
    from holter.node.spool import Spool
    from holter.settings import Settings

    spool = Spool(folder=Settings(url="http://127.0.0.1:9", directory=str(tmp_path)).spool_folder() / "run")
    spool.append(Class.POINTS, b"x" * 100_000)
    _, checks = examine("http://127.0.0.1:9")
    assert "0.1 MB wait for the collector" in checks["spool"]["found"]
