"""Ingest, repeats, conflicts, kills and what people do to incidents, in any order, against an oracle that only writes down what was answered."""

import itertools
import math

import pytest
from collector import collector, frame
from holter.frame import encode
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

NAMES = itertools.count()
VALUES = st.sampled_from([2.0, 2.25, float("nan"), float("inf"), None])


class Life(RuleBasedStateMachine):
    """One run. `running` is the collector that all of them share."""

    running = None
    may_kill = False

    def __init__(self) -> None:
        super().__init__()
        self.run = self.running.new_run(f"oracle-{next(NAMES)}")
        self.bodies: list[bytes] = []
        self.values: dict[int, float | None] = {}
        self.state = "none"

    def body(self, seq: int, value) -> bytes:
        return encode(frame(self.run, seq, boot=self.run, metrics={"loss": value, "lr": 0.1}))

    @rule(value=VALUES)
    def ingest(self, value):
        seq = len(self.bodies)
        self.bodies.append(self.body(seq, value))
        answer = self.running.send(self.bodies[-1])
        assert (answer.status_code, answer.json()["ack"]) == (200, seq)
        self.values[seq] = value
        if value is not None and not math.isfinite(value) and self.state in ("none", "resolved"):
            self.state = "open" if self.state == "none" else "any"

    @precondition(lambda self: self.bodies)
    @rule(data=st.data())
    def repeat(self, data):
        seq = data.draw(st.integers(0, len(self.bodies) - 1))
        answer = self.running.send(self.bodies[seq])
        assert (answer.status_code, answer.json()["ack"]) == (200, seq)

    @precondition(lambda self: self.bodies)
    @rule(data=st.data())
    def conflict(self, data):
        seq = data.draw(st.integers(0, len(self.bodies) - 1))
        assert self.running.send(self.body(seq, 1000.0 + seq)).status_code == 409

    @precondition(lambda self: self.may_kill)
    @rule()
    def kill(self):
        self.running.kill()
        self.running.start()

    @precondition(lambda self: self.state in ("open", "acknowledged"))
    @rule(action=st.sampled_from(["acknowledge", "resolve"]))
    def act(self, action):
        incident = self.running.until(lambda: self.incidents())[0]
        answer = self.running.http.post(f"/api/v1/incidents/{incident['id']}/{action}", json={})
        assert answer.status_code == 200, answer.text
        wanted = {"acknowledge": "acknowledged", "resolve": "resolved"}[action]
        assert answer.json()["state"] == wanted
        assert self.incidents()[0]["state"] == wanted
        self.state = wanted

    @rule()
    def ask_for_what_is_not_there(self):
        assert self.running.http.post("/api/v1/incidents/none/acknowledge", json={}).status_code == 404

    def incidents(self):
        return self.running.get("incidents", run=self.run, kind="non_finite")["items"]

    def teardown(self):
        logged = {step: value for step, value in self.values.items() if value is not None}
        self.running.until(lambda: self.series() == [(step, spelled(value)) for step, value in sorted(logged.items())])
        if self.values:
            self.running.until(lambda: self.running.get(f"runs/{self.run}")["last_step"] == max(self.values))
        strange = [step for step, value in logged.items() if not math.isfinite(value)]
        if not strange:
            assert self.incidents() == []
        else:
            found = self.running.until(lambda: self.incidents())
            assert len({each["id"] for each in found}) == len(found)
            assert min(each["onset_step"] for each in found) == min(strange)
        if self.state in ("acknowledged", "resolved"):
            assert self.incidents()[0]["state"] in (self.state, "resolved"), "what has passed resolves itself"

    def series(self):
        found = self.running.get(f"runs/{self.run}/series", metric="loss", rank=0, max_points=10_000)
        return list(zip(found["step"], found["value"], strict=True))


def spelled(value: float) -> float | str:
    return value if math.isfinite(value) else "NaN" if math.isnan(value) else "Infinity"


@pytest.mark.parametrize(
    ("lives", "steps", "kills"),
    [
        (8, 40, False),
        pytest.param(3, 15, True, id="killed"),
        pytest.param(1_000, 50, False, marks=[pytest.mark.soak, pytest.mark.timeout(3600)]),
    ],
)
def test_the_collector_does_as_the_oracle_says(tmp_path, lives, steps, kills):
    quiet = settings(max_examples=lives, stateful_step_count=steps, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    with collector(tmp_path / "data") as running:
        machine = type("Machine", (Life,), {"running": running, "may_kill": kills})
        run_state_machine_as_test(machine, settings=quiet)
