"""Device scalars without a synchronisation: a device of our own plays the stream, its events complete when the test says so."""

import math
import sys
import time

import pytest
from holter.node.reader import RingReader
from holter.recorder import Recorder
from holter.ring import Ring, State
from holter.scalars import DEPTH, MAX_PENDING
from holter.sections import Section
from ring_rows import logged

torch = pytest.importorskip("torch")


class Scalar:
    """A tensor on the fake device: its value may change later, as an in-place operation would; reading it at once is a sync."""

    is_cuda = True

    def __init__(self, value, elements=1):
        self.value, self.elements = value, elements

    def numel(self):
        return self.elements

    def __float__(self):
        raise AssertionError("a synchronisation")

    item = tolist = cpu = __float__


class FakeEvent:
    def __init__(self, device):
        self.device, self.at = device, None

    def record(self):
        self.at = len(self.device.queue)
        self.clock = self.device.clock

    def query(self):
        return self.device.done >= self.at

    def elapsed_time(self, later):
        assert self.query() and later.query(), "asked before it was known"
        return (later.clock - self.clock) * 1e3


class FakeDevice:
    """Runs its queue only when `run` is called: everything before that is asynchronous."""

    def __init__(self):
        self.queue, self.done, self.capturing, self.used, self.clock = [], 0, False, False, 0.0

    def __call__(self):
        return self

    def is_used(self):
        return self.used

    def work(self, seconds):
        """Queue work of so many seconds of the device's time; the host goes on at once."""
        self.queue.append(lambda: None)
        self.clock += seconds

    def is_capturing(self):
        return self.capturing

    def rows(self, depth, width):
        return torch.full((depth, width), math.nan)

    def event(self):
        return FakeEvent(self)

    timing_event = event

    def copy(self, row, scalars):
        values = [scalar.value for scalar in scalars]  # the values at this point of the stream
        self.queue.append(lambda: row[: len(values)].copy_(torch.tensor(values)))

    def run(self, operations=None):
        until = len(self.queue) if operations is None else min(len(self.queue), self.done + operations)
        for operation in self.queue[self.done : until]:
            operation()
        self.done = until


@pytest.fixture
def device():
    return FakeDevice()


@pytest.fixture
def recorder(tmp_path, device):
    return Recorder(Ring.create(tmp_path, "r", {}, (1, 1), time.monotonic_ns()), 0, device=device)


@pytest.fixture
def reader(recorder):
    return RingReader(recorder._ring.path)


def test_a_step_is_completed_when_the_device_has_come_to_it(recorder, reader, device):
    recorder.step(0, loss=Scalar(1.5), lr=0.1)
    assert logged(reader) == []
    device.run()
    recorder.step(1, loss=Scalar(2.5), lr=0.1)
    assert logged(reader) == [(0, {"lr": 0.1, "loss": 1.5})]


def test_a_value_changed_in_place_afterwards_is_the_one_that_was_logged(recorder, reader, device):
    loss = Scalar(1.0)
    recorder.step(0, loss=loss)
    loss.value = 99.0
    device.run()
    recorder.step(1, loss=loss)
    assert logged(reader)[0] == (0, {"loss": 1.0})


def test_steps_stay_in_order_when_only_some_lie_on_the_device(recorder, reader, device):
    recorder.step(0, loss=Scalar(1.0))
    recorder.step(1, lr=0.5)
    recorder.step(2, loss=Scalar(3.0))
    device.run()
    recorder.step(3, lr=0.25)
    assert [step for step, _ in logged(reader)] == [0, 1, 2, 3]


def test_a_device_that_lags_costs_samples_and_never_time(recorder, reader, device):
    for step in range(DEPTH + 5):
        recorder.step(step, loss=Scalar(float(step)), lr=1.0)
    assert reader.take_drops() == {"device_busy": 5}
    device.run()
    recorder.step(DEPTH + 5, lr=1.0)
    rows = logged(reader)
    assert [step for step, _ in rows] == list(range(DEPTH + 6))
    assert rows[DEPTH] == (DEPTH, {"lr": 1.0})


def test_nothing_is_touched_while_a_graph_is_captured(recorder, reader, device):
    device.capturing = True
    recorder.step(0, loss=Scalar(1.0), lr=1.0)
    assert device.queue == [] and logged(reader) == [(0, {"lr": 1.0})]


def test_after_the_device_steps_plain_steps_are_quick_again(recorder, reader, device):
    recorder.step(0, loss=Scalar(1.0))
    device.run()
    recorder.step(1, loss=2.0)
    recorder.step(2, loss=3.0)
    assert recorder._rows.is_plain == 1
    assert [step for step, _ in logged(reader)] == [0, 1, 2]


def test_at_the_end_what_did_not_come_is_missing_and_not_zero(recorder, reader):
    recorder.step(7, loss=Scalar(1.0), lr=0.5)
    recorder.close(State.FINISHED)
    assert logged(reader) == [(7, {"lr": 0.5})]
    assert reader.take_drops() == {"device_busy": 1}


def test_a_device_tensor_of_several_elements_is_no_number(recorder, reader):
    recorder.step(0, loss=Scalar(1.0, elements=3), lr=1.0)
    assert logged(reader) == [(0, {"lr": 1.0})]
    assert reader.take_drops() == {"value_not_a_number": 1}


@pytest.mark.parametrize("value", [torch.tensor(1.5), torch.tensor([1.5]), torch.tensor(1.5, dtype=torch.bfloat16)])
def test_a_cpu_tensor_is_read_at_once(recorder, reader, value):
    recorder.step(0, loss=value.requires_grad_())
    assert logged(reader) == [(0, {"loss": 1.5})]


