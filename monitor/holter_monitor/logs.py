"""Logs of the collector: one event one line, JSON for machines or words for people. What came from outside cannot break a line or colour a terminal."""

from __future__ import annotations

import json
import logging
import re
from datetime import datetime, timezone

TOKEN = re.compile(r"hlt_[\w-]{20,}")


class JsonLines(logging.Formatter):
    """`{"time", "level", "logger", "message", "trace"?}`, ASCII only."""

    def format(self, record: logging.LogRecord) -> str:
        line = {"time": _moment(record), "level": record.levelname.lower(), "logger": record.name, "message": _clean(record.getMessage())}
        if record.exc_info:
            line["trace"] = _clean(self.formatException(record.exc_info))
        return json.dumps(line)


class Words(logging.Formatter):
    """`time level message`, control characters spelled out; a trace follows on lines of its own."""

    def format(self, record: logging.LogRecord) -> str:
        message = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in _clean(record.getMessage()))
        trace = "\n" + _clean(self.formatException(record.exc_info)) if record.exc_info else ""
        return f"{_moment(record)} {record.levelname.lower()} {message}{trace}"


def _moment(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _clean(text: str) -> str:
    """No token ever stands in a log, whatever error carried it."""
    return TOKEN.sub("hlt_***", text)


def install(kind: str) -> None:
    """Set the process's logging up: `json` or `text`, to stderr."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if kind == "json" else Words())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    for chatty in ("uvicorn.access", "httpx", "httpcore", "alembic"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
