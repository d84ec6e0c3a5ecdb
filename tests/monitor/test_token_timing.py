"""The time that a wrong token takes says nothing of how much of it is right: asked of the door itself, with a control store behind it."""

import math
import time

import numpy as np
import pytest
from holter_monitor import tokens
from holter_monitor.api.access import Access
from holter_monitor.errors import Problem
from holter_monitor.store import tokens as rows
from holter_monitor.store.control import open_control

MICROSECONDS = 5.0
"""The most that the medians may lie apart; the test is alone on its machine, or its figures mean nothing."""


def shifted(first: np.ndarray, second: np.ndarray) -> float:
    """p of the Mann-Whitney test, by its normal approximation."""
    both = np.concatenate([first, second])
    ranks = np.empty(len(both))
    ranks[np.argsort(both, kind="stable")] = np.arange(1, len(both) + 1)
    n, m = len(first), len(second)
    u = ranks[:n].sum() - n * (n + 1) / 2
    return math.erfc(abs(u - n * m / 2) / math.sqrt(n * m * (n + m + 1) / 12) / math.sqrt(2))


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("known", [0, 1_000])
def test_a_right_beginning_takes_no_longer_than_a_wrong_one(tmp_path, known):
    control = open_control(f"sqlite:///{tmp_path}/control.sqlite")
    right, other = tokens.make(), tokens.make()
    with control.write() as connection:
        for token in [right, *(tokens.make() for _ in range(known))]:
            rows.add(connection, name="t", digest=tokens.digest(token), scopes=["read"], project="*", expires=None, now=1.0)
    access = Access(control, is_open=False)
    took: dict[bool, list[float]] = {True: [], False: []}
    for number in range(50_000):
        for starts_right in ((True, False), (False, True))[number % 2]:
            token = (right if starts_right else other)[:40] + tokens.make()[40:]  # both are made alike
            began = time.perf_counter()
            with pytest.raises(Problem):
                access.caller(token, f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
            took[starts_right].append(time.perf_counter() - began)
    access.close()
    control.close()
    begun, wrong = np.array(took[True]), np.array(took[False])
    apart, p = (np.median(begun) - np.median(wrong)) * 1e6, shifted(begun, wrong)
    print(f"{known} others: medians {np.median(begun) * 1e6:.1f} and {np.median(wrong) * 1e6:.1f} us, {apart:+.2f} apart, p = {p:.3f}")
    assert abs(apart) <= MICROSECONDS and p > 0.01
