"""`holter bench` measures and leaves nothing behind."""

import json

from holter.cli import main


def test_it_measures_hot_and_cold(capsys):
    assert main(["bench", "--json", "--calls", "20"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["hot"]["calls"] == 2000
    assert 0 < found["cold"]["p50"] <= found["cold"]["p99"]
