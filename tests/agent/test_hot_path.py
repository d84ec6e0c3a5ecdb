"""The hot path, in C and in Python: the same rows, no exception, nothing lost that is not counted."""

import gc
import math
import signal
import threading
import time
import tracemalloc

import numpy as np
import pytest
from holter.node.reader import RingReader
from holter.recorder import Recorder
from holter.ring import NO_WAIT, STRIDE, Ring
from holter.row_writer import RowWriter as InPython
from hypothesis import given, settings
from hypothesis import strategies as st
from ring_rows import logged

try:
    from holter._hot import RowWriter as InC
except ImportError:
    InC = None

WRITERS = [
    pytest.param(InPython, id="python"),
    pytest.param(InC, id="c", marks=pytest.mark.skipif(InC is None, reason="holter/_hot.c was not built: no compiler")),
]


@pytest.fixture(params=WRITERS)
def recorder(request, tmp_path):
    ring = Ring.create(tmp_path, "r", {"rank": 0}, (1, 1), time.monotonic_ns())
    return Recorder(ring, 0, writer=request.param)


@pytest.fixture
def reader(recorder):
    return RingReader(recorder._ring.path)


def test_rows_come_back_as_they_were_logged(recorder, reader):
    recorder.step(1, loss=0.5, lr=1e-3)
    recorder.step(2, loss=0.25, lr=1e-3)
    recorder.step(2, extra=7)
    recorder.step(-3, loss=math.nan, lr=math.inf)
    rows = logged(reader)
    assert rows[:3] == [(1, {"loss": 0.5, "lr": 1e-3}), (2, {"loss": 0.25, "lr": 1e-3}), (2, {"extra": 7.0})]
    assert rows[3][0] == -3 and math.isnan(rows[3][1]["loss"]) and rows[3][1]["lr"] == math.inf


def test_a_nan_is_logged_and_an_absent_value_is_not(recorder, reader):
    recorder.step(0, loss=math.nan)
    recorder.step(1, lr=1.0)
    assert [set(values) for _, values in logged(reader)] == [{"loss"}, {"lr"}]


def test_names_made_at_run_time_are_the_same_names(recorder, reader):
    for step in range(50):
        recorder.step(step, **{f"grad_norm/{layer}": float(layer) for layer in range(5)})
    assert len(logged(reader)) == 50 and len(reader.names) == 1


def test_a_step_without_a_number_follows_the_last(recorder, reader):
    recorder.step(10, loss=1.0)
    recorder.step(loss=2.0)
    recorder.step(step=20, loss=3.0)
    recorder.step("nonsense", loss=4.0)
    recorder.step(np.int64(30), loss=5.0)
    assert [step for step, _ in logged(reader)] == [10, 11, 20, 21, 30]


def test_more_metrics_than_a_row_holds_take_several_rows(recorder, reader):
    values = {f"m{index}": float(index) for index in range(150)}
    recorder.step(5, **values)
    rows = logged(reader)
    assert {name: value for _, part in rows for name, value in part.items()} == values
    assert {step for step, _ in rows} == {5}


def test_what_is_no_number_is_counted_and_the_rest_is_kept(recorder, reader):
    recorder.step(0, loss=1.0, note="text", big=10**400)
    assert logged(reader) == [(0, {"loss": 1.0, "big": math.inf})]
    assert reader.take_drops() == {"value_not_a_number": 1}


def test_a_run_that_invents_names_does_not_grow_without_bound(recorder, reader):
    for step in range(6000):
        recorder.step(step, **{f"{'name' * 10}{step}": 1.0})
    assert reader.take_drops()["too_many_names"] > 0
    recorder.step(6001, **{f"{'name' * 10}0": 2.0})
    assert logged(reader)[-1][0] == 6001


