"""State to bytes and back: what comes back is equal, of the same types, and no larger than it must be."""

from collections import deque

import pytest
from holter_monitor.snapshot import SnapshotError, pack, unpack
from holter_monitor.stream.lost_time import Toll
from holter_monitor.stream.steps import RunFacts


def tolls(count):
    return [Toll(step, step * 2, 20, cost=0.1 * step, seconds=float("inf") if step == 3 else 1.0) for step in range(count)]


@pytest.mark.parametrize(
    "state",
    [
        tolls(3),
        tolls(40),
        deque(tolls(40), maxlen=64),
        deque(tolls(40)),
        [*tolls(20), None],
        [*tolls(20), RunFacts(run="r")],
        [deque(tolls(12), maxlen=12) for _ in range(10)],
        {"inner": (tolls(12), [1.0] * 12, [1, 2.0] * 6, [[]] * 12)},
    ],
    ids=["few", "many", "a bounded deque", "a deque", "one absent", "two classes", "many of many", "mixed"],
)
def test_what_is_packed_comes_back(state):
    back = unpack(pack(state))
    assert back == state and type(back) is type(state)
    assert getattr(back, "maxlen", None) == getattr(state, "maxlen", None)


def test_a_field_s_name_stands_once_however_many_there_are():
    assert pack(tolls(100)).count(b"seconds") == 1
    assert len(pack(tolls(100))) < 100 * 50


def test_many_of_a_class_that_is_not_ours_are_not_built():
    data = pack(tolls(40)).replace(b"holter_monitor.stream.lost_time", b"another_package.with_.lost_time")
    with pytest.raises(SnapshotError, match="a class of another_package"):
        unpack(data)


def test_many_with_other_fields_are_of_another_version():
    with pytest.raises(SnapshotError, match="other fields"):
        unpack(pack(tolls(40)).replace(b"seconds", b"minutes"))
