"""The flight recorders of many ranks held against each other, and what a hang says of it."""

import pytest
from holter_monitor.collectives import Collectives


def at(enqueued, pending=None, op="all_reduce", sizes=((7,),), group="0", name="default_pg", ranks=()):
    told = {"group": group, "name": name, "ranks": list(ranks), "enqueued": enqueued, "completed": enqueued - (pending is not None)}
    return told | ({} if pending is None else {"pending": pending, "op": op, "sizes": [list(s) for s in sizes], "dtype": "Float"})


def verdict(world_size, ranks):
    found = Collectives()
    for rank, groups in ranks.items():
        assert found.add(rank, groups)
    return found.verdict(world_size)


def test_383_ranks_wait_and_one_never_entered():
    """They have enqueued further collectives behind the one that they wait in."""
    found = verdict(384, {rank: [at(98)] if rank == 17 else [at(99 + rank % 3, 99)] for rank in range(384)})
    assert found.sentence == "383 ranks wait in all_reduce [7] Float, number 99 of default_pg; rank 17 never entered it"
    assert found.never_entered == [17] and len(found.waiting) == 383


def test_the_culprit_is_the_one_that_waits_for_nobody():
    """Rank 1 does not come to the tensor group because it waits in the data group, for rank 3."""
    tp, dp = {"group": "1", "name": "tp", "ranks": (0, 1)}, {"group": "2", "name": "dp", "ranks": (1, 3)}
    found = verdict(4, {0: [at(5, 5, **tp)], 1: [at(4, **tp), at(8, 8, "reduce_scatter", **dp)], 3: [at(7, **dp)]})
    assert found.never_entered == [3] and "rank 1 waits in reduce_scatter [7] Float, number 8 of dp" in found.sentence


def test_ranks_that_called_something_else_at_the_same_number():
    found = verdict(8, {rank: [at(9, 9, "broadcast" if rank == 3 else "all_reduce")] for rank in range(8)})
    assert found.called_otherwise == [3] and found.never_entered == []
    assert found.sentence == "7 ranks wait in all_reduce [7] Float, number 9 of default_pg; rank 3 called broadcast [7] Float there"
    sizes = verdict(2, {0: [at(9, 9, sizes=((4, 4),))], 1: [at(9, 9, sizes=((4, 3),))]})
    assert len(sizes.called_otherwise) == 1


def test_who_sent_no_dump_is_said_and_accused_of_nothing():
    found = verdict(8, {rank: [at(9, 9)] for rank in range(7)})
    assert found.sentence.endswith("number 9 of default_pg; no dump from rank 7") and found.never_entered == []


def test_ranks_that_wait_for_nobody_are_no_hang():
    assert verdict(2, {0: [at(9)], 1: [at(9)]}) is None and Collectives().verdict(8) is None


@pytest.mark.parametrize("rank", [None, -1, True, "0", 2**40, 0])
@pytest.mark.parametrize(
    "told",
    [
        None,
        7,
        "x",
        [None],
        [{}],
        [{"group": [], "enqueued": "9"}],
        [{"enqueued": 3, "pending": {}, "sizes": 4, "op": ["x"], "ranks": [None]}],
    ],
)
def test_nonsense_is_left_out(rank, told):
    found = Collectives()
    found.add(rank, told)
    assert found.verdict(8) is None
