"""A collector stand-in and an environment that points the SDK at it."""

import pytest
from holter.testing import CollectorStandIn


@pytest.fixture
def collector(tmp_path, monkeypatch):
    with CollectorStandIn().serving() as collector:
        monkeypatch.setenv("HOLTER_URL", collector.url)
        monkeypatch.setenv("HOLTER_DIR", str(tmp_path / "holter"))
        yield collector
