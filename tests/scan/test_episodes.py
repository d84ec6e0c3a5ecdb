"""Findings of a log become troubles: one trouble, one incident; what comes back later is another, unless its identity is the same."""

from __future__ import annotations

from typing import Any

from holter_monitor.findings import Finding, Severity
from holter_monitor.offline.episodes import Episodes


def finding(onset: int, detected: int, **more: Any) -> Finding:
    return Finding(
        **{
            "kind": "throughput_stalls",
            "severity": Severity.WARNING,
            "onset_step": onset,
            "detected_step": detected,
            "summary": "slow",
            **more,
        }
    )


def test_a_single_stall_that_turns_out_to_be_the_first_of_many_is_open_again() -> None:
    episodes = Episodes("run")
    episodes.say([finding(291, 291, end_step=291, severity=Severity.INFO)], 290, "log")
    episodes.say([finding(291, 419, summary="14 stalls")], 418, "log")
    (trouble,) = episodes.all
    assert trouble.end_step is None and trouble.severity is Severity.WARNING and trouble.summary == "14 stalls"
    assert (trouble.detected_step, trouble.detected_record) == (419, 418), "it was not worth a warning before"
    episodes.say([finding(291, 600, end_step=580)], 599, "log")
    assert trouble.end_step == 580


def test_a_replay_of_earlier_words_changes_nothing() -> None:
    words = [finding(10, 10), finding(10, 30, summary="worse"), finding(10, 60, end_step=50, summary="over")]
    episodes = Episodes("run")
    for record, word in enumerate(words):
        episodes.say([word], record, "log")
    for word in words:
        episodes.say([word], 3, "log")
    (trouble,) = episodes.all
    assert trouble.end_step == 50 and trouble.summary == "over"


def test_two_spikes_are_two_unless_they_are_close() -> None:
    episodes = Episodes("run")
    for record, onset in ((100, 100), (104, 104), (140, 140)):
        episodes.say([finding(onset, onset, end_step=onset + 1)], record, "log")
    assert [trouble.onset_step for trouble in episodes.all] == [100, 140]


def test_ranks_that_fail_together_are_one() -> None:
    episodes = Episodes("run")
    episodes.say([finding(100, 105, scope=f"rank {rank}", ranks=(rank,)) for rank in range(64)], 105, "log")
    (trouble,) = episodes.all
    assert trouble.ranks == list(range(64))


def test_a_symptom_stands_beside_its_cause_whichever_was_seen_first() -> None:
    for kinds in (("throughput_drop", "throughput_stalls"), ("throughput_stalls", "throughput_drop")):
        episodes = Episodes("run")
        for kind in kinds:
            episodes.say([finding(100, 105, kind=kind)], 105, "log")
        cause = {trouble.kind: trouble.cause and trouble.cause.kind for trouble in episodes.all}
        assert cause == {"throughput_drop": None, "throughput_stalls": "throughput_drop"}
