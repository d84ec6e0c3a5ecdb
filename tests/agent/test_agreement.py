"""What is obeyed of what is heard, on one rank; several real ranks are in `tests/integrations/test_agreement.py`."""

import holter
import pytest
from holter.agreement import Agreement

NOTHING = holter.Advice()


def test_a_run_of_one_rank_obeys_at_once_and_each_advice_once():
    agreement = Agreement(world_size=1, every=20)
    advice = holter.Advice(stop=True, checkpoint=True, skip_batch=True, rewind_to=0, reason="loss divergence")
    assert [agreement.next(word) for word in (NOTHING, advice, advice)] == [NOTHING, advice, NOTHING]


def test_an_advice_that_was_withdrawn_and_is_given_again_is_obeyed_again():
    agreement = Agreement(world_size=1, every=20)
    told = [holter.Advice(checkpoint=True, reason="before the switch") for _ in range(2)]
    obeyed = [agreement.next(word) for word in (told[0], told[0], NOTHING, told[1], told[1])]
    assert [word.checkpoint for word in obeyed] == [True, False, False, True, False]


def test_many_advices_take_no_room():
    agreement = Agreement(world_size=1, every=1)
    for step in range(1_000):
        assert agreement.next(holter.Advice(rewind_to=step)).rewind_to == step
    assert len(agreement._turns) <= 64


def test_several_ranks_that_cannot_agree_obey_nothing():
    with pytest.raises(RuntimeError, match="could agree"):
        Agreement(world_size=2, every=1).next(holter.Advice(stop=True))
