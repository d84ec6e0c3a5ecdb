"""The sample store: what was written is read back, bit for bit, whatever the shape of the frames."""

import numpy as np
import pytest
from holter.frame import Column, Frame, decode, encode
from holter_monitor.store.catalog import COLUMNS
from holter_monitor.store.ports import Entry, Window
from holter_monitor.store.queries_duckdb import DuckDbQueries
from holter_monitor.store.retention_duckdb import DuckDbStore
from hypothesis import given, settings
from hypothesis import strategies as st

EVERYTHING = Window()


@pytest.fixture
def samples(tmp_path):
    store = DuckDbQueries(tmp_path / "samples.duckdb")
    yield store
    store.close()


def entry(
    offset: int, columns: dict, *, step: int | None = None, ranks: int = 2, node: str = "n1", run: str = "r", attempt: str = "a1"
) -> Entry:
    step = offset if step is None else step
    frame = Frame(
        run, attempt, node, f"boot-{node}", offset, 1, np.arange(ranks, dtype=np.int32), np.full(ranks, step), np.full(ranks, offset)
    )
    frame.metrics = {name: column if isinstance(column, Column) else Column(np.array(column)) for name, column in columns.items()}
    return Entry(offset, 0.0, encode(frame))


def values(store, metric, run="r"):
    rows = store.ranks(run, metric, EVERYTHING)
    return list(zip(rows.step.tolist(), rows.rank.tolist(), np.asarray(rows.value).tolist(), strict=True))


floats = st.floats(width=32)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.tuples(st.booleans(), floats), min_size=3, max_size=3), min_size=1, max_size=12), st.integers(1, 3))
def test_any_values_are_read_back_alike(tmp_path_factory, frames, kinds):
    """Absent values, NaN, infinities and denormals; few frames of a layout (column by column) and many (by strides)."""
    store = DuckDbQueries(tmp_path_factory.mktemp("s") / "samples.duckdb")
    expected = []
    entries = []
    for offset, cells in enumerate(frames, 1):
        present = np.array([is_there for is_there, _ in cells])
        numbers = np.array([number for _, number in cells], "<f4")
        name = f"metric_{offset % kinds}"
        entries.append(entry(offset, {name: Column(numbers, present)}, ranks=3))
        expected += [(name, offset, rank, numbers[rank].tobytes()) for rank in range(3) if present[rank]]
    store.write(entries)
    got = []
    for name in store.metrics("r"):
        rows = store.ranks("r", name, EVERYTHING)
        got += [
            (name, *key, np.float32(value).tobytes())
            for *key, value in zip(rows.step.tolist(), rows.rank.tolist(), rows.value, strict=True)
        ]
    store.close()
    assert sorted(got) == sorted(expected)


def test_the_offset_commits_with_the_rows(tmp_path):
    store = DuckDbQueries(tmp_path / "s.duckdb")
    store.write([entry(7, {"loss": [1.0, 2.0]})])
    store.close()
    store = DuckDbQueries(tmp_path / "s.duckdb")
    assert store.offset() == 7
    assert values(store, "loss") == [(7, 0, 1.0), (7, 1, 2.0)]
    store.close()


def test_a_metric_that_changes_its_type_keeps_its_values(samples):
    samples.write([entry(1, {"tokens": np.array([2**40, 1], "<i8")}), entry(2, {"tokens": np.array([0.5, 1.5], "<f4")})])
    assert values(samples, "tokens") == [(1, 0, 2.0**40), (1, 1, 1.0), (2, 0, 0.5), (2, 1, 1.5)]


def test_the_newest_value_of_a_step_counts(samples):
    samples.write([entry(1, {"gpu": [1.0, 1.0]}, step=5), entry(2, {"gpu": [2.0, 3.0]}, step=5)])
    assert values(samples, "gpu") == [(5, 0, 2.0), (5, 1, 3.0)]


@pytest.mark.parametrize("again", [[], [entry(9, {"gpu": [7.0, 8.0]}, step=5), entry(10, {"gpu": [9.0, 9.5]}, step=5, attempt="a2")]])
def test_the_cells_of_a_picture_are_what_the_rows_say(samples, again):
    """Whether frames lie mixed, or a rank and step has several rows: then the newest of the newest attempt counts, as the last one."""
    nodes = [entry(3, {"gpu": [3.0, 4.0]}, step=6), entry(2, {"gpu": [1.0, 2.0]}, step=5), *again]
    host = entry(1, {"gpu": [99.0]}, step=5, ranks=1)
    host.frame.rank = np.array([-1], np.int32)
    samples.write([Entry(1, 0.0, encode(host.frame)), *nodes])
    cells, rows = samples.cells("r", "gpu", Window(from_step=5, to_step=6)), samples.ranks("r", "gpu", EVERYTHING)
    pairs = [dict(zip(zip(f.rank.tolist(), f.step.tolist(), strict=True), f.value.tolist(), strict=True)) for f in (cells, rows)]
    assert pairs[0] == {key: value for key, value in pairs[1].items() if key[0] >= 0} and len(pairs[0]) == 4
    assert pairs[0][0, 5] == (9.0 if again else 1.0)
    assert len(samples.cells("r", "nothing", EVERYTHING).rank) == 0


def test_rewound_steps_stand_under_their_attempt(samples):
    samples.write([entry(1, {"loss": [1.0, 1.0]}, step=5), entry(2, {"loss": [2.0, 2.0]}, step=5, attempt="a2")])
    rows = samples.ranks("r", "loss", EVERYTHING, [0])
    assert [samples.attempts("r")[number] for number in rows.attempt.tolist()] == ["a1", "a2"]
    assert samples.ranks("r", "loss", Window(attempt="a2"), [0]).value.tolist() == [2.0]