def test_a_reader_that_is_too_slow_knows_what_it_missed(recorder, reader):
    for step in range(10_000):
        recorder.step(step, loss=1.0)
    rows = logged(reader)
    assert len(rows) + reader.take_drops()["ring_full"] == 10_000
    assert rows[-1][0] == 9_999


def test_threads_get_rows_of_their_own(recorder, reader):
    def work(rank):
        for step in range(500):
            recorder.step(step, loss=float(rank))

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    rows = logged(reader)
    assert len(rows) == 2000
    assert [sum(values["loss"] == rank for _, values in rows) for rank in range(4)] == [500] * 4


def test_a_step_inside_a_step_gets_a_row_of_its_own(recorder, reader):
    """Case 18: from a signal handler, a finaliser, another value's conversion."""

    class Nested:
        def __float__(self):
            recorder.step(100, loss=9.0)
            return 1.0

        def __del__(self):
            recorder.step(200, loss=8.0)

    before = signal.signal(signal.SIGALRM, lambda *_: recorder.step(300, loss=7.0))
    try:
        recorder.step(1, loss=Nested())
        signal.raise_signal(signal.SIGALRM)
    finally:
        signal.signal(signal.SIGALRM, before)
    gc.collect()
    assert sorted(step for step, _ in logged(reader)) == [1, 100, 200, 300]


def test_nothing_grows_over_many_steps(recorder):
    for step in range(2000):
        recorder.step(step, loss=1.0, lr=2.0, tokens=3)
    tracemalloc.start()
    recorder.step(0, loss=1.0, lr=2.0, tokens=3)
    before = tracemalloc.get_traced_memory()[0]
    for step in range(50_000):
        recorder.step(step, loss=1.0, lr=2.0, tokens=3)
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < 2000


def test_a_value_that_ends_the_process_is_let_through(recorder):
    class Interrupt:
        def __float__(self):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        recorder.step(0, loss=Interrupt())


@pytest.mark.parametrize("writer", WRITERS)
def test_what_is_closed_holds_the_ring_no_longer(writer):
    """A forked child that still held it would keep the ring's descriptor open."""
    ring = bytearray(STRIDE)
    rows = writer(memoryview(ring), 0, 1, STRIDE, print, print, NO_WAIT)
    rows.close()
    ring.append(0)  # raises BufferError as long as anybody looks at it
    rows.step(1, loss=1.0)


def test_after_the_end_nothing_is_written(recorder, reader):
    recorder.step(0, loss=1.0)
    recorder.silence()
    recorder.step(1, loss=1.0)
    recorder.step(2, other=None)
    assert len(logged(reader)) == 1


anything = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.binary(max_size=5), st.lists(st.integers(), max_size=2)
)


names = st.text(max_size=8).filter(lambda name: name != "step")  # the keyword `step` is the step, not a metric


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(st.tuples(anything, st.dictionaries(names, anything, max_size=5)), max_size=8))
@pytest.mark.parametrize("writer", WRITERS)
def test_no_call_raises(writer, steps, tmp_path_factory):
    ring = Ring.create(tmp_path_factory.mktemp("ring"), "r", {}, (1, 1), 0)
    recorder = Recorder(ring, 0, writer=writer)
    for step, values in steps:
        recorder.step(step, **values)
    reader = RingReader(ring.path)
    numbers = sum(isinstance(value, int | float) for _, values in steps for value in values.values())
    assert sum(len(values) for _, values in logged(reader)) == numbers
    assert not ring.words[16 + 5], "an internal error was counted"


@pytest.mark.soak
def test_nothing_grows_over_a_million_steps(recorder):
    """Ten million would say the same: memory is traced to the byte."""
    recorder.step(0, loss=1.0, lr=2.0, tokens=3)
    tracemalloc.start()
    recorder.step(0, loss=1.0, lr=2.0, tokens=3)
    before = tracemalloc.get_traced_memory()[0]
    for step in range(1_000_000):
        recorder.step(step, loss=1.0, lr=2.0, tokens=3)
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < 2000
