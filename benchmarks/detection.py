"""How well the detectors detect: the benchmark's cases through the real engine, our table beside the published scores of others.

    python benchmarks/detection.py                       all tiers, all detectors (about two minutes)
    python benchmarks/detection.py --tiers labelled --list
    python benchmarks/detection.py --detectors LossSpike,NonFinite --tiers injected,neg --only spike

The cases and the scoring rule are `detbench/` of the shared folder: `$HOLTER_SHARED`, or `../shared` beside the checkout.

What counts as an alert: the first finding of an identity with severity warning or higher, and each later rise of its severity: that is what
sends a notice. How our kinds are read as the benchmark's stands in `READ_AS`. A record that nobody advances in (a hang, a pause) is a heartbeat, 15 s.
The labelled traces are shown as a scan sees them: with the samples a second and the step time from the clock that the benchmark leaves out.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import re
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from holter.frame import Column, Frame
from holter_monitor.detectors import DETECTORS
from holter_monitor.engine import Engine
from holter_monitor.findings import Finding, Severity
from holter_monitor.imports.sequence import Clock
from holter_monitor.stream.steps import RunFacts, Step

METRICS = {
    "step_time_s": "step_time_seconds",
    "tokens_per_s": "tokens_per_second",
    "samples_per_s": "samples_per_second",
    "data_time_s": "data_wait_seconds",
    "mem_bytes": "process_memory_rss_bytes",
}
READ_AS = {
    "loss_spike": ("loss", "loss_spike"),
    "loss_divergence": ("loss", "slow_divergence"),
    "loss_plateau": ("loss", "plateau"),
    "loss_noise": ("loss", "loss_noise"),
    "loss_shift": ("loss", "loss_spike_nonrec"),
    "non_finite": ("nan", "nan"),
    "grad_explosion": ("grad", "grad_explosion"),
    "grad_vanishing": ("grad", "grad_vanishing"),
    "throughput_drop": ("throughput", "throughput_drop"),
    "throughput_decline": ("throughput", "throughput_decline"),
    "throughput_stalls": ("throughput", "stall_growth"),
    "step_locked_stalls": ("throughput", "stall_growth"),
    "data_stall": ("throughput", "data_wait_growth"),
    "straggler": ("rank", "straggler"),
    "gpu_throttle": ("rank", "rank_throttle"),
    "memory_growth": ("memory", "mem_leak"),
    "hang": ("rank", "rank_hang"),
    "rank_lost": ("rank", "rank_hang"),
}
HEARTBEAT_SECONDS = 15.0
SYNTHETIC = ("injected", "neg", "rank", "induced", "real")
TIERS = (*SYNTHETIC, "smol", "labelled")


def shared() -> Path:
    found = os.environ.get("HOLTER_SHARED")
    path = Path(found) if found else Path(__file__).resolve().parents[2] / "shared"
    if not (path / "detbench" / "cases.py").exists():
        sys.exit(f"no detbench under {path}: name the shared folder in HOLTER_SHARED")
    return path


def read_as(finding: Finding) -> tuple[str, str]:
    """Family and kind in the benchmark's words."""
    family, kind = READ_AS.get(finding.kind, (finding.kind, finding.kind))
    if finding.kind == "loss_shift" and finding.evidence.get("after") == "resume":
        return family, "resume_loss_step"
    if finding.kind == "loss_spike" and finding.evidence.get("shape") in ("shifting", "diverging"):
        return family, "loss_spike_nonrec"
    if finding.kind in ("straggler", "data_stall") and finding.ranks and finding.evidence.get("cause") == "data_wait":
        return "rank", "node_data_wait"
    if finding.kind == "straggler" and finding.evidence.get("cause") == "throttle":
        return "rank", "rank_throttle"
    return family, kind


class Alerts:
    """Turns findings into the benchmark's alerts, a notice each."""

    def __init__(self, alert: Any) -> None:
        self.alert, self.loudest, self.out = alert, {}, []

    def take(self, index: int, findings: list[Finding]) -> None:
        for finding in findings:
            identity = (finding.kind, finding.scope, finding.onset_step)
            before = self.loudest.get(identity, Severity.INFO)
            if finding.severity > before:
                self.loudest[identity] = finding.severity
                family, kind = read_as(finding)
                made = self.alert(family, kind, finding.severity.word, ranks=list(finding.ranks) or None)
                made["said"], made["finding"] = finding.summary, finding
                self.out.append((index, made))


def run_case(case: dict[str, Any], cases: Any, alert: Any, detectors: list[Any]) -> tuple[list[Any], float, list[Finding]]:
    alerts, said = Alerts(alert), []
    ranks = 1 if case["rank"] is None else case["rank"]["compute"].shape[1]
    engine = Engine(RunFacts(run=case["id"], world_size=ranks, config={"total_steps": int(case["step"][-1])}), detectors)
    feed = of_ranks(case, engine, ranks) if case["rank"] is not None else of_records(case, cases, engine)
    begun = time.perf_counter()
    for index, findings in enumerate(feed):
        if findings:
            alerts.take(index, findings)
            said += findings
    return alerts.out, time.perf_counter() - begun, said


