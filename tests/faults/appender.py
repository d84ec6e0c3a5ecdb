"""Appends frames to a frame log for ever and says so after each commit: what a power loss is measured against.

python appender.py LOG FULL|NORMAL      # one line `boot-seq` for each acknowledged frame, unbuffered
"""

import os
import sys
from pathlib import Path

from holter.frame import Frame, encode
from holter_monitor.store.log_sqlite import SqliteFrameLog

log = SqliteFrameLog(Path(sys.argv[1]), sys.argv[2])
seq = 0
while True:
    group = []
    for _ in range(8):
        frame = Frame("r", "a", "n", "b", seq, 0, events=[{"event": "padding", "attrs": {"x": "y" * 400}}])
        group.append((frame, encode(frame)))
        seq += 1
    log.append(group, 1.0)
    os.write(1, b"".join(b"%d\n" % frame.seq for frame, _ in group))
