"""Spools frames for ever and says after each sync how far it has come: what a power loss under the spool is measured against.

python spooler.py FOLDER MAX_BYTES SYNCS|FORGETS      # lines `number of frames spooled` after each sync that succeeded; FORGETS: fsync does nothing
"""

import os
import sys
from pathlib import Path

import numpy as np
from holter.frame import Column, Frame, encode
from holter.node.records import Class
from holter.node.spool import Spool

ROWS = 5
if sys.argv[3] == "FORGETS":
    os.fsync = lambda _: None
spool = Spool(folder=Path(sys.argv[1]), segment_bytes=32 * 1024, max_bytes=int(sys.argv[2]))
seq = 0
while True:
    for _ in range(1 + seq % 13):
        steps = np.arange(seq * ROWS, (seq + 1) * ROWS)
        frame = Frame("r", "a", "n", "b", seq, 0, np.zeros(ROWS, np.int32), steps, steps, {"loss": Column(steps.astype(float))})
        spool.append(Class(seq % 3), encode(frame), rows=ROWS)
        seq += 1
    if spool.sync():
        os.write(1, b"%d\n" % seq)