def of_records(case: dict[str, Any], cases: Any, engine: Engine) -> Iterator[list[Finding]]:
    now = 1.7e9
    for number, record in cases.records(case):
        word = record.pop("event", "")
        values = {METRICS.get(name, name): value for name, value in record.items()}
        spent = values.get("step_time_seconds", 1.0)
        now += spent if np.isfinite(spent) else 1.0
        events = [{"event": word, "rank": None, "step": number, "time_ns": 0, "attrs": {}}] if word else []
        yield engine.feed_step(Step.of(number, values, time=now, attempt="1", events=events))


def of_ranks(case: dict[str, Any], engine: Engine, ranks: int) -> Iterator[list[Finding]]:
    """Frames, as node agents of 8 ranks each would send them."""
    now = 1.7e9
    for first in range(0, ranks, 8):
        frame = Frame(case["id"], "1", f"node{first // 8:02}", "boot", 0, int(now * 1e9))
        for rank in range(first, min(first + 8, ranks)):
            frame.events.append({"event": "rank_started", "rank": rank, "step": None, "time_ns": 0, "attrs": {"world_size": ranks}})
        engine.feed(frame, now)
    reached = np.full(ranks, -1)
    typical = float(np.nanmedian(case["cols"]["step_time_s"]))
    beat = now
    for index in range(len(case["step"])):
        last = case["rank"]["last_step"][index]
        who = np.flatnonzero(last > reached).astype(np.int32)
        now += typical if len(who) else HEARTBEAT_SECONDS

        frame = Frame(case["id"], "1", "node00", "boot", index + 1, int(now * 1e9))
        if len(who):
            frame.rank, frame.step, frame.time_ns = who, last[who].astype(np.int64), np.full(len(who), int(now * 1e9), np.int64)
            columns = {
                "compute_seconds": case["rank"]["compute"][index][who],
                "data_wait_seconds": case["rank"]["data"][index][who],
                "step_time_seconds": np.full(len(who), case["cols"]["step_time_s"][index]),
                "tokens_per_second": np.full(len(who), case["cols"]["tokens_per_s"][index]),
            }
            frame.metrics = {name: column for name, values in columns.items() if (column := _column(values)) is not None}
        reached = np.maximum(reached, last)
        engine.take_summaries()
        if now - beat >= HEARTBEAT_SECONDS:  # one frame carries all rows here; the other agents are alive all the same
            beat = now
            for first in range(8, ranks, 8):
                engine.feed(Frame(case["id"], "1", f"node{first // 8:02}", "boot", index + 1, int(now * 1e9)), now)
        yield engine.feed(frame, now) + engine.tick(now)


def show_the_clock(case: dict[str, Any], cases: Any) -> None:
    """Adds what the trace's file tells of the pace and the benchmark's case does not: samples a second, and the step time that its clock gives."""
    scope = next(each["meta"].get("scope") for each in cases.ext_index() if f"L_{each['id']}" == case["id"])
    if scope and "throughput" not in scope:
        return
    columns, records = cases.load(case["fn"]), len(case["step"])
    if "samples_per_s" in columns:
        case["cols"].setdefault("samples_per_s", columns["samples_per_s"].to_numpy(float)[:records])
    if "time_s" in columns and "step_time_s" not in case["cols"]:
        case["cols"]["step_time_s"] = np.array(list(_step_times(case["step"], columns["time_s"].to_numpy(float)[:records])))


def _step_times(steps: Any, times: Any) -> Iterator[float]:
    clock, before = Clock(), -1
    for step, time_s in zip(steps.tolist(), times.tolist(), strict=True):
        if step < before:
            clock = Clock()
        before = step
        seconds = clock.step_time(step, time_s if np.isfinite(time_s) else None)
        yield float("nan") if seconds is None else seconds


def _column(values: Any) -> Column | None:
    present = np.isfinite(values)
    return Column(np.asarray(values, np.float64), None if present.all() else present) if present.any() else None


def measure(chosen: list[Any], arguments: argparse.Namespace) -> dict[str, Any]:
    """Scores by tier, with what was missed and what was false."""
    path = shared() / "detbench"
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(path))
    cases, score = importlib.import_module("cases"), importlib.import_module("score")
    results: dict[str, Any] = {
        "cases": defaultdict(list),
        "seconds": Counter(),
        "records": Counter(),
        "wrong": [],
        "missed": [],
        "found": [],
    }
    for tier in arguments.tiers:
        for case in cases.all_cases("dev", (tier,)):
            if arguments.only and not re.search(arguments.only, case["id"]):
                continue
            if tier == "labelled":
                show_the_clock(case, cases)
            alerts, seconds, _ = run_case(case, cases, score.Alert, chosen)
            scored = score.score_case(case, alerts)
            results["cases"][tier].append(scored)
            results["seconds"][tier] += seconds
            results["records"][tier] += len(case["step"])
            note_what_is_left(results, case, alerts, scored)
    results["score"] = score
    return results


