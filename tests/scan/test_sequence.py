"""Records -> steps: attempts, step time, ranks, tokens, axes."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from holter_monitor.imports.records import Record
from holter_monitor.imports.sequence import Sequence
from holter_monitor.stream.steps import Step


def steps(records: Iterable[Record]) -> list[Step]:
    return list(Sequence().steps(records))


def loss(step: int | None, value: float = 2.5, **more: object) -> Record:
    return Record({"loss": value}, step=step, **more)  # type: ignore[arg-type]


def test_a_step_that_goes_back_is_a_new_attempt() -> None:
    made = steps(loss(step) for step in (0, 1, 2, 3, 2, 3, 4, 0))
    assert [(step.attempt, step.number) for step in made] == [
        ("1", 0),
        ("1", 1),
        ("1", 2),
        ("1", 3),
        ("2", 2),
        ("2", 3),
        ("2", 4),
        ("3", 0),
    ]


def test_a_repeated_step_is_a_record_of_its_own_and_no_attempt() -> None:
    """MLPerf's logs: skipped steps keep their number."""
    assert [(step.attempt, step.number) for step in steps(loss(step) for step in (0, 0, 0, 1))] == [("1", 0), ("1", 0), ("1", 0), ("1", 1)]


def test_an_evaluation_logged_late_is_no_rewind_and_is_declared() -> None:
    made = steps([loss(9), loss(10), Record({"eval_loss": 2.0}, step=8), loss(11)])
    assert [step.attempt for step in made] == ["1"] * 4
    assert made[2].words == {"eval"} and made[3].words == frozenset()


def test_step_time_comes_from_the_clock_where_it_is_not_logged() -> None:
    made = steps(
        [loss(0, time=10.0), loss(1, time=10.5), loss(5, time=12.5), loss(5, time=13.0), loss(6), loss(7, time=14.0), loss(8, time=13.0)]
    )
    assert [step.mean("step_time_seconds") for step in made] == [None, 0.5, 0.5, None, None, 0.5, None]


def test_a_logged_step_time_stays_and_gives_the_time() -> None:
    made = steps(Record({"step_time_seconds": 2.0}, step=step) for step in (0, 1, 2))
    assert [step.time for step in made] == [2.0, 4.0, 6.0]


def test_the_clock_of_an_attempt_does_not_reach_into_the_next() -> None:
    made = steps([loss(5, time=10.0), loss(6, time=11.0), loss(3, time=500.0), loss(4, time=501.0)])
    assert [step.mean("step_time_seconds") for step in made] == [None, 1.0, None, 1.0]


def test_without_an_axis_records_are_counted() -> None:
    assert [step.number for step in steps(loss(None) for _ in range(3))] == [0, 1, 2]


@pytest.mark.parametrize(("tokens", "metric"), [([100.0, 200.0, 300.0], "consumed_tokens"), ([100.0, 100.0, 100.0], "tokens")])
def test_tokens_are_a_total_or_a_count_per_step(tokens: list[float], metric: str) -> None:
    made = steps(Record({"loss": 2.5, "tokens": value}, step=step) for step, value in enumerate(tokens))
    assert [step.mean(metric) for step in made] == tokens


def ranked(step: int, rank: int) -> Record:
    return Record({"compute_seconds": 1.0 + rank}, step=step, rank=rank)


@pytest.mark.parametrize("order", ["by step", "by rank", "uneven"])
def test_ranks_of_one_step_are_one_step(order: str) -> None:
    records = [ranked(step, rank) for step in range(40) for rank in range(4)]
    if order == "by rank":
        records.sort(key=lambda record: record.rank or 0)
    elif order == "uneven":
        records.sort(key=lambda record: (record.step or 0) + 3 * (record.rank or 0))
    made = steps(records)
    assert [step.number for step in made] == list(range(40))
    for step in made:
        assert step.ranks.tolist() == [0, 1, 2, 3] and not step.missing.size
        column = step.column("compute_seconds")
        assert column is not None and column[0].tolist() == [1.0, 2.0, 3.0, 4.0]


def test_a_rank_that_falls_silent_is_missing() -> None:
    made = steps(ranked(step, rank) for step in range(60) for rank in range(3) if not (rank == 1 and step >= 20))
    assert [step.number for step in made] == list(range(60))
    assert all(step.missing.tolist() == ([1] if step.number >= 20 else []) for step in made)


def test_a_rewind_of_all_ranks_is_one_new_attempt() -> None:
    order = [*range(10), *range(5, 12)]
    made = steps(ranked(step, rank) for step in order for rank in range(2))
    assert [step.number for step in made] == order
    assert [step.attempt for step in made] == ["1"] * 10 + ["2"] * 7
    by_rank = steps(ranked(step, rank) for rank in range(2) for step in order)
    assert [(step.attempt, step.number) for step in by_rank] == [(step.attempt, step.number) for step in made]


def test_a_log_of_one_rank_only_is_read() -> None:
    assert [step.number for step in steps(ranked(step, 3) for step in range(5))] == list(range(5))


def test_a_stage_is_declared_where_its_word_first_appears() -> None:
    made = steps(loss(step, stage=word) for step, word in enumerate(["warm", "warm", "", "hard", "hard", "warm", "hard", "last"]))
    assert [step.number for step in made if "stage" in step.words] == [3, 7]


def test_a_column_of_many_words_is_no_stage() -> None:
    made = steps(loss(step, stage=f"{step / 100:.2f}") for step in range(100))
    assert [step.number for step in made if "stage" in step.words] == list(range(1, 21)), "from its 22nd word on nothing is declared"


def test_a_csv_names_its_stages(tmp_path) -> None:
    from holter_monitor.offline.scan import ScanSettings, scan

    rows = [f"{step},{3.0 if step < 300 else 6.0},{'easy' if step < 300 else 'hard'}" for step in range(600)]
    log = tmp_path / "log.csv"
    found = {}
    for header in ("step,loss,phase", "step,loss,other"):
        log.write_text("\n".join([header, *rows]) + "\n")
        found[header] = [incident.kind for scanned in scan([log], ScanSettings()) for incident in scanned.troubles]
    assert found["step,loss,phase"] == [] and found["step,loss,other"] != [], "the same jump, declared and not"