def test_aggregates_leave_non_finite_values_out(samples):
    samples.write([entry(1, {"loss": [1.0, np.nan, 3.0, np.inf]}, ranks=4), entry(2, {"loss": [np.nan] * 4}, ranks=4)])
    mean = samples.aggregate("r", "loss", EVERYTHING, how="mean")
    assert (mean.value[0], mean.count.tolist()) == (2.0, [2, 0])
    assert np.isnan(mean.value[1])


def test_aggregates_by_group(samples):
    samples.write([entry(1, {"loss": [1.0, 2.0, 3.0, 5.0]}, ranks=4)])
    found = samples.aggregate("r", "loss", EVERYTHING, how="max", groups={0: 10, 1: 10, 2: 20, 3: 20})
    assert dict(zip(found.group.tolist(), found.value.tolist(), strict=True)) == {10: 2.0, 20: 5.0}


def test_metrics_beyond_the_limit_are_counted_not_stored(tmp_path):
    store = DuckDbQueries(tmp_path / "s.duckdb", metrics_per_run=3)
    assert store.write([entry(1, {f"m{i}": [1.0, 2.0] for i in range(5)})]) == 4
    assert store.metrics("r") == ["m0", "m1", "m2"]
    store.close()


def test_many_metrics_lie_in_sheets_and_are_found_there(tmp_path):
    """As many as come at once, one after another, from frames of different metrics; also after reopening."""
    path, names = tmp_path / "s.duckdb", [f"m{number}" for number in range(2 * COLUMNS + 50)]
    store = DuckDbStore(path)
    store.write([entry(1, {"loss": [1.0, 2.0]}), *(entry(2 + at, {name: [float(at), 0.5]}) for at, name in enumerate(names[:20]))])
    store.write([entry(40, {name: [float(at), 0.5] for at, name in enumerate(names)}), entry(41, {"late": [7.0, 8.0]})])
    store.close()
    store = DuckDbStore(path)
    store.write([entry(42, {"loss": [3.0, 4.0], names[-1]: [9.0, 9.0]})])
    assert len(store.catalog.tables("r")) == 4
    assert values(store, "loss") == [(1, 0, 1.0), (1, 1, 2.0), (42, 0, 3.0), (42, 1, 4.0)]
    assert values(store, names[5])[:1] == [(7, 0, 5.0)] and values(store, names[200])[:1] == [(40, 0, 200.0)]
    assert values(store, names[-1])[2:] == [(42, 0, 9.0), (42, 1, 9.0)] and values(store, "late") == [(41, 0, 7.0), (41, 1, 8.0)]
    assert not store.lone_rank("r") and store.oldest_ns("r") == 1
    assert store.drop("r", before_ns=10**18) == 2 * (21 + 4 + 1 + 2), "frames times the sheets that they touch"
    assert store.oldest_ns("r") is None
    store.close()


def test_a_file_from_before_the_sheets_goes_on(tmp_path):
    path = tmp_path / "s.duckdb"
    store = DuckDbStore(path)
    store.write([entry(1, {"loss": [1.0, 2.0]})])
    store._writer.execute("ALTER TABLE metrics DROP COLUMN sheet")
    store.close()
    store = DuckDbStore(path)
    store.write([entry(2, {"loss": [3.0, 4.0], "lr": [0.1, 0.1]})])
    assert [value for *_, value in values(store, "loss")] == [1.0, 2.0, 3.0, 4.0]
    store.close()


def test_a_failed_write_leaves_nothing_behind(samples, monkeypatch):
    samples.write([entry(1, {"loss": [1.0, 2.0]})])
    broken = entry(2, {"loss": [1.0, 2.0], "new": [1.0, 2.0]})
    decode(broken.body)
    samples._writer.execute("DROP TABLE consumer")
    with pytest.raises(Exception, match="consumer"):
        samples.write([broken])
    assert samples.metrics("r") == ["loss"]
    assert values(samples, "loss") == [(1, 0, 1.0), (1, 1, 2.0)]


def test_rows_leave_the_write_ahead_log_when_their_row_group_is_full(tmp_path):
    """Packed in mid-group they would be written twice; never packed, the log would grow to its threshold uncompressed."""
    store = DuckDbQueries(tmp_path / "samples.duckdb")
    log = tmp_path / "samples.duckdb.wal"
    sizes = []
    for offset in range(1, 16):  # the 13th fills a group of 122,880
        store.write([entry(offset, {"loss": np.full(10_000, 2.5, "<f4")}, ranks=10_000)])
        sizes.append(log.stat().st_size)
    store.close()
    assert sizes[:13] == sorted(sizes[:13])
    assert sizes[13] < sizes[0] * 1.5
    assert sizes[14] > sizes[13]
    again = DuckDbQueries(tmp_path / "samples.duckdb")
    assert len(values(again, "loss")) == 150_000
    again.close()


def test_a_batch_lies_by_step_and_rank_however_its_frames_came(samples):
    entries = [entry(1, {"loss": [3.0]}, ranks=1, step=8, node="n2"), entry(2, {"loss": [1.0, 2.0]}, step=7)]
    samples.write(entries)
    rows = samples.cursor().execute(f"SELECT step, rank FROM {samples.catalog.tables('r')[0]}").fetchall()
    assert rows == [(7, 0), (7, 1), (8, 0)]
