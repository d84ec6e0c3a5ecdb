"""A recorded session, played back wrongly: reordered, repeated, dropped, cut and spliced. Never a 5xx, and the accounts are exact."""

import random

import pytest
from collector import frame
from holter.frame import encode


def mutations(recorded: list[bytes], rng: random.Random, number: int):
    """What is sent, and which recorded frame it is whole (none where bytes were lost or mixed)."""
    for _ in range(number):
        chosen = rng.randrange(len(recorded))
        body, other = recorded[chosen], rng.choice(recorded)
        deed = rng.choice(("whole", "whole", "cut", "splice", "doubled"))
        if deed == "whole":
            yield body, chosen
        elif deed == "cut":
            yield body[: rng.randrange(len(body))], None
        elif deed == "splice":
            at = rng.randrange(1, len(body))
            mixed = body[:at] + other[at:]
            yield mixed, recorded.index(mixed) if mixed in recorded else None
        else:
            yield body + other, None


def play(served, number: int) -> None:
    rng = random.Random(115)
    run = served.new_run(f"mutated {number}")
    recorded = [encode(frame(run, seq, boot=f"mutated {number}", metrics={"loss": float(seq)})) for seq in range(1, 41)]
    taken: set[int] = set()
    for body, whole in mutations(recorded, rng, number):
        answer = served.send(body)
        assert answer.status_code == (400 if whole is None else 200), answer.text
        if whole is not None:
            assert answer.json()["ack"] == whole + 1
            taken.add(whole + 1)
    assert len(taken) > 10
    expected = sorted(taken)
    served.until(lambda: served.get(f"runs/{run}/series", metric="loss", agg="count")["step"] == expected)
    answer = served.get(f"runs/{run}/series", metric="loss", agg="count")
    assert answer["value"] == [1] * len(expected)
    assert served.get(f"runs/{run}/series", metric="loss", agg="mean")["value"] == [float(step) for step in expected]


def test_a_mutated_session_keeps_the_accounts(served):
    play(served, 300)


@pytest.mark.soak
def test_five_thousand_mutations_keep_the_accounts(served):
    play(served, 5_000)
