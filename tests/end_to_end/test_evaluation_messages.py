"""Evaluations that do not come, or come out below the smaller model: from the word of the run, or of a job beside it, to the message."""

import csv
import os
from pathlib import Path

import pytest
from collector import collector as running_collector
from collector import frame
from holter_monitor.client import Client
from holter_monitor.reference import build
from messages import Messages

SHARED = Path(os.environ.get("HOLTER_SHARED") or Path(__file__).resolve().parents[3] / "shared")


def evaluation(step, **metrics):
    return {"event": "eval", "rank": 0, "step": step, "time_ns": 0, "attrs": {"metrics": metrics}}


def test_s12_an_evaluation_that_does_not_come_is_said_with_how_late_it_is(tmp_path):
    run = Messages(tmp_path, config={"expect": {"eval_every": "2h"}})
    for minute in range(480):
        run.step(60.0, (evaluation(run.number + 1, piqa=0.7),) if minute % 120 == 119 else (), loss=2.0)
    assert run.shown == []
    for _ in range(200):
        run.step(60.0, loss=2.0)
    (late,) = run.shown
    assert (
        late.startswith("[trigger warning eval_overdue]") and "the evaluation that is due has not come by step 664 (1.1 h overdue)" in late
    )
    assert "the last was at step 480, 3.1 h ago, one is expected every 2.0 h" in late
    run.step(60.0, (evaluation(run.number + 1, piqa=0.7),), loss=2.0)
    for _ in range(5):
        run.step(60.0, loss=2.0)
    assert run.shown[-1].startswith("[resolve ")


def trace():
    path = SHARED / "traces" / "playbook" / "evals_tp_bug_fix_200B.csv"
    if not path.is_file():
        pytest.skip(f"the playbook's trace {path} is not here: set HOLTER_SHARED to the folder that has traces/playbook")
    with path.open() as file:
        rows = [(row["run_name"], row["metric"], float(row["tokens"]), float(row["value"])) for row in csv.DictReader(file)]
    return {name: [row[1:] for row in rows if row[0] == name] for name in {row[0] for row in rows}}


def replayed(tmp_path, name):
    """The published evaluations of a 3B run against those of the 1.7B one at equal tokens, 50 steps to each."""
    runs = trace()
    smaller = next(rows for run, rows in runs.items() if "1.7B" in run)
    mine = next(rows for run, rows in runs.items() if name in run)
    reference = build("smollm2-1.7b", [], [], evaluations=smaller)
    run = Messages(tmp_path, reference=reference, config={"expect": {"evaluations": "not_below_reference"}})
    before = 0.0
    for tokens in sorted({tokens for _, tokens, _ in mine}):
        for _ in range(49):
            run.step(1.0, tokens=(tokens - before) / 50)
        results = {metric: value for metric, at, value in mine if at == tokens}
        run.step(1.0, (evaluation(run.number + 1, **results),), tokens=(tokens - before) / 50)
        before = tokens
    return run.shown


def test_s4_the_bigger_model_below_the_smaller_one_is_said_by_its_tasks(tmp_path):
    said = replayed(tmp_path, "with TP bug")
    assert said and said[0].startswith("[trigger warning reference_gap]")
    assert "worse than smollm2-1.7b on" in said[0] and "evaluations at equal tokens" in said[0] and "hellaswag" in said[0]


def test_s13_the_repaired_model_is_met_with_silence(tmp_path):
    assert replayed(tmp_path, "fixed") == []


def test_a_job_beside_the_training_adds_its_results_and_begins_no_attempt(tmp_path):
    """It posted to attempt "1" without saying so: detection took that for a new attempt, and the training's own rows for stale ones."""
    with running_collector(tmp_path / "data") as collector, Client(collector.url) as client:
        run = collector.new_run("trained")
        for seq in range(1, 6):
            collector.send(frame(run, seq, attempt="slurm-7-0"))
        collector.until(lambda: collector.get(f"runs/{run}/attempts")["items"])
        first, again = (client.evaluation(run, 3, {"piqa": 0.7}) for _ in range(2))
        assert (first["events"], first["repeated"], again["repeated"]) == (1, False, True)
        for seq in range(6, 12):
            collector.send(frame(run, seq, attempt="slurm-7-0"))
        collector.until(lambda: collector.get(f"runs/{run}")["last_step"] == 11)
        (said,) = collector.until(lambda: [event for event in collector.get(f"runs/{run}/events")["items"] if event["event"] == "eval"])
        assert (said["attempt"], said["step"], said["attrs"]) == ("slurm-7-0", 3, {"metrics": {"piqa": 0.7}})
        assert [attempt["attempt"] for attempt in collector.get(f"runs/{run}/attempts")["items"]] == ["slurm-7-0"]
        collector.until(lambda: collector.get(f"runs/{run}/curves", metrics="loss")["curves"]["loss"]["step"][-1] >= 10)
