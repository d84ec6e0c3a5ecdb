"""Case 24, power loss under the agent's spool: what was synced is there afterwards, or declared lost; nothing else is declared."""

import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from holter.frame import decode
from holter.node.spool import Spool
from power import disk, fuse_is_missing

pytestmark = pytest.mark.skipif(fuse_is_missing() is not None, reason=f"POWER LOSS OF THE SPOOL NOT TESTED: {fuse_is_missing()}")
SPOOLER = Path(__file__).with_name("spooler.py")
ROWS = 5
NEVER_FULL = 2**30
SOON_FULL = 200_000


def lose_power(folder, seconds, *, max_bytes=NEVER_FULL, does="SYNCS"):
    """`(rows synced, rows found, rows declared lost)` after the power went at a random moment and the next agent opened the spool."""
    with disk(folder) as it:
        writer = subprocess.Popen([sys.executable, SPOOLER, it.mount / "spool", str(max_bytes), does], stdout=subprocess.PIPE)
        first = writer.stdout.readline()
        assert first, "the spooler wrote nothing"
        time.sleep(seconds)
        synced = int([first, *it.cut(writer)][-1]) * ROWS
    found, declared = [], Counter()
    (folder / "durable" / "spool").mkdir(exist_ok=True)
    spool = Spool(folder=folder / "durable" / "spool", segment_bytes=32 * 1024)
    while (record := spool.peek()) is not None:
        frame = decode(record.payload)
        found += frame.step.tolist()
        declared.update(frame.dropped)
        spool.ack(record.number)
    assert len(set(found)) == len(found)
    assert not declared or set(declared) == {"spool_full"}
    return synced, len(found), declared["spool_full"]


def test_what_was_synced_survives_and_without_syncs_it_does_not(tmp_path):
    dice = random.Random(7)
    for number in range(2):
        synced, found, declared = lose_power(tmp_path / f"whole{number}", dice.uniform(0.2, 0.8))
        assert synced > 100 and found >= synced and declared == 0
    synced, found, _ = lose_power(tmp_path / "forgets", 0.5, does="FORGETS")
    assert found < synced, "the file system forgets nothing, so the test above proves nothing"


def test_a_spool_that_gives_up_its_oldest_has_declared_it(tmp_path):
    """The rewritten segment was not synced before it took the other's place: after a power loss it was empty."""
    synced, found, declared = lose_power(tmp_path, 2.0, max_bytes=SOON_FULL)
    assert declared > 0 and found + declared >= synced > SOON_FULL / 100


@pytest.mark.soak
@pytest.mark.parametrize("share", range(4))
def test_a_hundred_power_losses_of_the_spool(tmp_path, share):
    dice = random.Random(8 + share)
    lost = []
    for number in range(25):
        full = number % 2 == 0
        synced, found, declared = lose_power(tmp_path / str(number), dice.uniform(0.05, 2.0), max_bytes=SOON_FULL if full else NEVER_FULL)
        lost.append(max(0, synced - found - declared))
    print(f"{sum(lost)} synced rows lost in 25 power losses")
    assert lost == [0] * 25