def note_what_is_left(results: dict[str, Any], case: dict[str, Any], alerts: list[Any], scored: dict[str, Any]) -> None:
    owned = lambda i, a: any(  # noqa: E731
        a["family"] in e["accept"] and e["s"] <= i <= max(e["e"], e["s"] + e["grace"]) + 20 for e in case["events"]
    )
    for i, a in alerts:
        if not owned(i, a) and not any(s - 2 <= i <= e + 20 for s, e, _ in case.get("ignore", ())):
            results["wrong"].append((case["id"], i, int(case["step"][i]), a["finding"].kind, a["said"]))
    for event, found in zip(case["events"], scored["events"], strict=True):
        line = (case["id"], event["kind"], event["sev"], event["s"], event["e"])
        if not found["tp"]:
            results["missed"].append((*line, "late or noisy before" if found["late"] else "silent"))
        elif not found["typed"]:
            kinds = sorted({a["kind"] for i, a in alerts if event["s"] <= i <= event["s"] + event["grace"]})
            results["found"].append((*line, f"called {', '.join(kinds)}"))


def table(results: dict[str, Any], tiers: list[str], title: str) -> dict[str, Any] | None:
    scored = [case for tier in tiers for case in results["cases"].get(tier, [])]
    if not scored:
        return None
    seconds = sum(results["seconds"][tier] for tier in tiers)
    records = sum(results["records"][tier] for tier in tiers)
    found = results["score"].summarize(scored, seconds, records)
    typed = [event["typed"] for case in scored for event in case["events"] if event["tp"]]
    print(f"\n## {title}: {found['events']} events, {records} records, {len(scored)} cases\n")
    print("| | recall | macro recall | precision | FA/100k clean | FA/100k normal change | right kind | delay med / p95 | us a record |")
    print("|---|---|---|---|---|---|---|---|---|")
    print(
        f"| holter | {found['recall']:.3f} | {found['macro_recall']:.3f} | {found['precision']:.3f} | {found['fa_clean']:.1f} | {found['fa_neg']:.1f} "
        f"| {np.mean(typed) if typed else float('nan'):.3f} | {found['delay_med']:.0f} / {found['delay_p95']:.0f} | {seconds / records * 1e6:.0f} |"
    )
    return found


def table_of_kinds(found: dict[str, Any], published: dict[str, str]) -> None:
    print("\n| kind | events | recall | right kind | late | delay med / p95 | best published with FA <= 20 |")
    print("|---|---|---|---|---|---|---|")
    for kind, row in found["kinds"].items():
        delay = f"{row['delay_med']:.0f} / {row['delay_p95']:.0f}"
        print(
            f"| {kind} | {row['n']} | {row['recall']:.2f} | {row['typed']:.2f} | {row['late']:.2f} | {delay} | {published.get(kind, '')} |"
        )
    if found["neg_kinds"]:
        print("\nFalse alarms per 100k on normal changes: " + ", ".join(f"{k} {v}" for k, v in sorted(found["neg_kinds"].items())))


def published() -> tuple[list[str], list[str], dict[str, str]]:
    """The peers' rows of RESULTS.md (overall, labelled) and, for each kind, the best of them with few false alarms."""
    text = (shared() / "detbench" / "RESULTS.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    overall = [line for line in rows if line.count("|") == 13 and re.search(r"online|offline", line)]
    labelled = [line for line in rows if line.count("|") == 6 and re.match(r"\| \w+(:\w+)? \| \d", line)]
    best = {}
    for line in rows:
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 9 and cells[1].isdigit() and cells[5]:
            best[cells[0]] = "–" if cells[5] == "none" else f"{cells[5]} {cells[6]}"
    return overall, labelled, best


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiers", type=lambda text: text.split(","), default=list(TIERS))
    parser.add_argument("--detectors", type=lambda text: set(text.split(",")), help="names of detector classes; all if absent")
    parser.add_argument("--only", help="a pattern that the cases' ids match")
    parser.add_argument("--list", action="store_true", help="name every miss, false alarm and wrong name")
    parser.add_argument("--json", type=Path, help="write the figures there, too")
    arguments = parser.parse_args()
    chosen = [make for make in DETECTORS if not arguments.detectors or getattr(make, "__name__", "") in arguments.detectors]
    results = measure(chosen, arguments)
    overall, labelled, best = published()
    figures = {}
    for title, tiers in (
        ("Synthetic tiers and clean logs", SYNTHETIC),
        ("Playbook", ("smol",)),
        ("Hand-labelled real traces", ("labelled",)),
    ):
        found = table(results, list(tiers), title)
        if found is not None:
            table_of_kinds(found, best)
            figures[title] = {key: value for key, value in found.items() if key != "sev"}
            peers = overall if "injected" in tiers else labelled if "labelled" in tiers else []
            if peers and not arguments.only and not arguments.detectors:
                print("\nPublished, as in RESULTS.md:\n\n" + "\n".join(peers[:14]))
    if arguments.list:
        for heading in ("missed", "wrong", "found"):
            print(f"\n### {heading}")
            for line in results[heading]:
                print("  ", *line, sep="  ")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1, default=float))
    return 0


if __name__ == "__main__":
    sys.exit(main())
