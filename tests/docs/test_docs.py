"""The documentation builds without a warning, and the code that it shows runs as it stands."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from holter.testing import CollectorStandIn

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "agent" / "README.md"]


def blocks(page, language):
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, check=False)
    assert built.returncode == 0, built.stderr
    assert "loss_spike" in (tmp_path / "site" / "findings" / "index.html").read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_that_is_shown_is_python(page):
    for block in blocks(page, "python"):
        compile(block, str(page), "exec")


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "docs" / "first-hour.md"], ids=lambda page: page.name)
def test_the_loop_that_is_shown_records(page, tmp_path, monkeypatch):
    [loop] = [block for block in blocks(page, "python") if block.startswith("import holter")]
    with CollectorStandIn().serving() as collector:
        monkeypatch.setenv("HOLTER_URL", collector.url)
        monkeypatch.setenv("HOLTER_DIR", str(tmp_path))
        exec(loop, {"loader": range(5), "train_step": lambda batch: (2.0 + batch, 1.0), "n": 512})  # the reader's own script
        collector.wait_for_event("rank_finished")
        collector.wait_for(lambda seen: len(seen.points("loss")) == 5)
    assert collector.points("loss") == [(step, 2.0 + step) for step in range(5)]


def test_every_verb_that_is_shown_exists():
    known = subprocess.run([sys.executable, "-m", "holter.cli", "--help"], capture_output=True, text=True, check=True).stdout
    shown = {verb for page in PAGES for block in blocks(page, "console") for verb in re.findall(r"^holter (\w+)", block, re.MULTILINE)}
    assert shown
    assert {verb for verb in shown if not re.search(rf"^\s+{verb}\b", known, re.MULTILINE)} == set()
