"""One event is one line, whatever somebody put into a name; no token gets through."""

import json
import logging

import pytest
from holter_monitor.logs import JsonLines, Words

HOSTILE = "name\r\n2026-01-01 error forged \x1b[31mred\u2028next\x00"


def record(message, error=None):
    trace = (type(error), error, error.__traceback__) if error else None
    return logging.LogRecord("holter", logging.WARNING, "f", 1, "%s", (message,), trace)


@pytest.mark.parametrize("formatter", [JsonLines(), Words()])
def test_a_hostile_name_stays_on_its_line(formatter):
    line = formatter.format(record(HOSTILE))
    assert len(line.splitlines()) == 1
    assert line.isprintable()


def test_json_lines_carry_the_trace():
    line = json.loads(JsonLines().format(record("failed", ValueError("hlt_" + "a" * 43))))
    assert line["level"] == "warning"
    assert line["trace"] == "ValueError: hlt_***"


@pytest.mark.parametrize("formatter", [JsonLines(), Words()])
def test_no_token_gets_through(formatter):
    assert "hlt_aaa" not in formatter.format(record("Authorization: Bearer hlt_" + "a" * 43))