def test_a_sharded_tensor_is_left_out_and_no_collective_started(recorder, reader):
    class Placement:
        def is_replicate(self):
            return False

    class Sharded:
        placements = (Placement(),)

        def to_local(self):
            raise AssertionError("must not be asked")

        full_tensor = to_local

    recorder.step(0, loss=Sharded(), lr=1.0)
    assert logged(reader) == [(0, {"lr": 1.0})]


def test_the_wait_for_data_stays_with_its_step(recorder, reader, device):
    recorder.waited(2_000_000_000)
    recorder.step(0, loss=Scalar(1.0))
    device.run()
    recorder.step(1, loss=Scalar(2.0))
    assert logged(reader) == [(0, {"loss": 1.0, "data_wait_seconds": 2.0})]


def test_a_section_on_the_device_is_timed_by_the_device(recorder, reader, device):
    device.used = True
    forward = Section(recorder, "forward", is_communication=False)
    reduce = Section(recorder, "reduce", is_communication=True)
    for _ in range(2):
        with forward:
            device.work(3.0)
    with reduce:
        device.work(5.0)
    recorder.step(0, loss=1.0)
    assert logged(reader) == []
    device.run()
    recorder.step(1, loss=2.0)
    rows = logged(reader)
    assert rows[0] == (0, {"loss": 1.0, "section_forward_seconds": 6.0, "compute_seconds": 6.0, "section_reduce_seconds": 5.0})
    assert rows[1] == (1, {"loss": 2.0})


def test_events_are_used_again(recorder, reader, device):
    device.used = True
    forward = Section(recorder, "forward", is_communication=False)
    made = []
    device.timing_event = lambda: made.append(FakeEvent(device)) or made[-1]
    for step in range(50):
        with forward:
            device.work(1.0)
        device.run()
        recorder.step(step, loss=1.0)
    assert len(made) <= 8
    assert {values["section_forward_seconds"] for _, values in logged(reader)} == {1.0}


def test_a_section_without_a_device_is_timed_by_the_host(recorder, reader):
    with Section(recorder, "load", is_communication=False):
        time.sleep(0.01)
    recorder.step(0, loss=1.0)
    [(_, values)] = logged(reader)
    assert values["section_load_seconds"] == values["compute_seconds"] >= 0.01


def test_a_device_that_stands_still_does_not_make_the_host_grow(recorder, reader, device):
    recorder.step(0, loss=Scalar(1.0), lr=1.0)
    for step in range(1, 2000):
        recorder.step(step, lr=1.0)
    assert recorder._tap.under_way <= MAX_PENDING
    rows = logged(reader)
    assert [step for step, _ in rows] == list(range(2000)) and rows[0] == (0, {"lr": 1.0})


class Late:
    """What a `jax.Array` offers: immutable, says when it is ready, and blocks whoever reads it before."""

    size = 1

    def __init__(self, value, *, ready=False, size=1):
        self.value, self.ready, self.size, self.deleted = value, ready, size, False

    def is_ready(self):
        if self.deleted:
            raise RuntimeError("Array has been deleted")
        return self.ready

    def copy_to_host_async(self):
        self.copied = True

    def __float__(self):
        if self.deleted:
            raise RuntimeError("Array has been deleted")
        assert self.ready, "a synchronisation"
        return self.value

    def __radd__(self, other):
        return self


@pytest.fixture
def without_torch(tmp_path, monkeypatch):
    """A recorder in a process that knows only jax."""
    monkeypatch.delitem(sys.modules, "torch")
    return Recorder(Ring.create(tmp_path, "jax", {}, (1, 1), time.monotonic_ns()), 0)


def test_an_array_that_is_not_ready_is_read_at_a_later_step_and_steps_stay_in_order(without_torch):
    reader = RingReader(without_torch._ring.path)
    first, second = Late(1.5), Late(2.5)
    without_torch.step(0, loss=first, lr=0.1)
    without_torch.step(1, loss=second, lr=0.1)
    second.ready = True
    without_torch.step(2, lr=0.2)
    assert logged(reader) == [] and first.copied
    first.ready = True
    without_torch.step(3, loss=Late(3.5, ready=True))
    assert logged(reader) == [(0, {"lr": 0.1, "loss": 1.5}), (1, {"lr": 0.1, "loss": 2.5}), (2, {"lr": 0.2}), (3, {"loss": 3.5})]


def test_late_arrays_that_never_come_or_are_no_number_are_counted(without_torch):
    reader = RingReader(without_torch._ring.path)
    given_away = Late(1.0)
    without_torch.step(0, loss=given_away, grads=Late(0.0, size=8))
    given_away.deleted = True
    waiting = [Late(0.0) for _ in range(DEPTH + 3)]
    for step, array in enumerate(waiting, 1):
        without_torch.step(step, loss=array, lr=1.0)
    assert reader.take_drops() == {"value_not_a_number": 2, "device_busy": 3}
    waiting[0].deleted = True
    without_torch.close(State.FINISHED)
    assert [step for step, _ in logged(reader)] == list(range(DEPTH + 4))
    assert reader.take_drops() == {"value_not_a_number": 1, "device_busy": DEPTH - 1}


def test_a_step_may_hold_a_tensor_of_the_device_and_a_late_array(recorder, reader, device):
    late = Late(2.0)
    recorder.step(0, loss=Scalar(1.0), norm=late)
    device.run()
    recorder.step(1, lr=1.0)
    assert logged(reader) == []
    late.ready = True
    recorder.step(2, lr=1.0)
    assert logged(reader)[0] == (0, {"loss": 1.0, "norm": 2.0})
