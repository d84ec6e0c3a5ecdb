"""How often a token may ask: never more than its rate, one token's haste is not another's, and an agent that hears 429 loses nothing."""

import os
import subprocess
import sys

from collector import ask, collector, make_token
from holter_monitor.api.rates import BURST_SECONDS, Rate
from hypothesis import example, given
from hypothesis import strategies as st

TRAINING = """
import sys, time, holter
run = holter.init(project="p", name="n", directory=sys.argv[1])
for step in range(80):
    run.step(step, loss=float(step))
    time.sleep(0.05)
run.finish()
"""


@example(0.1, [1.2934281736868796])
@given(st.floats(0.1, 1000), st.lists(st.floats(0, 5), min_size=1, max_size=200))
def test_no_more_pass_than_the_rate_allows_and_who_waits_as_told_passes(per_second, pauses):
    rate, now, passed = Rate(per_second), 0.0, 0
    for pause in pauses:
        now += pause / per_second
        wait = rate.take("t", now)
        passed += wait == 0
        assert passed <= per_second * now + max(1.0, per_second * BURST_SECONDS) + 1e-6
    assert not wait or rate.take("t", now + wait + 1e-6) == 0.0
    assert rate.take("another", now) == 0.0


def test_a_hasty_token_hears_429_and_the_others_nothing_of_it(tmp_path):
    (tmp_path / "data").mkdir()
    tokens = {name: make_token(tmp_path / "data", name, "--scope", "read")["token"] for name in ("hasty", "calm")}
    with collector(tmp_path / "data", "--requests-per-second", "2") as running:
        running.tokens = tokens
        answers = [ask(running, "hasty", "GET", "/api/v1/runs") for _ in range(30)]
        refused = [answer for answer in answers if answer.status_code == 429]
        assert len(answers) - len(refused) >= 8 and len(refused) >= 10
        assert all(int(answer.headers["Retry-After"]) >= 1 and answer.json()["remedy"] for answer in refused)
        scraped = ask(running, "calm", "GET", "/metrics").text
        assert f'holter_requests_refused_total{{reason="rate"}} {float(len(refused))}' in scraped
        running.until(lambda: ask(running, "hasty", "GET", "/api/v1/runs").status_code == 200)
    assert (tmp_path / "data.stderr").read_text().count("asks more than 2 times a second") == 1


def test_an_agent_over_its_rate_loses_nothing(tmp_path):
    """Two writes at once, then one in two seconds: it creates the run, hears 429 with its frames, and delivers all the same."""
    (tmp_path / "data").mkdir()
    tokens = {"agent": make_token(tmp_path / "data", "agent", "--scope", "write")["token"]}
    tokens["reader"] = make_token(tmp_path / "data", "reader", "--scope", "read")["token"]
    with collector(tmp_path / "data", "--writes-per-second", "0.5") as running:
        running.tokens = tokens
        environment = os.environ | {"HOLTER_URL": running.url, "HOLTER_TOKEN": tokens["agent"]}
        subprocess.run([sys.executable, "-c", TRAINING, tmp_path / "agent"], env=environment, check=True, timeout=60)

        def steps() -> list:
            runs = ask(running, "reader", "GET", "/api/v1/runs").json()["items"]
            series = ask(running, "reader", "GET", f"/api/v1/runs/{runs[0]['id']}/series?metric=loss&rank=0") if runs else None
            return series.json()["step"] if series is not None and series.status_code == 200 else []

        running.until(lambda: len(steps()) >= 80)
        assert steps() == list(range(80))
        assert 'holter_requests_refused_total{reason="rate"}' in ask(running, "reader", "GET", "/metrics").text
